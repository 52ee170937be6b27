"""The oracle of one person: tuned on the person's own labelled rows, tested on rows that it was not tuned on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featlab.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.methods import AdaptedModel
from featlab.methods.oracle import Oracle
from featlab.protocol import Split, target_of

__all__ = ["oracle_probabilities"]

ORACLE_FOLDS = 5


def oracle_probabilities(
    bundle: Bundle, table: FeatureTable, split: Split, method: Oracle
) -> tuple[NDArray[np.float32], AdaptedModel]:
    """Fine-tune with one person's labels and predict the test rows, leaving out the rows that are predicted.

    The test rows are dealt into folds; each is predicted by a model tuned on all other rows of the subject, adapt rows
    included. With ``folds = "blocks"`` each test video is cut into 5 blocks in time: the model knows other moments of
    the very video, so this is a ceiling and not a result that could be had. With ``"videos"`` whole videos are left out
    (up to 5 folds).

    Args:
        bundle: The source model.
        table: Rows of one subject, with labels.
        split: Its split.
        method: The oracle.

    Returns:
        (m, K) probabilities of the test rows, and the model of the last fold.
    """
    fold = _folds(table, split.test, method.config.folds)
    probabilities = np.empty((len(split.test), len(bundle.classes)), dtype=np.float32)
    for number in np.unique(fold):
        held_out = fold == number
        seen = np.concatenate([split.adapt, split.test[~held_out]])
        model = method.fit(bundle, target_of(table, seen), table.label[seen])
        probabilities[held_out] = model.predict_proba(table.embeddings[split.test[held_out]])
    return probabilities, model


def _folds(table: FeatureTable, test: NDArray[np.intp], kind: str) -> NDArray[np.int64]:
    """Return (m,) fold numbers of the test rows: blocks in time of each video, or whole videos dealt in turn."""
    videos, code = np.unique(table.video[test], return_inverse=True)
    if kind == "videos" and len(videos) > 1:
        return (code % min(len(videos), ORACLE_FOLDS)).astype(np.int64)
    fold = np.empty(len(test), dtype=np.int64)
    for number in range(len(videos)):
        rows = np.flatnonzero(code == number)
        rows = rows[np.argsort(table.frame[test[rows]], kind="stable")]
        # Each video starts with another fold: those of a single frame would all be left out at once.
        fold[rows] = (number + np.arange(len(rows)) * ORACLE_FOLDS // len(rows)) % ORACLE_FOLDS
    return fold

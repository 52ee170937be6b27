"""Run methods on one target subject, and score them. The only place where a target's labels meet a model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featlab.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.errors import FeatlabError, InputError
from featlab.methods import AdaptedModel, Method, base_model
from featlab.methods.oracle import Oracle
from featlab.metrics import SubjectMetrics, subject_metrics
from featlab.models import PersonalModel
from featlab.protocol import Split, check_disjoint, split_target, target_of
from featlab.results import EvaluationRow
from featlab.seeding import run_seed

__all__ = ["before_and_after", "evaluate_subject", "oracle_probabilities"]

ORACLE_FOLDS = 5


def evaluate_subject(
    bundle: Bundle, table: FeatureTable, methods: Sequence[Method], *, draw: int = 0, seed: int = 0, gap: int = 5
) -> list[EvaluationRow]:
    """Adapt to one target subject with every method and score each on the subject's test rows.

    Args:
        bundle: Trained without this subject.
        table: Rows of one subject.
        methods: What to run.
        draw: Number of the draw, recorded.
        seed: Number of the seed, recorded; what is random in a run follows the bundle's own seed.
        gap: See `featlab.protocol.split_target`.

    Returns:
        A row a method. A method that fails gives a row with its error, and the others still run.

    Raises:
        InputError: Not one subject, a source subject, or a subject that can't be split.
    """
    names = table.subject_names_present()
    if len(names) != 1:
        raise InputError(f"an evaluation takes the rows of one target subject, got {len(names)}")
    check_disjoint(bundle.source_subjects, names)
    if table.classes != bundle.classes:
        raise InputError(f"the rows have classes {', '.join(table.classes)}, the bundle {', '.join(bundle.classes)}")
    split = split_target(table, gap)
    return [_row(bundle, table, split, method, names[0], draw, seed) for method in methods]


def before_and_after(
    bundle: Bundle, table: FeatureTable, model: PersonalModel, gap: int = 5
) -> tuple[SubjectMetrics, SubjectMetrics] | None:
    """Score the source model and an adapted one on the labelled test rows of a subject: to look at, never to adapt by.

    Args:
        bundle: The source model.
        table: Rows of one subject; its classes are matched to the bundle's by name.
        model: What adapting to the subject gave.
        gap: See `featlab.protocol.split_target`.

    Returns:
        The scores before and after; ``None`` when no test row has a label that the bundle knows.
    """
    if (table.label < 0).all():
        return None
    codes = [bundle.classes.index(name) if name in bundle.classes else -1 for name in table.classes]
    test = split_target(table, gap).test
    # An unknown label is -1, which picks the last of these.
    labels = np.array([*codes, -1], dtype=np.int16)[table.label[test]]
    if (labels < 0).all():
        return None
    before, after = (
        subject_metrics(
            labels,
            AdaptedModel(part).predict_proba(table.embeddings[test]),
            classes=bundle.classes,
            neutral_code=bundle.neutral_code,
        )
        for part in (base_model(bundle), model)
    )
    return before, after


def oracle_probabilities(
    bundle: Bundle, table: FeatureTable, split: Split, method: Oracle
) -> tuple[NDArray[np.float32], int, int]:
    """Fine-tune with labels and predict the test rows, leaving out the rows that are predicted.

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
        (m, K) probabilities of the test rows, the steps taken, and the parameters tuned, per fold.
    """
    fold = _folds(table, split.test, method.config.folds)
    probabilities = np.empty((len(split.test), len(bundle.classes)), dtype=np.float32)
    iterations = trainable = 0
    for number in np.unique(fold):
        held_out = fold == number
        seen = np.concatenate([split.adapt, split.test[~held_out]])
        model = method.fit(bundle, target_of(table, seen), table.label[seen])
        probabilities[held_out] = model.predict_proba(table.embeddings[split.test[held_out]])
        iterations, trainable = model.iterations, model.trainable
    return probabilities, iterations, trainable


def _row(
    bundle: Bundle, table: FeatureTable, split: Split, method: Method, subject: str, draw: int, seed: int
) -> EvaluationRow:
    start = time.perf_counter()
    try:
        if isinstance(method, Oracle):
            probabilities, iterations, trainable = oracle_probabilities(bundle, table, split, method)
            seconds = time.perf_counter() - start
        else:
            model = method.adapt(
                bundle, target_of(table, split.adapt), seed=run_seed(bundle.seed, method.name, subject)
            )
            seconds = time.perf_counter() - start
            probabilities = model.predict_proba(table.embeddings[split.test])
            iterations, trainable = model.iterations, model.trainable
        scores = subject_metrics(
            table.label[split.test], probabilities, classes=table.classes, neutral_code=table.neutral_code
        )
    except (FeatlabError, RuntimeError) as error:
        # A RuntimeError is how torch says that a computation failed: out of memory, an eigenvalue that isn't found.
        seconds = time.perf_counter() - start
        reason = next(iter(str(error).splitlines()), "")
        return EvaluationRow.failure(
            method.name, subject, draw, seed, selection=method.selection, error=reason, seconds=seconds
        )
    return EvaluationRow(
        method=method.name,
        subject=subject,
        draw=draw,
        seed=seed,
        macro_f1=scores.macro_f1,
        macro_f1_all=scores.macro_f1_all,
        accuracy=scores.accuracy,
        balanced_accuracy=scores.balanced_accuracy,
        neutral_recall=scores.neutral_recall,
        non_neutral_recall=scores.non_neutral_recall,
        histogram=scores.histogram,
        frames=scores.frames,
        adapt_frames=len(split.adapt),
        seconds=seconds,
        iterations=iterations,
        trainable=trainable,
        collapsed=scores.collapsed,
        selection=method.selection,
    )


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

"""Run methods on targets, and score them. The only place where a target's labels meet a model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.compute import count_flops
from featlab.errors import FeatlabError, InputError
from featlab.evaluation.metrics import SubjectMetrics, subject_metrics
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.rows import Cost, RunNumbers, failed_rows, scored_rows
from featlab.methods import AdaptedModel, Method, base_model
from featlab.methods.base import SourceFeatures
from featlab.model.networks import PersonalModel
from featlab.protocol.clips import WHOLE_CLIP, ClipConditions, reduced_split
from featlab.protocol.splits import Split, check_disjoint, split_dataset, split_target, target_of
from featlab.seeding import run_seed

__all__ = [
    "RunNumbers",
    "adapted_model",
    "before_and_after",
    "evaluate_dataset",
    "evaluate_subject",
    "failed_rows",
    "oracle_probabilities",
]


def evaluate_subject(
    bundle: Bundle,
    table: FeatureTable,
    methods: Sequence[Method],
    *,
    source: SourceFeatures | None = None,
    numbers: RunNumbers | None = None,
    gap: int = 5,
    conditions: ClipConditions = WHOLE_CLIP,
) -> list[EvaluationRow]:
    """Adapt to one target subject's neutral clip with every method and score each on the subject's test rows.

    Args:
        bundle: Trained without this subject.
        table: Rows of one subject.
        methods: What to run.
        source: Source rows for the methods that need them; without, those fail.
        numbers: Recorded in the rows.
        gap: See `featlab.protocol.splits.split_target`.
        conditions: A shorter clip, or one that is not all neutral.

    Returns:
        A row a method. A method that fails gives a row with its error, and the others still run.

    Raises:
        InputError: Not one subject, a source subject, or a subject that can't be split.
    """
    numbers = numbers or RunNumbers()
    names = table.subject_names_present()
    if len(names) != 1:
        raise InputError(f"an evaluation takes the rows of one target subject, got {len(names)}")
    _check(bundle, table)
    split = reduced_split(table, split_target(table, gap), conditions, bundle.seed)
    return [row for method in methods for row in _rows(bundle, table, split, method, source, numbers)]


def evaluate_dataset(
    bundle: Bundle,
    table: FeatureTable,
    methods: Sequence[Method],
    *,
    source: SourceFeatures | None = None,
    numbers: RunNumbers | None = None,
    gap: int = 5,
) -> list[EvaluationRow]:
    """Adapt once to a whole target data set, unlabelled, all classes, with every method; score each of its subjects.

    Args:
        bundle: Trained without these subjects.
        table: Rows of all target subjects.
        methods: What to run.
        source: Source rows for the methods that need them; without, those fail.
        numbers: Recorded in the rows; their scope is ``dataset``.
        gap: See `featlab.protocol.splits.split_dataset`.

    Returns:
        A row a method and subject. A method that takes one person's neutral clip fails in every row, and says so.

    Raises:
        InputError: A source subject among the targets, or a data set that can't be split.
    """
    numbers = replace(numbers or RunNumbers(), scope="dataset")
    _check(bundle, table)
    split = split_dataset(table, gap)
    return [row for method in methods for row in _rows(bundle, table, split, method, source, numbers)]


def before_and_after(
    bundle: Bundle, table: FeatureTable, model: PersonalModel, gap: int = 5
) -> tuple[SubjectMetrics, SubjectMetrics] | None:
    """Score the source model and an adapted one on the labelled test rows of a subject: to look at, never to adapt by.

    Args:
        bundle: The source model.
        table: Rows of one subject; its classes are matched to the bundle's by name.
        model: What adapting to the subject gave.
        gap: See `featlab.protocol.splits.split_target`.

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


def _check(bundle: Bundle, table: FeatureTable) -> None:
    check_disjoint(bundle.source_subjects, table.subject_names_present())
    if table.classes != bundle.classes:
        raise InputError(f"the rows have classes {', '.join(table.classes)}, the bundle {', '.join(bundle.classes)}")


def _rows(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    numbers: RunNumbers,
) -> list[EvaluationRow]:
    """Run one method and return a row a subject."""
    names = table.subject_names_present()
    whole = numbers.scope == "dataset"
    seed = run_seed(bundle.seed, method.name, "the target data set" if whole else names[0])
    start = time.perf_counter()
    try:
        if method.needs_labels and not whole:
            probabilities, model = oracle_probabilities(bundle, table, split, method)
            seconds = time.perf_counter() - start
        else:
            model = adapted_model(bundle, table, split, method, source, seed, whole)
            seconds = time.perf_counter() - start
            probabilities = model.predict_proba(table.embeddings[split.test])
        flops = math.nan
        if numbers.count_flops:
            flops = count_flops(lambda: adapted_model(bundle, table, split, method, source, seed, whole))
    except (FeatlabError, RuntimeError) as error:
        # A RuntimeError is how torch says that a computation failed: out of memory, an eigenvalue that isn't found.
        return failed_rows(method, names, numbers, error, time.perf_counter() - start)
    cost = Cost(len(split.adapt), seconds, model.iterations, model.trainable, flops)
    return scored_rows(table, split.test, probabilities, method, numbers, cost)


def adapted_model(
    bundle: Bundle,
    table: FeatureTable,
    split: Split,
    method: Method,
    source: SourceFeatures | None,
    seed: int,
    whole: bool = False,
) -> AdaptedModel:
    """Adapt a method as an evaluation does; an oracle is given the labels of the rows that it adapts on.

    Args:
        bundle: The source model.
        table: Rows of the target.
        split: Which of them are adapted on.
        method: What adapts.
        source: Source rows, for the methods that need them.
        seed: Of whatever is random.
        whole: Whether the target is a data set, not one person's neutral clip.

    Raises:
        InputError: A method that needs what isn't there.
    """
    target = target_of(table, split.adapt)
    if whole and method.needs_neutral:
        raise InputError(f"{method.name} takes one person's neutral clip; a data set of people and classes is none")
    given: dict[str, Any] = {"labels": table.label[split.adapt]} if method.needs_labels else {}
    if method.needs_source:
        given["source"] = source
    return method.adapt(bundle, target, seed=seed, **given)


ORACLE_FOLDS = 5


def oracle_probabilities(
    bundle: Bundle, table: FeatureTable, split: Split, method: Method
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
        model = adapted_model(bundle, table, replace(split, adapt=seen), method, None, seed=0)
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

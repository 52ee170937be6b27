"""From what one run predicted to its rows of results, one a subject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.cache import FeatureTable
from featlab.errors import FeatlabError, InputError
from featlab.evaluation.metrics import SubjectMetrics, reliability_counts, smooth_probabilities, subject_metrics
from featlab.evaluation.results import EvaluationRow
from featlab.methods import Method

__all__ = ["Cost", "RunNumbers", "failed_rows", "scored_rows"]


@dataclass(frozen=True)
class RunNumbers:
    """What a run takes over from the campaign that it belongs to.

    Attributes:
        draw: Number of the draw.
        seed: Number of the seed; what is random in a run follows the bundle's own seed.
        scope: One of `featlab.config.sections.SCOPES`.
        count_flops: Run every method once more to count its operations.
        smoothing: Window of the second macro F1 in frames, see `featlab.evaluation.metrics`; 1 or 0 for none.
    """

    draw: int = 0
    seed: int = 0
    scope: str = "person"
    count_flops: bool = False
    smoothing: int = 0


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        adapt_frames: Rows that the method adapted on.
        seconds: Wall time of the adaptation.
        iterations: Optimiser steps.
        trainable: Parameters that were updated.
        flops: Floating-point operations; NaN where they were not counted.
    """

    adapt_frames: int
    seconds: float
    iterations: int
    trainable: int
    flops: float


def failed_rows(
    method: Method,
    subjects: Sequence[str],
    numbers: RunNumbers,
    error: FeatlabError | RuntimeError,
    seconds: float = 0.0,
) -> list[EvaluationRow]:
    """Return a row a subject for a method that failed, with the first line of why.

    Args:
        method: What failed.
        subjects: On whom.
        numbers: Recorded in the rows.
        error: Why.
        seconds: Wall time until it failed.
    """
    return [
        EvaluationRow.failure(
            method.name,
            subject,
            numbers.draw,
            numbers.seed,
            selection=method.selection,
            error=next(iter(str(error).splitlines()), ""),
            seconds=seconds,
            scope=numbers.scope,
        )
        for subject in subjects
    ]


def scored_rows(
    table: FeatureTable,
    test: NDArray[np.intp],
    probabilities: NDArray[np.float32],
    method: Method,
    numbers: RunNumbers,
    cost: Cost,
) -> list[EvaluationRow]:
    """Score what a method predicted, subject by subject; one without a labelled test row has a row with that error.

    Args:
        table: Rows of the target subjects, with labels.
        test: (m,) its rows that were predicted.
        probabilities: (m, K) float32.
        method: What predicted them.
        numbers: Recorded in the rows; its smoothing is applied.
        cost: Recorded in the rows.
    """
    rows = []
    for name in table.subject_names_present():
        mine = table.subject[test] == table.subjects.index(name)
        try:
            rows.append(_row(table, test[mine], probabilities[mine], method, name, numbers, cost))
        except InputError as error:
            rows += failed_rows(method, [name], numbers, error, cost.seconds)
    return rows


def _row(
    table: FeatureTable,
    test: NDArray[np.intp],
    probabilities: NDArray[np.float32],
    method: Method,
    subject: str,
    numbers: RunNumbers,
    cost: Cost,
) -> EvaluationRow:
    scores = _scores(table, test, probabilities)
    smoothed = math.nan
    if numbers.smoothing > 1:
        window = numbers.smoothing
        averaged = smooth_probabilities(probabilities, table.video[test], table.frame[test], window)
        smoothed = _scores(table, test, averaged).macro_f1
    return EvaluationRow(
        method=method.name,
        subject=subject,
        draw=numbers.draw,
        seed=numbers.seed,
        macro_f1=scores.macro_f1,
        macro_f1_all=scores.macro_f1_all,
        accuracy=scores.accuracy,
        balanced_accuracy=scores.balanced_accuracy,
        neutral_recall=scores.neutral_recall,
        non_neutral_recall=scores.non_neutral_recall,
        histogram=scores.histogram,
        frames=scores.frames,
        adapt_frames=cost.adapt_frames,
        seconds=cost.seconds,
        iterations=cost.iterations,
        trainable=cost.trainable,
        collapsed=scores.collapsed,
        selection=method.selection,
        class_recall=scores.recall,
        flops=cost.flops,
        scope=numbers.scope,
        macro_f1_smoothed=smoothed,
        confusion=scores.confusion,
        reliability=tuple(reliability_counts(probabilities, table.label[test]).ravel().tolist()),
    )


def _scores(table: FeatureTable, test: NDArray[np.intp], probabilities: NDArray[np.float32]) -> SubjectMetrics:
    return subject_metrics(table.label[test], probabilities, classes=table.classes, neutral_code=table.neutral_code)

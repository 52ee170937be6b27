"""From evaluation rows to one score a target subject, and to the subjects that methods have in common."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from featlab.evaluation.results import EvaluationRow

SubjectDraw = tuple[str, int]
"""A subject in one draw: what is compared between methods, since another draw has another source model."""

Field = str | Callable[[EvaluationRow], float]
"""Name of a numeric field of `EvaluationRow`, or what reads a number from a row."""


def subject_means(
    rows: Sequence[EvaluationRow], field: Field = "macro_f1", only: Collection[SubjectDraw] | None = None
) -> dict[str, float]:
    """Return each subject's mean of one field: over seeds within a draw, then over draws; in the order of the rows.

    Rows with an error and those where the field is NaN are left out. ``only`` keeps these (subject, draw).
    """
    per_subject: dict[str, list[float]] = defaultdict(list)
    for (subject, draw), values in values_by_draw(rows, field).items():
        if only is None or (subject, draw) in only:
            per_subject[subject].append(float(np.mean(values)))
    return {subject: float(np.mean(values)) for subject, values in per_subject.items()}


def common_subject_means(*methods: Sequence[EvaluationRow]) -> dict[str, tuple[float, ...]]:
    """Return each subject's macro F1 in every method given, over the (subject, draw) that all of them finished."""
    common = set.intersection(*[set(values_by_draw(rows, "macro_f1")) for rows in methods])
    means = [subject_means(rows, only=common) for rows in methods]
    return {subject: tuple(scores[subject] for scores in means) for subject in means[0]}


def shared_scores(rows: Sequence[EvaluationRow]) -> dict[str, tuple[float, ...]]:
    """Return the macro F1 of every method but oracles on the subjects that all of them finished, in one order.

    A method without a finished run is left out and stands in nobody's way; no mean where no subject is shared.
    """
    finished: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if not row.error and row.selection != "oracle":
            finished[row.method].append(row)
    shared = list(common_subject_means(*finished.values()).values()) if finished else []
    return {method: tuple(scores[place] for scores in shared) for place, method in enumerate(finished)}


def pooled_reliability(rows: Sequence[EvaluationRow]) -> NDArray[np.float64] | None:
    """Return the reliability of one method with the frames of all its subjects pooled, every subject weighing the same.

    (15, 3) fractions of the frames, see `featlab.evaluation.metrics.reliability_counts`; ``None`` without a row that
    has it.
    """
    found: dict[SubjectDraw, list[NDArray[np.float64]]] = defaultdict(list)
    for row in rows:
        if row.reliability and not row.error:
            found[row.subject, row.draw].append(np.array(row.reliability) / row.frames)
    subjects: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for (subject, _), shares in found.items():
        subjects[subject].append(np.mean(shares, axis=0))
    if not subjects:
        return None
    pooled: NDArray[np.float64] = np.mean([np.mean(shares, axis=0) for shares in subjects.values()], axis=0)
    return pooled.reshape(-1, 3)


def values_by_draw(rows: Sequence[EvaluationRow], field: Field) -> dict[SubjectDraw, list[float]]:
    """Return the values of one field by (subject, draw), one a seed; errors and NaN are left out."""
    found: dict[SubjectDraw, list[float]] = defaultdict(list)
    for row in rows:
        value = float(getattr(row, field) if isinstance(field, str) else field(row))
        if not row.error and not np.isnan(value):
            found[row.subject, row.draw].append(value)
    return dict(found)


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def failure_reasons(rows: Sequence[EvaluationRow]) -> dict[str, list[EvaluationRow]]:
    """Return reason to the rows that failed for it, in the order in which they first appear.

    "needs 8 rows, got 5" on one subject and "needs 8 rows, got 6" on another are the reason "needs 8 rows, got …".
    """
    alike: dict[tuple[str, ...], list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        if row.error:
            alike[tuple(_NUMBER.split(row.error))].append(row)
    return {_merged([row.error for row in group]): group for group in alike.values()}


def _merged(errors: Sequence[str]) -> str:
    """Return messages that differ in numbers only as one, with an ellipsis where they differ."""
    found = [_NUMBER.findall(error) for error in errors]
    numbers = iter([same[0] if len(set(same)) == 1 else "…" for same in zip(*found, strict=True)])
    return _NUMBER.sub(lambda _: next(numbers), errors[0])

"""Class-wise accuracy: the recall of each class, methods down, classes across."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from featlab.analysis.table_parts import (
    FAILED,
    best_notes,
    bold_largest,
    by_setting,
    competes,
    failure_notes,
    label,
    marked_name,
    rows_by_method,
    scope_notes,
    score_text,
)
from featlab.analysis.tables import Settings, Table
from featlab.errors import InputError
from featlab.results import EvaluationRow
from featlab.subject_scores import subject_means

__all__ = ["class_means", "class_table"]


def class_means(rows: Sequence[EvaluationRow], classes: int) -> list[dict[str, float]]:
    """Return for each class subject to recall, of the subjects who have test rows of it.

    Args:
        rows: Rows of one method; those that failed or that an older release wrote, without recalls, are left out.
        classes: K.
    """

    def recall(code: int) -> Callable[[EvaluationRow], float]:
        return lambda row: row.class_recall[code] if row.class_recall else math.nan

    return [subject_means(rows, recall(code)) for code in range(classes)]


def class_table(
    rows: Sequence[EvaluationRow],
    *,
    classes: Sequence[str] = (),
    settings: Settings | None = None,
    title: str = "Recall of each class, mean over target subjects",
    fractions: bool = False,
) -> Table:
    """Return methods by classes: the mean over subjects of the recall of each class, and the average over classes.

    The best of each column is bold, as in `featlab.analysis.subject_table.per_subject_table`. A class that a method was
    scored on with fewer subjects than others is marked with a star, as is the average over it, and is never bold.

    Args:
        rows: Results; seeds and draws are averaged within a subject.
        classes: The K class names; numbered by default.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
        fractions: Show 0.7831 instead of 78.31.

    Raises:
        InputError: Rows of different numbers of classes, or of another number than ``classes``.
    """
    names = _class_names(rows, classes)
    groups = rows_by_method(rows)
    selections = {method: group[0].selection for method, group in groups.items()}
    methods = by_setting({method: label(method, selections[method], settings)[0] for method in groups})
    means = {method: class_means(groups[method], len(names)) for method in methods}
    most = [max((len(means[method][code]) for method in methods), default=0) for code in range(len(names))]
    cells, competing = [], []
    for method in methods:
        fewer = [len(found) < wanted for found, wanted in zip(means[method], most, strict=True)]
        scores = [_mean(list(found.values())) for found in means[method]]
        average = _mean([score for score in scores if not math.isnan(score)])
        shown = [
            score_text(score, fractions) + ("*" if less and not math.isnan(score) else "")
            for score, less in zip([*scores, average], [*fewer, any(fewer)], strict=True)
        ]
        if all(row.error for row in groups[method]):
            shown[0] = FAILED
        cells.append((marked_name(method, selections[method], settings), *shown))
        competing.append((competes(selections[method]),) * len(shown))
    notes = failure_notes({marked_name(method, selections[method], settings): groups[method] for method in methods})
    if any(cell.endswith("*") for line in cells for cell in line[1:]):
        notes.append("* over fewer subjects than other methods have")
    notes += best_notes(selections.values())
    notes += scope_notes(row.scope for row in rows)
    return Table(
        title=title,
        columns=("Method", *names, "Average"),
        rows=tuple(cells),
        bold=bold_largest(cells, competing, first=1),
        notes=tuple(notes),
    )


def _class_names(rows: Sequence[EvaluationRow], classes: Sequence[str]) -> list[str]:
    counts = {len(row.class_recall) for row in rows if row.class_recall}
    if classes:
        counts.add(len(classes))
    if len(counts) > 1:
        found = " and ".join(map(str, sorted(counts)))
        raise InputError(f"recalls of {found} classes do not go into one table; give results of one data set")
    return list(classes) or [f"Class {number}" for number in range(1, max(counts, default=0) + 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

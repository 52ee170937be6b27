"""Class-wise accuracy: the recall of each class, methods down, classes across."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from featlab.analysis.table import (
    FAILED,
    Settings,
    Table,
    best_notes,
    bold_largest,
    by_setting,
    competes,
    failure_notes,
    flops_text,
    label,
    marked_name,
    number_text,
    rows_by_method,
    scope_notes,
    score_text,
)
from featlab.bundle.adaptation import adaptation_folder
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import subject_means
from featlab.evaluation.summary import MethodSummary
from featlab.seeding import stable_hash

__all__ = [
    "class_means",
    "class_table",
    "cost_table",
    "folder_name",
    "per_subject_table",
    "safe_name",
]


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

    The best of each column is bold, as in `per_subject_table`. A class that a method was scored on with fewer
    subjects than others is marked with a star, as is the average over it, and is never bold.

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


def safe_name(subject: str) -> str:
    """Return a subject's name, or a hash where it is no safe name of a file."""
    return adaptation_folder(Path(), subject).name


def folder_name(command: str, subjects: Sequence[str]) -> str:
    """Return the folder of a command's results on some subjects: the same subjects give the same.

    Args:
        command: What it begins with, e.g. ``plot-tsne``.
        subjects: One or more.
    """
    if len(subjects) == 1:
        return f"{command}-{safe_name(subjects[0])}"
    return f"{command}-{len(subjects)}-targets-{stable_hash(*sorted(subjects))[:8]}"


def per_subject_table(
    rows: Sequence[EvaluationRow],
    *,
    settings: Settings | None = None,
    title: str = "Macro F1 of each target subject",
    field: str = "macro_f1",
    fractions: bool = False,
    numbered: bool = False,
) -> Table:
    """Return the poster's table: Setting, Method, one column a subject, Average.

    The best of each column is bold (all of equal ones, as shown). Methods that saw target labels or source rows do not
    compete, nor does an average over fewer subjects than the table has, which is marked with a star. A cell of which
    every run failed says so and a note says why.

    Args:
        rows: Results; seeds and draws are averaged within a subject.
        settings: Method to (setting, display name); methods it does not name get a default.
        title: Above the table.
        field: Which score, a field of `EvaluationRow`.
        fractions: Show 0.7831 instead of 78.31.
        numbered: Head the columns Sub-1, Sub-2, … instead of with the subjects' names.
    """
    groups = rows_by_method(rows)
    subjects = list(dict.fromkeys(row.subject for row in rows))
    labels = {method: label(method, group[0].selection, settings) for method, group in groups.items()}
    methods = by_setting({method: setting for method, (setting, _) in labels.items()})
    cells, competing = [], []
    for method in methods:
        means = subject_means(groups[method], field)
        errors = {row.subject for row in groups[method] if row.error} - set(means)
        scores = [means.get(subject, math.nan) for subject in subjects]
        line = [
            FAILED if subject in errors else score_text(value, fractions)
            for subject, value in zip(subjects, scores, strict=True)
        ]
        known = [value for value in scores if not math.isnan(value)]
        average = score_text(sum(known) / len(known) if known else math.nan, fractions)
        whole = len(known) == len(subjects)
        cells.append((*labels[method], *line, average if whole or not known else average + "*"))
        free = competes(groups[method][0].selection)
        competing.append((*[free] * len(subjects), free and whole))
    columns = [f"Sub-{number}" for number in range(1, len(subjects) + 1)] if numbered else subjects
    notes = failure_notes({labels[method][1]: groups[method] for method in methods})
    if any(line[-1].endswith("*") for line in cells):
        notes.append("* average over fewer subjects than the table has")
    notes += best_notes(row.selection for row in rows)
    notes += scope_notes(row.scope for row in rows)
    if numbered and subjects:
        notes.append("; ".join(f"{short}\u00a0=\u00a0{name}" for short, name in zip(columns, subjects, strict=True)))
    return Table(
        title=title,
        columns=("Setting", "Method", *columns, "Average"),
        rows=tuple(cells),
        bold=bold_largest(cells, competing, first=2),
        notes=tuple(notes),
        text_columns=2,
        grouped=True,
    )


def cost_table(
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings | None = None,
    title: str = "Cost of one adaptation",
) -> Table:
    """Return one line a method: iterations, wall seconds, trainable parameters, millions of operations.

    Nothing is bold: what does nothing costs least.

    Args:
        summaries: From `featlab.evaluation.summary.summarise`; their order is kept.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
    """
    cells = tuple(
        (
            marked_name(item.method, item.selection, settings),
            number_text(item.iterations, 0) if item.runs else FAILED,
            number_text(item.seconds, 3),
            number_text(item.trainable, 0),
            flops_text(item.flops),
        )
        for item in summaries
    )
    notes = ["Means over target subjects. MFLOPs: millions of floating-point operations in matrix products."]
    notes += [
        f"{marked_name(item.method, item.selection, settings)}: every run failed: {'; '.join(item.reasons)}"
        for item in summaries
        if item.failed and not item.runs
    ]
    return Table(
        title=title,
        columns=("Method", "Iterations", "Seconds", "Trainable", "MFLOPs"),
        rows=cells,
        bold=tuple((False,) * len(line) for line in cells),
        notes=(*notes, *scope_notes(item.scope for item in summaries)) if summaries else (),
    )

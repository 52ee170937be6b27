"""The poster's table: methods down, target subjects across, the best of each column in bold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from featlab.analysis.table_parts import (
    FAILED,
    best_notes,
    bold_largest,
    by_setting,
    competes,
    failure_notes,
    label,
    rows_by_method,
    scope_notes,
    score_text,
)
from featlab.analysis.tables import Settings, Table
from featlab.results import EvaluationRow
from featlab.subject_scores import subject_means

__all__ = ["per_subject_table"]


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

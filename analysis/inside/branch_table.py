"""The table of branches: how alike rows are that share an expression or a subject, and what linear probes read off."""

from __future__ import annotations

import math

from featlab.analysis.inside.branches import BranchReport, Knowledge, Measure
from featlab.analysis.table import MISSING, Table, interval_text, number_text, score_text

__all__ = ["ROWS", "branch_table", "cosine_text"]

ROWS = (
    ("Translation (pft)", "Features before T", "features-before"),
    ("Translation (pft)", "Features after T", "features-after"),
    ("Translation (pft)", "Bottleneck before T", "bottleneck-before"),
    ("Translation (pft)", "Bottleneck after T", "bottleneck-after"),
    ("Branches (DSFDA)", "Expression branch", "bottleneck-before"),
    ("Branches (DSFDA)", "Identity branch", "identity-code"),
)
"""(Group, name, representation), in the order of table and figure."""

_COLUMNS = (
    "Group",
    "Representation",
    "Fixed expr.",
    "Fixed expr. 95 %",
    "Fixed subj.",
    "Fixed subj. 95 %",
    "Both other",
    "Identity (%)",
    "Identity 95 %",
    "Expression (%)",
    "Expression 95 %",
)


def branch_table(report: BranchReport, *, title: str = "Identity and expression in each representation") -> Table:
    """Return one line a representation, grouped; the expression branch is the bottleneck before T, shown twice.

    Nothing is bold: what is good depends on what a representation is for.

    Args:
        report: From `featlab.analysis.inside.branches.compare_branches`.
        title: Above the table.
    """
    rows = tuple((group, name, *_cells(report.of(key))) for group, name, key in ROWS)
    return Table(
        title=title,
        columns=_COLUMNS,
        rows=rows,
        bold=tuple((False,) * len(_COLUMNS) for _ in rows),
        notes=tuple(_notes(report)),
        text_columns=2,
        grouped=True,
    )


def cosine_text(value: float) -> str:
    """Return a cosine with two digits; what rounds to nothing has no sign, NaN is a dash."""
    return number_text(round(value, 2) + 0.0, 2) if math.isfinite(value) else MISSING


def _cells(row: Knowledge) -> tuple[str, ...]:
    cells: list[str] = []
    for measure in (row.fixed_expression, row.fixed_subject):
        cells += [cosine_text(measure.mean), _cosine_interval(measure)]
    cells.append(cosine_text(row.neither.mean))
    for measure in (row.identity, row.expression):
        cells += [score_text(measure.mean), interval_text((measure.low, measure.high))]
    return tuple(cells)


def _cosine_interval(measure: Measure) -> str:
    if math.isnan(measure.low):
        return MISSING
    return f"[{cosine_text(measure.low)}, {cosine_text(measure.high)}]"


def _notes(report: BranchReport) -> list[str]:
    people = {name for draw in report.draws for name in draw}
    drawn = f" in {len(report.draws)} draws" if len(report.draws) > 1 else ""
    first = report.rows[0]
    notes = [
        f"{len(people)} target subjects{drawn}, {report.frames:,} labelled frames; none that T was adapted on, and no "
        "target was seen at the source. Means and 95 % bootstrap intervals over subjects.",
        "Fixed expr.: mean cosine of rows of the same expression, other subjects. Fixed subj.: same subject, other "
        "expressions. Both other: other subjects, other expressions. Rows are centred on the mean of the source rows "
        "in the same representation, because a mean that all rows share would lift every cosine. Each subject's rows "
        "of a class weigh the same.",
        "Probes: logistic regression on standardised rows. Identity: fitted on half of each subject's videos of a "
        f"class, tested on the other half, and back; chance {_share(first.identity.chance)}. Expression: balanced "
        f"accuracy on subjects that it was not fitted on; chance {_share(first.expression.chance)}.",
        "The expression branch is B, the bottleneck before T: these two lines are the same. The identity encoder was "
        "trained on the source rows, as DSFDA does.",
    ]
    if len(report.classes) < 2:
        notes.append(
            f"All rows are {report.classes[0]!r}: without a second expression there is nothing to compare it with, and "
            "no expression to probe for."
        )
    if report.single:
        each = ", ".join(f"{kind} of {count}" for kind, count in report.single.items())
        notes.append(f"Left out of the identity probe, as the subject's only video of a class: {each} subjects.")
    if report.unprobed:
        notes.append(f"Not in the identity probe at all: {', '.join(report.unprobed)}.")
    return notes


def _share(chance: float) -> str:
    return MISSING if math.isnan(chance) else f"{100 * chance:.1f} %"

"""The table of branches: how alike rows are that share an expression or a subject, and what linear probes read off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.inside.branches import COSINES, PROBES, BranchReport, Knowledge, Measure
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import MISSING, Table, interval_text, number_text, score_text, share_text
from featlab.evaluation.statistics import bootstrap_interval, mean

__all__ = [
    "ROWS",
    "Change",
    "branch_data",
    "branch_table",
    "branch_words",
    "change",
    "cosine_text",
    "plot_branches",
    "write_branches",
]

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


@dataclass(frozen=True)
class Change:
    """How much a second measure is above a first, on the subjects that have both.

    Attributes:
        mean: Over subjects; NaN without any.
        low: Of its bootstrap interval over subjects, 95 %; NaN for fewer than two.
        high: Likewise.
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0; else 0."""
        return int(self.low > 0) - int(self.high < 0)


def change(before: Measure, after: Measure) -> Change:
    """Return how much ``after`` is above ``before``, subject by subject."""
    both = [
        after.by_subject[subject] - value for subject, value in before.by_subject.items() if subject in after.by_subject
    ]
    return Change(mean(both), *bootstrap_interval(both))


def write_branches(folder: Path, report: BranchReport, *, command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write table, figure and page.

    Args:
        folder: Where.
        report: From `featlab.analysis.inside.branches.compare_branches`.
        command: What was typed.
        facts: From `featlab.evaluation.results.run_facts`.

    Returns:
        The files.
    """
    data = branch_data(report)
    caption = (
        "Left: mean cosine between rows, centred on the mean of the source rows. Right: what a linear probe reads off "
        "each representation, the person and the expression; dashed: guessing. Thin lines are 95 % intervals over "
        "target subjects."
    )
    return write_result(
        folder,
        Result(
            kind="branches",
            title="Does only identity change?",
            summary=branch_words(report),
            tables={"branches": branch_table(report)},
            figures=[DrawnFigure("branches", "Identity and expression", caption, plot_branches(data), data)],
            metadata=facts,
        ),
        command,
    )


def branch_words(report: BranchReport) -> tuple[str, ...]:
    """Return what T does to identity and to expression, and what the two branches are alike by."""
    before, after = report.of("features-before"), report.of("features-after")
    words = [_alike(before, after)]
    identity, expression = (change(getattr(before, name), getattr(after, name)) for name in ("identity", "expression"))
    if math.isfinite(before.identity.mean):
        words.append(
            f"A linear probe names the person in {share_text(before.identity.mean)} of the frames before T and in "
            f"{share_text(after.identity.mean)} after ({_points(identity)}; guessing: "
            f"{share_text(before.identity.chance)})."
        )
    if math.isfinite(before.expression.mean):
        words.append(
            "On people that it was not fitted on, a linear probe finds the expression with a balanced accuracy of "
            f"{share_text(before.expression.mean)} before T and {share_text(after.expression.mean)} after "
            f"({_points(expression)}; guessing: {share_text(before.expression.chance)})."
        )
    if math.isfinite(identity.low) and math.isfinite(expression.low):
        words.append(_verdict(identity, expression, after.identity))
    for name, key in (("expression", "bottleneck-before"), ("identity", "identity-code")):
        words += _branch(name, report.of(key))
    return tuple(words)


def _alike(before: Knowledge, after: Knowledge) -> str:
    expression = (
        f"rows of the same expression on other subjects have a mean cosine of {_cosine(before.fixed_expression)} "
        f"before T and {_cosine(after.fixed_expression)} after"
    )
    if math.isnan(before.fixed_subject.mean):
        return expression[0].upper() + expression[1:] + "."
    return (
        f"Rows of the same subject with other expressions have a mean cosine of {_cosine(before.fixed_subject)} before "
        f"T and {_cosine(after.fixed_subject)} after; {expression}."
    )


def _verdict(identity: Change, expression: Change, left: Measure) -> str:
    """Answer the question whether only identity changes and expression stays."""
    read = "can be read off better" if expression.sign > 0 else "can be read off as well as before"
    if expression.sign < 0:
        lost = "identity and expression get lost" if identity.sign < 0 else "expression gets lost, identity does not"
        return f"So not only identity changes: {lost}."
    if identity.sign >= 0:
        return f"So T does not hide who a person is, and expression {read}."
    if left.low > left.chance:
        return f"So T takes some identity away, not all of it, and expression {read}."
    return f"So T takes identity away, down to what guessing would give, and expression {read}."


def _branch(name: str, row: Knowledge) -> list[str]:
    closer = change(row.fixed_subject, row.fixed_expression)
    if math.isnan(closer.low):
        return []
    by_expression = f"by expression ({_cosine(row.fixed_expression)})"
    by_subject = f"by subject ({_cosine(row.fixed_subject)})"
    if closer.sign == 0:
        return [f"In the {name} branch rows are as alike {by_expression} as {by_subject}."]
    first, second = (by_expression, by_subject) if closer.sign > 0 else (by_subject, by_expression)
    return [f"In the {name} branch rows are more alike {first} than {second}."]


def _points(found: Change) -> str:
    if math.isnan(found.low):
        return "one subject"
    low, middle, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (found.low, found.mean, found.high))
    return f"{middle} points, 95 % interval {low} to {high}"


def _cosine(measure: Measure) -> str:
    return cosine_text(measure.mean).replace("-", "−")


_EXPRESSION = {"color": style.COLOURS[0], "marker": "o"}
_SUBJECT = {"color": style.COLOURS[1], "marker": "s"}
_LOOKS: dict[str, dict[str, Any]] = {
    "fixed_expression": _EXPRESSION,
    "fixed_subject": _SUBJECT,
    "neither": {"color": style.MUTED, "marker": "D"},
    "expression": _EXPRESSION,
    "identity": _SUBJECT,
}
_WORDS = {
    "fixed_expression": "same expression, other subjects",
    "fixed_subject": "same subject, other expressions",
    "neither": "both other",
    "expression": "expression",
    "identity": "identity",
}
_APART = 0.24
"""Distance of the dots on a line, as a share of that of the lines."""
_LINE = 0.3
"""Distance of two lines, inches."""


def branch_data(report: BranchReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_branches`: columns group, representation, measure, mean, low, high, chance.

    One line a row of the table and measure; cosines, and fractions of the probes.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("group", "representation", "measure", "mean", "low", "high", "chance")
    }
    for group, name, key in ROWS:
        for measure in (*COSINES, *PROBES):
            found = getattr(report.of(key), measure)
            values = (group, name, measure, found.mean, found.low, found.high, found.chance)
            for column, value in zip(columns, values, strict=True):
                columns[column].append(value)
    return columns


def plot_branches(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a representation: mean cosines on the left, accuracy of the probes on the right.

    Thin lines are 95 % intervals over subjects; dashed ones show what guessing would give, in the probe's colour.

    Args:
        data: From `branch_data`.
    """
    lines = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    ticks = _ticks(lines)
    with style.house_style():
        drawn = style.figure(style.FULL, 1.0 + _LINE * len(ticks))
        panels = drawn.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        for panel, measures in zip(panels, (COSINES, tuple(reversed(PROBES))), strict=True):
            for line in lines:
                if line["measure"] in measures and math.isfinite(line["mean"]):
                    place = ticks.index((line["group"], line["representation"]))
                    shift = _APART * (measures.index(line["measure"]) - (len(measures) - 1) / 2)
                    _dot(panel, place + shift, line)
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            handles = [
                Line2D([], [], linestyle="none", markersize=4.5, label=_WORDS[measure], **_LOOKS[measure])
                for measure in measures
            ]
            if panel is panels[1]:
                handles.append(Line2D([], [], linestyle="--", linewidth=0.8, color=style.MUTED, label="guessing"))
            panel.legend(
                handles=handles,
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                ncols=1 if panel is panels[0] else 3,
                handletextpad=0.4,
                borderpad=0,
            )
        panels[0].set_yticks(range(len(ticks)), [name or group for group, name in ticks])
        for text, (_, name) in zip(panels[0].get_yticklabels(), ticks, strict=True):
            text.set_fontweight("normal" if name else "bold")
        panels[0].set_ylim(len(ticks) - 0.4, -0.5)
        panels[0].axvline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        panels[0].xaxis.set_major_locator(MaxNLocator(6))
        panels[0].set_xlabel("Mean cosine (centred on the source)")
        _chance(panels[1], lines)
        panels[1].set_xlim(0, 1.03)
        style.in_percent(panels[1].xaxis)
        panels[1].set_xlabel("Read off by a linear probe (%)")
    return drawn


def _ticks(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (group, representation) of each line from the top; a group's heading has no representation."""
    ticks: list[tuple[str, str]] = []
    for line in lines:
        for tick in ((line["group"], ""), (line["group"], line["representation"])):
            if tick not in ticks:
                ticks.append(tick)
    return ticks


def _dot(axes: Axes, place: float, line: Mapping[str, Any]) -> None:
    look = _LOOKS[line["measure"]]
    name = f"{line['measure']} {line['representation']}"
    axes.plot([line["low"], line["high"]], [place, place], color=look["color"], linewidth=0.9, label=f"_span {name}")
    axes.plot(
        [line["mean"]],
        [place],
        linestyle="none",
        markersize=4.5,
        zorder=3,
        clip_on=False,
        label=f"_mean {name}",
        **look,
    )


def _chance(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Mark what guessing gives: one dashed line a probe, the same in every representation."""
    for measure in PROBES:
        known = [line["chance"] for line in lines if line["measure"] == measure and math.isfinite(line["chance"])]
        if not known:
            continue
        axes.axvline(
            known[0],
            color=_LOOKS[measure]["color"],
            # Where both are the same, the dashes of one fill the gaps of the other.
            linestyle=(4 * PROBES.index(measure), (4, 4)),
            linewidth=0.8,
            zorder=1,
            label=f"_chance {measure}",
        )

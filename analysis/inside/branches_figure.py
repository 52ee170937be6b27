"""The result of `featlab branches`: whether only identity changes, in words; the table, the figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.inside.branches import COSINES, PROBES, BranchReport, Measure
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import (
    MISSING,
    Column,
    Table,
    columns_of,
    interval_text,
    make_table,
    number_text,
    score_text,
    share_text,
)
from featlab.evaluation.statistics import bootstrap_interval

ROWS = (
    ("Translation (pft)", "Features before T", "features-before"),
    ("Translation (pft)", "Features after T", "features-after"),
    ("Translation (pft)", "Bottleneck before T", "bottleneck-before"),
    ("Translation (pft)", "Bottleneck after T", "bottleneck-after"),
    ("Branches (DSFDA)", "Expression branch", "bottleneck-before"),
    ("Branches (DSFDA)", "Identity branch", "identity-code"),
)
"""(Group, name, representation), in the order of table and figure; the expression branch is B, and is shown twice."""

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
_DOT: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "zorder": 3, "clip_on": False}
_APART = 0.24  # Distance of the dots on a line, as a fraction of that of the lines.
_LINE = 0.3  # Distance of two lines, inches.


def branches_result(report: BranchReport) -> Result:
    """Return table, figure and the answer."""
    data = branches_data(report)
    caption = (
        "Left: mean cosine between rows, centred on the mean of the source rows. Right: what a linear probe reads off "
        "each representation, the person and the expression; dashed: guessing. Thin lines are 95 % intervals over "
        "target subjects."
    )
    return Result(
        kind="branches",
        title="Does only identity change?",
        summary=branches_sentences(report),
        tables={"branches": branches_table(report)},
        figures=[DrawnFigure("branches", "Identity and expression", caption, plot_branches(data), data)],
        data=report.to_dict(),
    )


def change_sign(before: Measure, after: Measure) -> int:
    """Return 1 or -1 where ``after`` is above or below ``before``, by a 95 % interval over subjects; else 0."""
    both = [after.by_subject[name] - value for name, value in before.by_subject.items() if name in after.by_subject]
    low, high = bootstrap_interval(both)
    return int(low > 0) - int(high < 0)


def branches_sentences(report: BranchReport) -> list[str]:
    """Return what linear probes read off before and after T, and whether only identity changes."""
    before, after = report.found["features-before"], report.found["features-after"]
    parts = []
    for said, name in (
        ("names the person in {}", "identity"),
        ("finds the expression with a balanced accuracy of {}", "expression"),
    ):
        first, second = before[name], after[name]
        if math.isfinite(first.mean):
            numbers = f"{share_text(first.mean)} before T and {share_text(second.mean)} after"
            parts.append(f"{said.format(numbers)} (guessing: {share_text(first.chance)})")
    sentences = [f"A linear probe {' and '.join(parts)}."] if parts else []
    if math.isfinite(before["identity"].low) and math.isfinite(before["expression"].low):
        sentences.append(_verdict(before, after))
    return sentences


def _verdict(before: Mapping[str, Measure], after: Mapping[str, Measure]) -> str:
    """Answer the question whether only identity changes and expression stays."""
    identity, expression = (change_sign(before[name], after[name]) for name in PROBES)
    read = "can be read off better" if expression > 0 else "can be read off as well as before"
    if expression < 0:
        lost = "identity and expression get lost" if identity < 0 else "expression gets lost, identity does not"
        return f"So not only identity changes: {lost}."
    if identity >= 0:
        return f"So T does not hide who a person is, and expression {read}."
    if after["identity"].low > after["identity"].chance:
        return f"So T takes some identity away, not all of it, and expression {read}."
    return f"So T takes identity away, down to what guessing would give, and expression {read}."


def branches_table(report: BranchReport) -> Table:
    """Return one line a representation, grouped. Nothing is bold: what is good depends on what it is for."""

    def column(head: str, measure: str, text: Callable[[Measure], str]) -> Column[tuple[str, str, str]]:
        return Column(head, lambda row: text(report.found[row[2]][measure]), wide=head.endswith("95 %"))

    def cosine_interval(measure: Measure) -> str:
        return interval_text((measure.low, measure.high), cosine_text)

    return make_table(
        "Identity and expression in each representation",
        [
            Column("Group", lambda row: row[0], text=True),
            Column("Representation", lambda row: row[1], text=True),
            column("Fixed expr.", "fixed_expression", lambda of: cosine_text(of.mean)),
            column("Fixed expr. 95 %", "fixed_expression", cosine_interval),
            column("Fixed subj.", "fixed_subject", lambda of: cosine_text(of.mean)),
            column("Fixed subj. 95 %", "fixed_subject", cosine_interval),
            column("Both other", "neither", lambda of: cosine_text(of.mean)),
            column("Identity (%)", "identity", lambda of: score_text(of.mean)),
            column("Identity 95 %", "identity", lambda of: interval_text((of.low, of.high))),
            column("Expression (%)", "expression", lambda of: score_text(of.mean)),
            column("Expression 95 %", "expression", lambda of: interval_text((of.low, of.high))),
        ],
        ROWS,
        notes=_notes(report),
        grouped=True,
    )


def cosine_text(value: float) -> str:
    """Return a cosine with two digits; what rounds to nothing has no sign, NaN is a dash."""
    return number_text(round(value, 2) + 0.0, 2) if math.isfinite(value) else MISSING


def _notes(report: BranchReport) -> list[str]:
    people = {name for draw in report.draws for name in draw}
    draws = f" in {len(report.draws)} draws" if len(report.draws) > 1 else ""
    identity, expression = (
        MISSING if math.isnan(chance) else share_text(chance)
        for chance in (report.found["features-before"][name].chance for name in PROBES)
    )
    notes = [
        f"{len(people)} target subjects{draws}, {report.frames:,} labelled frames; none that T was adapted on, and no "
        "target was seen at the source. Means and 95 % bootstrap intervals over subjects.",
        "Fixed expr.: mean cosine of rows of the same expression, other subjects. Fixed subj.: same subject, other "
        "expressions. Both other: other subjects, other expressions. Rows are centred on the mean of the source rows.",
        "Probes: logistic regression on standardised rows. Identity: fitted on half of each subject's videos of a "
        f"class, tested on the others; chance {identity}. Expression: balanced accuracy on subjects that it was not "
        f"fitted on; chance {expression}.",
        "The expression branch is B, the bottleneck before T: these two lines are the same. The identity encoder was "
        "trained on the source rows, as DSFDA does.",
    ]
    if len(report.classes) < 2:
        notes.append(
            f"All rows are {report.classes[0]!r}: there is no second expression to compare with or to probe for."
        )
    probed = len(report.found["features-before"]["identity"].by_subject)
    if probed < len(people):
        notes.append(
            f"The identity probe is of {probed} subjects: those with two videos of a class, to fit and to test."
        )
    return notes


def branches_data(report: BranchReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_branches`, one line a row of the table and measure: cosines, fractions of probes."""
    lines = [
        (group, name, measure, found.mean, found.low, found.high, found.chance)
        for group, name, key in ROWS
        for measure in (*COSINES, *PROBES)
        for found in [report.found[key][measure]]
    ]
    return columns_of(("group", "representation", "measure", "mean", "low", "high", "chance"), lines)


def plot_branches(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a representation: mean cosines on the left, accuracy of the probes on the right."""
    lines = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    # A group's heading is a line without a representation.
    both = zip(data["group"], data["representation"], strict=True)
    ticks = list(dict.fromkeys(tick for group, name in both for tick in ((group, ""), (group, name))))
    with style.house_style():
        drawn = style.figure(style.FULL, 1.0 + _LINE * len(ticks))
        left, right = drawn.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        for panel, measures in ((left, COSINES), (right, tuple(reversed(PROBES)))):
            for line in lines:
                if line["measure"] in measures and math.isfinite(line["mean"]):
                    tick = ticks.index((line["group"], line["representation"]))
                    place = tick + _APART * (measures.index(line["measure"]) - (len(measures) - 1) / 2)
                    look, name = _LOOKS[line["measure"]], f"{line['measure']} {line['representation']}"
                    ends = [line["low"], line["high"]]
                    panel.plot(ends, [place, place], color=look["color"], linewidth=0.9, label=f"_span {name}")
                    panel.plot([line["mean"]], [place], label=f"_mean {name}", **_DOT, **look)
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            handles = [
                Line2D([], [], linestyle="none", markersize=4.5, label=_WORDS[measure], **_LOOKS[measure])
                for measure in measures
            ]
            if panel is right:
                handles.append(Line2D([], [], linestyle="--", linewidth=0.8, color=style.MUTED, label="guessing"))
            place_of_legend: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderpad": 0}
            panel.legend(handles=handles, ncols=1 if panel is left else 3, handletextpad=0.4, **place_of_legend)
        left.set_yticks(range(len(ticks)), [name or group for group, name in ticks])
        for text, (_, name) in zip(left.get_yticklabels(), ticks, strict=True):
            text.set_fontweight("normal" if name else "bold")
        left.set_ylim(len(ticks) - 0.4, -0.5)
        left.axvline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        left.xaxis.set_major_locator(MaxNLocator(6))
        left.set_xlabel("Mean cosine (centred on the source)")
        _mark_guessing(right, lines)
        right.set_xlim(0, 1.03)
        style.in_percent(right.xaxis)
        right.set_xlabel("Read off by a linear probe (%)")
    return drawn


def _mark_guessing(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Mark what guessing gives: one dashed line a probe, the same in every representation."""
    for place, measure in enumerate(PROBES):
        known = [line["chance"] for line in lines if line["measure"] == measure and math.isfinite(line["chance"])]
        if known:
            # Where both are the same, the dashes of one fill the gaps of the other.
            look: dict[str, Any] = {"linestyle": (4 * place, (4, 4)), "linewidth": 0.8, "zorder": 1}
            axes.axvline(known[0], color=_LOOKS[measure]["color"], label=f"_chance {measure}", **look)

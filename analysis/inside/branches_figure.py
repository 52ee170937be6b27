"""The result of `featlab branches`: the table, the figure, and a sentence."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.inside.branches import COSINES, PROBES, BranchReport, Measure
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import Column, Table, columns_of, interval_text, make_table, number_text, share_text

ROWS = {
    "Features before T": "features-before",
    "Features after T": "features-after",
    "Bottleneck before T": "bottleneck-before",
    "Bottleneck after T": "bottleneck-after",
    "Expression branch (DSFDA)": "bottleneck-before",
    "Identity branch (DSFDA)": "identity-code",
}
"""Name to representation, in the order of table and figure; the expression branch is B, and is shown twice."""
MEASURES = {
    "fixed_expression": ("Fixed expr.", "same expression, other subjects", style.COLOURS[0], "o"),
    "fixed_subject": ("Fixed subj.", "same subject, other expressions", style.COLOURS[1], "s"),
    "neither": ("Both other", "both other", style.MUTED, "D"),
    "identity": ("Identity (%)", "identity", style.COLOURS[1], "s"),
    "expression": ("Expression (%)", "expression", style.COLOURS[0], "o"),
}
"""Measure to its head in the table, its words in the figure, colour and marker."""
_APART = 0.24  # Distance of the dots on a line, as a fraction of that of the lines.


def branches_result(report: BranchReport) -> Result:
    """Return table, figure and the answer."""
    caption = (
        "Left: mean cosine between rows, centred on the mean of the source rows. Right: what a linear probe reads off "
        "each representation, the person and the expression; dashed: guessing. Thin lines are 95 % intervals over "
        "target subjects."
    )
    figure = DrawnFigure("branches", "Identity and expression", caption, plot_branches(report), branches_data(report))
    return Result(
        kind="branches",
        title="Does only identity change?",
        summary=branches_sentences(report),
        tables={"branches": branches_table(report)},
        figures=[figure],
        data=report.to_dict(),
    )


def branches_sentences(report: BranchReport) -> list[str]:
    """Return what linear probes read off before and after T."""
    before, after = report.found["features-before"], report.found["features-after"]
    parts = [
        f"{name} in {share_text(before[name].mean)} before T and {share_text(after[name].mean)} after "
        f"(guessing: {share_text(before[name].chance)})"
        for name in PROBES
        if math.isfinite(before[name].mean)
    ]
    return [f"A linear probe names {' and '.join(parts)}."] if parts else []


def branches_table(report: BranchReport) -> Table:
    """Return one line a representation. Nothing is bold: what is good depends on what it is for."""

    def columns(measure: str) -> list[Column[str]]:
        head, factor, decimals = MEASURES[measure][0], 1 if measure in COSINES else 100, 2

        def text(value: float) -> str:
            return number_text(factor * value, decimals)

        def of(name: str) -> Measure:
            return report.found[ROWS[name]][measure]

        return [
            Column(head, lambda name: text(of(name).mean)),
            Column(f"{head}, 95 %", lambda name: interval_text((of(name).low, of(name).high), text), wide=True),
        ]

    heads = [column for measure in MEASURES for column in columns(measure)]
    names = Column[str]("Representation", lambda name: name, text=True)
    title = "Identity and expression in each representation"
    return make_table(title, [names, *heads], list(ROWS), notes=_notes(report))


def _notes(report: BranchReport) -> list[str]:
    people = {name for draw in report.draws for name in draw}
    probes = report.found["features-before"]
    identity, expression = (number_text(100 * probes[name].chance, 1) for name in PROBES)
    notes = [
        f"{len(people)} target subjects, {report.frames:,} labelled frames; none that T was adapted on, and no target "
        "was seen at the source. Means over subjects, with 95 % bootstrap intervals.",
        "Fixed expr.: mean cosine of rows of the same expression, other subjects. Fixed subj.: same subject, other "
        "expressions. Both other: neither the same. Rows are centred on the mean of the source rows.",
        "Probes: logistic regression on standardised rows. Identity: fitted on half of each subject's videos of a "
        f"class, tested on the others; chance {identity} %. Expression: balanced accuracy on subjects that it was not "
        f"fitted on; chance {expression} %.",
        "The expression branch is B, the bottleneck before T. The identity encoder was trained on the source rows, as "
        "DSFDA does.",
    ]
    if len(report.classes) < 2:
        notes.append(f"All rows are {report.classes[0]!r}: there is no second expression.")
    if (probed := len(probes["identity"].by_subject)) < len(people):
        notes.append(f"The identity probe is of {probed} subjects: those with two videos of a class.")
    return notes


def branches_data(report: BranchReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_branches`, one line a row of the table and measure: cosines, fractions of probes."""
    lines = [
        (name, measure, found.mean, found.low, found.high, found.chance)
        for name, key in ROWS.items()
        for measure in MEASURES
        for found in [report.found[key][measure]]
    ]
    return columns_of(("representation", "measure", "mean", "low", "high", "chance"), lines)


def plot_branches(report: BranchReport) -> Figure:
    """Draw a line a representation: mean cosines on the left, accuracy of the probes on the right."""
    places = range(len(ROWS))
    with style.house_style():
        drawn = style.figure(style.FULL, 1.0 + 0.3 * len(ROWS))
        left, right = drawn.subplots(1, 2, sharey=True)
        for panel, measures in ((left, COSINES), (right, PROBES)):
            for order, measure in enumerate(measures):
                found = [report.found[key][measure] for key in ROWS.values()]
                _, words, colour, marker = MEASURES[measure]
                at = [place + _APART * (order - (len(measures) - 1) / 2) for place in places]
                panel.hlines(at, [item.low for item in found], [item.high for item in found], colors=colour, lw=0.9)
                look: dict[str, Any] = {"linestyle": "none", "color": colour, "marker": marker, "clip_on": False}
                panel.plot([item.mean for item in found], at, label=words, **look)
                panel.axvline(found[0].chance, color=colour, linestyle="--", linewidth=0.8, zorder=1)
            style.names_down(panel, list(ROWS))
            panel.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderpad=0, handletextpad=0.4)
        left.axvline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        left.xaxis.set_major_locator(MaxNLocator(6))
        left.set_xlabel("Mean cosine (centred on the source)")
        right.set_xlim(0, 1.03)
        style.in_percent(right.xaxis)
        right.set_xlabel("Read off by a linear probe (%); dashed: guessing")
    return drawn

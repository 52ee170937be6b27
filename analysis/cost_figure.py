"""The result of `featlab complexity`: what the costs say, the table, and the figure of seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from featlab.analysis import style
from featlab.analysis.cost import CONVERGENCE_RULE, ComplexityReport, MethodCost
from featlab.analysis.evaluation import by_setting, figure_name, method_name, note_access
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import FAILED, MISSING, Column, Table, count_text, flops_text, make_table, number_text
from featlab.errors import listed

_DRAWN = ("method", "setting", "selection", "seconds", "trainable")
_NAME_LETTERS = 44  # Longest line of a name.


def complexity_result(report: ComplexityReport) -> Result:
    """Return table, figure and what they say; the figure is left out where every method failed."""
    figures = []
    if any(cost.subjects for cost in report.costs):
        data = complexity_data(report)
        caption = (
            "Median wall time of adapting to one subject's neutral clip, on a logarithmic axis, and in brackets how "
            "many parameters are updated."
        )
        figures.append(DrawnFigure("complexity", "Cost of one adaptation", caption, plot_complexity(data), data))
    return Result(
        kind="complexity",
        title="Computational complexity",
        summary=complexity_sentences(report),
        tables={"complexity": complexity_table(report)},
        figures=figures,
        data=asdict(report),
    )


def complexity_sentences(report: ComplexityReport) -> list[str]:
    """Return who failed, and what pft costs, if it is there."""
    failed = [cost.method for cost in report.costs if not cost.subjects]
    sentences = [f"{len(failed)} of {len(report.costs)} methods failed: {', '.join(failed)}."] if failed else []
    return sentences + [
        f"pft adapts to one person in {EngFormatter('s', places=2)(cost.seconds)} (median over "
        f"{count_text(cost.subjects, 'subject')}, {report.repeat} runs each), and updates "
        f"{count_text(cost.trainable, 'parameter')} of the {cost.parameters:,} numbers of its model."
        for cost in report.costs
        if cost.method == "pft" and cost.subjects
    ]


def complexity_table(report: ComplexityReport) -> Table:
    """Return one line a method, those of one setting together. Nothing is bold: what does nothing costs least."""
    by_name = {cost.method: cost for cost in report.costs}
    costs = [by_name[method] for method in by_setting({cost.method: cost.setting for cost in report.costs})]

    def steps(number: float) -> str:
        """Return a number of steps; a median that lies between two of them keeps its half."""
        return number_text(number, 1 if number % 1 else 0)

    columns: list[Column[MethodCost]] = [
        Column("Method", lambda cost: method_name(cost.method, cost.selection), text=True),
        Column("Trainable", lambda cost: str(cost.trainable) if cost.subjects else FAILED),
        Column("Model", lambda cost: str(cost.parameters) if cost.subjects else MISSING, wide=True),
        Column("Adapt (MFLOPs)", lambda cost: flops_text(cost.adapt_flops)),
        Column("Frame (MFLOPs)", lambda cost: flops_text(cost.predict_flops), wide=True),
        Column("Iterations", lambda cost: steps(cost.iterations)),
        Column("Converged", lambda cost: steps(cost.converged)),
        Column("Batch (s)", lambda cost: number_text(cost.batch_seconds, 5)),
        Column("Subject (s)", lambda cost: number_text(cost.seconds, 4)),
    ]
    return make_table("Computational complexity", columns, costs, notes=_notes(report))


def complexity_data(report: ComplexityReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_complexity`, the quickest method first; those that failed are left out."""
    there = sorted((cost for cost in report.costs if cost.subjects), key=lambda cost: cost.seconds)
    return {name: [getattr(cost, name) for cost in there] for name in _DRAWN}


def plot_complexity(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a method, the quickest at the top: its seconds for one subject; a colour a setting."""
    shown = zip(data["method"], data["selection"], data["trainable"], strict=True)
    names = [f"{figure_name(method, selection)} ({trainable:,})" for method, selection, trainable in shown]
    names = [style.folded(name, _NAME_LETTERS) for name in names]
    # The distance of all lines is the same, whatever their names need.
    step = 0.05 + 0.115 * max(1 + name.count("\n") for name in names)
    with style.house_style():
        drawn = style.figure(style.FULL, 1.1 + step * len(names))
        axes = drawn.subplots()
        axes.set_xscale("log")
        for place, setting in enumerate(sorted(set(data["setting"]))):
            mine = [line for line, other in enumerate(data["setting"]) if other == setting]
            look: dict[str, Any] = {"color": style.COLOURS[place % 8], "marker": style.MARKERS[place % 8]}
            axes.plot([data["seconds"][line] for line in mine], mine, linestyle="none", label=setting, **look)
        style.names_down(axes, names)
        axes.grid(axis="both")
        axes.xaxis.set_major_formatter(EngFormatter("s"))
        axes.set_xlabel("Time to adapt to one subject; in brackets the parameters that are updated")
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        note_access(drawn, data["selection"])
    return drawn


def _notes(report: ComplexityReport) -> list[str]:
    low, high = report.frames
    frames = f"{low} frames" if low == high else f"{low} to {high} frames"
    where = "one thread" if report.device == "cpu" else f"one thread and {report.device}"
    notes = [
        f"Subject: median wall time of adapting to a subject's neutral clip ({listed(report.subjects)}; {frames}), "
        f"{report.repeat} times each after a warm-up; {where}. Times depend on the machine, and on what else it does.",
        f"Batch: one iteration on {report.batch} rows of the first subject's clip, all of it for a closed form.",
        "Trainable: parameters that are updated for one person. Model: all numbers of the model that predicts.",
        "MFLOPs: millions of floating-point operations in matrix products.",
        f"Converged: {CONVERGENCE_RULE}; – where it ends higher than it began. The stages of a method are added up.",
    ]
    selections = {cost.selection for cost in report.costs}
    if "source-access" in selections:
        rows, width = report.source_rows
        notes.append(f"[source access]: is given all {rows:,} source rows of {width} features besides, and labels.")
    if "oracle" in selections:
        notes.append("The oracle is tuned once, on the clip with its labels; an evaluation tunes it once a fold.")
    for cost in report.costs:
        reasons = "; ".join(f"{who}: {why}" for who, why in cost.failures)
        notes += [f"{method_name(cost.method, cost.selection)} failed on {reasons}"] if reasons else []
    return notes

"""The result of `featlab complexity`: what the costs say, the table, and the figure of seconds and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, SymmetricalLogLocator

from featlab.analysis import style
from featlab.analysis.cost import CONVERGENCE_RULE, ComplexityReport, MethodCost
from featlab.analysis.evaluation import ACCESS_NOTE, by_setting, figure_name, method_name
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.style import folded
from featlab.analysis.table import FAILED, MISSING, Column, Table, flops_text, make_table, number_text
from featlab.errors import listed

_DRAWN = ("method", "setting", "selection", "seconds", "fastest", "slowest", "trainable")
_NAME_LETTERS = 44  # Longest line of a name.
_GREY, _OURS = ("Source-only", "Oracle"), "SFDA-PFT"


def complexity_result(report: ComplexityReport) -> Result:
    """Return table, figure and what they say; the figure is left out where every method failed."""
    figures = []
    if any(cost.subjects for cost in report.costs):
        data = complexity_data(report)
        caption = (
            "Median wall time of adapting to one subject's neutral clip (thin lines: fastest and slowest run), and how "
            "many parameters are updated. Both axes are logarithmic, with a 0 on that of the parameters."
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
    by_name = {cost.method: cost for cost in report.costs if cost.subjects}
    failed = [cost.method for cost in report.costs if not cost.subjects]
    sentences = [f"{len(failed)} of {len(report.costs)} methods failed: {', '.join(failed)}."] if failed else []
    mine = by_name.get("pft")
    if mine is None:
        return sentences
    said = (
        f"pft adapts to one person in {time_text(mine.seconds)} (median over {_counted(mine.subjects, 'subject')}, "
        f"{report.repeat} runs each), in {_counted(mine.iterations, 'iteration')}, and updates "
        f"{_counted(mine.trainable, 'parameter')} of the {mine.parameters:,} numbers of its model."
    )
    return [*sentences, said]


def time_text(seconds: float) -> str:
    """Return a time with three digits, in the unit that suits it: 0.43 ms, 12.4 ms, 1.04 s."""
    if math.isnan(seconds):
        return MISSING
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def complexity_table(report: ComplexityReport) -> Table:
    """Return one line a method, those of one setting together. Nothing is bold: what does nothing costs least."""
    by_name = {cost.method: cost for cost in report.costs}
    costs = [by_name[method] for method in by_setting({cost.method: cost.setting for cost in report.costs})]
    columns: list[Column[MethodCost]] = [
        Column("Method", lambda cost: method_name(cost.method, cost.selection), text=True),
        Column("Trainable", lambda cost: str(cost.trainable) if cost.subjects else FAILED),
        Column("Model", lambda cost: str(cost.parameters) if cost.subjects else MISSING, wide=True),
        Column("Adapt (MFLOPs)", lambda cost: flops_text(cost.adapt_flops)),
        Column("Frame (MFLOPs)", lambda cost: flops_text(cost.predict_flops), wide=True),
        Column("Iterations", lambda cost: _steps_text(cost.iterations)),
        Column("Converged", lambda cost: _steps_text(cost.converged)),
        Column("Batch (s)", lambda cost: number_text(cost.batch_seconds, 5)),
        Column("Subject (s)", lambda cost: number_text(cost.seconds, 4)),
    ]
    return make_table("Computational complexity", columns, costs, notes=(*_notes(report), *_failures(costs)))


def complexity_data(report: ComplexityReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_complexity`, the quickest method first; those that failed are left out."""
    there = sorted((cost for cost in report.costs if cost.subjects), key=lambda cost: cost.seconds)
    return {name: [getattr(cost, name) for cost in there] for name in _DRAWN}


def plot_complexity(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a method, the quickest at the top: its seconds for one subject, and its trainable parameters."""
    methods, places = list(data["method"]), range(len(data["method"]))
    looks = _looks(data["setting"])
    names = [
        folded(figure_name(method, selection), _NAME_LETTERS)
        for method, selection in zip(methods, data["selection"], strict=True)
    ]
    # The distance of all lines is the same, whatever their names need.
    step = 0.05 + 0.115 * max(1 + name.count("\n") for name in names)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.85 + 0.15 * math.ceil(len(looks) / 4) + step * len(methods))
        left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        left.set_xscale("log")
        right.set_xscale("symlog", linthresh=1, linscale=0.5)
        for place in places:
            look = looks[data["setting"][place]]
            span = [data["fastest"][place], data["slowest"][place]]
            left.plot(span, [place, place], color=look["color"], linewidth=0.9, label=f"_span {methods[place]}")
            left.plot([data["seconds"][place]], [place], label=f"_seconds {methods[place]}", **look)
            right.plot([data["trainable"][place]], [place], label=f"_trainable {methods[place]}", **look)
        for axes in (left, right):
            style.names_down(axes, names)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), color="#F0F0F0", linewidth=0.5, zorder=0)
        for text, setting in zip(left.get_yticklabels(), data["setting"], strict=True):
            text.set_fontweight("bold" if setting == _OURS else "normal")
        # Whole decades: one of them at least has to be there to be read.
        low, high = math.log10(min(data["fastest"])), math.log10(max(data["slowest"]))
        left.set_xlim(10.0 ** math.floor(low), 10.0 ** math.ceil(high))
        left.xaxis.set_major_locator(LogLocator(10, numticks=12))
        left.xaxis.set_major_formatter(EngFormatter("s"))
        left.set_xlabel("Time to adapt to one subject")
        right.set_xlim(-0.5, 10 ** math.ceil(math.log10(max(10, *data["trainable"])) + 0.1))
        right.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
        right.xaxis.set_major_formatter(EngFormatter(sep=""))
        right.set_xlabel("Parameters updated for one subject")
        handles = [Line2D([], [], label=setting, **look) for setting, look in looks.items()]
        drawn.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.2, columnspacing=1.2)
        if "source-access" in data["selection"]:
            right.annotate(
                ACCESS_NOTE, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=6.5, color="#444444"
            )
    return drawn


def _counted(number: float, thing: str) -> str:
    return f"{number:,.{1 if number % 1 else 0}f} {thing}{'' if number == 1 else 's'}"


def _steps_text(steps: float) -> str:
    """Return a number of steps; a median that lies between two of them keeps its half."""
    return number_text(steps, 1 if steps % 1 else 0)


def _notes(report: ComplexityReport) -> list[str]:
    low, high = report.frames
    frames = f"{low} frames" if low == high else f"{low} to {high} frames"
    where = "one thread" if report.device == "cpu" else f"one thread and {report.device}"
    notes = [
        f"Subject: median wall time of adapting to a subject's neutral clip ({listed(report.subjects)}; {frames}), "
        f"{report.repeat} times each after a warm-up; {where}. Times depend on the machine, and on what else it does.",
        f"Batch: one iteration on {report.batch} rows of the first subject's clip, all of it for a closed form.",
        "Trainable: parameters that are updated for one person. Model: all floating-point numbers of the model that "
        "predicts.",
        "MFLOPs: millions of floating-point operations in matrix products; what is done by elements, by decompositions "
        "or by other libraries is not counted.",
        f"Converged: {CONVERGENCE_RULE}; – where it ends higher than it began. The stages of a method are added up.",
    ]
    selections = {cost.selection for cost in report.costs}
    if "source-access" in selections:
        rows, width = report.source_rows
        notes.append(f"[source access]: is given all {rows:,} source rows of {width} features besides, and labels.")
    if "oracle" in selections:
        notes.append("The oracle is tuned once, on the clip with its labels; an evaluation tunes it once a fold.")
    return notes


def _failures(costs: Sequence[MethodCost]) -> list[str]:
    notes = []
    for cost in costs:
        reasons: dict[str, list[str]] = {}
        for where, why in cost.failures:
            reasons.setdefault(why, []).append(where)
        name = method_name(cost.method, cost.selection)
        notes += [f"{name} failed on {listed(where)}: {why}" for why, where in reasons.items()]
    return notes


def _looks(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a marker a setting; what marks an end of the scale is grey."""
    known = sorted(set(settings), key=lambda setting: (setting in _GREY, setting))
    looks = {}
    for place, setting in enumerate(known):
        order = place % len(style.COLOURS)
        colour = style.MUTED if setting in _GREY else style.COLOURS[order]
        look: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "zorder": 3}
        looks[setting] = look | {"marker": style.MARKERS[order], "color": colour}
    return looks

"""The page of `featlab complexity`: what the costs say in words, the table, the figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

from featlab.analysis import style
from featlab.analysis.cost import ComplexityReport, MethodCost
from featlab.analysis.evaluation.methods import by_setting, method_name
from featlab.analysis.evaluation.plot_names import ACCESS_NOTE, figure_name, folded
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import FAILED, MISSING, Table, flops_text, number_text
from featlab.errors import InputError
from featlab.evaluation.convergence import CONVERGENCE_RULE

__all__ = [
    "complexity_data",
    "complexity_table",
    "complexity_words",
    "ordered_costs",
    "plot_complexity",
    "time_text",
    "write_complexity",
]


def write_complexity(folder: Path, report: ComplexityReport, *, command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write table, figure and page; the figure is left out where every method failed.

    Args:
        folder: Where.
        report: From `featlab.analysis.cost.measure_complexity`.
        command: What was typed.
        facts: From `featlab.evaluation.results.run_facts`.

    Returns:
        The files.
    """
    figures = []
    if any(cost.subjects for cost in report.costs):
        data = complexity_data(report)
        caption = (
            "Median wall time of adapting to one subject's neutral clip (thin lines: fastest and slowest run), and how "
            "many parameters are updated. Both axes are logarithmic, with a 0 on that of the parameters."
        )
        figures.append(DrawnFigure("complexity", "Cost of one adaptation", caption, plot_complexity(data), data))
    return write_result(
        folder,
        Result(
            kind="complexity",
            title="Computational complexity",
            summary=complexity_words(report),
            tables={"complexity": complexity_table(report)},
            figures=figures,
            metadata=facts,
        ),
        command,
    )


def complexity_words(report: ComplexityReport, *, reference: str = "pft") -> tuple[str, ...]:
    """Return what the costs say of one method against the published source-free ones and the light baselines.

    Args:
        report: The costs.
        reference: Whom it is about; without it there are no words about anyone.
    """
    by_name = {cost.method: cost for cost in report.costs if cost.subjects}
    failed = [cost.method for cost in report.costs if not cost.subjects]
    words = [f"{len(failed)} of {len(report.costs)} methods failed: {', '.join(failed)}."] if failed else []
    mine = by_name.get(reference)
    if mine is None:
        return tuple(words)
    clips = "1 subject" if mine.subjects == 1 else f"{mine.subjects} subjects"
    words.append(
        f"{reference} adapts to one person in {time_text(mine.seconds)} (median over {clips}, {report.repeat} runs "
        f"each), in {_counted(mine.iterations, 'iteration')}, and updates {_counted(mine.trainable, 'parameter')} of "
        f"the {mine.parameters:,} numbers of its model."
    )
    published = [cost for cost in by_name.values() if cost.setting.startswith("SFDA (") and cost.method != reference]
    if published:
        words += _against_published(mine, published)
    light = [cost for cost in by_name.values() if cost.setting == "Baselines"]
    if light:
        words.append(_against_light(mine, light))
    return tuple(words)


def time_text(seconds: float) -> str:
    """Return a time with three digits, in the unit that suits it: 0.43 ms, 12.4 ms, 1.04 s."""
    if math.isnan(seconds):
        return "–"
    value, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def _against_published(mine: MethodCost, published: Sequence[MethodCost]) -> list[str]:
    middle = statistics.median(cost.seconds for cost in published)
    quickest = min(published, key=lambda cost: cost.seconds)
    iterations = statistics.median(cost.iterations for cost in published)
    trainable = statistics.median(cost.trainable for cost in published)
    slower = sum(cost.seconds > mine.seconds for cost in published)
    words = [
        f"That is {_times(mine.seconds, middle)} the median of the {len(published)} published source-free methods here "
        f"({time_text(middle)}); {slower} of the {len(published)} take longer, and the quickest, {quickest.method}, "
        f"takes {time_text(quickest.seconds)}.",
        f"Their medians are {_counted(iterations, 'iteration')} and {_counted(trainable, 'trainable parameter')}.",
    ]
    unsettled = [cost.method for cost in published if math.isnan(cost.converged)]
    if unsettled:
        words.append(f"The loss did not settle, or ended higher than it began: {', '.join(unsettled)}.")
    return words


def _against_light(mine: MethodCost, light: Sequence[MethodCost]) -> str:
    quickest, slowest = (choose(light, key=lambda cost: cost.seconds) for choose in (min, max))
    cheaper = sum(cost.seconds < mine.seconds for cost in light)
    return (
        f"The {len(light)} light baselines take {time_text(quickest.seconds)} ({quickest.method}) to "
        f"{time_text(slowest.seconds)} ({slowest.method}); {cheaper} of them are quicker than {mine.method}."
    )


def _times(mine: float, other: float) -> str:
    """Return "12 times less than" or "1.4 times as much as"."""
    ratio = other / mine if mine > 0 else math.inf
    if ratio >= 1.05:
        return f"{ratio:.{0 if ratio >= 10 else 1}f} times less than"
    return f"{1 / ratio:.1f} times as much as" if ratio < 0.95 else "as much as"


def _counted(number: float, thing: str) -> str:
    return f"{number:,.{1 if number % 1 else 0}f} {thing}{'' if number == 1 else 's'}"


_COLUMNS = (
    "Method",
    "Trainable",
    "Model",
    "Carried",
    "Adapt (MFLOPs)",
    "Frame (MFLOPs)",
    "Iterations",
    "Converged",
    "Batch (s)",
    "Subject (s)",
)
_NAMED = 6
"""Subjects that a note names; more of them are counted."""


def complexity_table(report: ComplexityReport, *, title: str = "Computational complexity") -> Table:
    """Return one line a method, those of one setting together.

    Nothing is bold: what does nothing costs least.

    Args:
        report: From `featlab.analysis.cost.measure_complexity`.
        title: Above the table.
    """
    costs = ordered_costs(report.costs)
    rows = tuple(_cells(cost) for cost in costs)
    return Table(
        title=title,
        columns=_COLUMNS,
        rows=rows,
        bold=tuple((False,) * len(_COLUMNS) for _ in rows),
        notes=(*_notes(report), *_failures(costs)),
    )


def ordered_costs(costs: Sequence[MethodCost]) -> list[MethodCost]:
    """Return the costs with those of one setting together, source-only first and oracles last."""
    by_name = {cost.method: cost for cost in costs}
    return [by_name[method] for method in by_setting({cost.method: cost.setting for cost in costs})]


def _cells(cost: MethodCost) -> tuple[str, ...]:
    name = method_name(cost.method, cost.selection)
    if not cost.subjects:
        return (name, FAILED, *(MISSING,) * (len(_COLUMNS) - 2))
    return (
        name,
        str(cost.trainable),
        str(cost.parameters),
        str(cost.carried),
        flops_text(cost.adapt_flops),
        flops_text(cost.predict_flops),
        _steps_text(cost.iterations),
        _steps_text(cost.converged),
        number_text(cost.batch_seconds, 5),
        number_text(cost.seconds, 4),
    )


def _steps_text(steps: float) -> str:
    """Return a number of steps; a median that lies between two of them keeps its half."""
    return number_text(steps, 1 if steps % 1 else 0)


def _notes(report: ComplexityReport) -> list[str]:
    shown = ", ".join(report.subjects[:_NAMED])
    if len(report.subjects) > _NAMED:
        shown += f" and {len(report.subjects) - _NAMED} more"
    low, high = report.frames
    frames = f"{low} frames" if low == high else f"{low} to {high} frames"
    where = "one thread" if report.device == "cpu" else f"one thread and {report.device}"
    notes = [
        f"Subject: median wall time of adapting to the whole neutral clip of one subject ({shown}; {frames}), "
        f"{report.repeat} times each after a warm-up; {where}. Times depend on the machine, and on what else it does.",
        f"Batch: one iteration on {report.batch} rows, all of it for a closed form: the time of an adaptation to the "
        f"first subject's clip, repeated or cut to {report.batch} rows, over its iterations. Every batch size is "
        f"{report.batch}; a method without one takes as many rows as it is made to.",
        "Trainable: parameters that are updated for one person. Model: all floating-point numbers of the model that "
        "predicts: projection, T or what stands in its place, B and C, BatchNorm statistics included. Carried: numbers "
        "in the bundle beside it: what the method prepared at the source, and the style bank where it is read.",
        "MFLOPs: millions of floating-point operations in matrix products, of one adaptation and of predicting one "
        "frame. What is done by elements, by decompositions or by other libraries is not counted: 0 is not nothing.",
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
        name = method_name(cost.method, cost.selection)
        reasons: dict[str, list[str]] = {}
        for where, why in cost.failures:
            reasons.setdefault(why, []).append(where)
        notes += [f"{name} failed on {', '.join(where[:_NAMED])}: {why}" for why, where in reasons.items()]
    return notes


_DRAWN = ("method", "setting", "selection", "seconds", "fastest", "slowest", "trainable")
_NAME_LETTERS = 44
"""Longest line of a name."""
_GREY, _OURS = ("Source-only", "Oracle"), "SFDA-PFT"


def complexity_data(report: ComplexityReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_complexity`, the quickest method first.

    Columns method, setting, selection, seconds, fastest, slowest, trainable; methods that failed on every subject are
    left out.

    Raises:
        InputError: None is left.
    """
    there = [cost for cost in report.costs if cost.subjects]
    if not there:
        raise InputError("no method could be run; the table says why")
    there.sort(key=lambda cost: cost.seconds)
    return {name: [getattr(cost, name) for cost in there] for name in _DRAWN}


def plot_complexity(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a method, the quickest at the top: its seconds for one subject, and its trainable parameters.

    Dots are medians, the thin lines reach from the fastest to the slowest run. Both axes are logarithmic; that of the
    parameters has a 0.

    Args:
        data: From `complexity_data`.
    """
    methods, places = list(data["method"]), range(len(data["method"]))
    looks = _looks(data["setting"])
    shown = [
        folded(figure_name(method, selection), _NAME_LETTERS)
        for method, selection in zip(methods, data["selection"], strict=True)
    ]
    # The distance of all lines is the same, whatever their names need.
    step = 0.05 + 0.115 * max(1 + name.count("\n") for name in shown)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.85 + 0.15 * math.ceil(len(looks) / 4) + step * len(methods))
        left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        for place in places:
            look = looks[data["setting"][place]]
            span = [data["fastest"][place], data["slowest"][place]]
            left.plot(span, [place, place], color=look["color"], linewidth=0.9, label=f"_span {methods[place]}")
            left.plot([data["seconds"][place]], [place], label=f"_seconds {methods[place]}", **look)
            right.plot([data["trainable"][place]], [place], label=f"_trainable {methods[place]}", **look)
        left.set_yticks(places, shown, linespacing=1.05)
        for text, setting in zip(left.get_yticklabels(), data["setting"], strict=True):
            text.set_fontweight("bold" if setting == _OURS else "normal")
        left.set_ylim(len(methods) - 0.4, -0.6)
        _seconds_axis(left, min(data["fastest"]), max(data["slowest"]))
        _parameters_axis(right, max(data["trainable"]))
        for axes in (left, right):
            axes.grid(axis="x")
            axes.hlines(places, 0, 1, transform=axes.get_yaxis_transform(), color="#F0F0F0", linewidth=0.5, zorder=0)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        handles = [Line2D([], [], label=setting, **look) for setting, look in looks.items()]
        drawn.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.2, columnspacing=1.2)
        if "source-access" in data["selection"]:
            right.annotate(
                ACCESS_NOTE, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=6.5, color="#444444"
            )
    return drawn


def _looks(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour and a marker a setting; what marks an end of the scale is grey."""
    known = sorted(set(settings), key=lambda setting: (setting in _GREY, setting))
    looks = {}
    for place, setting in enumerate(known):
        colour = style.MUTED if setting in _GREY else style.COLOURS[place % len(style.COLOURS)]
        marker = style.MARKERS[place % len(style.MARKERS)]
        looks[setting] = {"linestyle": "none", "marker": marker, "color": colour, "markersize": 4.5, "zorder": 3}
    return looks


def _seconds_axis(axes: Axes, least: float, most: float) -> None:
    axes.set_xscale("log")
    # Whole decades: one of them at least has to be there to be read.
    axes.set_xlim(10.0 ** math.floor(math.log10(least)), 10.0 ** math.ceil(math.log10(most)))
    axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.set_xlabel("Time to adapt to one subject")


def _parameters_axis(axes: Axes, most: int) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlim(-0.5, 10 ** math.ceil(math.log10(max(most, 10)) + 0.1))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
    axes.set_xlabel("Parameters updated for one subject")


def _seconds(value: float, _position: int | None) -> str:
    """Return 10 µs, 1 ms, 1 s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.999 * size:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"


def _count(value: float, _position: int | None) -> str:
    """Return 0, 1, 100, 10k, 1M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.999 * size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"

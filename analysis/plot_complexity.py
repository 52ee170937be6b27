"""The figure of complexity: seconds to adapt to one person, and the parameters that are updated for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import ACCESS_NOTE, figure_name, folded
from featlab.analysis.report.complexity import ComplexityReport
from featlab.errors import InputError

__all__ = ["complexity_data", "plot_complexity"]

_COLUMNS = ("method", "setting", "selection", "seconds", "fastest", "slowest", "trainable")
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
    return {name: [getattr(cost, name) for cost in there] for name in _COLUMNS}


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

"""Figures of results: what each method did to each subject, and the means with their intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation.methods import ACCESS_NOTE, figure_name
from featlab.analysis.style import folded
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import common_subject_means
from featlab.evaluation.statistics import TOLERANCE, bootstrap_interval
from featlab.evaluation.summary import MethodSummary

__all__ = ["plot_subjects", "plot_summary", "subjects_data", "summary_data"]

_LETTER = 0.075
"""Width of a bold letter of a panel's title, inches."""
_PANELS_ACROSS = {style.COLUMN: 3, style.FULL: 6}
_TALL, _LOW, _FEW_ROWS = 1.9, 1.65, 3
"""Height of a row of panels, inches: lower where there are more than a few, so that all go onto one page."""
_NAME_LETTERS = {style.COLUMN: 24, style.FULL: 44}
"""Longest line of a name beside the means."""


def subjects_data(rows: Sequence[EvaluationRow], *, source: str = "source-only") -> dict[str, list[Any]]:
    """Return the numbers of `plot_subjects`: columns method, subject, source, score (fractions)."""
    by_method: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)
    columns: dict[str, list[Any]] = {"method": [], "subject": [], "source": [], "score": []}
    for method, group in by_method.items():
        if method == source:
            continue
        for subject, (before, score) in common_subject_means(by_method.get(source, ()), group).items():
            for name, value in zip(columns, (method, subject, before, score), strict=True):
                columns[name].append(value)
    if not columns["method"]:
        raise InputError(f"no method has a subject in common with {source!r}; the figure compares with it")
    return columns


def plot_subjects(
    rows: Sequence[EvaluationRow],
    *,
    source: str = "source-only",
    width: float = style.FULL,
) -> Figure:
    """Draw one panel a method: every subject's macro F1 before (source-only) and after.

    Blue subjects gained, vermilion ones lost. The black dots beside the slopes are the means with their bootstrap
    intervals over subjects. Above: the mean difference in points and how many subjects are below source-only.
    """
    data = subjects_data(rows, source=source)
    methods = list(dict.fromkeys(data["method"]))
    most = _PANELS_ACROSS.get(width, 4)
    down = math.ceil(len(methods) / most)
    across = math.ceil(len(methods) / down)
    letters = int((width / across - 0.1) / _LETTER)
    selections = {row.method: row.selection for row in rows}
    with style.house_style():
        drawn = style.figure(width, 0.35 + (_TALL if down <= _FEW_ROWS else _LOW) * down)
        axes = drawn.subplots(down, across, sharey=True, squeeze=False)
        for place, method in enumerate(methods):
            mine = [index for index, name in enumerate(data["method"]) if name == method]
            before = [data["source"][index] for index in mine]
            after = [data["score"][index] for index in mine]
            _slopes(axes.flat[place], before, after)
            name = folded(figure_name(method, selections[method]), letters)
            axes.flat[place].set_title(name, fontweight="bold", fontsize=7.5, pad=14)
        for panel in axes.flat[len(methods) :]:
            panel.set_axis_off()
        for panel in axes[:, 0]:
            panel.set_ylabel("Macro F1 (%)")
        if "source-access" in [selections[method] for method in methods]:
            drawn.supxlabel(ACCESS_NOTE, fontsize=6.5, color="#444444", x=0.01, ha="left")
    return drawn


def summary_data(summaries: Sequence[MethodSummary]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_summary`: columns method, macro_f1, low, high (fractions), subjects."""
    return {
        "method": [item.method for item in summaries],
        "macro_f1": [item.macro_f1 for item in summaries],
        "low": [item.ci95[0] for item in summaries],
        "high": [item.ci95[1] for item in summaries],
        "subjects": [item.subjects for item in summaries],
    }


def plot_summary(
    summaries: Sequence[MethodSummary],
    *,
    source: str = "source-only",
    oracle: str = "oracle",
    width: float = style.COLUMN,
) -> Figure:
    """Draw each method's mean macro F1 with its 95 % interval; dashed lines mark source-only and the oracle."""
    if not summaries:
        raise InputError("no results to draw; run an evaluation first")
    data = summary_data(summaries)
    most = _NAME_LETTERS.get(width, int(6 * width))
    shown = [folded(figure_name(item.method, item.selection), most) for item in summaries]
    label = folded("Macro F1 (%), mean over subjects and 95 % interval", 30 if width < style.FULL else 60)
    if any(item.selection == "source-access" for item in summaries):
        label += f"\n{ACCESS_NOTE}"
    # The distance of all lines is the same, whatever their names need.
    step = 0.07 + 0.115 * max(1 + name.count("\n") for name in shown)
    with style.house_style():
        drawn = style.figure(width, 0.4 + 0.15 * (1 + label.count("\n")) + step * len(summaries))
        axes = drawn.subplots()
        for place, (method, mean, low, high) in enumerate(
            zip(data["method"], data["macro_f1"], data["low"], data["high"], strict=True)
        ):
            reference = method in (source, oracle)
            colour = style.MUTED if reference else style.COLOURS[0]
            if reference:
                axes.axvline(mean, color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1)
            axes.plot([low, high], [place, place], color=colour, solid_capstyle="round", label=f"_interval {method}")
            axes.plot([mean], [place], "D" if reference else "o", color=colour, label=f"_mean {method}")
            axes.text(
                1.02,
                place,
                _interval_text(mean, low, high),
                transform=axes.get_yaxis_transform(),
                va="center_baseline",
                fontsize=6.5,
            )
        axes.set_yticks(range(len(summaries)), shown, linespacing=1.05)
        axes.set_ylim(len(summaries) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        style.in_percent(axes.xaxis)
        axes.set_xlabel(label)
    return drawn


def _slopes(axes: Axes, before: Sequence[float], after: Sequence[float]) -> None:
    for left, right in zip(before, after, strict=True):
        lost = right < left - TOLERANCE
        axes.plot(
            [0, 1],
            [left, right],
            color=style.LOSS if lost else style.GAIN,
            alpha=0.75,
            linewidth=0.9,
            marker="o",
            markersize=2.2,
            zorder=3 if lost else 2,
        )
    for side, values in ((-0.16, before), (1.16, after)):
        axes.plot([side, side], bootstrap_interval(values), color="black", linewidth=1.2, label="_interval")
        axes.plot([side], [float(np.mean(values))], "o", color="black", markersize=4, label="_mean")
    worse = sum(right < left - TOLERANCE for left, right in zip(before, after, strict=True))
    points = 100.0 * (float(np.mean(after)) - float(np.mean(before)))
    gain = f"{points:+.1f}".replace("-", "−")
    look: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "fontsize": 6.5}
    axes.text(0.36, 1.02, gain, ha="right", color="#444444", **look)
    axes.text(0.42, 1.02, f"{worse}/{len(before)} worse", color=style.LOSS if worse else "#444444", **look)
    axes.set_xlim(-0.35, 1.35)
    axes.set_xticks([0, 1], ["before", "after"])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    style.in_percent(axes.yaxis)
    axes.grid(axis="y")


def _interval_text(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return "failed"
    if math.isnan(low):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

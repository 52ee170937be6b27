"""Figures of results: what each method did to each subject, and the means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation import ACCESS_NOTE, figure_name, note_access, rows_by_method
from featlab.analysis.style import folded
from featlab.analysis.table import columns_of, count_text
from featlab.errors import InputError
from featlab.evaluation.metrics import bin_edges, calibration_error
from featlab.evaluation.results import EvaluationRow, common_subject_means, pooled_reliability
from featlab.evaluation.statistics import TOLERANCE, bootstrap_interval
from featlab.evaluation.summary import MethodSummary

_LETTER = 0.075  # Width of a bold letter of a panel's title, inches.
_SOURCE, _ORACLE, _OURS = "source-only", "oracle", "pft"
_PANELS_ACROSS = 6
_TALL, _LOW, _FEW_ROWS = 1.9, 1.65, 3
"""Height of a row of panels, inches: lower where there are more than a few, so that all go onto one page."""
_NAME_LETTERS = {style.COLUMN: 24, style.FULL: 44}  # Longest line of a name beside the means.


def subjects_data(rows: Sequence[EvaluationRow]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_subjects`: columns method, subject, source, score (fractions)."""
    by_method = rows_by_method(rows)
    lines = [
        (method, subject, *scores)
        for method, group in by_method.items()
        if method != _SOURCE
        for subject, scores in common_subject_means(by_method.get(_SOURCE, ()), group).items()
    ]
    if not lines:
        raise InputError(f"no method has a subject in common with {_SOURCE!r}; the figure compares with it")
    return columns_of(("method", "subject", "source", "score"), lines)


def plot_subjects(rows: Sequence[EvaluationRow]) -> Figure:
    """Draw one panel a method: every subject's macro F1 before (source-only) and after."""
    data = subjects_data(rows)
    methods = list(dict.fromkeys(data["method"]))
    down = math.ceil(len(methods) / _PANELS_ACROSS)
    across = math.ceil(len(methods) / down)
    letters = int((style.FULL / across - 0.1) / _LETTER)
    selections = {row.method: row.selection for row in rows}
    with style.house_style():
        drawn = style.figure(style.FULL, 0.35 + (_TALL if down <= _FEW_ROWS else _LOW) * down)
        panels = style.panels(drawn, len(methods), across, sharey=True)
        for panel, method in zip(panels, methods, strict=True):
            mine = [index for index, name in enumerate(data["method"]) if name == method]
            before = [data["source"][index] for index in mine]
            after = [data["score"][index] for index in mine]
            _slopes(panel, before, after)
            name = folded(figure_name(method, selections[method]), letters)
            panel.set_title(name, fontweight="bold", fontsize=7.5, pad=14)
        for panel in panels[::across]:
            panel.set_ylabel("Macro F1 (%)")
        note_access(drawn, [selections[method] for method in methods])
    return drawn


def summary_data(summaries: Sequence[MethodSummary]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_summary`: columns method, macro_f1, low, high (fractions), subjects."""
    lines = [(item.method, item.macro_f1, *item.ci95, item.subjects) for item in summaries]
    return columns_of(("method", "macro_f1", "low", "high", "subjects"), lines)


def plot_summary(summaries: Sequence[MethodSummary], *, width: float = style.COLUMN) -> Figure:
    """Draw each method's mean macro F1 with its 95 % interval; dashed lines mark source-only and the oracle."""
    data = summary_data(summaries)
    most = _NAME_LETTERS.get(width, int(6 * width))
    shown = [folded(figure_name(item.method, item.selection), most) for item in summaries]
    people = count_text(max(item.subjects for item in summaries), "subject")
    dashed = " and ".join(name for name in (_SOURCE, _ORACLE) if name in data["method"])
    said = f"Macro F1 (%), mean over {people} and 95 % interval" + (f"; dashed: {dashed}" if dashed else "")
    label = folded(said, 34 if width < style.FULL else 80)
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
            reference = method in (_SOURCE, _ORACLE)
            colour = style.MUTED if reference else style.COLOURS[0]
            if reference:
                axes.axvline(mean, color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1)
            axes.plot([low, high], [place, place], color=colour, solid_capstyle="round", label=f"_interval {method}")
            axes.plot([mean], [place], "D" if reference else "o", color=colour, label=f"_mean {method}")
            said = "failed" if math.isnan(mean) else f"{100 * mean:.1f}"
            said += "" if math.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
            beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
            axes.text(1.02, place, said, fontsize=6.5, **beside)
        style.names_down(axes, shown)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        style.in_percent(axes.xaxis)
        axes.set_xlabel(label)
    return drawn


def _slopes(axes: Axes, before: Sequence[float], after: Sequence[float]) -> None:
    for left, right in zip(before, after, strict=True):
        lost, same = right < left - TOLERANCE, abs(right - left) <= TOLERANCE
        axes.plot(
            [0, 1],
            [left, right],
            color=style.MUTED if same else style.LOSS if lost else style.GAIN,
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


_TITLE_LETTERS = 28
_PANEL = 2.3  # Width of a panel, inches; three fill a page.


def reliability_methods(summaries: Sequence[MethodSummary]) -> tuple[str, ...]:
    """Return source-only, pft and the best other source-free method, as far as they have a calibration error."""
    there = [item for item in summaries if item.ece == item.ece]
    others = [item for item in there if item.selection == "source-free" and item.method not in (_SOURCE, _OURS)]
    best = [max(others, key=lambda item: item.macro_f1).method] if others else []
    known = [name for name in (_SOURCE, _OURS) if any(item.method == name for item in there)]
    return (*known, *best)


def reliability_data(rows: Sequence[EvaluationRow], methods: Sequence[str]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_reliability`: columns method, low, high, share, confidence, accuracy (fractions)."""
    edges = bin_edges()
    lines = [
        (method, *line)
        for method in methods
        for line in np.stack([edges[:-1], edges[1:], *_curve(_pooled(rows, method))], axis=1).tolist()
    ]
    return columns_of(("method", "low", "high", "share", "confidence", "accuracy"), lines)


def plot_reliability(rows: Sequence[EvaluationRow], methods: Sequence[str]) -> Figure:
    """Draw one panel a method: accuracy against confidence, and beneath how many frames are how sure."""
    pooled = {method: _pooled(rows, method) for method in methods}
    selections = {row.method: row.selection for row in rows}
    edges = bin_edges()
    with style.house_style():
        drawn = style.figure(max(style.COLUMN, _PANEL * len(methods)), 2.9)
        axes = drawn.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
        for place, (method, counts) in enumerate(pooled.items()):
            share, confidence, accuracy = _curve(counts)
            title = folded(figure_name(method, selections[method]), _TITLE_LETTERS)
            colour = style.COLOURS[place % len(style.COLOURS)]
            above, below = axes[0, place], axes[1, place]
            above.set_title(title, fontweight="bold", fontsize=7.5)
            above.plot([0, 1], [0, 1], color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1, label="_diagonal")
            full = share > 0
            above.plot(confidence[full], accuracy[full], color=colour, linewidth=0.9, label="_curve")
            look = {"color": colour, "zorder": 3, "linewidth": 0, "clip_on": False}
            above.scatter(confidence[full], accuracy[full], s=6 + 60 * share[full], **look)
            above.set(xlim=(0, 1), ylim=(-0.02, 1.02))
            style.in_percent(above.xaxis)
            style.in_percent(above.yaxis)
            above.grid()
            error = f"ECE {100 * calibration_error(counts):.1f} %"
            above.text(0.04, 0.96, error, transform=above.transAxes, va="top", fontsize=7)
            below.bar(edges[:-1], share, width=np.diff(edges), align="edge", color=colour, alpha=0.75, linewidth=0)
            below.yaxis.set_major_locator(MaxNLocator(3))
            style.in_percent(below.yaxis)
            below.set_xlabel("Confidence (%)")
        axes[0, 0].set_ylabel("Accuracy (%)")
        axes[1, 0].set_ylabel("Frames (%)")
        note_access(drawn, [selections[method] for method in methods])
    return drawn


def _pooled(rows: Sequence[EvaluationRow], method: str) -> NDArray[np.float64]:
    counts = pooled_reliability([row for row in rows if row.method == method])
    assert counts is not None  # `reliability_methods` names those that have them
    return counts


def _curve(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (15,) share of the frames, mean confidence and accuracy; NaN where a bin is empty."""
    share = counts[:, 0]
    there = np.where(share > 0, share, np.nan)
    return share, counts[:, 1] / there, counts[:, 2] / there

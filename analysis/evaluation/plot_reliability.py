"""The reliability diagram: how often a method is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation.methods import ACCESS_NOTE, figure_name
from featlab.analysis.style import folded
from featlab.errors import InputError
from featlab.evaluation.metrics import BINS, bin_edges, calibration_error
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import pooled_reliability
from featlab.evaluation.summary import MethodSummary

__all__ = ["plot_reliability", "reliability_data", "reliability_methods"]

_NAME_LETTERS = 28
_PANEL = 2.3
"""Width of a panel, inches; three fill a page."""


def reliability_methods(
    summaries: Sequence[MethodSummary], *, source: str = "source-only", reference: str = "pft"
) -> tuple[str, ...]:
    """Return whom to draw: source-only, pft and the best of the others, as far as they have a calibration error.

    The best is that of the largest macro F1; methods with source access and oracles do not compete.
    """
    there = [item for item in summaries if item.ece == item.ece]
    others = [item for item in there if item.selection == "source-free" and item.method not in (source, reference)]
    best = [max(others, key=lambda item: item.macro_f1).method] if others else []
    known = [name for name in (source, reference) if any(item.method == name for item in there)]
    return (*known, *best)


def reliability_data(rows: Sequence[EvaluationRow], methods: Sequence[str]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_reliability`: columns method, low, high, share, confidence, accuracy (fractions).

    One line a method and bin; an empty bin has a share of 0, and NaN for the two others.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("method", "low", "high", "share", "confidence", "accuracy")}
    edges = bin_edges()
    for method in methods:
        share, confidence, accuracy = _curve(_pooled(rows, method))
        columns["method"] += [method] * BINS
        for name, values in (
            ("low", edges[:-1]),
            ("high", edges[1:]),
            ("share", share),
            ("confidence", confidence),
            ("accuracy", accuracy),
        ):
            columns[name] += values.tolist()
    return columns


def plot_reliability(rows: Sequence[EvaluationRow], methods: Sequence[str]) -> Figure:
    """Draw one panel a method: accuracy against confidence, and beneath how many frames are how sure.

    On the dashed diagonal a confidence of 80 % is right 8 times in 10; below it a method is surer than it should be.
    The frames of all subjects are pooled, every subject weighing the same. A dot is one of 15 bins, at its mean
    confidence; its area grows with its share of the frames.
    """
    if not methods:
        raise InputError("no results with confidences to draw; run the evaluation again")
    pooled = {method: _pooled(rows, method) for method in methods}
    selections = {row.method: row.selection for row in rows}
    edges = bin_edges()
    with style.house_style():
        drawn = style.figure(max(style.COLUMN, _PANEL * len(methods)), 2.9)
        axes = drawn.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
        for place, (method, counts) in enumerate(pooled.items()):
            share, confidence, accuracy = _curve(counts)
            title = folded(figure_name(method, selections[method]), _NAME_LETTERS)
            colour = style.COLOURS[place % len(style.COLOURS)]
            above, below = axes[0, place], axes[1, place]
            above.set_title(title, fontweight="bold", fontsize=7.5)
            _diagram(above, share, confidence, accuracy, colour)
            above.text(
                0.04,
                0.96,
                f"ECE {100 * calibration_error(counts):.1f} %",
                transform=above.transAxes,
                va="top",
                fontsize=7,
            )
            below.bar(edges[:-1], share, width=np.diff(edges), align="edge", color=colour, alpha=0.75, linewidth=0)
            below.yaxis.set_major_locator(MaxNLocator(3))
            style.in_percent(below.yaxis)
            below.set_xlabel("Confidence (%)")
        axes[0, 0].set_ylabel("Accuracy (%)")
        axes[1, 0].set_ylabel("Frames (%)")
        if "source-access" in [selections[method] for method in methods]:
            drawn.supxlabel(ACCESS_NOTE, fontsize=6.5, color="#444444", x=0.01, ha="left")
    return drawn


def _diagram(
    axes: Axes,
    share: NDArray[np.float64],
    confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    colour: str,
) -> None:
    axes.plot([0, 1], [0, 1], color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1, label="_diagonal")
    full = share > 0
    axes.plot(confidence[full], accuracy[full], color=colour, linewidth=0.9, label="_curve")
    area = 6 + 60 * share[full]
    axes.scatter(confidence[full], accuracy[full], s=area, color=colour, zorder=3, linewidth=0, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    style.in_percent(axes.xaxis)
    style.in_percent(axes.yaxis)
    axes.grid()


def _pooled(rows: Sequence[EvaluationRow], method: str) -> NDArray[np.float64]:
    counts = pooled_reliability([row for row in rows if row.method == method])
    if counts is None:
        raise InputError(f"{method!r} has no finished run with confidences; run the evaluation again")
    return counts


def _curve(
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (15,) share of the frames, mean confidence and accuracy; NaN where a bin is empty."""
    share = counts[:, 0]
    there = np.where(share > 0, share, np.nan)
    return share, counts[:, 1] / there, counts[:, 2] / there

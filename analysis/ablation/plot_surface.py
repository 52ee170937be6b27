"""Figures of ablations over two settings: a surface of weights, and two modes of one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.ablation.plot import Columns, panels_of
from featlab.analysis.evaluation.plot_names import folded

__all__ = ["plot_modes", "plot_surface"]

_DARK = 0.55
"""Above this part of the colour scale, text is white."""


def plot_surface(data: Columns, *, axes_of: Mapping[str, tuple[str, str]], width: float = style.FULL) -> Figure:
    """Draw macro F1 over a grid of two weights, one panel a data set and group, all on one colour scale.

    Args:
        data: As `featlab.analysis.ablation.table.ablation_data` gives it, one method; ``at`` holds the two weights.
        axes_of: Group to the names of its (vertical, horizontal) weight.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    panels = panels_of(data)
    scores = [value for value in data["macro_f1"] if value == value]
    low, high = min(scores), max(scores)
    across = 2 if width >= style.FULL and len(panels) > 1 else 1
    down = -(-len(panels) // across)
    with style.house_style():
        drawn = style.figure(width, 0.2 + down * (0.42 * width / across + 0.75))
        grid = drawn.subplots(down, across, squeeze=False).ravel()
        image = None
        for axes, (title, rows) in zip(grid, panels.items(), strict=False):
            places = [tuple(float(part) for part in row["at"].split(";")) for row in rows]
            upward, rightward = (sorted({place[part] for place in places}) for part in (0, 1))
            values = np.full((len(upward), len(rightward)), np.nan)
            for (first, second), row in zip(places, rows, strict=True):
                values[upward.index(first), rightward.index(second)] = row["macro_f1"]
            image = axes.imshow(values, cmap="cividis_r", vmin=low, vmax=high, origin="lower", aspect="auto")
            _cells(axes, values, low, high)
            vertical, horizontal = axes_of[rows[0]["group"]]
            axes.set_xticks(np.arange(len(rightward)), [f"{value:g}" for value in rightward])
            axes.set_yticks(np.arange(len(upward)), [f"{value:g}" for value in upward])
            axes.set(xlabel=horizontal, ylabel=vertical)
            axes.set_title(f"At the {title}" if title in axes_of else title, loc="left", fontweight="bold")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        if image is not None:
            bar = drawn.colorbar(image, ax=grid.tolist(), fraction=0.04, pad=0.02, label="Macro F1 (%)")
            style.in_percent(bar.ax.yaxis)
            bar.outline.set_visible(False)
    return drawn


def plot_modes(data: Columns, *, names: Mapping[str, str] | None = None, width: float = style.FULL) -> Figure:
    """Draw two modes of every method as the ends of a line: macro F1 on the left, recall of neutral on the right.

    Args:
        data: As `featlab.analysis.ablation.table.ablation_data` gives it, its settings the modes.
        names: Method to display name.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    panels = panels_of(data)
    methods = list(dict.fromkeys(data["method"]))
    with style.house_style():
        drawn = style.figure(width, 0.6 + len(panels) * (0.2 * len(methods) + 0.45))
        grid = drawn.subplots(len(panels), 2, squeeze=False, sharex="col", sharey="row")
        for row_of_axes, (title, rows) in zip(grid, panels.items(), strict=True):
            settings = list(dict.fromkeys(row["setting"] for row in rows))
            for axes, score in zip(row_of_axes, ("macro_f1", "neutral_recall"), strict=True):
                for line, method in enumerate(methods):
                    mine = [row for row in rows if row["method"] == method]
                    ends = [row[score] for row in mine]
                    axes.plot(ends, [line] * len(ends), color="#BBBBBB", linewidth=1.5, zorder=1, label="_line")
                for order, setting in enumerate(settings):
                    mine = [row for row in rows if row["setting"] == setting]
                    axes.plot(
                        [row[score] for row in mine],
                        [methods.index(row["method"]) for row in mine],
                        linestyle="none",
                        marker=style.MARKERS[order],
                        color=style.COLOURS[order],
                        markersize=4.5,
                        label=setting,
                    )
                axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
                style.in_percent(axes.xaxis)
                axes.grid(axis="x")
            most = 30 if width >= style.FULL else 18
            row_of_axes[0].set_yticks(
                np.arange(len(methods)), [folded((names or {}).get(name, name), most) for name in methods]
            )
            row_of_axes[0].set_ylim(len(methods) - 0.5, -0.5)
            row_of_axes[0].set_title(title, loc="left", fontweight="bold")
        grid[-1][0].set_xlabel("Macro F1 (%)")
        grid[-1][1].set_xlabel("Neutral frames called neutral (%)")
        handles, labels = grid[0][0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return drawn


def _cells(axes: Axes, values: Any, low: float, high: float) -> None:
    for (line, column), value in np.ndenumerate(values):
        if value == value:
            strong = (value - low) / ((high - low) or 1.0)
            colour = "white" if strong > _DARK else "black"
            axes.text(column, line, f"{100 * value:.1f}", ha="center", va="center", color=colour, fontsize=6.5)

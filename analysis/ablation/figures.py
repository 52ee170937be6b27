"""Figures of ablations, a panel a data set and group: lines over numbers, bars, a surface of two weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style

Columns = Mapping[str, Sequence[Any]]  # As `featlab.analysis.ablation.report.ablation_data` gives them.
Rows = list[dict[str, Any]]  # The lines of one panel, each a dict of the columns.

_WIDE = 0.34
"""Methods stand side by side over this part of the way to the next setting, so that intervals don't cover."""
_THICK = 0.8  # Part of the way to the next setting that bars take.
_KEYS = 4  # Entries of a legend of methods on a line.
_DARK = 0.55  # Above this part of the colour scale, text is white.


def plot_lines(data: Columns, *, axis: str) -> Figure:
    """Draw macro F1 against the settings, one line a method with 95 % intervals."""
    panels, methods = _panels(data), _unique(data["method"])
    across = min(len(panels), 2)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.5 + 2.05 * math.ceil(len(panels) / across))
        grid = style.panels(drawn, len(panels), across)
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            settings = _unique(row["setting"] for row in rows)
            apart = _WIDE / max(1, len(methods) - 1)
            for method, look, mine, places in _series(rows, "method", methods, "setting", settings, apart):
                axes.plot(places, _column(mine, "macro_f1"), markersize=3.5, label=method, **look)
                axes.vlines(places, _column(mine, "low"), _column(mine, "high"), color=look["color"], lw=0.9, alpha=0.6)
            axes.set_title(title, loc="left", fontweight="bold")
            axes.set_xticks(range(len(settings)), [_tick(setting, rows) for setting in settings])
            axes.set_xlim(-0.5, len(settings) - 0.5)
            axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            style.in_percent(axes.yaxis)
            axes.grid(axis="y")
        drawn.supxlabel(axis, fontsize=7.5)
        for axes in grid[::across]:
            axes.set_ylabel("Macro F1 (%)")
        _legend(drawn, grid[0])
    return drawn


def plot_bars(data: Columns, scores: Mapping[str, str]) -> Figure:
    """Draw bars from 0, macro F1 with 95 % intervals; ``scores`` go side by side: key, what it is in words.

    A line is a setting and a bar a method, or the other way round where there are more methods.
    """
    panels, methods = _panels(data), _unique(data["method"])
    settings = _unique(data["setting"])
    down, by = ("setting", "method") if len(settings) > len(methods) else ("method", "setting")
    lines = [_unique(row[down] for row in rows) for rows in panels.values()]
    names = methods if by == "method" else settings
    # A bar is thick enough for the number at its end.
    heights = [(0.13 * len(names) + 0.05) * len(ticks) + 0.35 for ticks in lines]
    with style.house_style():
        drawn = style.figure(style.FULL, 0.7 + sum(heights))
        grid = drawn.subplots(len(panels), len(scores), squeeze=False, sharex=True, height_ratios=heights)
        for line, ticks, (title, rows) in zip(grid, lines, panels.items(), strict=True):
            thick = _THICK / len(names)
            for axes, score in zip(line, scores, strict=True):
                for name, look, mine, places in _series(rows, by, names, down, ticks, thick):
                    values, ends = _column(mine, score), _column(mine, score)
                    axes.barh(places, values, 0.94 * thick, color=look["color"], label=name)
                    if score == "macro_f1":
                        low, high = _column(mine, "low"), _column(mine, "high")
                        axes.hlines(places, low, high, color="black", linewidth=0.8)
                        ends = np.fmax(values, high)
                    for end, place, value in zip(ends, places, values, strict=True):
                        axes.text(end + 0.01, place, f"{100 * value:.1f}", va="center_baseline", fontsize=6.5)
                style.names_down(axes, ticks)
                axes.tick_params(labelleft=axes is line[0])
                axes.set_xlim(0, 1.12)
                axes.set_xticks(np.arange(0, 1.01, 0.2))
                style.in_percent(axes.xaxis)
            line[0].set_title(title, loc="left", fontweight="bold")
        for axes, words in zip(grid[-1], scores.values(), strict=True):
            axes.set_xlabel(words)
        _legend(drawn, grid[0, 0])
    return drawn


def plot_surface(data: Columns, *, weights: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw macro F1 over two weights on one colour scale; ``weights`` names a group's (vertical, horizontal)."""
    panels = _panels(data)
    # One bad cell doesn't take all the colours: what is worse than nine in ten looks like the tenth.
    low, high = (float(np.nanpercentile(data["macro_f1"], share)) for share in (10, 100))
    across = min(len(panels), 2)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.2 + math.ceil(len(panels) / across) * (0.42 * style.FULL / across + 0.75))
        grid = style.panels(drawn, len(panels), across)
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            places = [tuple(float(part) for part in row["at"].split(";")) for row in rows]
            upward, rightward = (sorted({place[part] for place in places}) for part in (0, 1))
            values = np.full((len(upward), len(rightward)), np.nan)
            for (first, second), row in zip(places, rows, strict=True):
                values[upward.index(first), rightward.index(second)] = row["macro_f1"]
            image = axes.imshow(values, cmap="cividis_r", vmin=low, vmax=high, origin="lower", aspect="auto")
            for (line, column), value in np.ndenumerate(values):
                colour = "white" if (value - low) / ((high - low) or 1.0) > _DARK else "black"
                number = "" if math.isnan(value) else f"{100 * value:.1f}"
                axes.text(column, line, number, ha="center", va="center", fontsize=6.5, color=colour)
            vertical, horizontal = weights[rows[0]["group"]]
            axes.set_title(title, loc="left", fontweight="bold")
            axes.set_xticks(range(len(rightward)), [f"{value:g}" for value in rightward])
            axes.set_yticks(range(len(upward)), [f"{value:g}" for value in upward])
            axes.set(xlabel=horizontal, ylabel=vertical)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        bar = drawn.colorbar(image, ax=grid, fraction=0.04, pad=0.02, label="Macro F1 (%)", extend="min")
        style.in_percent(bar.ax.yaxis)
        bar.outline.set_visible(False)
    return drawn


def _panels(data: Columns) -> dict[str, Rows]:
    """Return title to the rows of each panel: one a data set and group."""
    several = len(set(data["data"])) > 1
    panels: dict[str, Rows] = {}
    for values in zip(*data.values(), strict=True):
        row = dict(zip(data, values, strict=True))
        parts = [row["data"] if several else "", row["group"]]
        panels.setdefault(" · ".join(part for part in parts if part), []).append(row)
    return panels


def _series(
    rows: Rows, by: str, names: Sequence[str], along: str, ticks: Sequence[str], apart: float
) -> Iterator[tuple[str, dict[str, Any], Rows, list[float]]]:
    """Yield each name's look, its rows, and where they stand, side by side around their ticks."""
    for order, name in enumerate(names):
        place = order % len(style.COLOURS)
        look = {"color": style.COLOURS[place], "marker": style.MARKERS[place]}
        mine = [row for row in rows if row[by] == name]
        shift = (order - (len(names) - 1) / 2) * apart
        yield name, look, mine, [ticks.index(row[along]) + shift for row in mine]


def _column(rows: Rows, name: str) -> Any:
    return np.array([row[name] for row in rows])


def _legend(drawn: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        drawn.legend(handles, labels, loc="outside upper center", ncols=_KEYS)


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _tick(setting: str, rows: Rows) -> str:
    """Return a setting in two lines where it has a bracket, and say where there were fewer features than asked for."""
    kept = max(row["features"] for row in rows if row["setting"] == setting)
    if setting.isdecimal() and 0 < kept < int(setting):
        return f"{setting}\n({kept:,} there)"
    return setting.replace(" (", "\n(")

"""Figures of ablations, a panel a data set and group: lines, bars, dots, a surface of two weights, two modes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.style import folded

Columns = Mapping[str, Sequence[Any]]  # As `featlab.analysis.ablation.report.ablation_data` gives them.
Rows = list[dict[str, Any]]  # The lines of one panel, each a dict of the columns.

_METHODS_WIDE = 0.34
"""Methods stand side by side over this part of the way to the next setting, so that intervals don't cover."""
_BARS_WIDE = 0.78  # Part of the way to the next setting that bars take.
_KEYS = 4  # Entries of a legend of methods on a line.
_DARK = 0.55  # Above this part of the colour scale, text is white.


def plot_lines(data: Columns, *, axis: str) -> Figure:
    """Draw macro F1 against the settings, one line a method with 95 % intervals."""
    panels, methods = _panels(data), _unique(data["method"])
    across = min(len(panels), 2)
    step = _METHODS_WIDE / max(1, len(methods) - 1)
    height = 0.3 + 2.05 * math.ceil(len(panels) / across) + 0.14 * math.ceil(len(methods) / _KEYS)
    with style.house_style():
        drawn = style.figure(style.FULL, height)
        grid = _axes(drawn, panels, across)
        for axes, rows in zip(grid, panels.values(), strict=True):
            settings = _unique(row["setting"] for row in rows)
            for method, look, mine, places, score in _series(rows, "method", methods, "setting", settings, step):
                axes.plot(places, score, markersize=3.5, label=method, **look)
                _intervals(axes, places, mine, color=look["color"], linewidth=0.9, alpha=0.6)
            axes.set_xticks(np.arange(len(settings)), [_tick(setting, rows) for setting in settings])
            axes.set_xlim(-0.5, len(settings) - 0.5)
            _percent(axes.yaxis)
            axes.grid(axis="y")
        drawn.supxlabel(axis, fontsize=7.5)
        for axes in grid[::across]:
            axes.set_ylabel("Macro F1 (%)")
        _legend(drawn, grid[0], _KEYS)
    return drawn


def plot_bars(data: Columns) -> Figure:
    """Draw macro F1 as bars from 0 with 95 % intervals, settings side by side within a method."""
    panels = _panels(data)
    across = min(len(panels), 2)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.25 + 1.95 * math.ceil(len(panels) / across))
        grid = _axes(drawn, panels, across, sharey=True)
        for axes, rows in zip(grid, panels.values(), strict=True):
            settings, methods = (_unique(row[name] for row in rows) for name in ("setting", "method"))
            thick = _BARS_WIDE / len(settings)
            for setting, look, mine, places, score in _series(rows, "setting", settings, "method", methods, thick):
                axes.bar(places, score, 0.94 * thick, color=look["color"], label=setting)
                _intervals(axes, places, mine, color="black", linewidth=0.8)
                for x, row in zip(places, mine, strict=True):
                    top = row["macro_f1"] if math.isnan(row["high"]) else row["high"]
                    axes.text(x, top + 0.015, f"{100 * row['macro_f1']:.1f}", ha="center", va="bottom", fontsize=6.5)
            axes.set_xticks(np.arange(len(methods)), _names(methods, 34 if across == 1 else 22))
            axes.set_ylim(0, 1.08)
            axes.set_yticks(np.arange(0, 1.01, 0.2))
            style.in_percent(axes.yaxis)
            axes.grid(axis="y")
        for axes in grid[::across]:
            axes.set_ylabel("Macro F1 (%)")
        _legend(drawn, grid[0])
    return drawn


def plot_dots(data: Columns, *, terms: Sequence[str] = ()) -> Figure:
    """Draw macro F1 as dots with 95 % intervals, one line a setting; with ``terms``, a matrix says which are on."""
    panels, methods = _panels(data), _unique(data["method"])
    lines = [_unique(row["setting"] for row in rows) for rows in panels.values()]
    height = (1.3 if terms else 0.55) + sum(0.19 * len(settings) + 0.32 for settings in lines)
    widths = (0.17 * len(terms), style.FULL - 2.2) if terms else (1,)
    heights = [len(settings) + 0.6 for settings in lines]
    with style.house_style():
        drawn = style.figure(style.FULL, height)
        ratios = {"width_ratios": widths, "height_ratios": heights}
        grid = drawn.subplots(len(panels), len(widths), squeeze=False, sharex="col", gridspec_kw=ratios)
        for line, (settings, (title, rows)) in enumerate(zip(lines, panels.items(), strict=True)):
            axes = grid[line, -1]
            for method, look, mine, places, score in _series(rows, "method", methods, "setting", settings, 0.26):
                _intervals(axes, places, mine, sideways=True, color=look["color"], linewidth=0.9, alpha=0.6)
                axes.plot(score, places, linestyle="none", markersize=4, label=method, **look)
            shown = settings if terms else [_with_parameters(setting, rows) for setting in settings]
            grid[line, 0].set_yticks(np.arange(len(settings)), shown)
            for part in grid[line]:
                part.set_ylim(len(settings) - 0.4, -0.6)
            if terms:
                axes.tick_params(labelleft=False, left=False)
                axes.set_yticks(np.arange(len(settings)))
                _matrix(grid[line, 0], rows, settings, terms, named=line == 0)
            axes.grid(axis="both" if terms else "x")
            _percent(axes.xaxis)
            axes.set_title(title, loc="left", fontweight="bold")
        grid[-1, -1].set_xlabel("Macro F1 (%)")
        if len(methods) > 1:
            _legend(drawn, grid[0, -1], 2)
    return drawn


def plot_surface(data: Columns, *, weights: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw macro F1 over two weights on one colour scale; ``weights`` names a group's (vertical, horizontal)."""
    panels = _panels(data)
    # One bad cell doesn't take all the colours: what is worse than nine in ten looks like the tenth.
    low, high = (float(np.nanpercentile(data["macro_f1"], share)) for share in (10, 100))
    across = min(len(panels), 2)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.2 + math.ceil(len(panels) / across) * (0.42 * style.FULL / across + 0.75))
        grid = _axes(drawn, panels, across)
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            places = [tuple(float(part) for part in row["at"].split(";")) for row in rows]
            upward, rightward = (sorted({place[part] for place in places}) for part in (0, 1))
            values = np.full((len(upward), len(rightward)), np.nan)
            for (first, second), row in zip(places, rows, strict=True):
                values[upward.index(first), rightward.index(second)] = row["macro_f1"]
            image = axes.imshow(values, cmap="cividis_r", vmin=low, vmax=high, origin="lower", aspect="auto")
            for (line, column), value in np.ndenumerate(values):
                if not math.isnan(value):
                    colour = "white" if (value - low) / ((high - low) or 1.0) > _DARK else "black"
                    number = f"{100 * value:.1f}"
                    axes.text(column, line, number, ha="center", va="center", fontsize=6.5, color=colour)
            vertical, horizontal = weights[rows[0]["group"]]
            axes.set_xticks(np.arange(len(rightward)), [f"{value:g}" for value in rightward])
            axes.set_yticks(np.arange(len(upward)), [f"{value:g}" for value in upward])
            axes.set(xlabel=horizontal, ylabel=vertical)
            if title in weights:
                axes.set_title(f"At the {title}", loc="left", fontweight="bold")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        bar = drawn.colorbar(image, ax=grid, fraction=0.04, pad=0.02, label="Macro F1 (%)", extend="min")
        style.in_percent(bar.ax.yaxis)
        bar.outline.set_visible(False)
    return drawn


def plot_modes(data: Columns) -> Figure:
    """Draw the modes of every method as the ends of a line: macro F1 on the left, recall of neutral on the right."""
    panels, methods = _panels(data), _unique(data["method"])
    with style.house_style():
        drawn = style.figure(style.FULL, 0.6 + len(panels) * (0.2 * len(methods) + 0.45))
        grid = drawn.subplots(len(panels), 2, squeeze=False, sharex="col", sharey="row")
        for pair, (title, rows) in zip(grid, panels.items(), strict=True):
            for axes, score in zip(pair, ("macro_f1", "neutral_recall"), strict=True):
                for line, method in enumerate(methods):
                    ends = [row[score] for row in rows if row["method"] == method]
                    axes.plot(ends, [line] * len(ends), color="#BBBBBB", linewidth=1.5, zorder=1, label="_line")
                settings = _unique(row["setting"] for row in rows)
                for setting, look, _, places, values in _series(rows, "setting", settings, "method", methods, 0, score):
                    axes.plot(values, places, linestyle="none", markersize=4.5, label=setting, **look)
                _percent(axes.xaxis, 6)
                axes.grid(axis="x")
            pair[0].set_yticks(np.arange(len(methods)), _names(methods, 30))
            pair[0].set_ylim(len(methods) - 0.5, -0.5)
            pair[0].set_title(title, loc="left", fontweight="bold")
        grid[-1][0].set_xlabel("Macro F1 (%)")
        grid[-1][1].set_xlabel("Neutral frames called neutral (%)")
        _legend(drawn, grid[0, 0])
    return drawn


def _panels(data: Columns) -> dict[str, Rows]:
    """Return title to the rows of each panel: one a data set and group."""
    rows = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    several = len(set(data["data"])) > 1
    panels: dict[str, Rows] = {}
    for row in rows:
        parts = [row["data"] if several else "", row["group"]]
        panels.setdefault(" · ".join(part for part in parts if part), []).append(row)
    return panels


def _series(
    rows: Rows, by: str, names: Sequence[str], along: str, ticks: Sequence[str], apart: float, score: str = "macro_f1"
) -> Iterator[tuple[str, dict[str, Any], Rows, list[float], list[float]]]:
    """Yield each name's look, its rows, where they stand side by side around their ticks, and their scores."""
    for order, name in enumerate(names):
        place = order % len(style.COLOURS)
        look = {"color": style.COLOURS[place], "marker": style.MARKERS[place]}
        mine = [row for row in rows if row[by] == name]
        shift = (order - (len(names) - 1) / 2) * apart
        yield name, look, mine, [ticks.index(row[along]) + shift for row in mine], [row[score] for row in mine]


def _axes(drawn: Figure, panels: Mapping[str, Rows], across: int, **options: Any) -> list[Axes]:
    """Return the axes, each with its panel's title."""
    grid = style.panels(drawn, len(panels), across, **options)
    for axes, title in zip(grid, panels, strict=True):
        axes.set_title(title, loc="left", fontweight="bold")
    return grid


def _intervals(axes: Axes, places: Sequence[float], rows: Rows, *, sideways: bool = False, **look: Any) -> None:
    for place, row in zip(places, rows, strict=True):
        ends, there = [row["low"], row["high"]], [place, place]
        axes.plot(*((ends, there) if sideways else (there, ends)), label="_interval", **look)


def _legend(drawn: Figure, axes: Axes, columns: int = 0) -> None:
    handles, labels = axes.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=columns or len(labels))


def _matrix(axes: Axes, rows: Rows, settings: Sequence[str], terms: Sequence[str], *, named: bool) -> None:
    """Draw a dot for each term of each setting, filled where the term is on."""
    on = {row["setting"]: row["at"].split(";") for row in rows}
    for line, setting in enumerate(settings):
        for place, term in enumerate(terms):
            fill = "black" if term in on[setting] else "white"
            axes.plot(place, line, marker="o", markersize=4.2, color=fill, markeredgecolor="#777777", label="_term")
    axes.set_xlim(-0.6, len(terms) - 0.4)
    axes.set_xticks(np.arange(len(terms)), terms if named else [""] * len(terms), rotation=60, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=1, labeltop=named)
    axes.spines[:].set_visible(False)


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _names(methods: Sequence[str], letters: int) -> list[str]:
    return [folded(name, letters) for name in methods]


def _with_parameters(setting: str, rows: Rows) -> str:
    """Return a setting with the number of parameters that adapt, where that is known."""
    most = max(row["trainable"] for row in rows if row["setting"] == setting)
    return setting if math.isnan(most) else f"{setting} ({most:,.0f})"


def _tick(setting: str, rows: Rows) -> str:
    """Return a setting in two lines where it has a bracket, and say where there were fewer features than asked for."""
    kept = max(row["features"] for row in rows if row["setting"] == setting)
    if setting.isdecimal() and 0 < kept < int(setting):
        return f"{setting}\n({kept:,} there)"
    return setting.replace(" (", "\n(")


def _percent(axis: Axis, ticks: int = 8) -> None:
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    style.in_percent(axis)

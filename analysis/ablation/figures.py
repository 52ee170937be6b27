"""Figures of ablations over one setting: lines where settings are ordered, bars and dots where they are names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import folded
from featlab.errors import InputError

__all__ = [
    "Panel",
    "panels_of",
    "plot_bars",
    "plot_dots",
    "plot_lines",
    "plot_modes",
    "plot_surface",
]

_SPREAD = 0.34
"""Methods stand side by side over this part of the way to the next setting, so that intervals don't cover."""
_BARS = 0.78
"""Part of the way to the next setting that bars take."""

Columns = Mapping[str, Sequence[Any]]
Panel = list[dict[str, Any]]
"""The rows of one panel, each a dict of the columns."""


def panels_of(data: Columns) -> dict[str, Panel]:
    """Return title to the rows of each panel: one a (data set, group).

    Args:
        data: As `featlab.analysis.ablation.report.ablation_data` gives it.

    Raises:
        InputError: No rows.
    """
    rows = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    if not rows:
        raise InputError("no results to draw; run the ablation first")
    several = len({row["data"] for row in rows}) > 1
    panels: dict[str, Panel] = {}
    for row in rows:
        parts = [row["data"] if several else "", row["group"]]
        panels.setdefault(" · ".join(part for part in parts if part), []).append(row)
    return panels


def plot_lines(
    data: Columns, *, axis: str, names: Mapping[str, str] | None = None, width: float = style.FULL
) -> Figure:
    """Draw macro F1 against the settings, one line a method with 95 % intervals, one panel a data set and group.

    Args:
        data: As `featlab.analysis.ablation.report.ablation_data` gives it.
        axis: Beneath the panels.
        names: Method to display name.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    panels = panels_of(data)
    methods = list(dict.fromkeys(data["method"]))
    across = 1 if len(panels) == 1 or width < style.FULL else 2
    down = math.ceil(len(panels) / across)
    legend_across = 4 if width >= style.FULL else 1
    step = _SPREAD / max(1, len(methods) - 1)
    with style.house_style():
        drawn = style.figure(width, 0.3 + 2.05 * down + 0.14 * math.ceil(len(methods) / legend_across))
        grid = drawn.subplots(down, across, squeeze=False).ravel()
        for axes, (title, rows) in zip(grid, panels.items(), strict=False):
            settings = list(dict.fromkeys(row["setting"] for row in rows))
            for order, method in enumerate(methods):
                mine = [row for row in rows if row["method"] == method]
                place = [settings.index(row["setting"]) + (order - (len(methods) - 1) / 2) * step for row in mine]
                look = _look(order)
                label = (names or {}).get(method, method)
                axes.plot(place, [row["macro_f1"] for row in mine], markersize=3.5, label=label, **look)
                for x, row in zip(place, mine, strict=True):
                    interval = (row["low"], row["high"])
                    axes.plot([x, x], interval, color=look["color"], linewidth=0.9, alpha=0.6, label="_interval")
            axes.set_xticks(np.arange(len(settings)), [_tick(setting, rows) for setting in settings])
            axes.set_xlim(-0.5, len(settings) - 0.5)
            _percent(axes.yaxis)
            axes.grid(axis="y")
            axes.set_title(title, loc="left", fontweight="bold")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        drawn.supxlabel(axis, fontsize=7.5)
        for axes in grid[::across]:
            axes.set_ylabel("Macro F1 (%)")
        handles, labels = grid[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=legend_across)
    return drawn


def plot_bars(data: Columns, *, names: Mapping[str, str] | None = None, width: float = style.FULL) -> Figure:
    """Draw macro F1 as bars from 0 with 95 % intervals, settings side by side within a method; a panel a data set.

    Args:
        data: As `featlab.analysis.ablation.report.ablation_data` gives it.
        names: Method to display name.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    panels = panels_of(data)
    across = min(len(panels), 1 if width < style.FULL else 2)
    down = math.ceil(len(panels) / across)
    with style.house_style():
        drawn = style.figure(width, 0.25 + 1.95 * down)
        grid = drawn.subplots(down, across, squeeze=False, sharey=True).ravel()
        for axes, (title, rows) in zip(grid, panels.items(), strict=False):
            settings = list(dict.fromkeys(row["setting"] for row in rows))
            methods = list(dict.fromkeys(row["method"] for row in rows))
            thick = _BARS / len(settings)
            for order, setting in enumerate(settings):
                mine = [row for row in rows if row["setting"] == setting]
                place = [methods.index(row["method"]) + (order - (len(settings) - 1) / 2) * thick for row in mine]
                height = [row["macro_f1"] for row in mine]
                axes.bar(place, height, 0.94 * thick, color=style.COLOURS[order], label=setting)
                for x, row in zip(place, mine, strict=True):
                    axes.plot([x, x], (row["low"], row["high"]), color="black", linewidth=0.8, label="_interval")
                    top = row["macro_f1"] if math.isnan(row["high"]) else row["high"]
                    axes.text(x, top + 0.015, f"{100 * row['macro_f1']:.1f}", ha="center", va="bottom", fontsize=6.5)
            most = 34 if across == 1 else 22
            axes.set_xticks(np.arange(len(methods)), [folded((names or {}).get(name, name), most) for name in methods])
            axes.set_ylim(0, 1.08)
            axes.set_yticks(np.arange(0, 1.01, 0.2))
            style.in_percent(axes.yaxis)
            axes.grid(axis="y")
            axes.set_title(title, loc="left", fontweight="bold")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[::across]:
            axes.set_ylabel("Macro F1 (%)")
        handles, labels = grid[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return drawn


def plot_dots(
    data: Columns,
    *,
    names: Mapping[str, str] | None = None,
    terms: Sequence[str] = (),
    width: float = style.FULL,
) -> Figure:
    """Draw macro F1 as dots with 95 % intervals, one line a setting; with ``terms``, a matrix says which are on.

    Args:
        data: As `featlab.analysis.ablation.report.ablation_data` gives it; with ``terms`` its column ``at`` names those
            that are on.
        names: Method to display name.
        terms: Loss terms.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    panels = panels_of(data)
    methods = list(dict.fromkeys(data["method"]))
    lines = {title: list(dict.fromkeys(row["setting"] for row in rows)) for title, rows in panels.items()}
    head = 0.75 if terms else 0.0
    height = 0.55 + head + sum(0.19 * len(found) + 0.32 for found in lines.values())
    with style.house_style():
        drawn = style.figure(width, height)
        ratios = (0.17 * len(terms), width - 2.2) if terms else (1,)
        grid = drawn.subplots(
            len(panels),
            len(ratios),
            squeeze=False,
            sharex="col",
            gridspec_kw={"width_ratios": ratios, "height_ratios": [len(found) + 0.6 for found in lines.values()]},
        )
        for number, (title, rows) in enumerate(panels.items()):
            row_of_axes = grid[number]
            axes = row_of_axes[-1]
            settings = lines[title]
            for order, method in enumerate(methods):
                shift = (order - (len(methods) - 1) / 2) * 0.26
                look = _look(order)
                mine = [row for row in rows if row["method"] == method]
                place = [settings.index(row["setting"]) + shift for row in mine]
                for y, row in zip(place, mine, strict=True):
                    interval = (row["low"], row["high"])
                    axes.plot(interval, [y, y], color=look["color"], linewidth=0.9, alpha=0.6, label="_interval")
                label = (names or {}).get(method, method)
                score = [row["macro_f1"] for row in mine]
                axes.plot(score, place, linestyle="none", markersize=4, label=label, **look)
            shown = settings if terms else [_with_parameters(setting, rows) for setting in settings]
            row_of_axes[0].set_yticks(np.arange(len(settings)), shown)
            for part in row_of_axes:
                part.set_ylim(len(settings) - 0.4, -0.6)
            if terms:
                axes.tick_params(labelleft=False, left=False)
                axes.set_yticks(np.arange(len(settings)))
                _matrix(row_of_axes[0], rows, settings, terms, named=number == 0)
            axes.grid(axis="both" if terms else "x")
            _percent(axes.xaxis)
            axes.set_title(title, loc="left", fontweight="bold")
        grid[-1][-1].set_xlabel("Macro F1 (%)")
        if len(methods) > 1:
            handles, labels = grid[0][-1].get_legend_handles_labels()
            drawn.legend(handles, labels, loc="outside upper center", ncols=2 if width >= style.FULL else 1)
    return drawn


def _matrix(axes: Axes, rows: Panel, settings: Sequence[str], terms: Sequence[str], *, named: bool) -> None:
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


def _with_parameters(setting: str, rows: Panel) -> str:
    """Return a setting with the number of parameters that adapt, where that is known."""
    counts = {row["trainable"] for row in rows if row["setting"] == setting}
    most = max(counts, default=math.nan)
    return setting if math.isnan(most) else f"{setting} ({most:,.0f})"


def _look(order: int) -> dict[str, Any]:
    return {
        "color": style.COLOURS[order % len(style.COLOURS)],
        "marker": style.MARKERS[order % len(style.MARKERS)],
    }


def _percent(axis: Any) -> None:
    axis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    style.in_percent(axis)


def _tick(setting: str, rows: Panel) -> str:
    """Return a setting in two lines where it has a bracket, and say where there were fewer features than asked for."""
    kept = {row["features"] for row in rows if row["setting"] == setting}
    if setting.isdecimal() and 0 < max(kept) < int(setting):
        return f"{setting}\n({max(kept):,} there)"
    return setting.replace(" (", "\n(")


_DARK = 0.55
"""Above this part of the colour scale, text is white."""


def plot_surface(data: Columns, *, axes_of: Mapping[str, tuple[str, str]], width: float = style.FULL) -> Figure:
    """Draw macro F1 over a grid of two weights, one panel a data set and group, all on one colour scale.

    Args:
        data: As `featlab.analysis.ablation.report.ablation_data` gives it, one method; ``at`` holds the two weights.
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
        data: As `featlab.analysis.ablation.report.ablation_data` gives it, its settings the modes.
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

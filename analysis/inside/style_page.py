"""The results folder of `featlab plot style`: a figure a method, the distances as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import folded
from featlab.analysis.inside.style_shift import SPREAD, STATISTICS, StyleShift
from featlab.analysis.page import DrawnFigure, Result, safe_name, write_result
from featlab.analysis.table import MISSING, Table, number_text
from featlab.methods import get_method

__all__ = [
    "plot_style",
    "style_table",
    "style_words",
    "write_style",
]

_NAMES = {"mean": "mean", "std": "standard deviation"}
_SAME = 0.005


def style_table(shifts: Sequence[StyleShift]) -> Table:
    """Return one line a method, layer and statistic: median distances, and how many are within the source's spread."""
    rows = tuple(
        (
            get_method(shift.method).title,
            layer,
            _NAMES[statistic],
            *(
                number_text(_median(shift, (layer, statistic), group, side), 2)
                for group in ("adapted rows", "other rows")
                for side in ("before", "after")
            ),
            number_text(_median(shift, (layer, statistic), "source moved", "after"), 2),
            *(_within_text(shift, (layer, statistic), side) for side in ("before", "after")),
        )
        for shift in shifts
        for layer, statistic in shift.units
    )
    return Table(
        title="Distance from the source's style",
        columns=(
            "Method",
            "Layer",
            "Statistic",
            "Adapted rows, before",
            "Adapted rows, after",
            "Other rows, before",
            "Other rows, after",
            "Source people, moved",
            "Within, before",
            "Within, after",
        ),
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=(
            "Medians over targets; 1 is the distance of a typical source person, as they are.",
            "Adapted rows come near by construction; the other neutral rows of a target the method has never seen.",
            "Source people moved: each by half of their neutral clips, measured on the others.",
            f"Within: targets no farther away, in their other rows, than {SPREAD:g} % of the source people.",
        ),
        text_columns=3,
        grouped=True,
    )


def style_words(shift: StyleShift) -> list[str]:
    """Return what one method's numbers say, a sentence a layer and statistic."""
    name = get_method(shift.method).title
    words = []
    for key in shift.units:
        layer, statistic = key
        start = f"{name}, {layer}, {_NAMES[statistic]}: "
        adapted = [_median(shift, key, "adapted rows", side) for side in ("before", "after")]
        other = [_median(shift, key, "other rows", side) for side in ("before", "after")]
        if np.isnan(other[0]):
            words.append(f"{start}{adapted[0]:.2f} before; no target has neutral rows that were not adapted on.")
        elif all(abs(after - before) < _SAME for before, after in (adapted, other)):
            words.append(f"{start}stays at {other[1]:.2f} of a typical source person's distance.")
        else:
            words.append(
                f"{start}from {other[0]:.2f} to {other[1]:.2f} of a typical source person's distance on rows that were "
                f"not adapted on ({adapted[1]:.2f} on those that were){_beside(shift, key)}. "
                f"{_within_text(shift, key, 'after')} targets end up within the source people's spread, where "
                f"{_within(shift, key, 'before')} had been before."
            )
    return words


def write_style(folder: Path, shifts: Sequence[StyleShift], command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write a figure a method, the table and the words into a folder.

    Args:
        folder: Where; made if missing.
        shifts: From `featlab.analysis.inside.style_shift.style_shift`, a method each.
        command: What was typed.
        facts: From `featlab.evaluation.results.run_facts`.

    Returns:
        The files.
    """
    from featlab.analysis.inside.style_page import plot_style

    figures = []
    for shift in shifts:
        name = get_method(shift.method).title
        caption = (
            "Distance of each target's neutral style (mean; standard deviation) from the source's centre, before "
            f"and after {name}; 1 is a typical source person. Left in a panel the rows that were adapted on, right the "
            "other neutral rows. Grey: 90 % of the source people as they are; green: 90 % of them, each moved "
            "by half of their neutral clips and measured on the others."
        )
        figures.append(
            DrawnFigure(
                f"style-{safe_name(shift.method)}",
                f"Style before and after {name}",
                caption,
                plot_style(shift),
                shift.columns,
            )
        )
    return write_result(
        folder,
        Result(
            kind="plot",
            title="How far targets are from the source's style",
            summary=[word for shift in shifts for word in style_words(shift)],
            tables={"style": style_table(shifts)},
            figures=figures,
            metadata=facts,
        ),
        command,
    )


def _median(shift: StyleShift, key: tuple[str, str], group: str, side: str) -> float:
    values = shift.values(*key, group, side)
    return float(np.median(values)) if len(values) else float("nan")


def _within(shift: StyleShift, key: tuple[str, str], side: str) -> int:
    return int((shift.values(*key, "other rows", side) <= shift.limit(*key)).sum())


def _within_text(shift: StyleShift, key: tuple[str, str], side: str) -> str:
    targets = len(shift.values(*key, "other rows"))
    return f"{_within(shift, key, side)} of {targets}" if targets else MISSING


def _beside(shift: StyleShift, key: tuple[str, str]) -> str:
    moved = _median(shift, key, "source moved", "after")
    return "" if np.isnan(moved) else f"; source people moved likewise come to {moved:.2f}"


_STARTS = {"adapted rows": 0.0, "other rows": 2.6}
"""Where on the x axis the slopes of a group begin; they are 1 wide."""
_MOVED = 4.5
"""Where the source people who were moved stand."""
_LETTERS = 20
"""Longest line of a label beside a panel."""
_BAND = "#DDDDDD"
_LOOKS: Mapping[str, dict[str, Any]] = {
    "nearer": {"color": style.GAIN, "linestyle": "-", "linewidth": 0.8, "marker": "o", "markersize": 2},
    "farther": {"color": style.LOSS, "linestyle": "--", "linewidth": 0.8, "marker": "o", "markersize": 2},
    "same": {"color": "#666666", "linestyle": ":", "linewidth": 0.8, "marker": "o", "markersize": 2},
}
_WORDS = {"nearer": "a target, nearer after", "farther": "a target, farther after", "same": "a target, as before"}


def plot_style(shift: StyleShift) -> Figure:
    """Draw a column of panels a layer, a row a statistic; in each every target before and after.

    On the left the rows that were adapted on, on the right the other neutral rows. Blue lines come nearer, vermilion
    ones go farther away; black is the median. The grey band is where 90 % of the source people are as they are, the bar
    at the right edge where they are after they were moved as a target is.

    Args:
        shift: From `featlab.analysis.inside.style_shift.style_shift`.
    """
    statistics = [name for name in STATISTICS if any((layer, name) in shift.units for layer in shift.layers)]
    with style.house_style():
        drawn = style.figure(style.FULL, 0.75 + 1.75 * len(statistics))
        grid = drawn.subplots(len(statistics), len(shift.layers), sharey="row", squeeze=False)
        for down, statistic in enumerate(statistics):
            for across, layer in enumerate(shift.layers):
                panel = grid[down, across]
                if (layer, statistic) in shift.units:
                    _panel(panel, shift, layer, statistic)
                else:
                    panel.text(0.5, 0.5, "no difference\nto measure by", transform=panel.transAxes, ha="center")
                    panel.set(xticks=[])
                if not down:
                    panel.set_title(layer, fontweight="bold")
            label = folded(f"Distance of the {_NAMES[statistic]}", _LETTERS)
            grid[down, 0].set_ylabel(f"{label}\n(source person = 1)")
            # The limits are one for the row: only now does it know of all its panels.
            grid[down, 0].set_ylim(bottom=0.0)
        drawn.legend(handles=_handles(shift), loc="outside lower center", ncols=3, handlelength=1.8)
    return drawn


def _panel(panel: Axes, shift: StyleShift, layer: str, statistic: str) -> None:
    as_they_are = shift.values(layer, statistic, "source", "before")
    low, high = np.percentile(as_they_are, [100 - SPREAD, SPREAD])
    panel.axhspan(low, high, color=_BAND, alpha=0.6, linewidth=0, zorder=0, label="_band")
    panel.axhline(1.0, color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1, label="_unit")
    for group, start in _STARTS.items():
        before, after = (shift.values(layer, statistic, group, side) for side in ("before", "after"))
        for left, right in zip(before, after, strict=True):
            kind = _kind(left, right)
            panel.plot(
                [start, start + 1],
                [left, right],
                alpha=0.6,
                zorder=2,
                label=f"_{group}",
                **_LOOKS[kind],
            )
        if not len(before):
            panel.text(start + 0.5, 0.5, "no rows", transform=panel.get_xaxis_transform(), ha="center", fontsize=6.5)
            continue
        medians = [float(np.median(before)), float(np.median(after))]
        panel.plot(
            [start, start + 1],
            medians,
            color="black",
            linewidth=1.8,
            marker="o",
            zorder=4,
            clip_on=False,
            label="_median",
        )
        for place, value, away, side in zip((start, start + 1), medians, (-3, 3), ("right", "left"), strict=True):
            panel.annotate(
                f"{value:.2f}",
                (place, value),
                (away, -1),
                textcoords="offset points",
                ha=side,
                va="bottom",
                fontsize=6.5,
                fontweight="bold",
                zorder=5,
            )
    moved = shift.values(layer, statistic, "source moved")
    if len(moved):
        ends = np.percentile(moved, [100 - SPREAD, SPREAD])
        look: dict[str, Any] = {"color": style.COLOURS[2], "zorder": 3, "clip_on": False}
        panel.plot([_MOVED, _MOVED], ends, linewidth=2.4, solid_capstyle="butt", label="_moved", **look)
        panel.plot([_MOVED], [float(np.median(moved))], "s", markersize=4, label="_moved median", **look)
    ticks = [place for start in _STARTS.values() for place in (start, start + 1)]
    panel.set_xlim(-0.75, _MOVED + 0.15)
    panel.set_xticks(ticks, ["before", "after"] * len(_STARTS))
    for group, start in _STARTS.items():
        panel.annotate(
            group,
            (start + 0.5, 0),
            (0, -13),
            xycoords=panel.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
        )
    panel.yaxis.set_major_locator(MaxNLocator(5))


def _kind(before: float, after: float) -> str:
    return "same" if abs(after - before) < _SAME else "farther" if after > before else "nearer"


def _handles(shift: StyleShift) -> list[Any]:
    pairs = zip(*(shift.columns[name] for name in ("group", "before", "after")), strict=True)
    found = {_kind(before, after) for group, before, after in pairs if group in _STARTS}
    return [
        *(Line2D([], [], **look, label=_WORDS[kind]) for kind, look in _LOOKS.items() if kind in found),
        Line2D([], [], color="black", marker="o", linewidth=1.8, label="median target"),
        Patch(facecolor=_BAND, label="source people as they are (90 %)"),
        Line2D([], [], color=style.COLOURS[2], marker="s", linewidth=2.4, label="source people moved (90 %)"),
    ]

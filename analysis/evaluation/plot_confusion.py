"""Confusion matrices side by side, on one colour scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from featlab.analysis import style
from featlab.analysis.evaluation.confusion import Confusion
from featlab.analysis.evaluation.methods import ACCESS_NOTE, figure_name
from featlab.analysis.style import folded
from featlab.errors import InputError

_COLOURS = colormaps["Blues"]
"""White is 0, and dark blue 100 %."""
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_EVEN = 0.179
"""Luminance on which black and white letters have the same contrast, WCAG 2.1."""
_SMALLEST_CELL, _COLUMN_CELL, _LARGEST_CELL = 0.2, 0.25, 0.85
"""Side of a cell, inches: three digits go into the smallest; a column is wide enough for the second."""
_TITLED = 0.85
"""Width of a panel, inches, above which a title has room."""
_ROOM_FOR_DECIMALS = 0.32
_LARGEST_PANEL = 2.5
_LETTER, _TITLE_LETTER = 0.055, 0.07
"""Width of a letter, inches, of a class's name and of a title."""
_NAME_LETTERS = 14
"""Longest line of a class's name."""


def plot_confusion(confusions: Sequence[Confusion], classes: Sequence[str]) -> Figure:
    """Draw one panel a method: true classes down, predicted ones across, shares of the true class in percent.

    White is 0 and the darkest blue 100 % in every panel. A class that no subject shows has dashes.
    """
    if not confusions:
        raise InputError("no confusions to draw; run the evaluation again")
    if any(item.share.shape != (len(classes), len(classes)) for item in confusions):
        raise InputError(f"{len(classes)} names for confusions of {confusions[0].share.shape[0]} classes")
    shown = [folded(name, _NAME_LETTERS) for name in classes]
    look = _Layout.of(len(confusions), shown)
    letters = max(15, int(look.panel / _TITLE_LETTER))
    titles = [folded(figure_name(item.method, item.selection), letters) for item in confusions]
    above = 0.13 * max(1 + title.count("\n") for title in titles)
    access = any(item.selection == "source-access" for item in confusions)
    with style.house_style():
        drawn = style.figure(look.width, look.down * (look.panel + above + 0.12) + look.below + 0.12 * access)
        axes = drawn.subplots(look.down, look.across, squeeze=False)
        for place, (item, title) in enumerate(zip(confusions, titles, strict=True)):
            panel = axes.flat[place]
            mesh = _matrix(panel, item, decimals=1 if look.cell > _ROOM_FOR_DECIMALS else 0)
            panel.set_title(title, fontweight="bold", fontsize=7.5)
            _name_classes(panel, shown, tilted=look.tilted)
            # The names stand where no other panel follows to the left or beneath.
            first, last = place % look.across == 0, place + look.across >= len(confusions)
            panel.tick_params(labelleft=first, labelbottom=last)
            panel.set(xlabel="Predicted class" if last else "", ylabel="True class" if first else "")
        for panel in axes.flat[len(confusions) :]:
            panel.set_axis_off()
        if access:
            drawn.supxlabel(ACCESS_NOTE, fontsize=6.5, color="#444444", x=0.01, ha="left")
        # Inside the layout of a panel, so that it is as high as that.
        beside = axes[0, -1].inset_axes((1 + 0.12 / look.panel, 0, 0.09 / look.panel, 1))
        bar = drawn.colorbar(mesh, cax=beside, ticks=[0, 25, 50, 75, 100])
        bar.set_label("Share of the true class (%)" if look.panel > 1.5 else "Share of the\ntrue class (%)")
        bar.outline.set_visible(False)
    return drawn


@dataclass(frozen=True)
class _Layout:
    """Sizes, inches, and how many panels stand side by side and above one another.

    Attributes:
        width: Of the figure.
        across: Panels side by side.
        down: Rows of panels.
        cell: Side of a cell.
        panel: Side of a panel.
        tilted: Whether the names beneath are too long to lie side by side.
        below: Height of what is written beneath the last row.
    """

    width: float
    across: int
    down: int
    cell: float
    panel: float
    tilted: bool
    below: float

    @classmethod
    def of(cls, panels: int, names: Sequence[str]) -> _Layout:
        """Choose them for so many panels and class names."""
        count, longest = len(names), _LETTER * max(len(line) for name in names for line in name.split("\n"))
        taken = longest + 0.95
        width = style.COLUMN if style.COLUMN - taken >= panels * max(_COLUMN_CELL * count, _TITLED) else style.FULL
        across = panels
        while across > 1 and (width - taken) / across / count < _SMALLEST_CELL:
            across = math.ceil(across / 2)
        cell = min((width - taken) / across / count, _LARGEST_CELL, _LARGEST_PANEL / count)
        tilted = longest > cell
        below = 0.3 + (0.75 * longest if tilted else 0.13 * max(1 + name.count("\n") for name in names))
        return cls(width, across, math.ceil(panels / across), cell, cell * count, tilted, below)


def _matrix(axes: Axes, item: Confusion, decimals: int) -> QuadMesh:
    count = len(item.share)
    percent = 100 * item.share
    edges = np.arange(count + 1)
    mesh = axes.pcolormesh(edges, edges, percent, cmap=_COLOURS, vmin=0, vmax=100, edgecolor="#D8D8D8", linewidth=0.4)
    for label, predicted in np.ndindex(percent.shape):
        value = float(percent[label, predicted])
        axes.text(
            predicted + 0.5,
            label + 0.5,
            "–" if math.isnan(value) else f"{value:.{decimals}f}",
            ha="center",
            va="center_baseline",
            fontsize=6.5,
            color="black" if math.isnan(value) or _luminance(_COLOURS(value / 100)) > _EVEN else "white",
            fontweight="bold" if label == predicted else "normal",
        )
    axes.set_aspect("equal")
    axes.set_ylim(count, 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return mesh


def _name_classes(axes: Axes, names: Sequence[str], *, tilted: bool) -> None:
    middle = np.arange(len(names)) + 0.5
    axes.set_xticks(middle, names)
    axes.set_yticks(middle, names)
    if tilted:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")


def _luminance(colour: tuple[float, float, float, float]) -> float:
    """Return the relative luminance of WCAG 2.1: 0 is black, 1 is white."""
    rgb = np.array(colour[:3])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    return float(linear @ _LUMINANCE)

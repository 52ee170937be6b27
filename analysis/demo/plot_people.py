"""A contact sheet: who is in the data, at rest and with each expression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.errors import InputError

__all__ = ["plot_people"]

_GAP = 0.34
"""Height of a row of names, in faces."""


def plot_people(
    strips: Sequence[Sequence[NDArray[Any]]],
    titles: Sequence[str],
    names: Sequence[str],
    *,
    across: int = 10,
    width: float = style.FULL,
) -> Figure:
    """Draw people side by side, one row of faces a title; after ``across`` people a new block begins.

    Args:
        strips: For each title, one image a person: (H, W) grey or (H, W, 3) colour, uint8 or floats in [0, 1].
        titles: Of the rows, e.g. neutral, happiness.
        names: Of the people, above their faces.
        across: People side by side, at most.
        width: Inches.

    Raises:
        InputError: No people, or strips that do not fit titles and names.
    """
    if not names or len(strips) != len(titles) or any(len(strip) != len(names) for strip in strips):
        lengths = [len(strip) for strip in strips]
        raise InputError(f"a contact sheet needs {len(titles)} strips of {len(names)} images, got {lengths}")
    across = min(across, len(names))
    blocks = math.ceil(len(names) / across)
    cell = (width - 0.75) / across
    lines = blocks * (len(strips) + _GAP)
    with style.house_style():
        drawn = style.figure(width, lines * cell)
        # Placed by hand: a layout engine would leave uneven gaps between faces of one size.
        drawn.set_layout_engine("none")
        for place, name in enumerate(names):
            block, column = divmod(place, across)
            top = block * (len(strips) + _GAP) + _GAP
            left = (width - across * cell + column * cell) / width
            drawn.text(
                left + 0.5 * cell / width, 1 - (top - 0.05) / lines, name, ha="center", va="bottom", fontsize=6.5
            )
            for row, strip in enumerate(strips):
                box = (left, 1 - (top + row + 0.97) / lines, 0.97 * cell / width, 0.97 / lines)
                axes = drawn.add_axes(box, xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                image = np.asarray(strip[place])
                top_value = 255 if image.dtype == np.uint8 else 1.0
                axes.imshow(image, cmap="gray", vmin=0, vmax=top_value, aspect="auto", interpolation="antialiased")
                if column == 0:
                    middle = 1 - (top + row + 0.5) / lines
                    drawn.text(left - 0.06 / width, middle, titles[row], ha="right", va="center", fontweight="bold")
    return drawn

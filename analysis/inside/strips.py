"""Figures with faces in them: one video over time, and example pairs as strips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.style import folded

_LETTER = 0.075
"""Width of a bold letter of a title, inches."""
_SMALL_LETTER = 0.054
"""Width of a letter of a caption, inches."""
_LARGEST_FACE = 1.2
"""Side of a face in a strip, inches."""
_FEWEST = 6
"""Frames beneath a clip from which on they fill its width."""
_BESIDE_LEGEND = 40
"""Letters of a title that go beside the legend of a clip across a page."""

Image = NDArray[Any]
"""(H, W) grey or (H, W, 3) colour; uint8 or floats in [0, 1]."""
Probabilities = NDArray[np.floating[Any]]


def plot_clip(
    images: Sequence[Image | None] | None,
    before: Probabilities,
    after: Probabilities,
    labels: NDArray[np.integer[Any]],
    title: str,
    *,
    positive: str,
    frame_numbers: NDArray[np.integer[Any]],
    thumbnails: int = 9,
    threshold: float | None = 0.5,
    width: float = style.FULL,
) -> Figure:
    """Draw one video of n frames: the probability of a class over time before and after adaptation, frames beneath.

    ``labels`` are 1 where a frame truly shows the class ``positive`` (shaded), 0 where not, -1 unknown; frame numbers
    increase. The decision flips at ``threshold``, a dotted line; ``None`` where there is no such probability.
    """
    shown = 0 if images is None else min(thumbnails, len(before))
    # Few frames are no reason for large ones.
    below = 0.95 * width / max(shown, _FEWEST) if shown else 0.0
    # A title that would reach the legend gets a line of its own above it.
    above = width < style.FULL or len(title) > _BESIDE_LEGEND
    shade: dict[str, Any] = {"color": style.COLOURS[4], "alpha": 0.18, "linewidth": 0}
    with style.house_style():
        drawn = style.figure(width, 1.9 + below)
        grid = drawn.add_gridspec(2, shown, height_ratios=(1.6, below), wspace=0) if shown else None
        axes = drawn.add_subplot(grid[0, :]) if grid is not None else drawn.subplots()
        edges = (float(frame_numbers[0]) - 0.5, float(frame_numbers[-1]) + 0.5)
        for start, end in _spans(labels == 1, frame_numbers):
            axes.axvspan(start, end, label="_span", **shade)
        if threshold is not None:
            axes.axhline(threshold, color="#BBBBBB", linewidth=0.6, linestyle=":", label="_half")
        axes.plot(frame_numbers, before, color=style.MUTED, linestyle="--", label="before")
        axes.plot(frame_numbers, after, color=style.GAIN, label="after")
        if (labels == 1).any():
            axes.fill_between([], [], label=f"true {positive}", **shade)
        axes.set(xlim=edges, ylim=(-0.03, 1.03), ylabel=f"p({positive})", xlabel="frame")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
        axes.set_title(folded(title, int(width / _LETTER)), loc="left", fontweight="bold", pad=19 if above else None)
        if grid is not None and images is not None:
            for place in range(shown):
                # Evenly over the axis above, so that a face stands beneath its moment.
                moment = edges[0] + (place + 0.5) / shown * (edges[1] - edges[0])
                frame = int(np.abs(frame_numbers - moment).argmin())
                number = int(frame_numbers[frame])
                axes.axvline(number, ymax=0.04, color="black", linewidth=0.8, label="_thumbnail")
                _face(drawn.add_subplot(grid[1, place]), images[frame], str(number))
    return drawn


def plot_pairs(
    strips: Sequence[Sequence[Image | None]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    width: float = style.FULL,
) -> Figure:
    """Draw strips of images with short texts beneath each; without a single image, the captions stand alone."""
    across = len(strips[0])
    cell = (width - 0.7) / across
    side = min(cell, _LARGEST_FACE)
    texts = [[_lines(text, cell) for text in strip] for strip in captions]
    depths = [max(1 + text.count("\n") if text else 0 for text in strip) for strip in texts]
    heights = [0.13 + 0.115 * (depth - 1) if depth else 0.0 for depth in depths]
    pictured = any(image is not None for strip in strips for image in strip)
    with style.house_style():
        drawn = style.figure(width, sum(heights) + len(strips) * ((side + 0.03) if pictured else 0.1))
        ratios = None if pictured else [height + 0.1 for height in heights]
        axes = drawn.subplots(len(strips), across, squeeze=False, height_ratios=ratios)
        for place, (title, strip, text) in enumerate(zip(titles, strips, texts, strict=True)):
            for column in range(across):
                panel = axes[place, column]
                if pictured:
                    _face(panel, strip[column], text[column])
                    if depths[place] > 1:
                        # The layout measures a caption before the face has become square, from the bottom of its place.
                        panel.set_anchor("S")
                else:
                    _bare(panel)
                    panel.text(
                        0.5, 0.5, text[column], transform=panel.transAxes, ha="center", va="center", fontsize=6.5
                    )
            axes[place, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontweight="bold")
        drawn.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    return drawn


def _lines(text: str, cell: float) -> str:
    """Return a caption with its lines folded to the width of a cell, after the signs that join the parts of a name."""
    most = max(4, int(cell / _SMALL_LETTER))
    lines = []
    for line in text.split("\n"):
        lines.append("")
        for part in re.findall(r"[^_\-. ]+[_\-. ]*|[_\-. ]+", line):
            pieces = [part[start : start + most] for start in range(0, len(part), most)]
            if len(lines[-1] + part) > most and lines[-1]:
                lines.append("")
            lines[-1] += pieces[0]
            lines += pieces[1:]
    return "\n".join(lines)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _face(axes: Axes, image: Image | None, caption: str) -> None:
    _bare(axes)
    if caption:
        axes.set_xlabel(caption, fontsize=6.5, labelpad=1.5)
    if image is None:
        axes.set_facecolor("#EEEEEE")
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center", va="center", color=style.MUTED)
        return
    top = 255 if image.dtype == np.uint8 else 1.0
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="antialiased")


def _spans(mask: NDArray[np.bool_], time: NDArray[Any]) -> list[tuple[float, float]]:
    """Return (start, end) of the runs of True, reaching half a frame beyond their first and last frame."""
    padded = np.concatenate([[False], mask, [False]])
    starts, ends = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    return [(float(time[start]) - 0.5, float(time[end - 1]) + 0.5) for start, end in zip(starts, ends, strict=True)]

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
from featlab.analysis.evaluation.plot_names import folded
from featlab.errors import InputError

__all__ = ["plot_clip", "plot_pairs"]

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


def plot_clip(
    images: Sequence[Image | None] | None,
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    title: str = "",
    *,
    positive: str = "non-neutral",
    frame_numbers: NDArray[np.integer[Any]] | None = None,
    thumbnails: int = 9,
    threshold: float | None = 0.5,
    width: float = style.FULL,
) -> Figure:
    """Draw one video: the probability of a class over time before and after adaptation, with frames beneath.

    Args:
        images: n images, ``None`` for a frame without one; or ``None`` for no strip at all.
        before: (n,) probabilities in [0, 1] before adaptation.
        after: (n,) after it.
        labels: (n,) 1 where the frame truly shows the class (shaded), 0 where not, -1 unknown.
        title: Above it, e.g. the video's name.
        positive: Name of the class.
        frame_numbers: (n,) increasing; 0 … n - 1 by default.
        thumbnails: How many frames to show, at most.
        threshold: Where the decision flips, as a dotted line; ``None`` where there is no such probability.
        width: Inches.

    Raises:
        InputError: Lengths that differ, no frames, frame numbers that do not increase, or no probabilities.
    """
    before, after, labels = np.asarray(before), np.asarray(after), np.asarray(labels)
    count = len(before)
    time = np.arange(count) if frame_numbers is None else np.asarray(frame_numbers)
    lengths = {"before": before.shape, "after": after.shape, "labels": labels.shape, "frame_numbers": time.shape}
    if count == 0 or any(shape != (count,) for shape in lengths.values()):
        raise InputError(f"a clip needs one value a frame in each of {lengths}")
    if images is not None and len(images) != count:
        raise InputError(f"{len(images)} images for {count} frames")
    if count > 1 and (np.diff(time) <= 0).any():
        raise InputError("frame numbers must increase; give the frames of one video in order of time")
    for name, values in (("before", before), ("after", after)):
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"{name} holds values outside 0..1; give probabilities")
    shown = 0 if images is None else min(thumbnails, count)
    # Few frames are no reason for large ones.
    below = 0.95 * width / max(shown, _FEWEST) if shown else 0.0
    # A title that would reach the legend gets a line of its own above it.
    above = width < style.FULL or len(title) > _BESIDE_LEGEND
    with style.house_style():
        drawn = style.figure(width, 1.9 + below)
        grid = drawn.add_gridspec(2, shown, height_ratios=(1.6, below), wspace=0) if shown else None
        axes = drawn.add_subplot(grid[0, :]) if grid is not None else drawn.subplots()
        edges = (float(time[0]) - 0.5, float(time[-1]) + 0.5)
        for start, end in _spans(labels == 1, time):
            axes.axvspan(start, end, color=style.COLOURS[4], alpha=0.18, linewidth=0, label="_span")
        if threshold is not None:
            axes.axhline(threshold, color="#BBBBBB", linewidth=0.6, linestyle=":", label="_half")
        axes.plot(time, before, color=style.MUTED, linestyle="--", label="before")
        axes.plot(time, after, color=style.GAIN, label="after")
        if (labels == 1).any():
            axes.fill_between([], [], color=style.COLOURS[4], alpha=0.18, linewidth=0, label=f"true {positive}")
        axes.set(xlim=edges, ylim=(-0.03, 1.03), ylabel=f"p({positive})", xlabel="frame")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
        if title:
            lines = folded(title, int(width / _LETTER))
            axes.set_title(lines, loc="left", fontweight="bold", pad=19 if above else None)
        if grid is not None and images is not None:
            for place in range(shown):
                # Evenly over the axis above, so that a face stands beneath its moment.
                moment = edges[0] + (place + 0.5) / shown * (edges[1] - edges[0])
                frame = int(np.abs(time - moment).argmin())
                axes.axvline(float(time[frame]), ymax=0.04, color="black", linewidth=0.8, label="_thumbnail")
                _face(drawn.add_subplot(grid[1, place]), images[frame], str(int(time[frame])))
    return drawn


def plot_pairs(
    row_images: Sequence[Image | None],
    reference_images: Sequence[Sequence[Image | None]],
    titles: Sequence[str],
    *,
    row_title: str = "row",
    captions: Sequence[Sequence[str]] | None = None,
    row_captions: Sequence[str] | None = None,
    width: float = style.FULL,
) -> Figure:
    """Draw example pairs: the rows on top, beneath them the reference that each strategy chose for them.

    Without a single image, the captions stand alone.

    Args:
        row_images: k images; ``None`` where there is none.
        reference_images: One strip of k images a strategy.
        titles: The strategies' names, e.g. random, cosine, landmark.
        row_title: Name of the top strip.
        captions: For each strip, k short texts beneath its images (e.g. the similarity); none by default.
        row_captions: k texts beneath the rows themselves; none by default.
        width: Inches.

    Raises:
        InputError: No images, or strips, titles and captions that do not fit each other.
    """
    across, strips = len(row_images), [row_images, *reference_images]
    if not across or any(len(strip) != across for strip in strips):
        raise InputError(f"every strip needs one image for each of the {across} rows, not {[len(s) for s in strips]}")
    if len(titles) != len(reference_images):
        raise InputError(f"{len(titles)} titles for {len(reference_images)} strips")
    texts = [row_captions or [""] * across, *(captions or [[""] * across] * len(titles))]
    if [len(text) for text in texts] != [across] * len(strips):
        raise InputError("captions must have one text for each reference image, and for each row")
    cell = (width - 0.7) / across
    side = min(cell, _LARGEST_FACE)
    texts = [[_lines(text, cell) for text in strip] for strip in texts]
    depths = [max(1 + text.count("\n") if text else 0 for text in strip) for strip in texts]
    heights = [_caption_height(depth) for depth in depths]
    pictured = any(image is not None for strip in strips for image in strip)
    with style.house_style():
        drawn = style.figure(width, sum(heights) + len(strips) * ((side + 0.03) if pictured else 0.1))
        axes = drawn.subplots(
            len(strips), across, squeeze=False, height_ratios=None if pictured else [height + 0.1 for height in heights]
        )
        for place, (title, strip, text) in enumerate(zip([row_title, *titles], strips, texts, strict=True)):
            for column in range(across):
                if pictured:
                    _face(axes[place, column], strip[column], text[column])
                    if depths[place] > 1:
                        # The layout measures a caption before the face has become square, from the bottom of its place.
                        axes[place, column].set_anchor("S")
                else:
                    _words(axes[place, column], text[column])
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


def _caption_height(lines: int) -> float:
    return 0.13 + 0.115 * (lines - 1) if lines else 0.0


def _words(axes: Axes, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=6.5)


def _face(axes: Axes, image: Image | None, caption: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if caption:
        axes.set_xlabel(caption, fontsize=6.5, labelpad=1.5)
    if image is None:
        axes.set_facecolor("#EEEEEE")
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center", va="center", color=style.MUTED)
        return
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise InputError(f"an image is (H, W) or (H, W, 3), not {image.shape}")
    top = 255 if image.dtype == np.uint8 else 1.0
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="antialiased")


def _spans(mask: NDArray[np.bool_], time: NDArray[Any]) -> list[tuple[float, float]]:
    """Return (start, end) of the runs of True, reaching half a frame beyond their first and last frame."""
    padded = np.concatenate([[False], mask, [False]])
    starts, ends = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    return [(float(time[start]) - 0.5, float(time[end - 1]) + 0.5) for start, end in zip(starts, ends, strict=True)]

"""What stands for a face in a figure: its photograph, its landmarks in which nobody is recognised, or nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.style import folded, folded_name
from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.workspace.workspace import Workspace

LARGEST = 256  # Longest side of a picture in a figure, pixels.
THUMBNAILS = 9  # Faces beneath a clip.

_PROBED = 5  # Rows whose images say whether a folder beside the cache is the one.
_MARGIN = 0.1
_INK, _LINE = (26, 26, 26), (160, 160, 160)
_PARTS = (0, 17, 22, 27, 31, 36, 42, 48, 60, 68)  # Where jaw, brows, nose, eyes and lips begin, of 68 points.
_EYES = 36  # From the eyes on a part is a closed line.


@dataclass(frozen=True, eq=False)
class Faces:
    """Pictures of a cache's rows."""

    table: FeatureTable
    show: str  # One of `featlab.config.analysis.FACES`.
    folder: Path | None = None  # Of the photographs, where there are any.
    missing: set[int] = field(default_factory=set)  # Rows asked for so far that have no photograph in the folder.

    @property
    def note(self) -> str:
        """What the user should know about the pictures asked for so far, in one line; empty if all are there."""
        bare = self.table.landmarks is None
        instead = "there are no faces in the figure" if bare else "landmarks are drawn in their place"
        if self.show == "landmarks":
            return f"the cache holds no landmarks: {instead} (--faces photographs)" if bare else ""
        if self.show == "photographs" and self.folder is None:
            return f"no images beside the cache: {instead} (name their folder with --images DIR or plot.images)"
        return f"missing or damaged in {self.folder}: {len(self.missing)} images; {instead}" if self.missing else ""

    def image(self, row: int) -> NDArray[np.uint8] | None:
        """Return the picture of one row; its landmarks where the photograph is missing, ``None`` without either."""
        if self.folder is not None:
            from featlab.extraction.decode import decode_image

            path = self.folder / (self.table.paths or ())[row]
            # Not Path.is_file: that raises where a name is too long for a file.
            if os.path.isfile(path):
                with suppress(InputError):
                    return shrunk(decode_image(path))
            self.missing.add(row)
        if self.show == "none" or self.table.landmarks is None:
            return None
        return draw_landmarks(self.table.landmarks[row])


def shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a photograph as large as a figure takes it."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def find_faces(workspace: Workspace, folder: Path | None = None) -> Faces:
    """Find the images that a workspace's rows were extracted from: in a named folder, or beside the cache."""
    plot, table = workspace.config.plot, workspace.table
    if plot.faces != "photographs":
        return Faces(table, plot.faces)
    named = folder if folder is not None else workspace.root / plot.images if plot.images else None
    if named is not None:
        if not _holds(named, table.paths or ()):
            raise InputError(
                f"{named}: holds none of the cache's images ({', '.join((table.paths or ('it names none',))[:1])}); "
                "name the folder that they are relative to, that of the manifest"
            )
        return Faces(table, plot.faces, named)
    cache = workspace.root / workspace.config.cache
    # Where `featlab extract` found them, if it wrote that down.
    told = cache.with_suffix(".images.txt")
    from_there = [cache.parent / told.read_text("utf-8")] if told.is_file() else []
    places = [*from_there, cache.parent, cache.parent / "faces"]
    found = next((place for place in places if _holds(place, (table.paths or ())[:_PROBED])), None)
    return Faces(table, plot.faces, found)


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any(os.path.isfile(folder / name) for name in names if name)


def draw_landmarks(points: NDArray[np.floating[Any]]) -> NDArray[np.uint8] | None:
    """Draw one face's landmarks as dots on white, scaled to their own bounding box."""
    from PIL import Image, ImageDraw

    points = np.asarray(points, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max())
    places = (points - (low + high) / 2) * (LARGEST * (1 - 2 * _MARGIN) / (extent or 1.0)) + LARGEST / 2
    picture = Image.new("RGB", (LARGEST, LARGEST), "white")
    pen = ImageDraw.Draw(picture)
    if len(points) == 68:
        for start, end in pairwise(_PARTS):
            line = places[[*range(start, end), *([start] if start >= _EYES else [])]]
            pen.line(line.ravel().tolist(), fill=_LINE, width=2)
    # Many points would run into one another.
    radius = LARGEST * min(0.03, max(0.007, 0.1 / np.sqrt(len(points))))
    for x, y in places.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK)
    return np.asarray(picture)


_SMALL_LETTER = 0.054  # Width of a letter of a caption, inches.
_LARGEST_FACE = 1.2  # Side of a face in a strip, inches.
_FEWEST = 6  # Frames beneath a clip from which on they fill its width.
_BESIDE_LEGEND = 40  # Letters of a line of a title that go beside the legend of a clip across a page.

Image = NDArray[np.uint8]  # (H, W) grey or (H, W, 3) colour.
Probabilities = NDArray[np.floating[Any]]


def plot_clip(
    images: Sequence[Image | None],
    before: Probabilities,
    after: Probabilities,
    labels: NDArray[np.integer[Any]],
    title: str,
    *,
    positive: str,
    frame_numbers: NDArray[np.integer[Any]],
    threshold: float | None = 0.5,
) -> Figure:
    """Draw a class's probability over time before and after; ``labels``: 1 true (shaded), 0 not, -1 unknown."""
    shown = min(THUMBNAILS, len(before)) if any(image is not None for image in images) else 0
    # Few frames are no reason for large ones.
    below = 0.95 * style.FULL / max(shown, _FEWEST) if shown else 0.0
    shade: dict[str, Any] = {"color": style.COLOURS[4], "alpha": 0.18, "linewidth": 0}
    with style.house_style():
        drawn = style.figure(style.FULL, 1.9 + below)
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
        axes.set_title(folded(title, _BESIDE_LEGEND), loc="left", fontweight="bold")
        if grid is not None:
            for place in range(shown):
                # Evenly over the axis above, so that a face stands beneath its moment.
                moment = edges[0] + (place + 0.5) / shown * (edges[1] - edges[0])
                frame = int(np.abs(frame_numbers - moment).argmin())
                number = int(frame_numbers[frame])
                axes.axvline(number, ymax=0.04, color="black", linewidth=0.8, label="_thumbnail")
                _face(drawn.add_subplot(grid[1, place]), images[frame], str(number))
    return drawn


def plot_pairs(
    strips: Sequence[Sequence[Image | None]], titles: Sequence[str], captions: Sequence[Sequence[str]]
) -> Figure:
    """Draw strips of images with short texts beneath each."""
    across = len(strips[0])
    cell = (style.FULL - 0.7) / across
    side = min(cell, _LARGEST_FACE)
    most = max(4, int(cell / _SMALL_LETTER))
    texts = [["\n".join(folded_name(line, most) for line in text.split("\n")) for text in strip] for strip in captions]
    lines = [max(1 + text.count("\n") if text else 0 for text in strip) for strip in texts]
    with style.house_style():
        drawn = style.figure(style.FULL, sum(side + 0.05 + 0.12 * count for count in lines))
        axes = drawn.subplots(len(strips), across, squeeze=False)
        for row, title, strip, text in zip(axes, titles, strips, texts, strict=True):
            for panel, image, caption in zip(row, strip, text, strict=True):
                _face(panel, image, caption)
                # The layout measures a caption before the face has become square, from the bottom of its place.
                panel.set_anchor("S")
            row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontweight="bold")
        drawn.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    return drawn


def _face(axes: Axes, image: Image | None, caption: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(caption, fontsize=6.5, labelpad=1.5)
    if image is None:
        axes.set_facecolor("#EEEEEE")
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center", va="center", color=style.MUTED)
        return
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="none")


def _spans(mask: NDArray[np.bool_], time: NDArray[Any]) -> list[tuple[float, float]]:
    """Return (start, end) of the runs of True, reaching half a frame beyond their first and last frame."""
    padded = np.concatenate([[False], mask, [False]])
    starts, ends = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    return [(float(time[start]) - 0.5, float(time[end - 1]) + 0.5) for start, end in zip(starts, ends, strict=True)]

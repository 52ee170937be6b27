"""What stands for a face in a figure: its photograph, its landmarks in which nobody is recognised, or nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
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

LARGEST = 256  # Longest side of a photograph in a figure, pixels.
DRAWN = 128  # Side of a face drawn from its landmarks, pixels.
THUMBNAILS = 9  # Faces beneath a clip.

_PROBED = 5  # Rows whose images say whether a folder beside the cache is the one.
_PART = re.compile(r"#(?:t|row|face)=[0-9.]+$")
"""The end of a name that stands for one of several pictures in a file, see `featlab.extraction.items.Item`."""

_MARGIN = 0.1
_FINER = 4  # Dots are drawn that much larger and scaled down: their edges become smooth.
_INK, _LINE = (26, 26, 26), (160, 160, 160)
_PARTS = (0, 17, 22, 27, 31, 36, 42, 48, 60, 68)  # Where jaw, brows, nose, eyes and lips begin, of 68 points.
_EYES = 36  # From the eyes on a part is a closed line.


@dataclass(frozen=True, eq=False)
class Faces:
    """Pictures of a cache's rows."""

    table: FeatureTable
    show: str
    folder: Path | None = None
    why: str = ""
    damaged: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)

    @property
    def note(self) -> str:
        """What the user should know about the pictures asked for so far, in one line; empty if all are there."""
        parts = [self.why] if self.why else []
        if self.missing:
            instead = ": their landmarks are drawn" if self.table.landmarks is not None else ""
            parts.append(f"{_count(len(self.missing))} not in {self.folder}{instead}")
        if self.damaged:
            parts.append(f"{_count(len(self.damaged))} damaged and not shown")
        return "; ".join(parts)

    def image(self, row: int) -> NDArray[np.uint8] | None:
        """Return the picture of one row; its landmarks where the photograph is missing, ``None`` without either."""
        if self.show == "photographs" and self.folder is not None:
            name = (self.table.paths or ())[row]
            path = self.folder / name
            # Not Path.is_file: that raises where a name is too long for a file.
            if os.path.isfile(path):
                from featlab.extraction.decode import decode_image

                try:
                    return shrunk(decode_image(path))
                except InputError:
                    self.damaged.add(row)
                    return None
            # Of a video, or of a table of pixels, there is a file, but none that is this picture.
            if not _PART.search(name):
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
    """Find the images that a workspace's rows were extracted from."""
    plot, table = workspace.config.plot, workspace.table
    named = folder if folder is not None else workspace.root / plot.images if plot.images else None
    if plot.faces == "none":
        return Faces(table, "none")
    if plot.faces == "landmarks":
        lacking = "the cache holds no landmarks to draw: there are no faces in the figure (--faces photographs)"
        return Faces(table, "landmarks", why=lacking if table.landmarks is None else "")
    if named is not None:
        _check_named(named, table)
    cache = workspace.root / workspace.config.cache
    # Where `featlab extract` found them, if it wrote that down.
    told = cache.with_suffix(".images.txt")
    from_there = [cache.parent / told.read_text("utf-8")] if told.is_file() else []
    candidates = [*from_there, cache.parent, cache.parent / "faces"] if named is None else [named]
    found = next((place for place in candidates if named or _holds(place, _files(table)[:_PROBED])), None)
    return Faces(table, "photographs", found, _why(table, found))


def draw_landmarks(points: NDArray[np.floating[Any]]) -> NDArray[np.uint8] | None:
    """Draw one face's landmarks as dots on white, scaled to their own bounding box."""
    from PIL import Image, ImageDraw

    points = np.asarray(points, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    fine = DRAWN * _FINER
    extent = float((high - low).max())
    places = (points - (low + high) / 2) * (fine * (1 - 2 * _MARGIN) / (extent or 1.0)) + fine / 2
    picture = Image.new("RGB", (fine, fine), "white")
    pen = ImageDraw.Draw(picture)
    if len(points) == 68:
        for start, end in pairwise(_PARTS):
            line = places[[*range(start, end), *([start] if start >= _EYES else [])]]
            pen.line([(float(x), float(y)) for x, y in line], fill=_LINE, width=_FINER)
    # Many points would run into one another.
    radius = fine * min(0.03, max(0.007, 0.1 / np.sqrt(len(points))))
    for x, y in places.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK)
    return np.asarray(picture.resize((DRAWN, DRAWN), Image.Resampling.BOX))


def _check_named(folder: Path, table: FeatureTable) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder of images; name the one that the cache's image names are relative to"
        )
    files = _files(table)
    if not files:
        raise InputError(f"{folder}: the cache names no images to look for there; leave out --images (plot.images)")
    if not _holds(folder, files):
        raise InputError(
            f"{folder}: holds none of the cache's images, the first of which is {files[0]}; "
            "name the folder that they are relative to, that of the manifest"
        )


def _why(table: FeatureTable, folder: Path | None) -> str:
    """Return why there are no photographs, or nothing where there are."""
    instead = (
        "landmarks are drawn in their place" if table.landmarks is not None else "there are no faces in the figure"
    )
    if not _files(table):
        return f"the cache names no images: {instead}"
    if folder is None:
        return f"no images beside the cache: {instead} (name their folder with --images DIR or plot.images)"
    if all(_PART.search(name) and not os.path.isfile(folder / name) for name in table.paths or ()):
        return f"the rows are no image files but parts of others, frames of videos for one: {instead}"
    return ""


def _files(table: FeatureTable) -> list[str]:
    """Return the names of the files that the table's rows come from, each once."""
    return list(dict.fromkeys(file for name in table.paths or () if (file := _PART.sub("", name))))


def _holds(folder: Path, files: Iterable[str]) -> bool:
    return any(os.path.isfile(folder / name) for name in files)


def _count(images: int) -> str:
    return "1 image is" if images == 1 else f"{images} images are"


_LETTER = 0.075  # Width of a bold letter of a title, inches.
_SMALL_LETTER = 0.054  # Width of a letter of a caption, inches.
_LARGEST_FACE = 1.2  # Side of a face in a strip, inches.
_FEWEST = 6  # Frames beneath a clip from which on they fill its width.
_BESIDE_LEGEND = 40  # Letters of a title that go beside the legend of a clip across a page.

Image = NDArray[Any]  # (H, W) grey or (H, W, 3) colour; uint8 or floats in [0, 1].
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
        # A title that would reach the legend gets a line of its own above it.
        pad = 19 if len(title) > _BESIDE_LEGEND else None
        axes.set_title(folded(title, int(style.FULL / _LETTER)), loc="left", fontweight="bold", pad=pad)
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
    """Draw strips of images with short texts beneath each; without a single image, the captions stand alone."""
    across = len(strips[0])
    cell = (style.FULL - 0.7) / across
    side = min(cell, _LARGEST_FACE)
    most = max(4, int(cell / _SMALL_LETTER))
    texts = [["\n".join(folded_name(line, most) for line in text.split("\n")) for text in strip] for strip in captions]
    depths = [max(1 + text.count("\n") if text else 0 for text in strip) for strip in texts]
    heights = [0.13 + 0.115 * (depth - 1) if depth else 0.0 for depth in depths]
    pictured = any(image is not None for strip in strips for image in strip)
    with style.house_style():
        drawn = style.figure(style.FULL, sum(heights) + len(strips) * ((side + 0.03) if pictured else 0.1))
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
    axes.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="none")


def _spans(mask: NDArray[np.bool_], time: NDArray[Any]) -> list[tuple[float, float]]:
    """Return (start, end) of the runs of True, reaching half a frame beyond their first and last frame."""
    padded = np.concatenate([[False], mask, [False]])
    starts, ends = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    return [(float(time[start]) - 0.5, float(time[end - 1]) + 0.5) for start, end in zip(starts, ends, strict=True)]

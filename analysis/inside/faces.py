"""What stands for a face in a figure: its photograph, its landmarks in which nobody is recognised, or nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.workspace.workspace import Workspace

LARGEST = 256
"""Longest side of a photograph in a figure, pixels."""
DRAWN = 128
"""Side of a face drawn from its landmarks, pixels."""

_PROBED = 5
"""Rows whose images say whether a folder beside the cache is the one."""
_PART = re.compile(r"#(?:t|row|face)=[0-9.]+$")
"""The end of a name that stands for one of several pictures in a file, see `featlab.extraction.items.Item`."""

_MARGIN = 0.1
_FINER = 4
"""Dots are drawn that much larger and scaled down: their edges become smooth."""
_INK, _LINE = (26, 26, 26), (160, 160, 160)
_PARTS = (
    (range(17), False),
    (range(17, 22), False),
    (range(22, 27), False),
    (range(27, 31), False),
    (range(31, 36), False),
    (range(36, 42), True),
    (range(42, 48), True),
    (range(48, 60), True),
    (range(60, 68), True),
)
"""Jaw, brows, nose, eyes and lips of the 68 iBUG points, and whether their line is closed."""


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
            parts.append(f"{_count(len(self.missing))} not in {self.folder}{self._instead()}")
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
                return self._photograph(row, path)
            # Of a video, or of a table of pixels, there is a file, but none that is this picture.
            if not _PART.search(name):
                self.missing.add(row)
        if self.show == "none" or self.table.landmarks is None:
            return None
        return draw_landmarks(self.table.landmarks[row])

    def _photograph(self, row: int, path: Path) -> NDArray[np.uint8] | None:
        from PIL import Image

        from featlab.extraction.decode import decode_image

        try:
            picture = Image.fromarray(decode_image(path))
        except InputError:
            self.damaged.add(row)
            return None
        picture.thumbnail((LARGEST, LARGEST))
        return np.asarray(picture)

    def _instead(self) -> str:
        return ": their landmarks are drawn" if self.table.landmarks is not None else ""


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
    beside = (workspace.root / workspace.config.cache).parent
    candidates = (beside, beside / "faces") if named is None else (named,)
    found = next((place for place in candidates if named or _holds(place, _files(table)[:_PROBED])), None)
    return Faces(table, "photographs", found, _why(table, found))


def draw_landmarks(points: NDArray[np.floating[Any]], side: int = DRAWN) -> NDArray[np.uint8] | None:
    """Draw one face's landmarks as dots on white, scaled to their own bounding box."""
    from PIL import Image, ImageDraw

    points = np.asarray(points, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    fine = side * _FINER
    extent = float((high - low).max())
    places = (points - (low + high) / 2) * (fine * (1 - 2 * _MARGIN) / (extent or 1.0)) + fine / 2
    picture = Image.new("RGB", (fine, fine), "white")
    pen = ImageDraw.Draw(picture)
    if len(points) == 68:
        for part, closed in _PARTS:
            line = places[[*part, *part[: int(closed)]]]
            pen.line([(float(x), float(y)) for x, y in line], fill=_LINE, width=_FINER)
    # Many points would run into one another.
    radius = fine * min(0.03, max(0.007, 0.1 / np.sqrt(len(points))))
    for x, y in places.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK)
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


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

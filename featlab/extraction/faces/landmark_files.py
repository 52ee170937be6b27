"""Landmarks in one file: NumPy arrays, csv as OpenFace writes it, .pts and .tem."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError, listed
from featlab.extraction.columns import is_missing, load_arrays, numbers
from featlab.extraction.faces import as_points
from featlab.extraction.items import IMAGE_SUFFIXES
from featlab.extraction.text import open_delimited, read_lines, read_text

# The names under which featlab's own detections lie in a .npz: the largest faces, all faces, how many a row has.
ARRAY, FACES, COUNTS = "landmarks", "faces", "counts"


_POINT_X = re.compile(r"x_(\d+)")


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """What a file of landmarks says, row by row."""

    points: NDArray[np.float32]  # float32 (n, P, 2); a row of NaN where no face was found
    counts: NDArray[np.int64] | None = None  # How many of them each row of the source has; None: the points are rows
    paths: tuple[str, ...] | None = None  # Names of pictures, with forward slashes; None without any
    frames: NDArray[np.int64] | None = None  # The ``frame`` column, int64 (n,); OpenFace counts from 1
    several: bool = False  # Whether a frame or path may have several rows: there is a column ``face`` or ``face_id``
    by_openface: bool = False  # Whether it has OpenFace's ``confidence`` or ``success``


def read_landmark_table(path: Path, *, of_one: bool = False) -> LandmarkTable:
    """Read a file of landmarks; ``of_one`` picture or clip, a ``.npy`` may hold the points of one, (P, 2).

    Beside the landmarks of a ``.npz`` the pictures' names may lie in an array of text.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix == ".csv":
        return read_landmark_csv(path)
    if suffix in (".pts", ".tem"):
        return LandmarkTable((read_pts if suffix == ".pts" else read_tem)(path)[None])
    if suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: landmarks come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem")
    stored = load_arrays(path)
    if {FACES, COUNTS} <= stored.keys():
        return LandmarkTable(stored[FACES], stored[COUNTS])
    if ARRAY not in stored and len(stored) != 1:
        raise InputError(f"{path} holds the arrays {listed([*stored]) or 'none'}; one of them must be called {ARRAY!r}")
    array = stored.get(ARRAY, next(iter(stored.values())))
    points = as_points(array[None] if of_one and array.ndim == 2 and array.shape[1] == 2 else array, str(path))
    named = [array for array in stored.values() if array.dtype.kind == "U" and array.shape == (len(points),)]
    return LandmarkTable(points, paths=tuple(map(_forward, named[0].tolist())) if len(named) == 1 else None)


def _forward(name: str) -> str:
    return name.replace("\\", "/")


def read_landmark_csv(path: Path) -> LandmarkTable:
    """Read ``x_0``, ``y_0``, … of a csv as OpenFace's; no face where ``success``, else ``confidence``, is 0."""
    import pyarrow as arrow

    table = open_delimited(path)
    header = table.header
    count = sum(_POINT_X.fullmatch(name) is not None for name in header)
    points = [f"{axis}_{point}" for point in range(count) for axis in "xy"]
    if not points:
        raise InputError(f"{path} has no landmark columns; expected x_0, x_1, ... and y_0, y_1, ...")
    if missing := [name for name in points if name not in header]:
        raise InputError(f"{path}: the column {missing[0]!r} is missing")
    read = [arrow.concat_arrays(parts) for parts in zip(*table.batches(range(len(header))), strict=True)]
    if not read:
        raise InputError(f"{path} has a header and no rows")
    columns = dict(zip(header, read, strict=True))
    seen = np.ones(len(read[0]), dtype=np.bool_)

    def values(name: str) -> NDArray[np.float32]:
        found, text = numbers(columns[name])
        for row in text[seen[text]].tolist():
            cell = columns[name][row].as_py().strip()
            raise InputError(f"{table.where(row)}: {name} is {cell[:40]!r}, not a number")
        return found

    if sign := next((name for name in ("success", "confidence") if name in header), None):
        seen = values(sign) > 0
    named = next((name for name in header if name == "path" or _are_pictures(columns[name])), None)
    paths = None if named is None else tuple(_forward(cell.strip()) for cell in columns[named].to_pylist())
    places = np.stack([values(name) for name in points], axis=1).reshape(len(seen), -1, 2)
    places[~seen] = np.nan
    frames = None
    if "frame" in header and named != "frame":
        frame = values("frame")
        for row in np.flatnonzero(np.mod(frame, 1) != 0).tolist():
            raise InputError(f"{table.where(row)}: the frame isn't a whole number")
        frames = frame.astype(np.int64)
    several = not {"face", "face_id"}.isdisjoint(header)
    return LandmarkTable(places, None, paths, frames, several, by_openface=sign is not None)


def _are_pictures(cells: Any) -> bool:
    """Whether all cells of a column name pictures; the first rules out most columns."""
    return all(PurePosixPath(cell.as_py().strip()).suffix.lower() in IMAGE_SUFFIXES for cell in cells)


_COUNT = re.compile(r"n_points\s*:\s*(\d{1,9})")


def read_pts(path: Path) -> NDArray[np.float32]:
    """Read an iBUG ``.pts``: float32 (P, 2). Its upper left pixel is (1, 1), as in Matlab, so 1 is taken off."""
    head, opening, rest = read_text(path).partition("{")
    body, closing, _ = rest.partition("}")
    if not opening:
        raise InputError(f"{path}: isn't a .pts file: no opening brace")
    if not closing:
        raise InputError(f"{path}: the closing brace is missing; the file is cut off")
    points = [_point(path, *line) for line in enumerate(body.split("\n"), head.count("\n") + 1) if line[1].strip()]
    if not points:
        raise InputError(f"{path}: no point between the braces")
    count = _COUNT.search(head.lower())
    if count and int(count[1]) != len(points):
        raise InputError(f"{path}: says {count[1]} points and holds {len(points)}")
    return np.array(points, dtype=np.float32) - np.float32(1)


def read_tem(path: Path) -> NDArray[np.float32]:
    """Read a ``.tem`` of webmorph: the number of points, then the points; of the usual 189, 0 and 1 are the pupils."""
    (number, first), *lines = read_lines(path)
    if not (first.isascii() and first.isdigit() and len(first) < 100) or int(first) == 0:
        raise InputError(f"{path}, line {number}: expected the number of points, found {first[:40]!r}")
    if len(lines) < int(first):
        raise InputError(f"{path}: says {first} points and holds {len(lines)}; the file is cut off")
    return np.array([_point(path, *line) for line in lines[: int(first)]], dtype=np.float32)


def _point(path: Path, number: int, line: str) -> tuple[float, float]:
    cells = line.replace(",", " ").split()
    try:
        # Python would take 1_0 for 10.
        x, y = (math.nan if is_missing(cell) else float(cell.replace("_", "?")) for cell in cells)
    except ValueError:
        raise InputError(f"{path}, line {number}: expected x and y, found {line.strip()[:40]!r}") from None
    return x, y

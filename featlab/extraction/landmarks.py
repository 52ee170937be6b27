"""Landmarks that people already have: arrays, OpenFace's csv, folders of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.items import Item, names_by_row
from featlab.extraction.landmark_arrays import read_array
from featlab.extraction.landmark_csv import LandmarkCsv, read_landmark_csv
from featlab.extraction.landmark_folder import read_landmark_folder

_ARRAYS = (".npy", ".npz")
_BESIDE = ("landmarks.npy", "landmarks.csv")


def find_landmarks(source: Path) -> Path | None:
    """Return ``landmarks.npy``, or else ``landmarks.csv``, beside a manifest or inside a folder; None without any."""
    folder = source if source.is_dir() else source.parent
    for name in _BESIDE:
        if (folder / name).is_file():
            return folder / name
    return None


def landmarks_for(path: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    """Read the landmarks of a source's items from whatever holds them.

    Args:
        path: A file as `read_landmarks` takes it; a folder that has such a file under the name ``landmarks.npy`` or
            ``landmarks.csv``; or a folder of files, see `read_landmark_folder`.
        items: The source's items, at least one.

    Returns:
        float32 (rows of the source, P, 2) in pixels, by ``Item.row``; a row of NaN where there are none.

    Raises:
        InputError: Nothing is there, or it doesn't fit; one line.
    """
    if path.is_dir():
        inside = find_landmarks(path)
        if inside is None:
            return read_landmark_folder(path, items)
        path = inside
    return read_landmarks(path, max(item.row for item in items) + 1, names_by_row(items))


def read_landmarks(path: Path, rows: int, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Read landmarks in pixels from one file for all rows.

    A ``.npy`` or ``.npz`` holds (rows, P, 2), or (rows, 2P) as x, y, x, y, ... A ``.csv`` has the columns ``x_0`` ...
    ``x_{P-1}``, ``y_0`` ... ``y_{P-1}``, as OpenFace writes them; a ``success`` of 0 there means that no face was
    found. With a ``path`` column the rows are matched to ``names``, and a name that isn't listed has no landmarks;
    without one they are taken in order.

    Args:
        path: The file.
        rows: How many rows the source has.
        names: Name of every source row, in the source's order; for a csv with a ``path`` column.

    Returns:
        float32 (rows, P, 2), in the source's row order; a row with any non-finite value is wholly NaN.

    Raises:
        InputError: The file can't be read, or its rows or columns don't fit; one line.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (*_ARRAYS, ".csv"):
        raise InputError(f"{path}: landmarks come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix in _ARRAYS:
        points = read_array(path)
    else:
        table = read_landmark_csv(path)
        points = table.points if names is None or table.paths is None else _by_name(table, table.paths, names, path)
    if len(points) != rows:
        raise InputError(f"{path} has landmarks for {len(points)} rows, the source has {rows}; one row each is needed")
    points = points.copy()
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return points


def _by_name(table: LandmarkCsv, listed: Sequence[str], names: Sequence[str], path: Path) -> NDArray[np.float32]:
    place = {name: row for row, name in enumerate(listed)}
    if len(place) != len(listed):
        # The last row of a name has its place; an earlier one has not.
        twice = next(name for row, name in enumerate(listed) if place[name] != row)
        raise InputError(f"{path} lists {twice!r} twice")
    if not any(name in place for name in names):
        example = f"{listed[0]!r}, where the source has {names[0]!r}" if listed and names else "it has no rows"
        raise InputError(f"no path of {path} is a path of the source: {example}")
    matched = np.full((len(names), *table.points.shape[1:]), np.nan, dtype=np.float32)
    for row, name in enumerate(names):
        if name in place:
            matched[row] = table.points[place[name]]
    return matched

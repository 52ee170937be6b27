"""Landmarks that people already have: a .npy array or an OpenFace-style csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

_POINT_X = re.compile(r"x_(\d+)")


def find_landmarks(source: Path) -> Path | None:
    """Return ``landmarks.npy``, or else ``landmarks.csv``, beside a manifest or inside a folder; None without any."""
    folder = source if source.is_dir() else source.parent
    for name in ("landmarks.npy", "landmarks.csv"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_landmarks(path: Path, rows: int, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Read landmarks in pixels.

    A ``.npy`` holds (rows, P, 2), or (rows, 2P) as x, y, x, y, ... A ``.csv`` has the columns ``x_0`` ... ``x_{P-1}``,
    ``y_0`` ... ``y_{P-1}``, as OpenFace writes them; a ``success`` of 0 there means that no face was found. With a
    ``path`` column the rows are matched to ``names``, and a name that isn't listed has no landmarks; without one they
    are taken in order.

    Args:
        path: The ``.npy`` or ``.csv`` file.
        rows: How many rows the source has.
        names: Name of every source row, in the source's order; for a csv with a ``path`` column.

    Returns:
        float32 (rows, P, 2), in the source's row order; a row with any non-finite value is wholly NaN.

    Raises:
        InputError: The file can't be read, or its rows or columns don't fit; one line.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise InputError(f"{path}: landmarks come as .npy or .csv")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    points = _read_npy(path) if suffix == ".npy" else _read_csv(path, names)
    if len(points) != rows:
        raise InputError(f"{path} has landmarks for {len(points)} rows, the source has {rows}; one row each is needed")
    points = points.copy()
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return points


def _read_npy(path: Path) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path} isn't a .npy array of numbers; save it with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path} doesn't hold one array of numbers")
    if array.ndim == 2 and array.shape[1] >= 2 and array.shape[1] % 2 == 0:
        array = array.reshape(len(array), -1, 2)
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] != 2:
        raise InputError(f"{path} has shape {array.shape}; expected (rows, P, 2) or (rows, 2P)")
    points: NDArray[np.float32] = array.astype(np.float32)
    return points


def _read_csv(path: Path, names: Sequence[str] | None) -> NDArray[np.float32]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8 text (byte {error.start})") from None
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        table = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid csv: {error}") from None
    if not table:
        raise InputError(f"{path} is empty")
    header = table[0][1]
    columns = _point_columns(header, path)
    success = header.index("success") if "success" in header else None
    points = np.full((len(table) - 1, len(columns) // 2, 2), np.nan, dtype=np.float32)
    for row, (line, cells) in enumerate(table[1:]):
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} values under {len(header)} columns")
        try:
            if success is None or float(cells[success]) != 0:
                points[row] = np.array([_number(cells[column]) for column in columns]).reshape(-1, 2)
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
    if "path" in header and names is not None:
        listed = [cells[header.index("path")].replace("\\", "/") for _, cells in table[1:]]
        return _by_name(points, listed, names, path)
    return points


def _point_columns(header: list[str], path: Path) -> list[int]:
    """Places of x_0, y_0, x_1, y_1, ... in the header."""
    numbers = sorted(int(match[1]) for name in header if (match := _POINT_X.fullmatch(name)))
    if not numbers:
        raise InputError(f"{path} has no landmark columns; expected x_0, x_1, ... and y_0, y_1, ...")
    columns: list[int] = []
    for point in range(numbers[-1] + 1):
        for name in (f"x_{point}", f"y_{point}"):
            if header.count(name) != 1:
                raise InputError(f"{path}: the column {name!r} is {'there twice' if name in header else 'missing'}")
            columns.append(header.index(name))
    return columns


def _number(cell: str) -> float:
    return float(cell) if cell else float("nan")


def _by_name(
    points: NDArray[np.float32], listed: Sequence[str], names: Sequence[str], path: Path
) -> NDArray[np.float32]:
    place = {name: row for row, name in enumerate(listed)}
    if len(place) != len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise InputError(f"{path} lists {twice!r} twice")
    if not any(name in place for name in names):
        example = f"{listed[0]!r}, where the source has {names[0]!r}" if listed and names else "it has no rows"
        raise InputError(f"no path of {path} is a path of the source: {example}")
    matched = np.full((len(names), *points.shape[1:]), np.nan, dtype=np.float32)
    for row, name in enumerate(names):
        if name in place:
            matched[row] = points[place[name]]
    return matched

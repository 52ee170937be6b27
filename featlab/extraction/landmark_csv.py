"""Landmarks in a csv with OpenFace's columns."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

_POINT_X = re.compile(r"x_(\d+)")


@dataclass(frozen=True, eq=False)
class LandmarkCsv:
    """What a csv of landmarks says, row by row.

    Attributes:
        points: float32 (n, P, 2); a row of NaN where no face was found.
        paths: The ``path`` column, with forward slashes; None without one.
        frames: The ``frame`` column, int64 (n,); None without one. OpenFace counts from 1.
    """

    points: NDArray[np.float32]
    paths: tuple[str, ...] | None
    frames: NDArray[np.int64] | None


def read_landmark_csv(path: Path) -> LandmarkCsv:
    """Read a csv with the columns ``x_0`` ... ``x_{P-1}`` and ``y_0`` ... ``y_{P-1}``, as OpenFace writes it.

    No face was found where ``success`` is 0, or, without such a column, where ``confidence`` is 0 (OpenFace writes it
    for single images, and no success).

    Raises:
        InputError: It can't be read, or its columns don't fit; names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        table = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid csv: {error}") from None
    if not table:
        raise InputError(f"{path} is empty")
    header = table[0][1]
    columns = _point_columns(header, path)
    found = next((header.index(name) for name in ("success", "confidence") if name in header), None)
    frame = header.index("frame") if "frame" in header else None
    points = np.full((len(table) - 1, len(columns) // 2, 2), np.nan, dtype=np.float32)
    frames = np.zeros(len(table) - 1, dtype=np.int64)
    for row, (line, cells) in enumerate(table[1:]):
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} values under {len(header)} columns")
        try:
            if found is None or float(cells[found]) != 0:
                points[row] = np.array([_number(cells[column]) for column in columns]).reshape(-1, 2)
            if frame is not None:
                frames[row] = _whole(cells[frame])
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {error}") from None
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    listed = None
    if "path" in header:
        listed = tuple(cells[header.index("path")].replace("\\", "/") for _, cells in table[1:])
    return LandmarkCsv(points, listed, None if frame is None else frames)


def _point_columns(header: list[str], path: Path) -> list[int]:
    """Places of x_0, y_0, x_1, y_1, ... in the header."""
    numbers = sorted(int(match[1]) for name in header if (match := _POINT_X.fullmatch(name)))
    if not numbers:
        raise InputError(f"{path} has no landmark columns; expected x_0, x_1, ... and y_0, y_1, ...")
    columns: list[int] = []
    for point in range(len(numbers)):
        for name in (f"x_{point}", f"y_{point}"):
            if header.count(name) != 1:
                raise InputError(f"{path}: the column {name!r} is {'there twice' if name in header else 'missing'}")
            columns.append(header.index(name))
    return columns


def _number(cell: str) -> float:
    return float(cell) if cell else float("nan")


def _whole(cell: str) -> int:
    number = float(cell)
    if not number.is_integer():
        raise ValueError(f"frame {cell!r} isn't a whole number")
    return int(number)

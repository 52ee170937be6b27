"""Landmarks of one face in a text file: iBUG's ``.pts`` and webmorph's ``.tem``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

_COUNT = re.compile(r"n_points\s*:\s*(\d+)")


def read_pts(path: Path) -> NDArray[np.float32]:
    """Read a ``.pts``, the format of the iBUG annotations (300-W and others).

        version: 1
        n_points: 68
        {
        446.000 91.000
        ...
        }

    Its upper left pixel is (1, 1), as in Matlab, with which these annotations were made, so 1 is taken off; menpo does
    the same.

    Returns:
        float32 (P, 2).

    Raises:
        InputError: It isn't such a file; names the line.
    """
    lines = _lines(path)
    count: int | None = None
    for place, (number, line) in enumerate(lines):
        if match := _COUNT.match(line.lower()):
            count = int(match[1])
        if line.startswith("{"):
            rest = [(number, line[1:].strip()), *lines[place + 1 :]]
            break
    else:
        raise InputError(f"{path}: isn't a .pts file: no line with an opening brace")
    if not any("}" in line for _, line in rest):
        raise InputError(f"{path}: the closing brace is missing; the file is cut off")
    points: list[tuple[float, float]] = []
    for number, line in rest:
        before, brace, _ = line.partition("}")
        if before.strip():
            points.append(_point(path, number, before))
        if brace:
            break
    if not points:
        raise InputError(f"{path}: no point between the braces")
    if count is not None and count != len(points):
        raise InputError(f"{path}: says {count} points and holds {len(points)}")
    return np.array(points, dtype=np.float32) - np.float32(1)


def read_tem(path: Path) -> NDArray[np.float32]:
    """Read a ``.tem``, the template of webmorph and Psychomorph: the number of points, the points, line definitions.

        189
        511.2<tab>623.9
        ...

    The upper left pixel is (0, 0). The line definitions after the points are not needed and not read. In the 189 points
    of the Face Research Lab's template, 0 and 1 are the pupils.

    Returns:
        float32 (P, 2).

    Raises:
        InputError: It isn't such a file; names the line.
    """
    lines = _lines(path)
    first = lines[0][1]
    if not (first.isascii() and first.isdigit()) or int(first) == 0:
        raise InputError(f"{path}, line {lines[0][0]}: expected the number of points, found {first[:40]!r}")
    count = int(first)
    if len(lines) - 1 < count:
        raise InputError(f"{path}: says {count} points and holds {len(lines) - 1}; the file is cut off")
    return np.array([_point(path, *line) for line in lines[1 : count + 1]], dtype=np.float32)


def _lines(path: Path) -> Sequence[tuple[int, str]]:
    """Numbered lines that hold something."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    kept = [(number, line) for number, line in lines if line]
    if not kept:
        raise InputError(f"{path} is empty")
    return kept


def _point(path: Path, number: int, line: str) -> tuple[float, float]:
    cells = line.replace(",", " ").split()
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        raise InputError(f"{path}, line {number}: expected x and y, found {line[:40]!r}") from None
    return x, y

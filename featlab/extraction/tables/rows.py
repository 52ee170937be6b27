"""What every reader of features returns, and what a name or a number means wherever it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError, closest
from featlab.extraction.shards import Failure

__all__ = ["INDEX_COLUMNS", "OnProgress", "ReadRows", "as_points", "as_text", "as_texts", "check_subject_column"]

INDEX_COLUMNS = ("subject", "label", "video", "frame", "path")
"""Columns that say what a row is; every other one may be a feature."""

OnProgress = Callable[[int, int], None]
"""Called with the rows that were read and how many there are, as far as is known before they have been."""


@dataclass(frozen=True, eq=False)
class ReadRows:
    """N rows as a file holds them, in its own order; nothing has been left out.

    Attributes:
        features: float32 (N, D); NaN or infinite where the file says so, or says nothing.
        names: The index columns that there are, as text, N values each; empty text where nothing is said.
        where: Says where a row is, for messages: "features.csv, line 13".
        name_of: Names a row that has no path, for the list of failures: "features.csv#row=11".
        header: All names that the file has for its columns or arrays, for messages.
        columns: D names of features; empty where the file gives them none.
        landmarks: float32 (N, P, 2) in pixels, a row of NaN without a face; None without any.
        failed: Rows that the file itself calls failed, and why.
        missing: Files that gave no rows.
        notes: What the user should know, a line each.
    """

    features: NDArray[np.float32]
    names: Mapping[str, Sequence[str]]
    where: Callable[[int], str]
    name_of: Callable[[int], str]
    header: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    landmarks: NDArray[np.float32] | None = None
    failed: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def called(self, row: int) -> str:
        """Name of a row in the list of failures: its path, or else its place in the file."""
        return self.names["path"][row] if "path" in self.names else self.name_of(row)


def as_text(value: Any) -> str:
    """Return a name as text, from a file whose values have types; 3.0 (a whole number beside missing ones) is "3".

    Args:
        value: Text, bytes, a number, or None or NaN for nothing (empty text).
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()


def as_texts(array: NDArray[Any], what: str) -> list[str]:
    """Return the names that an array holds, one a row.

    Args:
        array: (N,) text, bytes or numbers.
        what: The file and the array, for messages.

    Raises:
        InputError: Another shape or type, or bytes that are no UTF-8.
    """
    if array.ndim != 1 or array.dtype.kind not in "USiuf":
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected one name or number a row")
    try:
        return [as_text(value) for value in array.tolist()]
    except UnicodeDecodeError:
        raise InputError(f"{what} holds bytes that aren't UTF-8 text; save it as text") from None


def as_points(array: NDArray[Any], rows: int, what: str) -> NDArray[np.float32]:
    """Return landmarks as float32 (rows, P, 2); a row with any value that isn't finite becomes wholly NaN.

    Args:
        array: (rows, P, 2), or (rows, 2P) as x, y, x, y, …
        rows: How many there must be.
        what: The file and the array, for messages.

    Raises:
        InputError: Another shape or type.
    """
    points = array.reshape(len(array), -1, 2) if array.ndim == 2 and array.size and array.shape[1] % 2 == 0 else array
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected numbers (rows, P, 2)")
    if len(points) != rows:
        raise InputError(f"{what} has {len(points)} rows, and there are {rows} rows of features; one each is needed")
    points = points.astype(np.float32)
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return points


def check_subject_column(names: Sequence[str], source: Path, remedy: str) -> None:
    """Raise an InputError that names the closest column when none is called ``subject``.

    Args:
        names: The columns, or arrays, that there are.
        source: The file.
        remedy: What to do, the end of the message.
    """
    if "subject" in names:
        return
    found = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise InputError(f"{source}: no column 'subject' (found: {found}){closest('subject', names)}; {remedy}")

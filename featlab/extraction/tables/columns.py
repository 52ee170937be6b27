"""Rows that a cache can't hold, and what storing the others costs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.cache import ExtractorInfo
from featlab.errors import ConfigError, InputError, closest
from featlab.extraction.precision import StorageError, storage_error
from featlab.extraction.tables.rows import INDEX_COLUMNS, ReadRows

__all__ = [
    "GROUPS",
    "Chosen",
    "Selection",
    "bad_rows",
    "choose_columns",
    "float16_error",
    "is_openface",
    "make_extractor",
]

_BLOCK_BYTES = 16 << 20


def bad_rows(rows: ReadRows, kept: NDArray[np.intp], dtype: str) -> dict[int, str]:
    """Return the rows that can't be stored, in their order, and why.

    Args:
        rows: Features.
        kept: Places that are looked at, ascending.
        dtype: As the embeddings would be stored.
    """
    bad: dict[int, str] = {}
    for part in _blocks(kept, rows.features.shape[1]):
        block = rows.features[part]
        with np.errstate(over="ignore"):
            fits = np.isfinite(block.astype(dtype))
        for place in np.flatnonzero(~fits.all(axis=1)).tolist():
            column = int(np.argmin(fits[place]))
            bad[int(part[place])] = _why(rows, column, float(block[place, column]), dtype)
    return bad


def float16_error(features: NDArray[np.float32]) -> float:
    """Return the largest relative error of a row (see `featlab.extraction.precision`) that float16 makes."""
    rows = np.arange(len(features))
    return StorageError.of(storage_error(features[part]) for part in _blocks(rows, features.shape[1])).max


def _blocks(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _why(rows: ReadRows, column: int, value: float, dtype: str) -> str:
    name = rows.columns[column] if rows.columns else f"value {column}"
    if np.isnan(value):
        return f"{name} is missing or NaN"
    return f"{name} is infinite" if np.isinf(value) else f"{name} is {value:g}, too large for {dtype}"


_AU_R, _AU_C = r"AU\d+_r", r"AU\d+_c"
_POSE, _GAZE = r"pose_[TR][xyz]", r"gaze_(\d_[xyz]|angle_[xy])"
GROUPS = {
    "au": f"{_AU_R}|{_AU_C}",
    "au-r": _AU_R,
    "au-c": _AU_C,
    "pose": _POSE,
    "gaze": _GAZE,
    "all": f"{_AU_R}|{_AU_C}|{_POSE}|{_GAZE}",
}
"""Groups of OpenFace's columns: action units (intensity _r, presence _c), head pose, gaze."""

_POINT = re.compile(r"([xy])_(\d+)")
_NAMES_IN_A_NOTE = 6


@dataclass(frozen=True)
class Selection:
    """Which columns are features.

    Attributes:
        columns: Names and beginnings of names with commas, or a regular expression for whole names; None: not said.
        group: One of `GROUPS`; None: not said.

    Raises:
        ConfigError: Both are said, or the group is unknown.
    """

    columns: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if self.columns is not None and self.group is not None:
            raise ConfigError("--columns and --features both choose columns; give one of them")
        if self.group is not None and self.group not in GROUPS:
            raise ConfigError(
                f"--features {self.group!r} is not one of {', '.join(GROUPS)}{closest(self.group, GROUPS)}; "
                "--columns chooses any others"
            )


@dataclass(frozen=True)
class Chosen:
    """The roles of a table's columns, as places in its header.

    Attributes:
        features: D places, in the table's order.
        landmarks: Places of x_0, y_0, x_1, y_1, …; empty without landmarks.
        notes: What was left out, a line each.
    """

    features: tuple[int, ...]
    landmarks: tuple[int, ...]
    notes: tuple[str, ...]


def choose_columns(
    header: Sequence[str], selection: Selection, is_number: Callable[[int], bool], source: Path
) -> Chosen:
    """Decide which columns are features.

    Without a selection all columns of numbers are, but for the index columns, landmarks (``x_0``, ``y_0``, …), and
    columns without a name (the row numbers that pandas writes). In a table of OpenFace's the action units' intensities
    are (group ``au-r``).

    Args:
        header: Names of the columns.
        selection: What the user said.
        is_number: Whether the column at a place holds numbers, asked where the user said nothing.
        source: The file, for messages.

    Raises:
        InputError: A selection that names no column, or no feature at all.
    """
    places = [place for place, name in enumerate(header) if name not in INDEX_COLUMNS]
    group = selection.group
    if group is None and selection.columns is None and is_openface(header):
        group = "au-r"
    if group is not None:
        features = [place for place in places if re.fullmatch(GROUPS[group], header[place])]
        if not features:
            raise InputError(f"{source} has none of OpenFace's columns of the group {group!r}; choose with --columns")
        return Chosen(tuple(features), _points(header, features), ())
    if selection.columns is not None:
        features = _named(header, places, selection.columns, source)
        return Chosen(tuple(features), _points(header, features), ())
    landmarks = _points(header, ())
    others = [place for place in places if place not in set(landmarks)]
    features = [place for place in others if _has_name(header[place]) and is_number(place)]
    if not features:
        raise InputError(f"{source} has no column of numbers beside {', '.join(INDEX_COLUMNS)}: no features")
    kept = set(features)
    left = [header[place] or "(without a name)" for place in others if place not in kept]
    notes = [f"not features: {_few(left)}"] if left else []
    if landmarks:
        notes.append(f"x_0, y_0, … are taken as {len(landmarks) // 2} landmarks")
    return Chosen(tuple(features), landmarks, tuple(notes))


def is_openface(header: Sequence[str]) -> bool:
    """Whether the columns are those that OpenFace writes."""
    return any(re.fullmatch(_AU_R, name) for name in header) and not {"success", "confidence"}.isdisjoint(header)


def make_extractor(name: str, dim: int, columns: Sequence[str]) -> ExtractorInfo:
    """Describe who made imported features: the name, how many there are, and a hash of their names in their order.

    Features of other columns, or of the same in another order, get another fingerprint, so they never meet.

    Args:
        name: What the user calls the extractor.
        dim: D.
        columns: D names, or none.
    """
    if not columns:
        return ExtractorInfo(name, "none", f"{dim} imported values without names")
    digest = hashlib.sha256("\n".join(columns).encode()).hexdigest()
    return ExtractorInfo(name, "none", f"{dim} imported columns, {columns[0]} to {columns[-1]}, names {digest[:12]}")


def _named(header: Sequence[str], places: Sequence[int], spec: str, source: Path) -> list[int]:
    """Return the places that a selection means: a list of names and beginnings if it can be one, else an expression."""
    names = [header[place] for place in places]
    items = [item.strip() for item in spec.split(",") if item.strip()]
    if items and all(any(name.startswith(item) for name in names) for item in items):
        exact = {item for item in items if item in names}
        starts = tuple(item for item in items if item not in exact)
        return [place for place in places if header[place] in exact or header[place].startswith(starts)]
    try:
        pattern = re.compile(spec)
    except re.error as error:
        raise ConfigError(f"--columns {spec!r}: no column begins so, and it is no expression ({error})") from None
    matching = [place for place in places if pattern.fullmatch(header[place])]
    if not matching:
        raise InputError(f"--columns {spec!r} fits no column of {source} ({_few(names)}){closest(spec, names)}")
    return matching


def _points(header: Sequence[str], features: Sequence[int]) -> tuple[int, ...]:
    """Places of x_0, y_0, x_1, y_1, …, or none where the points aren't whole or their columns are features."""
    taken = set(features)
    place = {name: number for number, name in enumerate(header) if _POINT.fullmatch(name) and number not in taken}
    points = len(place) // 2
    wanted = [f"{axis}_{point}" for point in range(points) for axis in "xy"]
    return tuple(place[name] for name in wanted) if points and set(wanted) == set(place) else ()


def _has_name(name: str) -> bool:
    return bool(name) and re.fullmatch(r"Unnamed: \d+", name) is None


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_IN_A_NOTE
    return ", ".join(names[:_NAMES_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")

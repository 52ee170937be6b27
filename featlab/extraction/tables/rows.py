"""What the columns of a table are: which say what a row is, which are features, which are landmarks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest
from featlab.extraction.items import Failure

INDEX_COLUMNS = ("subject", "label", "video", "frame", "path", "session")
"""Columns that say what a row is; every other one may be a feature."""

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

# Nameless columns are the row numbers that pandas writes; the others name a row, even where their values are numbers.
_NEVER_FEATURES = re.compile(r"|Unnamed: \d+|file_?name|file|id", re.IGNORECASE)
_POINT = re.compile(r"([xy])_(\d+)")
_NAMES_IN_A_NOTE = 6

OnProgress = Callable[[int, int], None]
"""Called with the rows that were read and how many there are, as far as is known before they have been."""


@dataclass(frozen=True, eq=False)
class ReadRows:
    """N rows as a file holds them, in its own order; nothing has been left out."""

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


@dataclass(frozen=True)
class Selection:
    """Which columns are features."""

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
    """The roles of a table's columns, as places in its header."""

    features: tuple[int, ...]
    landmarks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def choose_columns(
    header: Sequence[str], selection: Selection, is_number: Callable[[int], bool], source: Path
) -> Chosen:
    """Decide which columns are features."""
    places = [place for place, name in enumerate(header) if name not in INDEX_COLUMNS]
    group = selection.group
    if group is None and selection.columns is None and is_openface(header):
        group = "au-r"
    if group is not None:
        features = [place for place in places if re.fullmatch(GROUPS[group], header[place])]
        if not features:
            raise InputError(f"{source} has none of OpenFace's columns of the group {group!r}; choose with --columns")
        return Chosen(tuple(features), _points(header, features))
    if selection.columns is not None:
        features = _named(header, places, selection.columns, source)
        return Chosen(tuple(features), _points(header, features))
    landmarks = _points(header, ())
    others = [place for place in places if place not in set(landmarks)]
    features = [place for place in others if not _NEVER_FEATURES.fullmatch(header[place]) and is_number(place)]
    if not features:
        raise InputError(f"{source} has no column of numbers beside {', '.join(INDEX_COLUMNS)}: no features")
    left = [header[place] or "(without a name)" for place in others if place not in set(features)]
    notes = [f"not features: {_few(left)}"] if left else []
    if landmarks:
        notes.append(f"x_0, y_0, … are taken as {len(landmarks) // 2} landmarks")
    return Chosen(tuple(features), landmarks, tuple(notes))


def is_openface(header: Sequence[str]) -> bool:
    """Whether the columns are those that OpenFace writes."""
    return any(re.fullmatch(_AU_R, name) for name in header) and not {"success", "confidence"}.isdisjoint(header)


def check_subject_column(names: Sequence[str], source: Path, remedy: str) -> None:
    """Refuse a table without a column ``subject``, naming the closest one; ``remedy`` ends the message."""
    if "subject" not in names:
        found = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise InputError(f"{source}: no column 'subject' (found: {found}){closest('subject', names)}; {remedy}")


def as_text(value: Any) -> str:
    """Return a name as text: 3.0 (a whole number beside missing ones) is "3"; None and NaN are empty."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()


def as_points(array: NDArray[Any], rows: int, what: str) -> NDArray[np.float32]:
    """Return (rows, P, 2) or (rows, 2P) numbers as landmarks; a row with any that isn't finite becomes wholly NaN."""
    points = array.reshape(len(array), -1, 2) if array.ndim == 2 and array.size and array.shape[1] % 2 == 0 else array
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"{what} has shape {array.shape} and type {array.dtype}; expected numbers (rows, P, 2)")
    if len(points) != rows:
        raise InputError(f"{what} has {len(points)} rows, and there are {rows} rows of features; one each is needed")
    points = points.astype(np.float32)
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return points


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


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_IN_A_NOTE
    return ", ".join(names[:_NAMES_IN_A_NOTE]) + (f" and {more} more" if more > 0 else "")

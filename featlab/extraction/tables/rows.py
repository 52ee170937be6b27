"""What the columns of a table are: which say what a row is, which are features, which are landmarks."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest, listed
from featlab.extraction.columns import Columns
from featlab.extraction.items import Failure

INDEX_COLUMNS = ("subject", "label", "video", "frame", "path", "session")
"""Columns that say what a row is; every other one may be a feature."""

# Row numbers as pandas and R write them; the others say which row it is, or when it was.
_NEVER_FEATURES = re.compile(
    r"|Unnamed: \d[\d.]*|__index_level_\d+__|level_\d+|index|row_?(names|number|id|index)|file_?name|file|id"
    r"|(approx_|frame_)?time_?(stamp)?(_in)?(_m?s)?|frame_?(id|idx|index|number|no)"
    rf"|{'|'.join(INDEX_COLUMNS)}",
    re.IGNORECASE,
)
_POINT = re.compile(r"([xy])_(\d+)")


@dataclass(frozen=True)
class Preset:
    """The table of one tool. Names of columns are regular expressions for whole names, but in ``frame`` and ``path``.

    A table is the tool's where each expression of one of the ``marks`` fits a column. ``default`` names groups: the
    first that the table has is taken. A row has failed where a column of ``zero`` is 0, one of ``zero_of_some`` is 0
    and isn't 0 in every row, or one of ``empty`` is empty. ``face`` tells the faces of one recording apart.
    """

    title: str
    marks: Sequence[Sequence[str]] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    default: Sequence[str] = ()
    zero: str = ""
    zero_of_some: str = ""
    empty: str = ""
    face: str = ""
    frame: str = "frame"
    path: Sequence[str] = ()

    def groups_in(self, header: tuple[str, ...]) -> list[str]:
        """Return the groups that have a column here."""
        return [group for group, columns in self.groups.items() if columns_of(columns, header)]


_TOOLS = tomllib.loads(Path(__file__).with_name("tools.toml").read_text(encoding="utf-8"))
WORDS: dict[str, str] = _TOOLS.pop("words")
PRESETS = {name: Preset(**told) for name, told in _TOOLS.items()}
_ANY_TOOL = Preset("", zero="success|confidence", zero_of_some="face_confidence", face="face_id|face")


@lru_cache(maxsize=256)
def columns_of(pattern: str, header: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns whose whole name fits; the tables of a folder ask the same."""
    fits = re.compile(pattern).fullmatch
    return tuple(name for name in header if name and fits(name))


def _find_preset(header: tuple[str, ...], name: str | None) -> Preset:
    """Return the preset called so, or else the first whose columns these are, or else `_ANY_TOOL`."""
    if name is not None:
        if name not in PRESETS:
            raise ConfigError(f"--from {name!r} is not one of {', '.join(PRESETS)}{closest(name, PRESETS)}")
        return PRESETS[name]
    for preset in PRESETS.values():
        if any(all(columns_of(mark, header) for mark in marks) for marks in preset.marks):
            return preset
    return _ANY_TOOL


@dataclass(frozen=True, eq=False)
class ReadRows:
    """N rows as a file holds them, in its own order; nothing has been left out.

    ``failed`` says why the tool that wrote a row calls it failed, ``bad`` what a row can't be stored for. Where the
    tool tells faces apart, ``face`` is its column and ``faces`` what it says.
    """

    features: NDArray[np.float32]
    names: Mapping[str, Sequence[str]]
    where: Callable[[int], str]
    name_of: Callable[[int], str]
    header: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    landmarks: NDArray[np.float32] | None = None
    face: str = ""
    faces: Sequence[str] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    bad: Mapping[int, str] = field(default_factory=dict)
    missing: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def called(self, row: int) -> str:
        """Name of a row in the list of failures: its path, or its place in the file, or both where paths repeat."""
        if "path" not in self.names:
            return self.name_of(row)
        path = self.names["path"][row]
        return path if self._one_path_each else f"{path} ({self.name_of(row)})"

    @cached_property
    def _one_path_each(self) -> bool:
        return len(set(self.names["path"])) == len(self.names["path"])


@dataclass(frozen=True)
class Selection:
    """Which columns are features, and which tool wrote them."""

    columns: str | None = None
    group: str | None = None
    tool: str | None = None

    def __post_init__(self) -> None:
        if self.columns is not None and self.group is not None:
            raise ConfigError("--columns and --features both choose columns; give one of them")
        _find_preset((), self.tool)


@dataclass(frozen=True)
class Roles:
    """What a table's columns are, as places in its header.

    ``features`` are those that were chosen by name, or, unless ``chosen``, all that may be features. ``group`` is the
    preset's that was taken because nothing was said. ``signs`` of a failed row are columns and "zero", "zero_of_some"
    or "empty", as `Preset` has them. ``face`` is one column, or none.
    """

    preset: Preset
    names: Mapping[str, int]
    features: tuple[int, ...]
    chosen: bool
    group: str | None
    landmarks: tuple[int, ...]
    signs: tuple[tuple[int, str], ...]
    face: tuple[int, ...]


def roles_of(table: Columns, selection: Selection) -> Roles:
    """Decide what each column is, as far as the names tell."""
    header = table.header
    preset = _find_preset(header, selection.tool)
    names = {name: header.index(name) for name in INDEX_COLUMNS if name in header}
    for name, also in (("frame", preset.frame), *(("path", other) for other in preset.path)):
        if also in header:
            names.setdefault(name, header.index(also))
    others = [place for place in range(len(header)) if place not in names.values()]
    chosen: list[int] = []
    group = None
    if selection.columns is not None:
        chosen = _named(header, others, selection.columns, table.path)
    elif selection.group is not None:
        chosen = _grouped(header, others, preset, selection.group, table.path)
    elif preset.groups:
        group = next((each for each in preset.default if columns_of(preset.groups[each], header)), None)
        if group is None:
            raise InputError(
                f"{table.path} has no features of {preset.title}; --columns chooses the columns of features"
            )
        chosen = _grouped(header, others, preset, group, table.path)
    landmarks = _points(header, chosen)
    asked_for = {header[place] for place in chosen} if selection.columns is not None else set()

    def of_the_tool(pattern: str) -> list[int]:
        fitting = {*columns_of(pattern, header)} - asked_for
        return [place for place in others if header[place] in fitting]

    kinds = "zero", "zero_of_some", "empty"
    signs = tuple((place, kind) for kind in kinds for place in of_the_tool(getattr(preset, kind)))
    faces = of_the_tool(preset.face)
    spoken_for = {*landmarks, *faces, *(place for place, _ in signs)}
    features = chosen or [
        place
        for place in others
        if place not in spoken_for and not _NEVER_FEATURES.fullmatch(header[place]) and header[place] not in table.never
    ]
    return Roles(preset, names, tuple(features), bool(chosen), group, landmarks, signs, tuple(faces[:1]))


def _grouped(header: tuple[str, ...], places: Sequence[int], preset: Preset, group: str, source: Path) -> list[int]:
    """Return the places of a tool's group of columns."""
    there = preset.groups_in(header)
    if group not in there:
        known = f"one of {', '.join(there)}, the groups that {preset.title}'s table has{closest(group, there)}"
        if not there:
            known = f"a group here: these aren't the columns of {preset.title or ', '.join(PRESETS)}"
        raise InputError(
            f"{source}: --features {group!r} is not {known}; --from names the tool, and --columns chooses any columns"
        )
    fitting = set(columns_of(preset.groups[group], header))
    return [place for place in places if header[place] in fitting]


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
        raise InputError(f"--columns {spec!r} fits no column of {source} ({listed(names)}){closest(spec, names)}")
    return matching


def _points(header: Sequence[str], features: Sequence[int]) -> tuple[int, ...]:
    """Places of x_0, y_0, x_1, y_1, …, or none where the points aren't whole or their columns are features."""
    taken = set(features)
    place = {name: number for number, name in enumerate(header) if _POINT.fullmatch(name) and number not in taken}
    points = len(place) // 2
    wanted = [f"{axis}_{point}" for point in range(points) for axis in "xy"]
    return tuple(place[name] for name in wanted) if points and set(wanted) == set(place) else ()

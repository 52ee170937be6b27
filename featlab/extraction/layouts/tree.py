"""What is in a folder, in a fixed order; small annotation files; what to say when they aren't what was expected."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.items import IMAGE_SUFFIXES, Item, item_order, natural_key
from featlab.extraction.text import check_columns, open_delimited, read_lines
from featlab.extraction.video.frames import is_video

_SHOWN = 4
_LOOKED_AT = 200


@dataclass(frozen=True)
class Clip:
    """One recording."""

    path: Path  # The video file, or the folder that holds its frames
    frames: tuple[Path, ...] | None  # The frames, in natural order of their names; None for a video file

    @property
    def name(self) -> str:
        """The recording's name: a file's without its suffix."""
        return self.path.stem if self.frames is None else self.path.name

    def items(self, root: Path, subject: str, label: str | None, video: str) -> list[Item]:
        """Return one item for a video file, or one an image."""
        paths = (self.path,) if self.frames is None else self.frames
        return [
            Item(path, relative(path, root), subject, label, video, frame, row=-1) for frame, path in enumerate(paths)
        ]


def folders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, in natural order."""
    return _entries(folder)[0]


def files(folder: Path) -> list[Path]:
    """Return the visible files in a folder, in natural order."""
    return _entries(folder)[1]


def images(folder: Path) -> list[Path]:
    """Return the visible image files in a folder, in natural order."""
    return [path for path in files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def videos(folder: Path) -> list[Path]:
    """Return the visible video files in a folder, in natural order."""
    return [path for path in files(folder) if is_video(path)]


def clips(folder: Path) -> list[Clip]:
    """Return the recordings in a folder, by name: its video files, and the folders in it that hold images."""
    inside, loose = _entries(folder)
    found = [Clip(path, None) for path in loose if is_video(path)]
    found += [Clip(path, tuple(frames)) for path in inside if (frames := images(path))]
    found.sort(key=lambda clip: natural_key(clip.name))
    for before, after in pairwise(found):
        if before.name == after.name:
            raise InputError(
                f"{folder}: {before.path.name} and {after.path.name} are the same recording; move one of them away"
            )
    return found


def child(folder: Path, *names: str) -> Path | None:
    """Return the first of some names that is in a folder, whatever its case; None when none is."""
    inside, loose = _entries(folder)
    known = {path.name.lower(): path for path in [*loose, *inside]}
    return next((known[name.lower()] for name in names if name.lower() in known), None)


def descendant(folder: Path, *places: str) -> Path | None:
    """Return the first of some places (``a/b``) below a folder that is there, whatever its case."""
    for place in places:
        at: Path | None = folder
        for name in place.split("/"):
            at = child(at, name) if at is not None and at.is_dir() else None
        if at is not None:
            return at
    return None


_RAW = "3fr arw cr2 cr3 crw dng erf iiq mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
_UNREAD = frozenset(f".{name}" for name in f"{_RAW} ai bpg dcm eps exr hdr jls jxl jxr svg wdp xcf".split())
"""Suffixes of pictures that nothing here reads."""
_FIRST_OF_A_PICTURE = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")


def left_out(root: Path, taken: Collection[Path] = ()) -> Iterator[Path]:
    """Yield visible files below a folder that are pictures by suffix or first bytes, and none of those ``taken``."""
    for folder, inside, names in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        paths = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path not in taken and _is_picture(path))


def kinds(paths: Iterable[Path]) -> str:
    """Return how many files there are of each suffix: "8 .cr2, 1 without suffix"."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


def _is_picture(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in _UNREAD:
        return True
    try:
        with path.open("rb") as file:
            return not is_video(path) and file.read(8).startswith(_FIRST_OF_A_PICTURE)
    except OSError:
        return False


def relative(path: Path, root: Path) -> str:
    """Return a path as an item's name: relative to the root, with POSIX slashes."""
    return path.relative_to(root).as_posix() if path != root else path.name


def numbered(items: Iterable[Item]) -> list[Item]:
    """Return items sorted by subject, video and frame, ``row`` being the place in that order."""
    return [replace(item, row=row) for row, item in enumerate(sorted(items, key=item_order))]


def counted(items: Iterable[Item]) -> list[Item]:
    """Number the frames of each (subject, video) in the order in which they come, then as `numbered`."""
    frames: Counter[tuple[str, str]] = Counter()
    placed = []
    for item in items:
        placed.append(replace(item, frame=frames[item.subject, item.video]))
        frames[item.subject, item.video] += 1
    return numbered(placed)


def mismatch(root: Path, expected: str, looked_in: Path | None = None) -> InputError:
    """Return the error of a tree that is another one: what was expected, and what is there."""
    return InputError(f"{root}: expected {expected}; found {_shape(looked_in or root, root)}")


def check_present(items: Iterable[Item], root: Path, listed_in: str) -> None:
    """Raise an InputError when not one of the files is there; a few that aren't fail later, and are listed then."""
    names: dict[Path, str] = {}
    for item in items:
        names.setdefault(item.path, item.name)
    if names and not any(path.exists() for path in names):
        first = next(iter(names.values()))
        raise InputError(
            f"{root}: none of the {len(names)} files that {listed_in} lists is there; the first is {first}"
        )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the visible folders and files in a folder."""
    with os.scandir(folder) as found:
        visible = sorted(
            ((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(".")),
            key=lambda entry: natural_key(entry[0]),
        )
    inside, loose = ([folder / name for name, is_dir in visible if is_dir is kind] for kind in (True, False))
    return inside, loose


def _shape(folder: Path, root: Path) -> str:
    if not folder.is_dir():
        return f"the file {folder.name}"
    inside, loose = _entries(folder)
    names = [f"{path.name}/" for path in inside[:_LOOKED_AT]] + [path.name for path in loose[:_LOOKED_AT]]
    where = "" if folder == root else f"{relative(folder, root)}/ with "
    if not names:
        return f"{where}nothing in it" if where else "an empty folder"
    more = len(inside) + len(loose) - _SHOWN
    return where + ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


_MARKS = "\t;,"
_FIRST_BYTES = 4096


def matches(path: Path, pattern: re.Pattern[str], form: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield where each line of a list is, and its parts; an InputError says which ``form`` it should have."""
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        match = pattern.fullmatch(line)
        if match is None:
            raise InputError(f"{where}: expected {form}, found {line[:60]!r}")
        yield where, match


Row = tuple[dict[str, str], Callable[[], str]]
"""A row of a table by its columns, and what says where it is."""


def first_line(path: Path) -> str:
    """Return the beginning of a file's first line, without line end; empty when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.readline(_FIRST_BYTES).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    except OSError:
        return ""


def header(path: Path) -> list[str]:
    """Return the column names in a table's first line, in lower case; empty when the file can't be read."""
    line = first_line(path)
    return [name.strip().strip('"').lower() for name in line.strip().split(_mark(line))]


def read_columns(
    path: Path, required: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[dict[str, list[str]], Callable[[int], str]]:
    """Read a table's columns (the wanted ones that are there), apart by tabs, semicolons or commas, and where rows are.

    What is missing is empty; a label "none" is one, for it may be the neutral one.
    """
    from featlab.extraction.columns import read_names

    table = open_delimited(path, _mark(first_line(path)))
    check_columns([name.lower() for name in table.header], required, str(path))
    read = [name for name in table.header if not wanted or name.lower() in wanted]
    columns = {name.lower(): cells for name, cells in read_names(table, read, neutral="none").items()}
    if not columns[required[0]]:
        raise InputError(f"{path} has no rows")
    return columns, table.where


def read_table(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a table as `read_columns` does, row by row."""
    columns, where = read_columns(path, required)
    cells = zip(*columns.values(), strict=True)
    return [(dict(zip(columns, each, strict=True)), partial(where, place)) for place, each in enumerate(cells)]


def _mark(line: str) -> str:
    return max(_MARKS, key=line.count)


NEUTRAL, ANGER, DISGUST, FEAR = "neutral", "anger", "disgust", "fear"
HAPPINESS, SADNESS, SURPRISE, OTHER = "happiness", "sadness", "surprise", "other"


def _by_number(first: int, *names: str) -> dict[str, str]:
    return {str(code): name for code, name in enumerate(names, first)}


FER2013 = _by_number(0, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, NEUTRAL)
"""By the number that FER2013 and ExpW write."""
RAF_DB = _by_number(1, SURPRISE, FEAR, DISGUST, HAPPINESS, SADNESS, ANGER, NEUTRAL)
"""By RAF-DB's own number."""
AFF_WILD2 = _by_number(0, NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, OTHER)
"""By Aff-Wild2's own number; earlier releases have the first seven."""

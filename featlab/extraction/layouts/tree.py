"""What is in a folder, in a fixed order; small annotation files; what to say when they aren't what was expected."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.items import IMAGE_SUFFIXES, Item, natural_key
from featlab.extraction.text import read_lines
from featlab.extraction.video.frames import is_video

_SHOWN = 4
_LOOKED_AT = 200


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


def clips(folders: Iterable[Path], named: re.Pattern[str]) -> dict[str, list[Path]]:
    """Return the recordings in some folders that are named so: video files, and the images of each folder in them."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        recordings = [(path.stem, [path]) for path in videos(folder)]
        recordings += [(path.name, images(path)) for path in _entries(folder)[0] if named.fullmatch(path.name)]
        for name, paths in recordings:
            if paths and named.fullmatch(name) and (others := found.setdefault(name, paths)) is not paths:
                raise InputError(f"{name} is there twice: {others[0]} and {paths[0]}; move one of them away")
    return found


def in_clip(paths: Iterable[Path], root: Path, subject: str, label: str | None, video: str) -> list[Item]:
    """Return the items of one clip, a file each, numbered in this order; a video file stands for all of its frames."""
    return [Item(path, relative(path, root), subject, label, video, frame) for frame, path in enumerate(paths)]


def find(folder: Path, *places: str) -> Path | None:
    """Return the first of some places (``a/b``) below a folder that is there, whatever its case; None without any."""
    for place in places:
        at: Path | None = folder
        for name in place.split("/"):
            below = [path for part in _entries(at) for path in part] if at is not None and at.is_dir() else []
            at = next((path for path in below if path.name.lower() == name.lower()), None)
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
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths).most_common()
    return ", ".join(f"{many} {suffix}" for suffix, many in counts)


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


def counted(items: Iterable[Item]) -> list[Item]:
    """Number the frames of each (subject, video) in the order in which they come."""
    frames: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(count)
    return [replace(item, frame=next(frames[item.subject, item.video])) for item in items]


def mismatch(root: Path, expected: str, looked_in: Path | None = None) -> InputError:
    """Return the error of a tree that is another one: what was expected, and what is there."""
    return InputError(f"{root}: expected {expected}; found {_shape(looked_in or root, root)}")


def check_present(items: Sequence[Item], root: Path, listed_in: str) -> None:
    """Raise an InputError when not one of the files is there; a few that aren't fail later, and are listed then."""
    files = dict.fromkeys(item.path for item in items)
    if not any(path.exists() for path in files):
        which = f"none of the {len(files)} files that {listed_in} lists is there; the first is {items[0].name}"
        raise InputError(f"{root}: {which}")


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


def matches(path: Path, pattern: re.Pattern[str], form: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield where each line of a list is, and its parts; an InputError says which ``form`` it should have."""
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        match = pattern.fullmatch(line)
        if match is None:
            raise InputError(f"{where}: expected {form}, found {line[:60]!r}")
        yield where, match


def _by_number(first: int, names: str) -> dict[str, str]:
    return {str(code): name for code, name in enumerate(names.split(), first)}


FER2013 = _by_number(0, "anger disgust fear happiness sadness surprise neutral")
"""By the number that FER2013 and ExpW write."""
RAF_DB = _by_number(1, "surprise fear disgust happiness sadness anger neutral")
"""By RAF-DB's own number."""
AFF_WILD2 = _by_number(0, "neutral anger disgust fear happiness sadness surprise other")
"""By Aff-Wild2's own number; earlier releases have the first seven."""

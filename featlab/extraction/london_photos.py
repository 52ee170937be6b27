"""Finding the photographs of the Face Research Lab London Set in what was downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featlab.errors import ConfigError, InputError

MORPH_PEOPLE: tuple[int, ...] = (
    *(
        1,
        2,
        3,
        6,
        8,
        11,
        13,
        14,
        16,
        17,
        18,
        20,
        22,
        24,
        25,
        26,
        27,
        29,
        30,
        36,
        44,
        45,
        61,
        62,
        63,
        66,
        68,
        69,
        70,
        81,
    ),
    *(82, 83, 87, 90, 91, 92, 96, 97, 102, 104, 107, 113, 114, 117, 120, 122, 123, 124, 128, 130, 131, 134, 135, 137),
    *(138, 139, 140, 141, 142, 143, 172, 173),
)
"""Numbers of the 62 people of `london-morph`, whose clips the README's table is about."""

_NEUTRAL, _SMILING = "03", "08"
_NAME = re.compile(r"(\d{3})_(03|08)\.(?:jpe?g|png)", re.IGNORECASE)
_DEPTH = 4
"""Folders below the one that was named: an archive may bring one of its own."""
_EXPECTED = "NNN_03.jpg (neutral) and NNN_08.jpg (smiling), in one folder or in neutral_front/ and smiling_front/"


@dataclass(frozen=True)
class Person:
    """Two photographs of one person.

    Attributes:
        number: As the download numbers them.
        neutral: ``NNN_03.jpg``; None when it isn't there.
        smiling: ``NNN_08.jpg``; None when it isn't there.
    """

    number: int
    neutral: Path | None
    smiling: Path | None

    @property
    def subject(self) -> str:
        """The name in the manifest: s001 for 001_03 and 001_08."""
        return f"s{self.number:03d}"

    @property
    def missing(self) -> str | None:
        """Which photographs are not there, or None."""
        pairs = ((self.neutral, _NEUTRAL), (self.smiling, _SMILING))
        names = [f"{self.number:03d}_{kind}.jpg" for path, kind in pairs if path is None]
        return f"no photograph {' and '.join(names)}" if names else None


def find_people(root: Path, numbers: tuple[int, ...] | None) -> list[Person]:
    """Find people's photographs, wherever they lie below a folder.

    In one folder, in ``neutral_front/`` and ``smiling_front/``, or in the folders that an archive brought along.

    Args:
        root: The download's folder.
        numbers: Who is wanted; None for everybody of whom there is a photograph.

    Returns:
        The wanted people by number; photographs that aren't there are None.

    Raises:
        InputError: Not a folder, no such photograph of anybody who is wanted, or one twice; says what was found.
    """
    if not root.is_dir():
        what = "is a file, not the download's folder" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; expected {_EXPECTED}")
    photos: dict[tuple[int, str], Path] = {}
    for path in _files(root):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        key = int(match[1]), match[2]
        if key in photos:
            raise InputError(f"{photos[key]} and {path} are one photograph twice; name a folder that has one of them")
        photos[key] = path
    found = sorted({number for number, _ in photos})
    wanted = found if numbers is None else sorted(set(numbers))
    if not photos:
        raise InputError(f"{root}: expected {_EXPECTED}; found {_listing(root)}")
    if not set(wanted) & set(found):
        raise InputError(f"{root}: nobody of people {_numbers(wanted)}; found {_numbers(found)}")
    return [Person(n, photos.get((n, _NEUTRAL)), photos.get((n, _SMILING))) for n in wanted]


def parse_people(text: str) -> tuple[int, ...] | None:
    """Read who is wanted: ``morph`` (the 62 people of `london-morph`), ``all`` (None), or numbers as 1,003,s011.

    Raises:
        ConfigError: It is none of those.
    """
    word = text.strip().lower()
    if word == "morph":
        return MORPH_PEOPLE
    if word == "all":
        return None
    parts = [part.strip() for part in word.split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"s?[0-9]{1,3}", part) for part in parts):
        raise ConfigError(f"people = {text!r}: expected morph, all, or photograph numbers such as 1,2,11")
    return tuple(sorted({int(part.removeprefix("s")) for part in parts}))


def _files(root: Path) -> Iterator[Path]:
    """Files down to some depth, sorted; macOS archives bring a folder of shadows, which is left out."""
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        keep = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        folders[:] = sorted(keep) if depth < _DEPTH else []
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder) / name


def _listing(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        return "an empty folder"
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    archives = any(name.lower().endswith(".zip") for name in names)
    return shown + (" (unpack the archives first)" if archives else "")


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(f"{number:03d}" for number in numbers[:6])
    return shown + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")

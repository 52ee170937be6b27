"""One image to embed: its names, or pseudonyms that nobody without the key can test; a cache's order."""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from featlab.cache.names import Names, one_name_each
from featlab.config.options import check_choice
from featlab.errors import InputError, closest, listed, one_line

if TYPE_CHECKING:
    from featlab.cache.schema import ExtractorInfo

# Longer ones are several: Python makes no number of more than 4,300 digits.
_NUMBERS = re.compile(r"(\d{1,4000})")
MAX_FRAME = 2**31 - 1
MAX_CLASSES = 2**15 - 1
LONGEST_NAME = 4096
"""Letters; no file has a longer path."""
STILLS = "{} pictures are taken as stills, a video each: their names don't count up as those of frames do"
"""What is said of the pictures that `find_stills` finds."""
_PILLOW = (
    "apng avif bmp dib gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pcx pfm pgm png pnm ppm psd qoi ras sgi"
)
IMAGE_SUFFIXES = frozenset(f".{name}" for name in f"{_PILLOW} tga tif tiff webp heic heif hif".split())


@dataclass(frozen=True)
class Item:
    """One image of one person."""

    path: Path  # The file that the image is in.
    # The path as the source writes it (relative to the manifest or the folder, POSIX slashes), with ``#t=seconds``
    # for a video frame, ``#row=number`` for a line of a csv and ``#face=number`` for one of the faces in an image;
    # what the cache and the list of failures show.
    name: str
    subject: str  # Who is seen.
    label: str | None  # The expression's name; None when unknown.
    video: str  # The clip that the image belongs to; unique within a subject.
    frame: int  # Place in the clip, 0 or more; unique within (subject, video).
    # Row in the source, 0-based, in the source's own order: the index into its landmarks. Below 0 until it is known.
    row: int = -1
    # Where in the file the image is, for files that hold many: the presentation time stamp of a video frame in units
    # of the stream's time base, or the byte at which a line of a csv of pixels starts. None: the file is the image.
    at: int | None = None
    # Which part of the image is taken: left, top, right, bottom in pixels, right and bottom excluded; what reaches
    # over the image's edge is cut off. None: all of it.
    box: tuple[int, int, int, int] | None = None


class Failure(NamedTuple):
    """One image that has no row in the cache."""

    path: str  # The image's name as the source writes it
    reason: str  # Why, in a few words


def item_order(item: Item) -> tuple[str, str, int]:
    """Sort key of the rows of a cache: subject, then video, then frame."""
    return item.subject, item.video, item.frame


def with_one_name_each(items: Sequence[Item], *, merge: bool = False) -> tuple[list[Item], Names]:
    """Return items in a cache's order, their names in one form or, with ``merge``, one spelling."""
    columns = ([getattr(item, name) for item in items] for name in ("subject", "label", "video", "frame"))
    names = one_name_each(*columns, merge=merge)
    named = [
        item
        if (subject, label, video) == (item.subject, item.label, item.video)
        # Names change seldom, and making an item takes longer than this look.
        else replace(item, subject=subject, label=label, video=video)
        for item, subject, label, video in zip(items, names.subject, names.label, names.video, strict=True)
    ]
    return sorted(named, key=item_order), names


IfExists = Literal["resume", "overwrite"]


def stays(out: Path, if_exists: IfExists) -> bool:
    """Whether a file that is there is not to be replaced; refuses an unknown ``--if-exists``, and a folder."""
    check_choice("--if-exists", if_exists, get_args(IfExists))
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file")
    return out.exists() and if_exists != "overwrite"


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key in which ``img2`` comes before ``img10``; names that differ only in leading zeros keep a fixed order."""
    parts = _NUMBERS.split(name)
    # Every second part is a number. A number sorts before text, so that parts of two kinds can be compared.
    pieces = tuple((0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part)
    return pieces, name


def counts_up(names: Iterable[str]) -> bool:
    """Whether pictures of these names are frames of one recording: one number counts them, mostly in equal steps."""
    files = (name.rpartition("/")[2] for name in names)
    parts = [_NUMBERS.split(file.rpartition(".")[0] or file) for file in files]
    if len(parts) < 2:
        return True
    # Every second part is a number.
    columns = [{int(part[place]) for part in parts} for place in range(1, min(map(len, parts)), 2)]
    numbers = [values for values in columns if len(values) > 1]
    if len({tuple(part[::2]) for part in parts}) > 1 or [len(values) for values in numbers] != [len(parts)]:
        return False
    steps = Counter(after - before for before, after in pairwise(sorted(numbers[0])))
    return 2 * max(steps.values()) >= len(parts) - 1


def find_stills(
    subject: Sequence[str], label: Sequence[str | None], path: Sequence[str], rows: Iterable[int]
) -> set[int]:
    """Return the rows whose pictures are no frames: those lie in a folder of one person (and label), and count up."""
    folders: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        folders[path[row].rpartition("/")[0]][subject[row]].append(row)
    stills: set[int] = set()
    for people in folders.values():
        for mine in people.values():
            one = len(people) == 1 or len({label[row] for row in mine}) == 1
            if not (one and counts_up(path[row] for row in mine)):
                stills.update(mine)
    return stills


def names_by_row(items: Sequence[Item]) -> list[str]:
    """Names in the source's own row order, to look landmarks up by name."""
    return [item.name for item in sorted(items, key=lambda item: item.row)]


def class_names(labels: Iterable[str | None], neutral: str) -> tuple[str, ...]:
    """Return the class names, neutral first and the rest sorted; a class's code is its place here."""
    known = {label for label in labels if label is not None}
    if known and neutral not in known:
        raise InputError(
            f"no row has the neutral label {neutral!r} (labels: {listed(sorted(known), 8)}){closest(neutral, known)}; "
            "name the neutral label with --neutral NAME"
        )
    if len(known) > MAX_CLASSES:
        raise InputError(f"{len(known)} different labels, and a cache holds {MAX_CLASSES}: is that the right column?")
    return (neutral, *sorted(known - {neutral}))


SPELLINGS = "some names may be one, or were joined; the same command without --pseudonymise, elsewhere, says which"
_KEY_BYTES = 32
_LETTERS = 10
_QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)


@dataclass(frozen=True)
class Pseudonyms:
    """What people, videos and pictures are called in place of their names: HMAC-SHA256, its first 50 bits."""

    key: bytes = field(repr=False)

    def subject(self, name: str) -> str:
        """Return a person's pseudonym, the same with the same key whatever the command."""
        from featlab.cache.schema import one_form  # To list layouts takes no NumPy.

        return self._hash("p", one_form(name))

    def video(self, subject: str, name: str) -> str:
        """Return what a recording of that person is called; ``subject`` is the person's name."""
        from featlab.cache.schema import one_form

        return self._hash("v", one_form(subject), one_form(name))

    def path(self, name: str) -> str:
        """Return what a picture or a line of a table is called in the cache and in lists."""
        return self._hash("f", name)

    def items(self, items: Iterable[Item]) -> list[Item]:
        """Return items that name nobody but for the place of their file, in a cache's order."""
        named = ((each, self.subject(each.subject), self.video(each.subject, each.video)) for each in items)
        hidden = (replace(each, name=self.path(each.name), subject=who, video=clip) for each, who, clip in named)
        return sorted(hidden, key=item_order)

    def failures(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """Return failures that name nobody: what a reason quotes is left out."""
        return tuple(Failure(self.path(path), _QUOTED.sub("…", reason)) for path, reason in failures)

    def extractor(self, info: ExtractorInfo) -> ExtractorInfo:
        """Return an extractor whose own training subjects have pseudonyms."""
        return replace(info, trained_on=tuple(sorted(map(self.subject, info.trained_on))))

    def _hash(self, kind: str, *names: str) -> str:
        text = "\0".join((kind, *names)).encode("utf-8", "surrogatepass")
        digest = hmac.digest(self.key, text, "sha256")
        return f"{kind}-{base64.b32encode(digest).decode().lower()[:_LETTERS]}"


def refuse_equal(names: Collection[str], hidden: Collection[str]) -> None:
    """Refuse two people of one pseudonym; as likely as one in 10⁹ for a thousand people."""
    if len(set(hidden)) < len(set(names)):
        raise InputError("two people would get the same pseudonym with this key; name another key file")


def read_pseudonyms(path: Path | None, notify: Callable[[str], None]) -> Pseudonyms | None:
    """Return the pseudonyms of a key file, None without one; a file that isn't there is made, for its owner's eyes."""
    if path is None:
        return None
    try:
        if not path.exists():
            with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            notify(f"made the key {path}: keep it, and keep it away from the cache: who has it can test names")
        key = bytes.fromhex(path.read_text("ascii"))
    except OSError as error:
        raise InputError(f"{path}: the key can't be read or made ({one_line(error)})") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InputError(f"{path} holds no key of --pseudonymise; name a file that isn't there to have one made")
    return Pseudonyms(key)

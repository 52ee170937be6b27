"""The manifest: a csv with one row per image (path, subject, label, video, frame)."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featlab.errors import InputError, closest
from featlab.extraction.items import MAX_FRAME, Item, item_order, natural_key
from featlab.extraction.video.files import is_video

REQUIRED = ("path", "subject")
OPTIONAL = ("label", "video", "frame")


@dataclass(frozen=True)
class _Line:
    """One line of the manifest, before the frames that it leaves out are numbered."""

    number: int
    name: str
    subject: str
    label: str | None
    video: str
    frame: int | None


def read_manifest(manifest: Path) -> list[Item]:
    """Read a manifest.

    The header is required, and so are the columns ``path`` (relative to the manifest's folder, or absolute) and
    ``subject``. ``label`` may be missing or empty (unknown). ``video`` is by default the folder that ``path`` names, or
    the subject where it names none, and of a video file the file. ``frame`` is by default the running number in natural
    file order within (subject, video); a clip gives all of its frames or none. A video file without a frame stands for
    all of its frames. Other columns are ignored. UTF-8, with or without a byte order mark.

    Args:
        manifest: The csv file.

    Returns:
        The rows, sorted by subject, video and frame.

    Raises:
        InputError: The file can't be read, or a line doesn't fit; names the line.
    """
    lines = _parse(manifest)
    frames = _frames(lines, manifest)
    folder = manifest.parent
    items = [
        Item(folder / line.name, line.name, line.subject, line.label, line.video, frame, row)
        for row, (line, frame) in enumerate(zip(lines, frames, strict=True))
    ]
    _refuse_duplicates(items, lines, manifest)
    return sorted(items, key=item_order)


def _parse(manifest: Path) -> list[_Line]:
    reader = csv.reader(io.StringIO(_text(manifest), newline=""), strict=True)
    lines: list[_Line] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, manifest)
                continue
            lines.append(_line(cells, header, f"{manifest}, line {reader.line_num}", reader.line_num))
    except csv.Error as error:
        raise InputError(f"{manifest}, line {reader.line_num}: not valid csv: {error}") from None
    if header is None:
        raise InputError(f"{manifest} is empty; a manifest has a header with path,subject,label,video,frame")
    if not lines:
        raise InputError(f"{manifest} has a header and no rows")
    return lines


def _text(manifest: Path) -> str:
    try:
        text = manifest.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{manifest} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{manifest} isn't UTF-8 text (byte {error.start}); save it as 'CSV UTF-8'") from None
    if "\0" in text:
        raise InputError(f"{manifest} has NUL characters, so it isn't a text file; save it as 'CSV UTF-8'")
    return text


def _header(cells: list[str], manifest: Path) -> list[str]:
    header = [cell.strip() for cell in cells]
    for name in (*REQUIRED, *OPTIONAL):
        if header.count(name) > 1:
            raise InputError(f"{manifest}, line 1: the column {name!r} appears twice")
    for name in REQUIRED:
        if name in header:
            continue
        found = ", ".join(header)
        hint = closest(name, header)
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            hint = "; separate the columns with commas"
        raise InputError(f"{manifest}, line 1: no column {name!r} (found: {found}){hint}")
    return header


def _line(cells: list[str], header: list[str], where: str, number: int) -> _Line:
    if len(cells) != len(header):
        raise InputError(f"{where}: {len(cells)} values under {len(header)} columns; quote a value that has a comma")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for name in REQUIRED:
        if not values[name]:
            raise InputError(f"{where}: the {name} is empty")
    # A manifest written on Windows must mean the same files here.
    name = values["path"].replace("\\", "/")
    parent = PurePosixPath(name).parent
    clip = values["subject"] if parent == PurePosixPath(".") else str(parent)
    video = values.get("video") or (name if is_video(PurePosixPath(name)) else clip)
    frame = values.get("frame", "")
    return _Line(
        number=number,
        name=name,
        subject=values["subject"],
        label=values.get("label") or None,
        video=video,
        frame=_frame(frame, where) if frame else None,
    )


def _frame(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_FRAME):
        raise InputError(f"{where}: frame {text!r} isn't a whole number from 0 to {MAX_FRAME}")
    return int(text)


def _frames(lines: list[_Line], manifest: Path) -> list[int]:
    """Return the frame of every line, numbering the clips that give none."""
    clips: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        clips[line.subject, line.video].append(place)
    frames = [0 if line.frame is None else line.frame for line in lines]
    for (subject, video), places in clips.items():
        without = [place for place in places if lines[place].frame is None]
        if not without:
            continue
        if len(without) < len(places):
            raise InputError(
                f"{manifest}, line {lines[without[0]].number}: the frame is empty, and other rows of subject "
                f"{subject!r}, video {video!r} have one; give all of them or none"
            )
        images = [place for place in places if not is_video(PurePosixPath(lines[place].name))]
        for frame, place in enumerate(sorted(images, key=lambda place: natural_key(lines[place].name))):
            frames[place] = frame
    return frames


def _refuse_duplicates(items: list[Item], lines: list[_Line], manifest: Path) -> None:
    first: dict[tuple[str, str, int], int] = {}
    for item in items:
        number = lines[item.row].number
        earlier = first.setdefault(item_order(item), number)
        if earlier != number:
            raise InputError(
                f"{manifest}, line {number}: subject {item.subject!r}, video {item.video!r}, frame {item.frame} "
                f"is already on line {earlier}"
            )

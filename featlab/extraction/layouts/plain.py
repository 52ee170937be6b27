"""The plain layouts: folders subject/label/[video/]image, and a manifest with one row an image or video."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featlab.errors import InputError, closest
from featlab.extraction.items import IMAGE_SUFFIXES, MAX_FRAME, Item, item_order, natural_key
from featlab.extraction.layouts.base import NoOptions, register_layout
from featlab.extraction.layouts.tables import header
from featlab.extraction.layouts.tree import mismatch
from featlab.extraction.video.frames import VIDEO_SUFFIXES, is_video

EXPECTED = "subject/label/image or subject/label/video/image"
_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def read_folder(root: Path) -> list[Item]:
    """List the images and videos of a folder laid out subject/label/image or subject/label/video/image.

    A clip is the folder that holds the images, so a video's name is ``subject/label`` or ``subject/label/video``.
    Frames are numbered in natural order (``img2`` before ``img10``). A video file, in the place of an image, is a clip
    of its own, named as the file; its one item stands for all of its frames. Hidden files and folders are ignored, and
    so are files with other suffixes. An item's ``row`` is its place in the list that comes back.

    Args:
        root: The folder that holds one folder per subject.

    Returns:
        The images and videos, sorted by subject, video and frame.

    Raises:
        InputError: No image or video, or one at another depth; says what was expected and what was found.
    """
    clips: dict[tuple[str, ...], list[str]] = {}
    try:
        _collect(root, (), clips)
    except OSError as error:
        raise InputError(f"{error.filename} can't be listed: {error.strerror}") from None
    if not clips:
        raise InputError(f"{root}: expected {EXPECTED}, found no images in it ({_shape(root)})")
    found: list[Item] = []
    for place, names in clips.items():
        clip = "/".join(place)
        images = [name for name in sorted(names, key=natural_key) if not is_video(Path(name))]
        numbered = [(name, clip, frame) for frame, name in enumerate(images)]
        numbered += [(name, f"{clip}/{name}", 0) for name in names if is_video(Path(name))]
        for name, video, frame in numbered:
            file = root.joinpath(*place, name)
            found.append(Item(file, f"{clip}/{name}", place[0], place[1], video, frame, row=-1))
    found.sort(key=item_order)
    return [
        Item(item.path, item.name, item.subject, item.label, item.video, item.frame, row)
        for row, item in enumerate(found)
    ]


def _collect(folder: Path, place: tuple[str, ...], clips: dict[tuple[str, ...], list[str]]) -> None:
    """Add what is under ``folder`` to ``clips``; the depth is bounded, so that a link to a parent can't loop."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.name.isprintable():
            # Names are stored as UTF-8, which a name of undecodable bytes has none of.
            raise InputError(f"{str(entry)!r}: the name has characters that can't be stored; rename it")
        if entry.is_dir():
            if len(place) == 3:
                if deeper := _first_found(entry):
                    raise InputError(f"{_root(folder, place)}: expected {EXPECTED}, found {deeper} below {entry}")
                continue
            _collect(entry, (*place, entry.name), clips)
        elif entry.suffix.lower() in _SUFFIXES:
            if len(place) < 2:
                found = f"the {'video' if is_video(entry) else 'image'} {'/'.join((*place, entry.name))}"
                raise InputError(f"{_root(folder, place)}: expected {EXPECTED}, found {found}")
            clips.setdefault(place, []).append(entry.name)


def _root(folder: Path, place: tuple[str, ...]) -> Path:
    return folder.parents[len(place) - 1] if place else folder


def _first_found(folder: Path) -> str | None:
    for entry in sorted(folder.iterdir()):
        if entry.suffix.lower() in _SUFFIXES and not entry.name.startswith("."):
            return entry.name
    return None


def _shape(root: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    visible = [name for name in names if not name.startswith(".")]
    if not visible:
        return "the folder is empty"
    return "it has " + ", ".join(visible[:4]) + (f" and {len(visible) - 4} more" if len(visible) > 4 else "")


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


def read_source(source: Path) -> list[Item]:
    """List the images of a manifest (``.csv``) or of a folder laid out subject/label/[video/]image.

    Args:
        source: The manifest, or the folder.

    Returns:
        The items, sorted by subject, video and frame; at least one.

    Raises:
        InputError: Nothing is there, or it is neither of the two, or it doesn't fit; one line.
    """
    if source.is_dir():
        return read_folder(source)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.suffix.lower() != ".csv":
        raise InputError(f"{source}: expected a manifest (.csv with path,subject,...) or a folder laid out {EXPECTED}")
    return read_manifest(source)


@register_layout("folders", title="Folders subject/label/[clip/]image", subject="a person")
def read_folders(root: Path, options: NoOptions) -> list[Item]:
    """Images and videos in folders subject/label or subject/label/video.

    ::

        ROOT/
          s001/
            neutral/
              img1.jpg  img2.jpg  …
            smile/
              clip-a/
                0001.png  0002.png  …
              clip-b.mp4

    The names of the folders are the subjects, labels and clips; without a clip's folder a label's images are one clip.
    A video file is a clip by itself. Frames are numbered in natural order. The neutral class is the one called
    ``neutral``, or what ``--neutral`` says.
    """
    return read_folder(root)


def _recognises(root: Path) -> bool:
    if root.is_dir():
        return (root / "manifest.csv").is_file()
    return root.suffix.lower() == ".csv" and not {"emotion", "pixels"} & set(header(root))


@register_layout(
    "manifest", title="A manifest.csv", subject="its column subject", recognises=_recognises, takes_files=True
)
def read_manifest_layout(root: Path, options: NoOptions) -> list[Item]:
    """A csv with a row an image or video, or the folder that holds it as manifest.csv.

    ::

        ROOT/
          manifest.csv      path,subject,label,video,frame
          …                 the images, where the paths say

    Only ``path`` and ``subject`` have to be there. Paths are relative to the csv, or absolute; a video stands for all
    of its frames. An empty label is unknown. The neutral class is the one called ``neutral``, or what ``--neutral``
    says. Landmarks go by the manifest's own rows.
    """
    if not root.is_dir():
        return read_manifest(root)
    path = root / "manifest.csv"
    if not path.is_file():
        raise mismatch(root, "a manifest.csv with path,subject,label,video,frame")
    return read_manifest(path)

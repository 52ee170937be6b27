"""Images and videos laid out in folders: subject/label/image or subject/label/video/image."""

from __future__ import annotations

from pathlib import Path

from featlab.errors import InputError
from featlab.extraction.items import Item, item_order, natural_key
from featlab.extraction.video.files import VIDEO_SUFFIXES, is_video

EXPECTED = "subject/label/image or subject/label/video/image"
IMAGE_SUFFIXES = frozenset(
    [".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
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

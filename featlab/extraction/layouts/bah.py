"""BAH: videos of people who answer questions, with and without ambivalence or hesitancy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.video import Sampling

EXPECTED = (
    "split-frames/train.txt (IMAGE,0 or 1) with cropped-aligned-faces/, or split/train.txt (VIDEO,0 or 1,TEXT) with "
    "Videos/SUBJECT/VISIT/"
)
CLASSES = ("neutral", "ambivalence-hesitancy")
_SPLITS = ("train", "val", "test")
_VIDEO_LISTS = ("split", "dataset-splits/video-level/BAH_DB/split-0", "folds/fold-0")
_FRAME_LISTS = ("split-frames", "dataset-splits/frame-level/BAH_DB/split-0")
_FACES = ("cropped-aligned-faces", "cropped_aligned")
_VIDEO = re.compile(r"(?P<path>[^,]+\.\w+),(?P<label>[01])(,.*)?")
_FRAME = re.compile(r"(?P<path>.+\.\w+),(?P<label>[01])")
_NUMBER = re.compile(r"(\d{1,9})$")


@dataclass(frozen=True)
class BAHOptions(Options):
    """Options of the layout bah."""

    level: str = option(
        "auto",
        "Where labels come from: frame (the images of faces), video (one label for each video), or auto (frame "
        "where it is there).",
        choices=("auto", "frame", "video"),
    )
    split: str = option("all", "train, val, test or all.", choices=("all", *_SPLITS))
    every: int = option(
        1, "Every how many-th frame is kept, at level frame; videos are thinned out with --fps instead.", minimum=1
    )


@dataclass(frozen=True)
class _Entry:
    """One line of a list."""

    where: str
    path: PurePosixPath
    label: str


def _base(root: Path) -> Path:
    """Return the folder that holds the lists: the root, or the one that the archive makes in it."""
    for folder in (root, tree.child(root, "data"), tree.child(root, "BAH_DB")):
        if folder is not None and folder.is_dir() and tree.descendant(folder, *_FRAME_LISTS, *_VIDEO_LISTS) is not None:
            return folder
    return root


def _recognises(root: Path) -> bool:
    if not root.is_dir():
        return False
    base = _base(root)
    if tree.descendant(base, "Videos", *_FACES) is None:
        return False
    lists = [(tree.descendant(base, *_FRAME_LISTS), _FRAME), (tree.descendant(base, *_VIDEO_LISTS), _VIDEO)]
    return any(
        pattern.fullmatch(tree.first_line(path)) is not None
        for folder, pattern in lists
        for path in _lists(folder, BAHOptions())
    )


@register_layout(
    "bah",
    title="BAH, ambivalence and hesitancy in videos",
    subject="a person",
    recognises=_recognises,
    sampling=Sampling(fps=1.0),
)
def read_bah(root: Path, options: BAHOptions) -> list[Item]:
    """BAH: labels of frames (or of whole videos) in the lists that come with it.

    ::

        ROOT/                                  or ROOT/data/ or ROOT/BAH_DB/
          split-frames/
            train.txt  val.txt  test.txt       IMAGE,LABEL                 level frame
          cropped-aligned-faces/
            Videos/82725/Visite_1/82725_Question_1_…_Video.mp4/frame-0.jpg
          split/
            train.txt  val.txt  test.txt       VIDEO,LABEL,TRANSCRIPT      level video
          Videos/
            82725/Visite_1/82725_Question_1_…_Video.mp4

    The lists of the public repository (dataset-splits/…/split-0) do as well. A subject is the person whose number
    follows Videos/, and each video is one clip. Label 0, no ambivalence or hesitancy, is the class ``neutral``; 1 is
    ``ambivalence-hesitancy``. At level video every frame has its video's label.
    """
    base = _base(root)
    frame_lists, video_lists = tree.descendant(base, *_FRAME_LISTS), tree.descendant(base, *_VIDEO_LISTS)
    by_frame = options.level == "frame" or (
        options.level == "auto" and _lists(frame_lists, options) and tree.descendant(base, *_FACES) is not None
    )
    lists = _lists(frame_lists if by_frame else video_lists, options)
    if not lists:
        raise tree.mismatch(root, EXPECTED, base)
    entries = [entry for path in lists for entry in _entries(path, _FRAME if by_frame else _VIDEO)]
    if by_frame:
        items = _frame_items(entries, root, base, options.every)
    else:
        items = [_item(entry, base, root, entry.path.name, 0) for entry in entries]
    tree.check_present(items, root, tree.relative(lists[0], root))
    return tree.numbered(items)


def _lists(folder: Path | None, options: BAHOptions) -> list[Path]:
    names = _SPLITS if options.split == "all" else (options.split,)
    return [] if folder is None else [path for name in names if (path := folder / f"{name}.txt").is_file()]


def _entries(path: Path, pattern: re.Pattern[str]) -> Iterator[_Entry]:
    form = "IMAGE,LABEL" if pattern is _FRAME else "VIDEO,LABEL,TRANSCRIPT"
    for where, match in tree.matches(path, pattern, f"{form} with the label 0 or 1"):
        name = match["path"].replace("\\", "/").lstrip("/")
        yield _Entry(where, PurePosixPath(name), CLASSES[int(match["label"])])


def _frame_items(entries: list[_Entry], root: Path, base: Path, every: int) -> list[Item]:
    faces = tree.descendant(base, *_FACES)
    folders = [base] if faces is None else [faces, base]
    sample = entries[:: max(1, len(entries) // 50)]
    home = next((folder for folder in folders for entry in sample if (folder / entry.path).exists()), folders[0])
    items: list[Item] = []
    for entry in entries:
        digits = _NUMBER.search(entry.path.stem)
        if digits is None:
            raise InputError(
                f"{entry.where}: the image {entry.path.name!r} has no number at its end, as frame-12.jpg has"
            )
        frame = int(digits[1])
        if frame % every == 0:
            items.append(_item(entry, home, root, entry.path.parent.name, frame))
    if not items:
        raise ConfigError(f"bah.every = {every} leaves no frame; the lists have {len(entries)}")
    return items


def _item(entry: _Entry, home: Path, root: Path, video: str, frame: int) -> Item:
    """Return the item of an entry; its subject is the folder below Videos/."""
    parts = entry.path.parts
    lower = [part.lower() for part in parts]
    place = lower.index("videos") + 1 if "videos" in lower else 0
    if not 0 < place < len(parts) - 1:
        raise InputError(f"{entry.where}: expected a path Videos/SUBJECT/…, found {str(entry.path)[:80]!r}")
    path = home / entry.path
    return Item(path, tree.relative(path, root), parts[place], entry.label, video, frame, row=-1)

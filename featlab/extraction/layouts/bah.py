"""BAH: videos of people who answer questions, with and without ambivalence or hesitancy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.text import first_line
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


def _base(root: Path) -> Path:
    """Return the folder that holds the lists: the root, or the one that the archive makes in it."""
    inside = [folder for name in ("data", "BAH_DB") if (folder := tree.find(root, name)) is not None]
    return next((each for each in (root, *inside) if tree.find(each, *_FRAME_LISTS, *_VIDEO_LISTS)), root)


def _recognises(root: Path) -> bool:
    base = _base(root)
    if tree.find(base, "Videos", *_FACES) is None:
        return False
    kinds = (_FRAME_LISTS, _FRAME), (_VIDEO_LISTS, _VIDEO)
    return any(line.fullmatch(first_line(path)) for places, line in kinds for path in _lists(base, places, "all"))


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
    faces = tree.find(base, *_FACES)
    by_frame = options.level == "frame" or (
        options.level == "auto" and faces is not None and bool(_lists(base, _FRAME_LISTS, options.split))
    )
    lists = _lists(base, _FRAME_LISTS if by_frame else _VIDEO_LISTS, options.split)
    if not lists:
        raise tree.mismatch(root, EXPECTED, base)
    entries = [entry for path in lists for entry in _entries(path, by_frame)]
    home = base
    if by_frame and faces is not None:
        # Some lists name the folder of faces, and some don't.
        sample = entries[:: max(1, len(entries) // 50)]
        home = next((each for each in (faces, base) if any((each / path).exists() for _, path, _ in sample)), faces)
    items: list[Item] = []
    for where, path, label in entries:
        frame, video = 0, path.name
        if by_frame:
            digits = _NUMBER.search(path.stem)
            if digits is None:
                raise InputError(f"{where}: the image {path.name!r} has no number at its end, as frame-12.jpg has")
            frame, video = int(digits[1]), path.parent.name
        if frame % options.every == 0:
            file = home / path
            subject = _subject(path, where)
            items.append(Item(file, tree.relative(file, root), subject, CLASSES[label], video, frame))
    if not items:
        raise ConfigError(f"bah.every = {options.every} leaves no frame; the lists have {len(entries)}")
    tree.check_present(items, root, tree.relative(lists[0], root))
    return items


def _lists(base: Path, places: Sequence[str], split: str) -> list[Path]:
    folder = tree.find(base, *places)
    names = _SPLITS if split == "all" else (split,)
    return [] if folder is None else [path for name in names if (path := folder / f"{name}.txt").is_file()]


def _entries(path: Path, by_frame: bool) -> Iterator[tuple[str, PurePosixPath, int]]:
    """Yield where each line of a list is, the file that it names, and its label."""
    line, form = (_FRAME, "IMAGE,LABEL") if by_frame else (_VIDEO, "VIDEO,LABEL,TRANSCRIPT")
    for where, match in tree.matches(path, line, f"{form} with the label 0 or 1"):
        yield where, PurePosixPath(match["path"].replace("\\", "/").lstrip("/")), int(match["label"])


def _subject(path: PurePosixPath, where: str) -> str:
    """Return the folder below Videos/."""
    parts = [part.lower() for part in path.parts]
    place = parts.index("videos") + 1 if "videos" in parts else 0
    if not 0 < place < len(parts) - 1:
        raise InputError(f"{where}: expected a path Videos/SUBJECT/…, found {str(path)[:80]!r}")
    return path.parts[place]

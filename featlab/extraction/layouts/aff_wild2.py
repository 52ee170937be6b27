"""Aff-Wild2: videos from the web with one expression a frame."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.layouts.tree import AFF_WILD2
from featlab.extraction.text import read_text
from featlab.extraction.video.frames import is_video

EXPECTED = "EXPR_…_Challenge/Train_Set/VIDEO.txt, with cropped_aligned/VIDEO/00001.jpg or batch1/VIDEO.mp4 beside it"
_SETS = {"train": ("Train_Set", "Training_Set"), "validation": ("Validation_Set", "Val_Set")}
_DEPTH = 3
_MOST = 40
"""Folders beside each other; where there are more, they are videos or people, and annotations are not below them."""
_MEDIA = ("cropped", "batch", "video", "frame", "image", "new_vids")
"""Beginnings of folder names in which there are no annotations, but very many files."""
_IMAGE = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class AffWild2Options(Options):
    """Options of the layout aff-wild2."""

    split: str = option("all", "train, validation or all.", choices=("all", *_SETS))
    every: int = option(
        1,
        "Every how many-th frame is kept of folders of images; videos are thinned out with --fps or --stride.",
        minimum=1,
    )
    drop: tuple[str, ...] = option(
        (), "Classes that are left out, for example other.", choices=tuple(AFF_WILD2.values())
    )
    media: str = option(
        "",
        "The folder below the root in which images or videos are looked for, where there are several; "
        "empty looks in all of them.",
    )


@register_layout(
    "aff-wild2",
    title="Aff-Wild2, expressions",
    subject="a video (or one of two people in it)",
    recognises=lambda root: bool(_annotation_folders(root, _DEPTH)),
)
def read_aff_wild2(root: Path, options: AffWild2Options) -> list[Item]:
    """Aff-Wild2: an annotation file a video, with one line a frame.

    ::

        ROOT/                                        names of the folders above Train_Set vary by year
          6th ABAW Annotations/
            EXPR_Recognition_Challenge/              or EXPR_Classification_Challenge/, EX/
              Train_Set/
                video5.txt                           a line of class names, then one whole number a frame
                6-30-1920x1080_left.txt              _left, _right: two people in one video
              Validation_Set/
          cropped_aligned/                           or batch1/cropped_aligned/, cropped_aligned_new_50_vids/
            video5/
              00001.jpg  00002.jpg  …                image 00001 is the first frame
          batch1/                                    or the videos themselves
            video5.mp4

    0 to 7 are neutral, anger, disgust, fear, happiness, sadness, surprise, other; frames with -1 are dropped. There is
    no list of who is who: a subject is a video (with ``_left`` or ``_right``, one of the people in it, which needs the
    images), and it is one clip. Images are taken where they are there, else the video; lines without an image and
    images without a line are left out.
    """
    places = _annotation_folders(root, _DEPTH)
    if not places:
        raise tree.mismatch(root, EXPECTED)
    if len(places) > 1:
        raise InputError(f"{root}: annotations of expressions are in {places[0]} and in {places[1]}; leave one of them")
    annotations = _annotations(places[0], options.split)
    if not annotations:
        raise tree.mismatch(root, EXPECTED, places[0])
    media = root / options.media
    if not media.is_dir():
        raise InputError(f"{root}: aff-wild2.media = {options.media!r}: there is no such folder in it")
    found = _find_media(media, set(annotations), places[0])
    if not found:
        raise InputError(
            f"{root}: neither images (cropped_aligned/VIDEO/00001.jpg) nor a video of any of the {len(annotations)} "
            f"annotated videos; the first is {next(iter(annotations))}"
        )
    items: list[Item] = []
    some_images = any(path.is_dir() for path in found.values())
    for name, annotation in annotations.items():
        labels = _labels(annotation)
        path = found.get(name)
        if path is None:
            missing = media / name / "00001.jpg" if some_images else media / f"{name}.mp4"
            items += tree.in_clip([missing], root, name, None, name)
            continue
        place = tree.relative(path, root)
        frames = [(frame, path, place) for frame in range(len(labels))]
        if path.is_dir():
            numbered = _images(path, len(labels), annotation)
            frames = [(frame, each, f"{place}/{each.name}") for frame, each in numbered if frame % options.every == 0]
        items += [
            Item(file, called, name, labels[frame], name, frame)
            for frame, file, called in frames
            if labels[frame] not in (None, *options.drop)
        ]
    return items


def _annotation_folders(folder: Path, depth: int) -> list[Path]:
    """Return the folders of annotations of expressions: called EXPR… or EX, and with a Train_Set or Validation_Set."""
    found: list[Path] = []
    below = tree.folders(folder)
    for inside in below:
        name = inside.name.lower()
        if (name == "ex" or name.startswith("expr")) and any(tree.find(inside, *names) for names in _SETS.values()):
            found.append(inside)
        elif depth > 1 and len(below) <= _MOST and not name.startswith(_MEDIA):
            found += _annotation_folders(inside, depth - 1)
    return found


def _annotations(place: Path, split: str) -> dict[str, Path]:
    """Return the annotation files by the name of their video."""
    found: dict[str, Path] = {}
    for name, folder_names in _SETS.items():
        folder = tree.find(place, *folder_names) if split in ("all", name) else None
        for path in (path for path in tree.files(folder) if path.suffix.lower() == ".txt") if folder else ():
            if found.setdefault(path.stem, path) is not path:
                raise InputError(f"{path.stem} is annotated twice: {found[path.stem]} and {path}")
    return found


def _find_media(media: Path, wanted: set[str], annotations: Path) -> dict[str, Path]:
    """Return the folder of images of every wanted video, or else the video's file."""
    pictures: dict[str, Path] = {}
    videos: dict[str, Path] = {}
    for folder, below, loose in os.walk(media, followlinks=True):
        place = Path(folder)
        for name in sorted(wanted.intersection(below)):
            _add(pictures, name, place / name)
        for name in sorted(loose):
            stem = os.path.splitext(name)[0]
            if stem in wanted and is_video(Path(name)):
                _add(videos, stem, place / name)
        # Folders of images have very many entries, and media do not lie deeper.
        deep = len(place.relative_to(media).parts) >= _DEPTH
        visible = [name for name in below if name not in wanted and not name.startswith(".")]
        below[:] = [] if deep else [name for name in visible if place / name != annotations]
    return videos | pictures


def _add(found: dict[str, Path], name: str, path: Path) -> None:
    """Remember where a video is; of two places the one with aligned images counts."""
    other = found.setdefault(name, path)
    if other is not path:
        aligned = ["aligned" in place.parent.as_posix().lower() for place in (other, path)]
        if aligned[0] == aligned[1]:
            raise InputError(f"{name} is in {other.parent} and in {path.parent}; say which with media=FOLDER")
        found[name] = other if aligned[0] else path


def _labels(path: Path) -> list[str | None]:
    """Return the class of every frame, None where there is none (-1)."""
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if not lines[0].lower().startswith("neutral"):
        raise InputError(
            f"{path}, line 1: expected the names of the classes (Neutral,Anger,…), found {lines[0][:40]!r}"
        )
    for number, line in enumerate(lines[1:], 2):
        if line != "-1" and line not in AFF_WILD2:
            raise InputError(f"{path}, line {number}: expected a whole number from -1 to 7, found {line[:40]!r}")
    return [AFF_WILD2.get(line) for line in lines[1:]]


def _images(folder: Path, lines: int, annotation: Path) -> list[tuple[int, Path]]:
    """Return the images of annotated frames, each after its frame's number, from 0."""
    numbered = [(int(path.stem) - 1, path) for path in tree.images(folder) if _IMAGE.fullmatch(path.stem)]
    inside = [(frame, path) for frame, path in numbered if 0 <= frame < lines]
    if 2 * len(inside) < max(1, len(numbered)) or not numbered:
        raise InputError(
            f"{annotation} has {lines} lines, and {folder} has {len(numbered)} numbered images"
            + (f" up to {numbered[-1][0] + 1}" if numbered else "")
            + "; they don't belong together"
        )
    return inside

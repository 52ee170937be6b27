"""Aff-Wild2: videos from the web with one expression a frame."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout
from featlab.extraction.layouts.tree import AFF_WILD2, child, files, folders, images, mismatch, numbered, relative
from featlab.extraction.text import read_text
from featlab.extraction.video.frames import is_video

EXPECTED = "EXPR_…_Challenge/Train_Set/VIDEO.txt, with cropped_aligned/VIDEO/00001.jpg or batch1/VIDEO.mp4 beside it"
_SETS = {"train": ("Train_Set", "Training_Set"), "validation": ("Validation_Set", "Val_Set")}
_DEPTH = 3
_MOST = 40
"""Folders beside each other; where there are more, they are videos or people, and annotations are not below them."""
_MEDIA = ("cropped", "batch", "video", "frame", "image", "new_vids")
"""Beginnings of folder names in which there are no annotations, but very many files."""
_IMAGE = re.compile(r"(\d+)")


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


def _recognises(root: Path) -> bool:
    return root.is_dir() and bool(_annotation_folders(root, _DEPTH))


@register_layout(
    "aff-wild2", title="Aff-Wild2, expressions", subject="a video (or one of two people in it)", recognises=_recognises
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
        raise mismatch(root, EXPECTED)
    if len(places) > 1:
        raise InputError(f"{root}: annotations of expressions are in {places[0]} and in {places[1]}; leave one of them")
    annotations = _annotations(places[0], options.split)
    if not annotations:
        raise mismatch(root, EXPECTED, places[0])
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
            items.append(Item(missing, relative(missing, root), name, None, name, 0, row=-1))
        elif path.is_dir():
            items += _image_items(path, root, name, labels, annotation, options)
        else:
            place = relative(path, root)
            items += [
                Item(path, place, name, label, name, frame, row=-1)
                for frame, label in enumerate(labels)
                if label is not None and label not in options.drop
            ]
    return numbered(items)


def _annotation_folders(folder: Path, depth: int) -> list[Path]:
    """Return the folders of annotations of expressions: called EXPR… or EX, and with a Train_Set or Validation_Set."""
    found: list[Path] = []
    below = folders(folder)
    for inside in below:
        name = inside.name.lower()
        if (name == "ex" or name.startswith("expr")) and any(child(inside, *names) for names in _SETS.values()):
            found.append(inside)
        elif depth > 1 and len(below) <= _MOST and not name.startswith(_MEDIA):
            found += _annotation_folders(inside, depth - 1)
    return found


def _annotations(place: Path, split: str) -> dict[str, Path]:
    """Return the annotation files by the name of their video."""
    found: dict[str, Path] = {}
    for name, folder_names in _SETS.items():
        folder = child(place, *folder_names)
        if folder is None or split not in ("all", name):
            continue
        for path in files(folder):
            if path.suffix.lower() != ".txt":
                continue
            if path.stem in found:
                raise InputError(f"{path.stem} is annotated twice: {found[path.stem]} and {path}")
            found[path.stem] = path
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
    other = found.get(name)
    if other is not None:
        aligned = ["aligned" in place.parent.as_posix().lower() for place in (other, path)]
        if aligned[0] == aligned[1]:
            raise InputError(f"{name} is in {other.parent} and in {path.parent}; say which with media=FOLDER")
        if aligned[0]:
            return
    found[name] = path


def _labels(path: Path) -> list[str | None]:
    """Return the class of every frame, None where there is none (-1)."""
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if not lines[0].lower().startswith("neutral"):
        raise InputError(
            f"{path}, line 1: expected the names of the classes (Neutral,Anger,…), found {lines[0][:40]!r}"
        )
    labels: list[str | None] = []
    for number, line in enumerate(lines[1:], 2):
        if line != "-1" and line not in AFF_WILD2:
            raise InputError(f"{path}, line {number}: expected a whole number from -1 to 7, found {line[:40]!r}")
        labels.append(AFF_WILD2.get(line))
    return labels


def _image_items(
    folder: Path, root: Path, name: str, labels: list[str | None], annotation: Path, options: AffWild2Options
) -> list[Item]:
    paths = [(int(match[1]), path) for path in images(folder) if (match := _IMAGE.fullmatch(path.stem)) is not None]
    inside = [(number, path) for number, path in paths if 1 <= number <= len(labels)]
    if 2 * len(inside) < max(1, len(paths)) or not paths:
        raise InputError(
            f"{annotation} has {len(labels)} lines, and {folder} has {len(paths)} numbered images"
            + (f" up to {paths[-1][0]}" if paths else "")
            + "; they don't belong together"
        )
    place = relative(folder, root)
    return [
        Item(path, f"{place}/{path.name}", name, label, name, number - 1, row=-1)
        for number, path in inside
        if (number - 1) % options.every == 0 and (label := labels[number - 1]) is not None and label not in options.drop
    ]

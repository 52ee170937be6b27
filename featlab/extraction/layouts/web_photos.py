"""Photographs from the web: ExpW (boxes around faces), FER2013 (pixels in a csv) and RAF-DB (faces, cropped)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item, natural_key
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.layouts.tree import FER2013, RAF_DB
from featlab.extraction.text import check_columns, first_names

_EXPW_TREE = "label/label.lst (IMAGE FACE TOP LEFT RIGHT BOTTOM CONFIDENCE LABEL) and image/origin/IMAGE"
SUBJECT = "expw"
_LISTS = ("label/label.lst", "label.lst", "data/label/label.lst", "data/label.lst")
_IMAGES = ("image/origin", "data/image/origin", "image", "origin", "data/image", "images")
_EXPW_LINE = re.compile(r"(?P<image>\S+)(?P<numbers>(\s+-?\d+(\.\d*)?){6})\s+(?P<label>[0-6])")
_EXPW_FORM = "image face top left right bottom confidence label, six numbers and a label from 0 to 6"


@dataclass(frozen=True)
class ExpWOptions(Options):
    """Options of the layout expw."""

    confidence: float = option(0.0, "Faces whose box has less than this confidence (0 to 100) are left out.", minimum=0)
    margin: float = option(
        0.0, "How far the crop reaches over the box, as a fraction of the box's size, on every side.", minimum=0
    )


@register_layout(
    "expw",
    title="ExpW, Expression in-the-Wild",
    subject="the data set (people have no names)",
    recognises=lambda root: tree.find(root, *_LISTS) is not None,
)
def read_expw(root: Path, options: ExpWOptions) -> list[Item]:
    """ExpW: photographs, and a list of the faces in them.

    ::

        ROOT/                            or ROOT/data/
          label/
            label.lst                    or ROOT/label.lst; one face a line:
                                         image face top left right bottom confidence label
          image/
            origin/                      or ROOT/image/, ROOT/origin/
              afraid_asian_1.jpg

    Every face is an image of its own, cropped to its box. 0 to 6 are anger, disgust, fear, happiness, sadness,
    surprise, neutral. All of it is one subject, ``expw``, so it needs other data sets beside it. A clip is one class.
    """
    table = tree.find(root, *_LISTS)
    folder = tree.find(root, *_IMAGES)
    if table is None or folder is None or not folder.is_dir():
        raise tree.mismatch(root, _EXPW_TREE, None if table is None or table.parent == root else table.parent)
    items: list[Item] = []
    place, faces = tree.relative(folder, root), 0
    for where, match in tree.matches(table, _EXPW_LINE, _EXPW_FORM):
        faces += 1
        *whole, confidence = map(float, match["numbers"].split())
        number, top, left, right, bottom = map(int, whole)
        if right <= left or bottom <= top:
            raise InputError(f"{where}: the box is empty (top {top}, left {left}, right {right}, bottom {bottom})")
        if confidence >= options.confidence:
            across, down = (round(options.margin * side) for side in (right - left, bottom - top))
            box = left - across, top - down, right + across, bottom + down
            name, label = f"{place}/{match['image']}#face={number}", FER2013[match["label"]]
            items.append(Item(folder / match["image"], name, SUBJECT, label, label, 0, box=box))
    if not items:
        raise ConfigError(f"expw.confidence = {options.confidence:g} leaves none of the {faces} faces")
    tree.check_present(items, root, tree.relative(table, root))
    return tree.counted(sorted(items, key=lambda item: natural_key(item.name)))


_FER2013_TREE = "fer2013.csv (emotion,pixels,Usage), Kaggle's icml_face_data.csv, or train.csv and test.csv"
_WHOLE = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv")
_PARTS = ("train.csv", "test.csv")


@dataclass(frozen=True)
class SplitOptions(Options):
    """Options of a data set whose people have no names."""

    group: str = option(
        "split",
        "What a subject is: a split (fer2013-Training, raf-db-train, …) or the whole dataset, to put it beside others.",
        choices=("split", "dataset"),
    )


@register_layout(
    "fer2013",
    title="FER2013",
    subject="the data set's split (people have no names)",
    recognises=lambda root: any("pixels" in first_names(path) for path in _tables(root)),
    takes_files=True,
)
def read_fer2013(root: Path, options: SplitOptions) -> list[Item]:
    """FER2013: a line an image, with its class and its 48 x 48 grey values.

    ::

        ROOT/                            or the csv itself
          fer2013.csv                    emotion,pixels,Usage           or fer2013/fer2013.csv
          icml_face_data.csv             emotion, Usage, pixels         Kaggle's, blanks in the header
          train.csv  test.csv            emotion,pixels                 Kaggle's, in place of the two above

    The first of these that is there is read. 0 to 6 are anger, disgust, fear, happiness, sadness, surprise, neutral;
    without the column ``emotion`` (Kaggle's test.csv) the class is unknown. A clip is what a split has of one class.
    """
    tables = _tables(root)
    if not tables:
        raise tree.mismatch(root, _FER2013_TREE)
    items: list[Item] = []
    for table in tables:
        name = tree.relative(table, root)
        for row, (offset, label, usage) in enumerate(_rows(table)):
            subject = "fer2013" if options.group == "dataset" else f"fer2013-{usage}"
            video = f"{usage}/{label or 'unknown'}"
            items.append(Item(table, f"{name}#row={row}", subject, label, video, 0, at=offset))
    return tree.counted(items)


def _tables(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    whole = tree.find(root, *_WHOLE)
    return [whole] if whole is not None else [path for name in _PARTS if (path := root / name).is_file()]


def _rows(table: Path) -> list[tuple[int, str | None, str]]:
    """Return the byte at which each line starts, its class and its split."""
    rows: list[tuple[int, str | None, str]] = []
    with table.open("rb") as file:
        names = [_plain(cell).lower() for cell in file.readline().split(b",")]
        check_columns(names, ["pixels"], f"{table}, line 1")
        emotion = names.index("emotion") if "emotion" in names else None
        usage = names.index("usage") if "usage" in names else None
        for number, line in enumerate(file, 2):
            if not line.strip():
                continue
            cells = line.split(b",")
            where = f"{table}, line {number}"
            if len(cells) != len(names):
                raise InputError(f"{where}: {len(cells)} values under {len(names)} columns")
            code = None if emotion is None else _plain(cells[emotion])
            if code is not None and code not in FER2013:
                raise InputError(f"{where}: the emotion {code[:20]!r} isn't a whole number from 0 to 6")
            split = table.stem if usage is None else _plain(cells[usage])
            if not split:
                raise InputError(f"{where}: the Usage is empty, not Training, PublicTest or PrivateTest")
            rows.append((file.tell() - len(line), code and FER2013[code], split))
    if not rows:
        raise InputError(f"{table} has a header and no rows")
    return rows


def _plain(cell: bytes) -> str:
    """Return a cell's text, without quotes and blanks around it; a file's first one without a byte order mark."""
    return cell.decode("utf-8-sig", errors="replace").strip().strip('"').strip()


_RAF_DB_TREE = (
    "EmoLabel/list_patition_label.txt and Image/aligned/train_00001_aligned.jpg, or folders train/1 to train/7 and "
    "test/1 to test/7"
)
_RAF_DB_LISTS = tuple(
    f"{place}list_patition_label.txt" for place in ("EmoLabel/", "", "basic/EmoLabel/", "basic/", "raf-basic/EmoLabel/")
)
_RAF_DB_IMAGES = tuple(
    f"{place}aligned" for place in ("Image/", "", "basic/Image/", "basic/", "raf-basic/Image/", "EmoLabel/")
)
_RAF_DB_LINE = re.compile(r"(?P<image>(?P<split>train|test)_\S+)\s+(?P<label>[1-7])")
_SPLITS = {"train": ("train", "train_set"), "test": ("test", "test_set", "val_set", "val")}


@dataclass(frozen=True)
class RAFDBOptions(SplitOptions):
    """Options of the layout raf-db."""

    removed = {"images": "the aligned faces are read; for whole photographs write a manifest"}  # noqa: RUF012


@register_layout(
    "raf-db",
    title="RAF-DB, basic expressions",
    subject="the data set's split (people have no names)",
    recognises=lambda root: (tree.find(root, *_RAF_DB_LISTS) or _numbered_folders(root)) is not None,
)
def read_raf_db(root: Path, options: RAFDBOptions) -> list[Item]:
    """RAF-DB, single labels: a list of images, or folders by number.

    ::

        ROOT/                                    or ROOT/basic/
          EmoLabel/
            list_patition_label.txt              train_00001.jpg 5          (spelled so), or beside the images
          Image/
            aligned/                             or ROOT/aligned/
              train_00001_aligned.jpg

        ROOT/                                    as it is found elsewhere; or ROOT/DATASET/
          train/                                 or train_set/
            1/ … 7/
          test/                                  or test_set/, val_set/
            1/ … 7/

    1 to 7 are surprise, fear, disgust, happiness, sadness, anger, neutral. A clip is what a split has of one class.
    """
    table = tree.find(root, *_RAF_DB_LISTS)
    base = _numbered_folders(root)
    if table is not None:
        faces = list(_listed_faces(root, table))
    elif base is not None:
        faces = list(_faces_in_folders(base))
    else:
        raise tree.mismatch(root, _RAF_DB_TREE)
    items: list[Item] = []
    for path, split, label in sorted(faces, key=lambda face: natural_key(face[0].name)):
        subject = "raf-db" if options.group == "dataset" else f"raf-db-{split}"
        items.append(Item(path, tree.relative(path, root), subject, label, f"{split}/{label}", 0))
    tree.check_present(items, root, "list_patition_label.txt")
    return tree.counted(items)


def _listed_faces(root: Path, table: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the file of each image, its split and its class."""
    folder = tree.find(root, *_RAF_DB_IMAGES)
    if folder is None or not folder.is_dir():
        raise tree.mismatch(root, f"Image/aligned/ with the images of {tree.relative(table, root)}")
    for _, match in tree.matches(table, _RAF_DB_LINE, "train_… or test_… and a number from 1 to 7"):
        name = Path(match["image"])
        yield folder / f"{name.stem}_aligned{name.suffix}", match["split"], RAF_DB[match["label"]]


def _numbered_folders(root: Path) -> Path | None:
    """Return the folder that has train/1 … and so on in it."""
    for base in (root, root / "DATASET"):
        train = tree.find(base, *_SPLITS["train"])
        if train is not None and all((train / code).is_dir() for code in RAF_DB):
            return base
    return None


def _faces_in_folders(base: Path) -> Iterator[tuple[Path, str, str]]:
    for split, names in _SPLITS.items():
        folder = tree.find(base, *names)
        for code, label in RAF_DB.items():
            if folder is not None and (folder / code).is_dir():
                for path in tree.images(folder / code):
                    yield path, split, label

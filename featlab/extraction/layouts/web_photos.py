"""Photographs from the web: ExpW (boxes around faces) and FER2013 (pixels in a csv)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item, natural_key
from featlab.extraction.layouts import register_layout
from featlab.extraction.layouts.tree import FER2013, check_present, counted, descendant, header, mismatch, relative
from featlab.extraction.text import check_columns, read_lines

_EXPW_TREE = "label/label.lst (IMAGE FACE TOP LEFT RIGHT BOTTOM CONFIDENCE LABEL) and image/origin/IMAGE"
SUBJECT = "expw"
_LISTS = ("label/label.lst", "label.lst", "data/label/label.lst", "data/label.lst")
_IMAGES = ("image/origin", "data/image/origin", "image", "origin", "data/image", "images")
_VALUES = 8


@dataclass(frozen=True)
class ExpWOptions(Options):
    """Options of the layout expw."""

    confidence: float = option(0.0, "Faces whose box has less than this confidence (0 to 100) are left out.", minimum=0)
    margin: float = option(
        0.0, "How far the crop reaches over the box, as a fraction of the box's size, on every side.", minimum=0
    )


_Face = tuple[str, int, tuple[int, int, int, int], float, str]
"""One line of label.lst: the image, the number of the face, its box, the box's confidence, the class."""


@register_layout(
    "expw",
    title="ExpW, Expression in-the-Wild",
    subject="the data set (people have no names)",
    recognises=lambda root: root.is_dir() and descendant(root, *_LISTS) is not None,
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
    surprise, neutral. Nobody knows who the people are: the domain is the data set, and all of it is one subject,
    ``expw``, so it needs other data sets beside it. A clip is one class. An image that isn't on disk fails at
    extraction and is listed.
    """
    table = descendant(root, *_LISTS)
    folder = descendant(root, *_IMAGES)
    if table is None or folder is None or not folder.is_dir():
        raise mismatch(root, _EXPW_TREE, None if table is None or table.parent == root else table.parent)
    faces = [_face(line, f"{table}, line {number}") for number, line in read_lines(table)]
    items: list[Item] = []
    place = relative(folder, root)
    for image, number, box, confidence, label in sorted(faces, key=lambda face: (natural_key(face[0]), face[1])):
        if confidence >= options.confidence:
            left, top, right, bottom = box
            across, down = (round(options.margin * side) for side in (right - left, bottom - top))
            wide = left - across, top - down, right + across, bottom + down
            name = f"{place}/{image}#face={number}"
            items.append(Item(folder / image, name, SUBJECT, label, label, 0, row=-1, box=wide))
    if not items:
        raise ConfigError(f"expw.confidence = {options.confidence:g} leaves none of the {len(faces)} faces")
    check_present(items, root, relative(table, root))
    return counted(items)


def _face(line: str, where: str) -> _Face:
    cells = line.split()
    if len(cells) != _VALUES:
        raise InputError(
            f"{where}: {len(cells)} values, expected {_VALUES}: image face top left right bottom confidence label"
        )
    try:
        number, top, left, right, bottom = (int(float(cell)) for cell in cells[1:6])
        confidence, label = float(cells[6]), int(cells[7])
    except (ValueError, OverflowError):
        raise InputError(f"{where}: a value isn't a number: {' '.join(cells[1:])[:60]}") from None
    if not 0 <= label < len(FER2013):
        raise InputError(f"{where}: the label {label} isn't a whole number from 0 to {len(FER2013) - 1}")
    if right <= left or bottom <= top:
        raise InputError(f"{where}: the box is empty (top {top}, left {left}, right {right}, bottom {bottom})")
    return cells[0], number, (left, top, right, bottom), confidence, FER2013[label]


_FER2013_TREE = "fer2013.csv (emotion,pixels,Usage), Kaggle's icml_face_data.csv, or train.csv and test.csv"
_WHOLE = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv")
_PARTS = ("train.csv", "test.csv")


@dataclass(frozen=True)
class FER2013Options(Options):
    """Options of the layout fer2013."""

    group: str = option(
        "split",
        "What a subject is: split (fer2013-Training, fer2013-PublicTest, fer2013-PrivateTest) or dataset "
        "(fer2013), to put it beside other data sets.",
        choices=("split", "dataset"),
    )


def _is_fer2013(root: Path) -> bool:
    if not root.is_dir():
        return root.suffix.lower() == ".csv" and "pixels" in header(root)
    return any("pixels" in header(path) for path in _tables(root))


@register_layout(
    "fer2013",
    title="FER2013",
    subject="the data set's split (people have no names)",
    recognises=_is_fer2013,
    takes_files=True,
)
def read_fer2013(root: Path, options: FER2013Options) -> list[Item]:
    """FER2013: a line an image, with its class and its 48 x 48 grey values.

    ::

        ROOT/                            or the csv itself
          fer2013.csv                    emotion,pixels,Usage           or fer2013/fer2013.csv
          icml_face_data.csv             emotion, Usage, pixels         Kaggle's, blanks in the header
          train.csv  test.csv            emotion,pixels                 Kaggle's, in place of the two above

    The first of these that is there is read. 0 to 6 are anger, disgust, fear, happiness, sadness, surprise, neutral;
    without the column ``emotion`` (Kaggle's test.csv) the class is unknown. Nobody knows who the people are: the
    domain is the data set, and a subject is its split (or, with group=dataset, all of it). A clip is what one split
    has of one class. Only the lines' places are read here; pixels that don't fit fail at extraction and are listed.
    """
    tables = _tables(root) if root.is_dir() else [root]
    if not tables:
        raise mismatch(root, _FER2013_TREE)
    items: list[Item] = []
    for table in tables:
        name = relative(table, root)
        for row, (offset, label, usage) in enumerate(_rows(table)):
            subject = "fer2013" if options.group == "dataset" else f"fer2013-{usage}"
            video = f"{usage}/{label or 'unknown'}"
            items.append(Item(table, f"{name}#row={row}", subject, label, video, 0, row=-1, at=offset))
    return counted(items)


def _tables(root: Path) -> list[Path]:
    whole = descendant(root, *_WHOLE)
    return [whole] if whole is not None else [path for name in _PARTS if (path := root / name).is_file()]


def _rows(table: Path) -> list[tuple[int, str | None, str]]:
    """Return the byte at which each line starts, its class and its split."""
    rows: list[tuple[int, str | None, str]] = []
    with table.open("rb") as file:
        names = [_plain(cell).lower() for cell in file.readline().split(b",")]
        check_columns(names, ["pixels"], f"{table}, line 1")
        emotion = names.index("emotion") if "emotion" in names else None
        usage = names.index("usage") if "usage" in names else None
        offset, number = file.tell(), 1
        for line in file:
            number += 1
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            cells = line.split(b",")
            where = f"{table}, line {number}"
            if len(cells) != len(names):
                raise InputError(f"{where}: {len(cells)} values under {len(names)} columns")
            label = None if emotion is None else _emotion(_plain(cells[emotion]), where)
            rows.append((start, label, _usage(_plain(cells[usage]), where) if usage is not None else table.stem))
    if not rows:
        raise InputError(f"{table} has a header and no rows")
    return rows


def _plain(cell: bytes) -> str:
    """Return a cell's text, without quotes and blanks around it; a file's first one without a byte order mark."""
    return cell.decode("utf-8-sig", errors="replace").strip().strip('"').strip()


def _emotion(text: str, where: str) -> str:
    if text not in [str(code) for code in range(len(FER2013))]:
        raise InputError(f"{where}: the emotion {text[:20]!r} isn't a whole number from 0 to {len(FER2013) - 1}")
    return FER2013[int(text)]


def _usage(text: str, where: str) -> str:
    if not text or len(text) > 40:
        raise InputError(f"{where}: the Usage {text[:20]!r} isn't Training, PublicTest or PrivateTest")
    return text

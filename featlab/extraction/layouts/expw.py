"""ExpW: photographs from the web with boxes around faces."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item, natural_key
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tables import FER2013, read_lines
from featlab.extraction.layouts.tree import check_present, descendant, mismatch, numbered, relative

EXPECTED = "label/label.lst (IMAGE FACE TOP LEFT RIGHT BOTTOM CONFIDENCE LABEL) and image/origin/IMAGE"
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


@dataclass(frozen=True)
class _Face:
    """One line of label.lst."""

    image: str
    number: int
    box: tuple[int, int, int, int]
    confidence: float
    label: str


def _recognises(root: Path) -> bool:
    return root.is_dir() and descendant(root, *_LISTS) is not None


@register_layout(
    "expw",
    title="ExpW, Expression in-the-Wild",
    subject="the data set (people have no names)",
    options=ExpWOptions,
    recognises=_recognises,
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
        raise mismatch(root, EXPECTED, None if table is None or table.parent == root else table.parent)
    faces = [_face(line, f"{table}, line {number}") for number, line in read_lines(table)]
    kept = [face for face in faces if face.confidence >= options.confidence]
    if not kept:
        raise ConfigError(f"expw.confidence = {options.confidence:g} leaves none of the {len(faces)} faces")
    kept.sort(key=lambda face: (natural_key(face.image), face.number))
    items: list[Item] = []
    frames: Counter[str] = Counter()
    place = relative(folder, root)
    for face in kept:
        frame = frames[face.label]
        frames[face.label] += 1
        name = f"{place}/{face.image}#face={face.number}"
        box = _wider(face.box, options.margin)
        items.append(Item(folder / face.image, name, SUBJECT, face.label, face.label, frame, row=-1, box=box))
    check_present(items, root, relative(table, root))
    return numbered(items)


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
    return _Face(cells[0], number, (left, top, right, bottom), confidence, FER2013[label])


def _wider(box: tuple[int, int, int, int], margin: float) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    across, down = round(margin * (right - left)), round(margin * (bottom - top))
    return left - across, top - down, right + across, bottom + down

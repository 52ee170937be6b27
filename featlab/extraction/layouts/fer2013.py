"""FER2013: 48 x 48 grey faces from the web, their pixels in a csv."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError, closest
from featlab.extraction.items import Item
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tables import FER2013, header
from featlab.extraction.layouts.tree import descendant, mismatch, numbered

EXPECTED = "fer2013.csv (emotion,pixels,Usage), Kaggle's icml_face_data.csv, or train.csv and test.csv"
_WHOLE = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv")
_PARTS = ("train.csv", "test.csv")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class FER2013Options(Options):
    """Options of the layout fer2013."""

    group: str = option(
        "split",
        "What a subject is: split (fer2013-Training, fer2013-PublicTest, fer2013-PrivateTest) or dataset "
        "(fer2013), to put it beside other data sets.",
        choices=("split", "dataset"),
    )


def _recognises(root: Path) -> bool:
    if not root.is_dir():
        return root.suffix.lower() == ".csv" and "pixels" in header(root)
    return any("pixels" in header(path) for path in _tables(root))


@register_layout(
    "fer2013",
    title="FER2013",
    subject="the data set's split (people have no names)",
    options=FER2013Options,
    recognises=_recognises,
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
        raise mismatch(root, EXPECTED)
    items: list[Item] = []
    frames: Counter[tuple[str, str]] = Counter()
    for table in tables:
        name = table.name if table == root else table.relative_to(root).as_posix()
        for row, (offset, label, usage) in enumerate(_rows(table)):
            subject = "fer2013" if options.group == "dataset" else f"fer2013-{usage}"
            video = f"{usage}/{label or _UNKNOWN}"
            frame = frames[subject, video]
            frames[subject, video] += 1
            items.append(Item(table, f"{name}#row={row}", subject, label, video, frame, row=-1, at=offset))
    return numbered(items)


def _tables(root: Path) -> list[Path]:
    whole = descendant(root, *_WHOLE)
    return [whole] if whole is not None else [path for name in _PARTS if (path := root / name).is_file()]


def _rows(table: Path) -> list[tuple[int, str | None, str]]:
    """Return the byte at which each line starts, its class and its split."""
    rows: list[tuple[int, str | None, str]] = []
    with table.open("rb") as file:
        names = [_plain(cell).lower() for cell in file.readline().split(b",")]
        if "pixels" not in names:
            hint = closest("pixels", names)
            raise InputError(f"{table}, line 1: no column 'pixels' (found: {', '.join(names)[:80]}){hint}")
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
            label = None if emotion is None else _label(_plain(cells[emotion]), where)
            rows.append((start, label, _usage(_plain(cells[usage]), where) if usage is not None else table.stem))
    if not rows:
        raise InputError(f"{table} has a header and no rows")
    return rows


def _plain(cell: bytes) -> str:
    """Return a cell's text, without quotes and blanks around it; a file's first one without a byte order mark."""
    return cell.decode("utf-8-sig", errors="replace").strip().strip('"').strip()


def _label(text: str, where: str) -> str:
    if text not in [str(code) for code in range(len(FER2013))]:
        raise InputError(f"{where}: the emotion {text[:20]!r} isn't a whole number from 0 to {len(FER2013) - 1}")
    return FER2013[int(text)]


def _usage(text: str, where: str) -> str:
    if not text or len(text) > 40:
        raise InputError(f"{where}: the Usage {text[:20]!r} isn't Training, PublicTest or PrivateTest")
    return text

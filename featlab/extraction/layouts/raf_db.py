"""RAF-DB: faces from the web, the seven basic expressions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import Item, natural_key
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.text import read_lines

EXPECTED = (
    "EmoLabel/list_patition_label.txt and Image/aligned/train_00001_aligned.jpg, or folders train/1 to train/7 and "
    "test/1 to test/7"
)
_LISTS = tuple(
    f"{place}list_patition_label.txt" for place in ("EmoLabel/", "", "basic/EmoLabel/", "basic/", "raf-basic/EmoLabel/")
)
_SPLITS = {"train": ("train", "train_set"), "test": ("test", "test_set", "val_set", "val")}


@dataclass(frozen=True)
class RAFDBOptions(Options):
    """Options of the layout raf-db."""

    images: str = option(
        "aligned",
        "aligned (100 x 100, cropped by RAF-DB's authors) or original (whole photographs).",
        choices=("aligned", "original"),
    )
    group: str = option(
        "split",
        "What a subject is: split (raf-db-train, raf-db-test) or dataset (raf-db), to put it beside others.",
        choices=("split", "dataset"),
    )


_Face = tuple[Path, str, str]
"""The file of an image, its split and its class."""


def _recognises(root: Path) -> bool:
    return root.is_dir() and (tree.descendant(root, *_LISTS) is not None or _numbered_folders(root) is not None)


@register_layout(
    "raf-db",
    title="RAF-DB, basic expressions",
    subject="the data set's split (people have no names)",
    recognises=_recognises,
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
            original/
              train_00001.jpg

        ROOT/                                    as it is found elsewhere; or ROOT/DATASET/
          train/                                 or train_set/
            1/ … 7/
          test/                                  or test_set/, val_set/
            1/ … 7/

    1 to 7 are surprise, fear, disgust, happiness, sadness, anger, neutral. Nobody knows who the people are: the domain
    is the data set, and a subject is its split (or, with group=dataset, all of it). A clip is what one split has of one
    class. A listed image that isn't on disk fails at extraction and is listed.
    """
    table = tree.descendant(root, *_LISTS)
    base = _numbered_folders(root)
    if table is not None:
        faces = list(_listed(table, _image_folder(root, table, options.images), options.images))
    elif base is not None:
        faces = list(_in_folders(base))
    else:
        raise tree.mismatch(root, EXPECTED)
    items: list[Item] = []
    for path, split, label in sorted(faces, key=lambda face: natural_key(face[0].name)):
        subject = "raf-db" if options.group == "dataset" else f"raf-db-{split}"
        items.append(Item(path, tree.relative(path, root), subject, label, f"{split}/{label}", 0, row=-1))
    tree.check_present(items, root, "list_patition_label.txt")
    return tree.counted(items)


def _image_folder(root: Path, table: Path, kind: str) -> Path:
    for home in dict.fromkeys((table.parent, table.parent.parent, root)):
        if home == root or root in home.parents:
            folder = tree.descendant(home, f"Image/{kind}", kind)
            if folder is not None and folder.is_dir():
                return folder
    raise InputError(
        f"{root}: expected Image/{kind}/ (or {kind}/) with the images of {tree.relative(table, root)}; found none"
    )


def _listed(table: Path, folder: Path, kind: str) -> Iterator[_Face]:
    for number, line in read_lines(table):
        cells = line.split()
        where = f"{table}, line {number}"
        if len(cells) != 2 or cells[1] not in [str(code) for code in range(1, len(tree.RAF_DB) + 1)]:
            raise InputError(
                f"{where}: expected an image and a number from 1 to {len(tree.RAF_DB)}, found {line[:60]!r}"
            )
        name = Path(cells[0])
        split = name.stem.partition("_")[0]
        if split not in _SPLITS:
            raise InputError(f"{where}: the image {cells[0]!r} begins neither with train_ nor with test_")
        file = f"{name.stem}_aligned{name.suffix}" if kind == "aligned" else name.name
        yield folder / file, split, tree.RAF_DB[int(cells[1]) - 1]


def _numbered_folders(root: Path) -> Path | None:
    """Return the folder that has train/1 … and so on in it."""
    for base in (root, tree.child(root, "DATASET")):
        if base is None or not base.is_dir():
            continue
        train = tree.child(base, *_SPLITS["train"])
        if train is not None and all((train / str(code)).is_dir() for code in range(1, len(tree.RAF_DB) + 1)):
            return base
    return None


def _in_folders(base: Path) -> Iterator[_Face]:
    for split, names in _SPLITS.items():
        folder = tree.child(base, *names)
        for code, label in enumerate(tree.RAF_DB, 1):
            if folder is not None and (folder / str(code)).is_dir():
                for path in tree.images(folder / str(code)):
                    yield path, split, label

"""Landmarks that people already have: arrays, OpenFace's csv, folders of files; each row finds its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.faces.landmark_files import LandmarkTable, read_landmark_table
from featlab.extraction.faces.track import Faces, Found
from featlab.extraction.items import Item, names_by_row, natural_key

SUFFIXES = (".csv", ".npy", ".pts", ".tem")
# OpenFace takes the pictures of a folder with these suffixes.
_OPENFACE_READS = (".bmp", ".jpeg", ".jpg", ".png")


def find_landmarks(source: Path) -> Path | None:
    """Return ``landmarks.npy``, or else ``landmarks.csv``, beside a manifest or inside a folder; None without any."""
    folder = source if source.is_dir() else source.parent
    beside = (folder / "landmarks.npy", folder / "landmarks.csv")
    return next((path for path in beside if path.is_file()), None)


def landmarks_for(path: Path, items: Sequence[Item], called: Callable[[str], str] = str) -> Found:
    """Read the landmarks of a source's items from a file or folder; InputError for what doesn't fit for certain.

    ``called`` is what pictures are called in a warning.
    """
    file = find_landmarks(path) if path.is_dir() else path
    if file is None:
        return Found(read_landmark_folder(path, items), matched="by name")
    rows, table = max(item.row for item in items) + 1, read_landmark_table(file)
    clips = {(*_clip_of(item), *(() if table.by_openface else (item.subject, item.video))) for item in items}
    if table.paths is None and table.frames is not None and len(clips) == 1:
        found = dict(zip((item.row for item in items), _in_clip(file, table, items), strict=True))
        return Found(Faces.by_row(found, rows), matched="by frame number")
    names = names_by_row(items)
    faces = _faces_of(file, table, rows, names)
    if table.paths is not None:
        return Found(faces, matched="by name")
    return Found(
        faces, matched="row by row", warning=_order_warning(file, names, called) if table.counts is None else ""
    )


def _order_warning(file: Path, names: Sequence[str], called: Callable[[str], str]) -> str:
    """Say that the pictures' names have another order as text, in which most tools go; empty: they haven't."""
    as_text = sorted(names)
    if not names == sorted(names, key=natural_key) != as_text:
        return ""
    place = next(place for place, name in enumerate(as_text) if name != names[place])
    ours, theirs = called(names[place]), called(as_text[place])
    return (
        f"{file} has no names: its rows were taken in the order by number (row {place + 1} is {ours}); a tool that "
        f"sorts names as text has {theirs} there. A csv with a column path is certain"
    )


def read_landmarks(path: Path, rows: int, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Read landmarks in pixels, (rows, P, 2), from one file for all rows; the largest face of each."""
    return _faces_of(path, read_landmark_table(path), rows, names).largest()


def _faces_of(path: Path, table: LandmarkTable, rows: int, names: Sequence[str] | None) -> Faces:
    if table.paths is None or names is None:
        found = len(table.points if table.counts is None else table.counts)
        if found != rows:
            raise InputError(f"{path} has landmarks for {found} rows, the source has {rows}; one row each is needed")
        return Faces.of(list(table.points[:, None])) if table.counts is None else Faces(table.points, table.counts)
    places = _rows_by_name(table.paths, names)
    if not any(places):
        example = (
            f"{table.paths[0]!r}, where the source has {names[0]!r}" if table.paths and names else "it has no rows"
        )
        raise InputError(f"no path of {path} is a path of the source: {example}")
    if not table.several and (twice := next((found for found in places if len(found) > 1), None)):
        raise InputError(f"{path} lists {table.paths[twice[0]]!r} twice")
    return Faces.of([table.points[found] for found in places])


def _rows_by_name(listed: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """Find the rows of each name: by its path, or else without suffix, or else by the bare name where it is unique."""
    found: list[list[int]] = [[] for _ in names]
    for spell in (_normal, _without_suffix, lambda name: PurePosixPath(_without_suffix(name)).name):
        if any(found) or any(len({*map(spell, of)}) < len(set(of)) for of in (listed, names)):
            continue
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(listed):
            rows.setdefault(spell(name), []).append(row)
        found = [rows.get(spell(name), []) for name in names]
    return found


def _normal(name: str) -> str:
    return normalize("NFC", PurePosixPath(name).as_posix())


def _without_suffix(name: str) -> str:
    path = PurePosixPath(_normal(name))
    # A row may name no picture; it is nobody's.
    return path.with_suffix("").as_posix() if path.name else ""


def _in_clip(path: Path, table: LandmarkTable, items: Sequence[Item]) -> list[NDArray[np.float32]]:
    """Return the faces of each item of one clip, (F, P, 2), by the number that its frame has in the file."""
    # OpenFace numbers the pictures of a folder in the order of their names as text: img1, img10, img2.
    places, pictures, frames, found = [item.frame for item in items], _pictures_beside(items), table.frames, ""
    if frames is not None and frames.min(initial=1) > 0:
        # Numbers from 1 are places, unless the source counts in the same way.
        frames = frames - int(table.by_openface or not {*places} <= {*frames.tolist()})
    count = len(table.points) if frames is None else int(frames.max(initial=-1)) + 1
    if pictures and (table.by_openface or frames is None):
        if count > len(pictures) or (count < len(pictures) and frames is None):
            found = f"{len(pictures)} pictures"
        elif frames is None and pictures != sorted(pictures, key=natural_key):
            found = "pictures whose names have another order as text than by number"
        ranks = {name: rank for rank, name in enumerate(pictures)}
        places = [ranks.get(item.path.name, -1) for item in items]
    elif frames is None and max(places) >= count:
        found = "" if count == len(items) else f"{max(places) + 1} frames or more"
        places = np.argsort(np.argsort(places)).tolist()
    if found:
        rows = f"{count} rows without names or frame numbers" if frames is None else f"frames up to {count}"
        raise InputError(
            f"{path} has {rows}, and {_clip_of(items[0])[0]} has {found}: it can't be told whose they are; give each "
            "image a file, or a csv with a column path"
        )
    at = np.arange(count) if frames is None else frames
    return [table.points[at == place] for place in places]


def _pictures_beside(items: Sequence[Item]) -> list[str]:
    """Name the pictures in the folder of a clip of pictures, in OpenFace's order; none for the frames of a video."""
    folder = items[0].path.parent
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else [item.path.name for item in items]
    read = {name for name in names if PurePosixPath(name).suffix.lower() in _OPENFACE_READS}
    return sorted(read) if items[0].at is None else []


def _clip_of(item: Item) -> tuple[Path, bool]:
    """The video that a frame is of, or the folder that a picture is in."""
    return (item.path.parent, False) if item.at is None else (item.path, True)


def read_landmark_folder(folder: Path, items: Sequence[Item]) -> Faces:
    """Read the landmarks of the items out of a folder.

    A file belongs to the image, video or folder of frames that has its path without suffix, or else, where it is the
    only one on both sides, its name. In a clip the frame number decides (OpenFace's first is 1).
    """
    if any(item.box is not None for item in items):
        raise InputError(f"{folder}: its landmarks are of whole pictures, and the source takes parts of them")
    files = _files(folder)
    wanted = _owners(files, items)
    if not wanted:
        mine, theirs = next(iter(files.values())).relative_to(folder).as_posix(), items[0].name if items else "nothing"
        raise InputError(
            f"{folder}: none of its {len(files)} files belongs to an item of the source: it holds {mine!r}, the source "
            f"{theirs!r}; they are matched by relative path without suffix, or by name where that is unique"
        )
    faces: dict[int, NDArray[np.float32]] = {}
    first, known = next(iter(wanted)), 0
    for path, users in wanted.items():
        rows = read_landmark_table(path, of_one=True)
        points = rows.points.shape[1]
        known = known or points
        if points != known:
            raise InputError(f"{path} has {points} points and {first} has {known}; one kind is needed")
        clip = [item for item, is_clip in users if is_clip]
        faces |= zip((item.row for item in clip), _in_clip(path, rows, clip) if clip else (), strict=True)
        faces |= {item.row: rows.points for item, is_clip in users if not is_clip}
    return Faces.by_row(faces, max(item.row for item in items) + 1)


def _owners(files: Mapping[str, Path], items: Sequence[Item]) -> dict[Path, list[tuple[Item, bool]]]:
    """Return the items that each file belongs to, and whether it is of the clip that they are of."""
    images = [_key(item) for item in items]
    clips = [PurePosixPath(key).parent.as_posix() for key in images]
    named, images_once, clips_once = map(_named_once, (files, images, clips))
    owners: dict[Path, list[tuple[Item, bool]]] = {}
    for item, image, clip in zip(items, images, clips, strict=True):
        of_image, of_clip = item.at is not None, True
        ways = [(files.get(image), of_image), (files.get(clip), of_clip)]
        for key, once, is_clip in ((image, images_once, of_image), (clip, clips_once, of_clip)):
            name = PurePosixPath(key).name
            ways.append((files.get(named.get(name, "")) if name in once else None, is_clip))
        if owner := next(((path, is_clip) for path, is_clip in ways if path), None):
            owners.setdefault(owner[0], []).append((item, owner[1]))
    return owners


def _named_once(keys: Iterable[str]) -> dict[str, str]:
    """Return by their last part the keys whose last part no other has."""
    by_name: dict[str, set[str]] = {}
    for key in keys:
        by_name.setdefault(PurePosixPath(key).name, set()).add(key)
    return {name: found.pop() for name, found in by_name.items() if len(found) == 1}


def _key(item: Item) -> str:
    """The name of the item's file without its suffix."""
    return _without_suffix(item.name if item.at is None else item.name.rpartition("#")[0])


def _files(folder: Path) -> dict[str, Path]:
    """The landmark files by their relative path without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        key = _without_suffix(path.relative_to(folder).as_posix())
        if key in files:
            raise InputError(f"{path} and {files[key].name} would belong to the same image; keep one kind in {folder}")
        files[key] = path
    if not files:
        raise InputError(f"{folder}: holds no landmark files; expected {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return files

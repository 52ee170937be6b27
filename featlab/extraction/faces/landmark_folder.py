"""A folder of landmark files, matched to the images and clips of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.faces.landmark_files import read_landmark_csv, read_one_clip, read_pts, read_tem
from featlab.extraction.items import Item

SUFFIXES = (".csv", ".npy", ".pts", ".tem")


@dataclass(frozen=True, eq=False)
class _Faces:
    """The rows of one file: float32 (n, P, 2), and the frame that each is of, 0-based; None: one row a frame."""

    points: NDArray[np.float32]
    frames: NDArray[np.int64] | None

    def of(self, item: Item, is_clip: bool) -> NDArray[np.float32] | None:
        """The largest face of an item, in pixels of the part of the image that the item takes; None without any."""
        faces = self.points
        if is_clip:
            faces = faces[item.frame : item.frame + 1] if self.frames is None else faces[self.frames == item.frame]
        if item.box is None:
            return largest(faces)
        left, top, right, bottom = item.box
        middle = faces.mean(axis=1)
        face = largest(faces[((middle >= (left, top)) & (middle < (right, bottom))).all(axis=1)])
        return None if face is None else face - np.array([max(left, 0), max(top, 0)], dtype=np.float32)


def read_landmark_folder(folder: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    """Read the landmarks of the items out of a folder.

    A file holds an image (``.pts``, ``.tem``, ``.npy``, OpenFace's csv of an image) or a clip (OpenFace's csv of a
    video, ``.npy`` with one row a frame). It belongs to the image, video or folder of frames that has its path without
    suffix, relative to the folder as the item's name is to the source; or else, where it is the only one on both sides,
    to the one that has its name without suffix. In a clip the item's frame number decides; OpenFace counts frames from
    1. Of several faces the largest is taken; for an item that is a part of an image, the largest in that part.

    Returns float32 (rows of the source, P, 2) by ``Item.row``.
    """
    files = _files(folder)
    match = _Matcher(files, items)
    wanted: dict[Path, list[tuple[Item, bool]]] = {}
    for item in items:
        found = match(item)
        if found is not None:
            wanted.setdefault(found[0], []).append((item, found[1]))
    if not wanted:
        mine, theirs = next(iter(files.values())).relative_to(folder).as_posix(), items[0].name if items else "nothing"
        raise InputError(
            f"{folder}: none of its {len(files)} files belongs to an item of the source: it holds {mine!r}, the source "
            f"{theirs!r}; they are matched by relative path without suffix, or by name where that is unique"
        )
    landmarks: NDArray[np.float32] | None = None
    first: Path | None = None
    for path, users in wanted.items():
        faces = _read(path)
        if landmarks is None:
            first = path
            rows = max(item.row for item in items) + 1
            landmarks = np.full((rows, *faces.points.shape[1:]), np.nan, dtype=np.float32)
        if faces.points.shape[1:] != landmarks.shape[1:]:
            raise InputError(
                f"{path} has {faces.points.shape[1]} points and {first} has {landmarks.shape[1]}; one kind is needed"
            )
        for item, is_clip in users:
            points = faces.of(item, is_clip)
            if points is not None:
                landmarks[item.row] = points
    assert landmarks is not None
    return landmarks


def largest(faces: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The face (P, 2) of (n, P, 2) that covers the largest rectangle; None when all are NaN or there is none."""
    whole = [face for face in faces if np.isfinite(face).all()]
    return max(whole, key=lambda face: float(np.ptp(face, axis=0).prod()), default=None)


class _Matcher:
    """Finds the file that belongs to an item, and tells whether it is of a clip."""

    def __init__(self, files: dict[str, Path], items: Sequence[Item]) -> None:
        self._files = files
        by_name = Counter(PurePosixPath(key).name for key in files)
        self._by_name = {PurePosixPath(key).name: path for key, path in files.items()}
        self._by_name = {name: path for name, path in self._by_name.items() if by_name[name] == 1}
        self._images = Counter(PurePosixPath(key).name for key in {_key(item) for item in items})
        self._clips = Counter(PurePosixPath(key).name for key in {_clip(item) for item in items})

    def __call__(self, item: Item) -> tuple[Path, bool] | None:
        own, clip = _key(item), _clip(item)
        many = item.at is not None
        for key, is_clip in ((own, many), (clip, True)):
            if key in self._files:
                return self._files[key], is_clip
        for key, is_clip, counts in ((own, many, self._images), (clip, True, self._clips)):
            name = PurePosixPath(key).name
            if name in self._by_name and counts[name] == 1:
                return self._by_name[name], is_clip
        return None


def _key(item: Item) -> str:
    """The name of the item's file without its suffix."""
    name = item.name if item.at is None and item.box is None else item.name.rpartition("#")[0]
    return PurePosixPath(name).with_suffix("").as_posix()


def _clip(item: Item) -> str:
    """The folder that the item's file is in."""
    return PurePosixPath(_key(item)).parent.as_posix()


def _files(folder: Path) -> dict[str, Path]:
    """The landmark files by their relative path without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in files:
            raise InputError(f"{path} and {files[key].name} would belong to the same image; keep one kind in {folder}")
        files[key] = path
    if not files:
        raise InputError(f"{folder}: holds no landmark files; expected {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return files


def _read(path: Path) -> _Faces:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        read = read_landmark_csv(path)
        frames = read.frames
        if frames is not None and len(frames) and frames.min() > 0:
            frames = frames - 1
        return _Faces(read.points, frames)
    if suffix == ".npy":
        return _Faces(read_one_clip(path), None)
    return _Faces((read_pts if suffix == ".pts" else read_tem)(path)[None], None)

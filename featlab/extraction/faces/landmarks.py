"""Landmarks that people already have: arrays, OpenFace's csv, folders of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.faces.landmark_files import (
    LandmarkCsv,
    read_array,
    read_landmark_csv,
    read_one_clip,
    read_pts,
    read_tem,
)
from featlab.extraction.items import Item, names_by_row

_ARRAYS = (".npy", ".npz")


def find_landmarks(source: Path) -> Path | None:
    """Return ``landmarks.npy``, or else ``landmarks.csv``, beside a manifest or inside a folder; None without any."""
    folder = source if source.is_dir() else source.parent
    beside = (folder / "landmarks.npy", folder / "landmarks.csv")
    return next((path for path in beside if path.is_file()), None)


def landmarks_for(path: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    """Read the landmarks of a source's items from whatever holds them."""
    file = find_landmarks(path) if path.is_dir() else path
    if file is None:
        return read_landmark_folder(path, items)
    return read_landmarks(file, max(item.row for item in items) + 1, names_by_row(items))


def read_landmarks(path: Path, rows: int, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Read landmarks in pixels from one file for all rows."""
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in (*_ARRAYS, ".csv"):
        raise InputError(f"{path}: landmarks come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix in _ARRAYS:
        points = read_array(path)
    else:
        table = read_landmark_csv(path)
        points = table.points if names is None or table.paths is None else _by_name(table, table.paths, names, path)
    if len(points) != rows:
        raise InputError(f"{path} has landmarks for {len(points)} rows, the source has {rows}; one row each is needed")
    points = points.copy()
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return points


def _by_name(table: LandmarkCsv, listed: Sequence[str], names: Sequence[str], path: Path) -> NDArray[np.float32]:
    place = {name: row for row, name in enumerate(listed)}
    if len(place) != len(listed):
        # The last row of a name has its place; an earlier one has not.
        twice = next(name for row, name in enumerate(listed) if place[name] != row)
        raise InputError(f"{path} lists {twice!r} twice")
    if not any(name in place for name in names):
        example = f"{listed[0]!r}, where the source has {names[0]!r}" if listed and names else "it has no rows"
        raise InputError(f"no path of {path} is a path of the source: {example}")
    matched = np.full((len(names), *table.points.shape[1:]), np.nan, dtype=np.float32)
    for row, name in enumerate(names):
        if name in place:
            matched[row] = table.points[place[name]]
    return matched


# The vertex of the face mesh that is nearest to each iBUG point. Found by laying the meshes of the photographs behind
# london-morph over the 68 landmarks that come with it: each vertex here is the nearest of all 478, at a tenth to a
# quarter of a pixel in a crop of 96.
MESH_TO_68: Final[tuple[int, ...]] = (
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)

_LEFT, _RIGHT = np.arange(36, 42), np.arange(42, 48)
_ON_MESH = np.take(MESH_TO_68, _LEFT), np.take(MESH_TO_68, _RIGHT)
# Points whose mean is the centre of the left eye and of the right one. The jaw comes first in the 68, and the inner
# corners of the mouth after the eyes. The mesh takes the same outline as the 68, so that both give the same crop.
_EYES: Final[Mapping[int, tuple[NDArray[np.intp], NDArray[np.intp]]]] = {
    68: (_LEFT, _RIGHT),
    51: (_LEFT - 17, _RIGHT - 17),
    49: (_LEFT - 17, _RIGHT - 17),
    478: _ON_MESH,
    468: _ON_MESH,
    189: (np.array([0]), np.array([1])),
}


def eye_sets() -> tuple[int, ...]:
    """Numbers of points for which `eye_centres` knows the eyes, ascending."""
    return tuple(sorted({*_EYES, 5}))


def check_eyes(points: int) -> None:
    """Raise an InputError when it isn't known which of ``points`` landmarks are the eyes."""
    if points not in eye_sets():
        known = ", ".join(str(number) for number in eye_sets())
        raise InputError(
            f"which of {points} landmarks are the eyes isn't known; alignment takes sets of {known} points"
        )


def eye_centres(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the centres of the left and the right eye: float64 (..., 2, 2): left eye, right eye."""
    points = np.asarray(landmarks, dtype=np.float64)
    check_eyes(points.shape[-2])
    if points.shape[-2] == 5:
        return _eyes_of_five(points)
    eyes = _EYES[points.shape[-2]]
    return np.stack([points[..., eye, :].mean(axis=-2) for eye in eyes], axis=-2)


def _eyes_of_five(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two sets of five are in use, and the shape tells them apart."""
    first = points[..., :2, :].mean(axis=-2)
    second = points[..., 2:4, :].mean(axis=-2)
    apart = np.linalg.norm(first - second, axis=-1)
    width = np.linalg.norm(points[..., 0, :] - points[..., 1, :], axis=-1)
    corners = np.stack([second, first], axis=-2)
    return np.where((apart > 1.5 * width)[..., None, None], corners, points[..., :2, :])


def to_68(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pick the 68 iBUG points out of a face mesh."""
    return landmarks[..., list(MESH_TO_68), :]


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

"""Landmarks that people already have: arrays, OpenFace's csv, folders of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.faces.landmark_files import LandmarkCsv, read_array, read_landmark_csv
from featlab.extraction.faces.landmark_folder import read_landmark_folder
from featlab.extraction.items import Item, names_by_row

_ARRAYS = (".npy", ".npz")
_BESIDE = ("landmarks.npy", "landmarks.csv")


def find_landmarks(source: Path) -> Path | None:
    """Return ``landmarks.npy``, or else ``landmarks.csv``, beside a manifest or inside a folder; None without any."""
    folder = source if source.is_dir() else source.parent
    for name in _BESIDE:
        if (folder / name).is_file():
            return folder / name
    return None


def landmarks_for(path: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    """Read the landmarks of a source's items from whatever holds them."""
    if path.is_dir():
        inside = find_landmarks(path)
        if inside is None:
            return read_landmark_folder(path, items)
        path = inside
    return read_landmarks(path, max(item.row for item in items) + 1, names_by_row(items))


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

_LEFT, _RIGHT = tuple(range(36, 42)), tuple(range(42, 48))


def _shifted(points: tuple[int, ...], by: int) -> tuple[int, ...]:
    return tuple(point - by for point in points)


def _on_mesh(points: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(MESH_TO_68[point] for point in points)


# Points whose mean is the centre of the left eye and of the right one. The jaw comes first in the 68, and the inner
# corners of the mouth after the eyes. The mesh takes the same outline as the 68, so that both give the same crop.
_EYES: Final[Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    68: (_LEFT, _RIGHT),
    51: (_shifted(_LEFT, 17), _shifted(_RIGHT, 17)),
    49: (_shifted(_LEFT, 17), _shifted(_RIGHT, 17)),
    478: (_on_mesh(_LEFT), _on_mesh(_RIGHT)),
    468: (_on_mesh(_LEFT), _on_mesh(_RIGHT)),
    189: ((0,), (1,)),
}
_FIVE: Final = 5


def eye_sets() -> tuple[int, ...]:
    """Numbers of points for which `eye_centres` knows the eyes, ascending."""
    return tuple(sorted({*_EYES, _FIVE}))


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
    if points.shape[-2] == _FIVE:
        return _eyes_of_five(points)
    eyes = _EYES[points.shape[-2]]
    return np.stack([points[..., list(eye), :].mean(axis=-2) for eye in eyes], axis=-2)


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

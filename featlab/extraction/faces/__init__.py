"""The points of a face: which are the eyes, whether they are a face at all, whether they are pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

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


def _places(count: int, first: int, end: int) -> NDArray[np.intp]:
    """Where iBUG points from ``first`` to ``end`` are in a set: 51 have no jaw, 49 no inner corners of the mouth."""
    if count > 68:
        return np.array(MESH_TO_68[first:end])
    jaw = 0 if count == 68 else 17
    return np.arange(first - jaw, min(end - jaw, count))


_SETS = (68, 51, 49, 478, 468)
# Points whose mean is the centre of the left eye and of the right one. The mesh takes the same outline as the 68, so
# that both give the same crop.
_EYES: Final[Mapping[int, tuple[NDArray[np.intp], NDArray[np.intp]]]] = {
    **{count: (_places(count, 36, 42), _places(count, 42, 48)) for count in _SETS},
    189: (np.array([0]), np.array([1])),
}
# Points below the eyes, from which up and down are told: the mouth; of five points the last.
_BELOW = {**{count: _places(count, 48, 68) for count in _SETS}, 5: np.array([4])}
# Pixels of a face span more than this; shares of the picture's width and height don't.
_NO_PIXELS = 2.0
# Of many faces so many are looked at.
_LOOKED_AT = 2000


def check_eyes(points: int) -> None:
    """Raise an InputError when it isn't known which of ``points`` landmarks are the eyes."""
    known = sorted({*_EYES, 5})
    if points not in known:
        raise InputError(
            f"which of {points} landmarks are the eyes isn't known; alignment takes sets of "
            f"{', '.join(map(str, known))} points"
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


def is_no_face(points: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Tell which of (n, P, 2) are none: a number that isn't finite, or all points at one place (zeros, as of tools)."""
    one_place = (np.ptp(points, axis=1) == 0).all(axis=1) & (points.shape[1] > 1)
    nowhere: NDArray[np.bool_] = ~np.isfinite(points).all(axis=(1, 2)) | one_place
    return nowhere


def as_points(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Return (rows, P, 2) or (rows, 2P) numbers as landmarks; a row that is no face becomes wholly NaN."""
    points = array.reshape(len(array), -1, 2) if array.ndim == 2 and array.size and array.shape[1] % 2 == 0 else array
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != 2 or array.dtype.kind not in "fiu":
        shape = f"shape {array.shape} and type {array.dtype}"
        raise InputError(f"{what} has {shape}; expected numbers (rows, P, 2) or (rows, 2P)")
    points = points.astype(np.float32)
    points[is_no_face(points)] = np.nan
    return points


def unit_problem(points: NDArray[np.float32]) -> str:
    """Say that the points of faces (n, P, 2) can't be pixels, but lie from 0 to 1, or from -1 to 1; empty: they can."""
    if not points.size or np.abs(points).max() > _NO_PIXELS:
        return ""
    low, high = float(points.min()), float(points.max())
    return f"the landmarks go from {low:.2f} to {high:.2f}, so they are shares of the picture and not pixels"


def lies_outside(face: NDArray[np.float32], size: tuple[int, int]) -> bool:
    """Tell whether most points of a face (P, 2) are outside of a picture; not known (False) of a size of 0."""
    outside = ((face < 0) | (face > np.array(size))).any(axis=1)
    return size != (0, 0) and bool(outside.mean() > 0.5)


def order_problem(points: NDArray[np.float32]) -> str:
    """Say why most of the faces (n, P, 2), finite, are none in the order of their set of points; empty: they are."""
    if not len(points):
        return ""
    points = points[:: max(len(points) // _LOOKED_AT, 1)]
    count, seen = points.shape[1], points.astype(np.float64)
    if count not in _BELOW:
        return ""
    eyes = eye_centres(seen)
    across, middle = eyes[:, 1] - eyes[:, 0], eyes.mean(axis=1)
    mouth = seen[:, _BELOW[count]].mean(axis=1)
    down = mouth - middle
    problem = ""
    if count != 5 and any(_mostly(_spread(seen[:, eye]) > 0.5 * _spread(seen)) for eye in _EYES[count]):
        problem = "the points of an eye are all over the face: they are in another order"
    # Faces turned in the picture's plane have the mouth on this side of the eyes too; mirrored ones have not.
    elif _mostly(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0] <= 0):
        if _mostly(np.abs(across[:, 1]) > np.abs(across[:, 0])):
            problem = "the eyes are one above the other and mirrored: x and y are swapped"
        elif _mostly(down[:, 1] < 0):
            problem = "the mouth is above the eyes: y must go down, from the picture's upper edge"
        else:
            problem = "the left eye is on the right: left and right are swapped"
    elif count == 68 and _mostly(~_jaw_is_around(seen, middle, across, down)):
        problem = "the first 17 points are not the jaw: they are in another order"
    return problem and f"the {count} points are no face; {problem}"


def _jaw_is_around(
    faces: NDArray[np.float64], middle: NDArray[np.float64], across: NDArray[np.float64], down: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the chin is below the mouth, and the jaw's ends are on either side of the middle of the eyes, (n,)."""
    chin, left, right = (faces[:, point] - middle for point in (8, 0, 16))
    below = (chin * down).sum(axis=1) > (down * down).sum(axis=1)
    around: NDArray[np.bool_] = below & ((left * across).sum(axis=1) < (right * across).sum(axis=1))
    return around


def _spread(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance of the points of each face from their middle, (n,)."""
    centred = points - points.mean(axis=1, keepdims=True)
    spread: NDArray[np.float64] = np.sqrt((centred**2).sum(axis=2).mean(axis=1))
    return spread


def _mostly(which: NDArray[np.bool_]) -> bool:
    return bool(which.mean() > 0.5)

"""Which landmark is which, in the point sets in use.

    68    iBUG: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67
    51    the 68 without the jaw
    49    the 51 without the inner corners of the mouth
    478   MediaPipe's face mesh; 468 is the same without the irises
    189   the webmorph template of the Face Research Lab; 0 and 1 are the pupils
    5     corners of the eyes and the nose (dlib), or eyes, nose and corners of the mouth (MTCNN, RetinaFace)

Left and right are the picture's: the left eye is the one with the smaller x in an upright face.
"""

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
    """Return the centres of the left and the right eye.

    Args:
        landmarks: (..., P, 2), any unit; NaN where no face was found.

    Returns:
        float64 (..., 2, 2): left eye, right eye; NaN where the landmarks are.

    Raises:
        InputError: A point set whose eyes aren't known.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    check_eyes(points.shape[-2])
    if points.shape[-2] == _FIVE:
        return _eyes_of_five(points)
    eyes = _EYES[points.shape[-2]]
    return np.stack([points[..., list(eye), :].mean(axis=-2) for eye in eyes], axis=-2)


def _eyes_of_five(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two sets of five are in use, and the shape tells them apart.

    dlib: corners of the right eye, corners of the left eye, foot of the nose. MTCNN and RetinaFace: left eye, right
    eye, tip of the nose, corners of the mouth. The first two points of dlib's are an eye's width apart and far from the
    next two; in the other set they are as far from each other as the eyes, and the next two aren't much farther away.
    """
    first = points[..., :2, :].mean(axis=-2)
    second = points[..., 2:4, :].mean(axis=-2)
    apart = np.linalg.norm(first - second, axis=-1)
    width = np.linalg.norm(points[..., 0, :] - points[..., 1, :], axis=-1)
    corners = np.stack([second, first], axis=-2)
    return np.where((apart > 1.5 * width)[..., None, None], corners, points[..., :2, :])


def to_68(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pick the 68 iBUG points out of a face mesh.

    Args:
        landmarks: (..., 478, 2) or (..., 468, 2).

    Returns:
        The same type, (..., 68, 2).
    """
    return landmarks[..., list(MESH_TO_68), :]

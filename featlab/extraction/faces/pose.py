"""Which way a head is turned, from the landmarks of its eyes and nose.

A rigid template in three dimensions is fitted to the landmarks under weak perspective, ``x = s P R X + t``: least
squares for the affine ``s P R``, then the nearest pair of orthonormal rows (its polar factor). That is exact for a face
of the template's shape, and needs no camera. Only nose and eyes are used (iBUG 27-47): mouth, brows and jaw move with
the expression, and a detector's jaw slides along the outline as the head turns.

Axes: x to the right and y down in the picture, z away from the camera. ``R = Rz(roll) Rx(pitch) Ry(yaw)``; all three
are 0 for the mean of the template's people looking into the camera.

    yaw > 0      the face turns to the picture's right
    pitch > 0    the face turns up
    roll > 0     the head is tilted clockwise, as the picture is seen
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featlab.extraction.faces.landmarks import MESH_TO_68

# x, y, z of the iBUG points 27-47 in hundredths of the distance between the eyes, mirror-symmetric about x = 0. The
# mean of 62 people of the Face Research Lab London Set (DeBruine & Jones, 2017, CC BY 4.0): x and y of the landmarks of
# the neutral frames of london-morph, z of MediaPipe's mesh on the same frames; made symmetric and rounded.
_TEMPLATE: Final[tuple[tuple[int, int, int], ...]] = (
    *((0, -7, -25), (0, 15, -40), (0, 36, -57), (0, 49, -61)),
    *((-20, 65, -28), (-12, 70, -32), (0, 70, -34), (12, 70, -32), (20, 65, -28)),
    *((-70, 0, 9), (-60, -7, -2), (-44, -8, -5), (-26, 3, 1), (-42, 6, -3), (-58, 6, 0)),
    *((26, 3, 1), (44, -8, -5), (60, -7, -2), (70, 0, 9), (58, 6, 0), (42, 6, -3)),
)
_RIGID: Final = tuple(range(27, 48))
_RIGID_ON_MESH: Final = tuple(MESH_TO_68[point] for point in _RIGID)
_PLACES: Final[Mapping[int, tuple[int, ...]]] = {
    68: _RIGID,
    51: tuple(point - 17 for point in _RIGID),
    49: tuple(point - 17 for point in _RIGID),
    478: _RIGID_ON_MESH,
    468: _RIGID_ON_MESH,
}


def has_pose(points: int) -> bool:
    """Tell whether a set of ``points`` landmarks has the template's points: 68, 51, 49, 478 or 468."""
    return points in _PLACES


def template() -> NDArray[np.float64]:
    """Return the rigid points, float64 (21, 3): iBUG 27-47, the distance between the eyes being 1."""
    return np.array(_TEMPLATE, dtype=np.float64) / 100


def pose_from_landmarks(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Fit the template to each face.

    A face's pose depends on its own landmarks alone, to the last bit, whatever else is in the batch.

    Args:
        landmarks: (n, P, 2) in pixels, x to the right and y down; NaN where no face was found.

    Returns:
        float32 (n, 3): yaw, pitch and roll in degrees. NaN where the landmarks are, where they lie on a line or a
        point, and everywhere for a point set that the template doesn't know (see `has_pose`).
    """
    count, points = landmarks.shape[:2]
    if not has_pose(points):
        return np.full((count, 3), np.nan, dtype=np.float32)
    face = landmarks[:, list(_PLACES[points])].astype(np.float64)
    face -= face.mean(axis=1, keepdims=True)
    model = template()
    solve = np.linalg.pinv(model - model.mean(axis=0)).T
    # A sum and not a matrix product: BLAS rounds a row differently in batches of different sizes.
    affine = (face[:, :, :, None] * solve[None, :, None, :]).sum(axis=1)
    first, second = affine[:, 0], affine[:, 1]
    # The rows nearest to `affine` that are orthogonal and of one length are A^(-1/2) affine for its Gram matrix A; the
    # square root of a 2 x 2 matrix has a closed form: (A + sqrt(det A) 1) / sqrt(tr A + 2 sqrt(det A)).
    a, b, d = ((u * v).sum(axis=1) for u, v in ((first, first), (first, second), (second, second)))
    # Points that coincide or lie on a line leave only rounding noise, whose direction means nothing.
    extent = np.abs(landmarks).max(axis=(1, 2))
    root = np.sqrt(np.maximum(a * d - b * b, 0))
    shapeless = ~((root > 1e-4 * (a + d)) & (a + d > (1e-6 * extent) ** 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        # The inverse of (A + root 1), up to a factor that the normalisation takes away.
        x_axis = (d + root)[:, None] * first - b[:, None] * second
        y_axis = (a + root)[:, None] * second - b[:, None] * first
        x_axis /= np.sqrt((x_axis * x_axis).sum(axis=1, keepdims=True))
        y_axis /= np.sqrt((y_axis * y_axis).sum(axis=1, keepdims=True))
    z_axis = np.cross(x_axis, y_axis)
    yaw = np.arctan2(z_axis[:, 0], z_axis[:, 2])
    pitch = -np.arcsin(np.clip(z_axis[:, 1], -1, 1))
    roll = np.arctan2(-x_axis[:, 1], y_axis[:, 1])
    angles = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    angles[shapeless] = np.nan
    return np.asarray(angles, dtype=np.float32)

"""Two photographs of one face, brought to one crop and morphed into each other along a mesh.

Points are in pixels, (0, 0) the centre of the first one, as the clips' landmarks are. A mesh counts from that pixel's
outer edge: half a pixel of a photograph is a tenth of one in a frame, and is not corrected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay, QhullError

from featlab.errors import InputError

FloatArray = NDArray[np.float64]

MESH_POINTS = 478
_CORNERS = 468
"""Points of the mesh that carry the triangles: all but the ten of the irises, which follow the gaze."""
_LEFT_EYE, _RIGHT_EYE = (33, 133), (362, 263)
_EYE_DISTANCE, _EYE_HEIGHT = 0.36, 0.40
_EDGE = 1e-9
"""A pixel on the edge of two triangles must not be missed by both, rounding or not."""


@dataclass(frozen=True)
class Similarity:
    """Rotation, scale and shift: ``p -> a p + b`` of points as complex numbers x + iy.

    Attributes:
        a: Rotation and scale.
        b: Shift, pixels.
    """

    a: complex
    b: complex

    def __call__(self, points: FloatArray) -> FloatArray:
        """Map points (..., 2)."""
        placed = self.a * (points[..., 0] + 1j * points[..., 1]) + self.b
        return np.stack((placed.real, placed.imag), axis=-1)

    def inverse(self) -> Similarity:
        """Return the way back."""
        return Similarity(1 / self.a, -self.b / self.a)


def eye_similarity(mesh: FloatArray, side: int) -> Similarity:
    """Return the map from a photograph to its crop: eye centres level, 0.36 of the side apart, at 0.40 of the height.

    An eye's centre is the middle between its two corners. (The landmarks of `london-morph` show that: by no other
    choice do people differ so little in the distance of their eyes.)

    Args:
        mesh: (478, 2), pixels of the photograph.
        side: Of the square crop, pixels.

    Raises:
        InputError: The eyes lie on each other.
    """
    left, right = (complex(*mesh[list(eye)].mean(axis=0)) for eye in (_LEFT_EYE, _RIGHT_EYE))
    if abs(right - left) < 1:
        raise InputError("the mesh has its eyes on one point")
    a = _EYE_DISTANCE * side / (right - left)
    return Similarity(a, side * complex(0.5, _EYE_HEIGHT) - a * (left + right) / 2)


def resample(image: NDArray[np.generic], place: Similarity, side: int, *, shrink: bool) -> FloatArray:
    """Draw an image in a square frame.

    Args:
        image: (H, W, C) of numbers. Beyond its edge the nearest pixel goes on.
        place: From pixels of the image to pixels of the frame.
        side: Of the frame, pixels.
        shrink: Average over the area of a frame's pixel, for a frame much coarser than the image; else bilinear.

    Returns:
        float64 (side, side, C), in the image's unit.
    """
    back = place.inverse()
    parts = max(1, int(np.ceil(abs(back.a)))) if shrink else 1
    steps = (np.arange(side * parts) + 0.5) / parts - 0.5
    grid = back(np.stack(np.meshgrid(steps, steps), axis=-1))
    fine = sample(image, grid)
    drawn: FloatArray = fine.reshape(side, parts, side, parts, -1).mean(axis=(1, 3))
    return drawn


def sample(image: NDArray[np.generic], points: FloatArray) -> FloatArray:
    """Return the bilinear values of an image (H, W, C) at points (..., 2), (..., C); beyond the edge the nearest."""
    at = (points[..., 1], points[..., 0])
    channels = [
        map_coordinates(image[..., channel], at, output=np.float64, order=1, mode="nearest")
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def border(side: int) -> FloatArray:
    """Return the corners of a square frame and the middles of its edges, (8, 2)."""
    low, middle, high = 0.0, (side - 1) / 2, side - 1.0
    return np.array([(x, y) for y in (low, middle, high) for x in (low, middle, high) if (x, y) != (middle, middle)])


def triangulate(shape: FloatArray) -> NDArray[np.intp]:
    """Return the Delaunay triangles (T, 3) of points (N, 2), all of one orientation.

    Raises:
        InputError: The points lie on a line.
    """
    try:
        triangles: NDArray[np.intp] = Delaunay(shape).simplices.astype(np.intp)
    except QhullError:
        raise InputError("the mesh has all of its points on a line") from None
    turned = _double_area(shape[triangles]) < 0
    triangles[turned] = triangles[turned][:, ::-1]
    return triangles


@dataclass(frozen=True)
class Cover:
    """Which triangle every pixel of a frame lies in.

    Attributes:
        pixel: (M,), place of each covered pixel in the frame, row by row.
        corners: (M, 3), the points whose triangle it lies in.
        weights: (M, 3), its barycentric coordinates there; they sum to 1.
        side: Of the frame, pixels.
    """

    pixel: NDArray[np.intp]
    corners: NDArray[np.intp]
    weights: FloatArray
    side: int

    def sources(self, shape: FloatArray) -> FloatArray:
        """Return where each pixel comes from, (side, side, 2), when the points lie at ``shape``.

        A pixel in no triangle comes from where it is.
        """
        axis = np.arange(self.side, dtype=np.float64)
        sources = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        sources[self.pixel] = np.einsum("mk,mkd->md", self.weights, shape[self.corners])
        return sources.reshape(self.side, self.side, 2)


def cover(shape: FloatArray, triangles: NDArray[np.intp], side: int) -> Cover:
    """Find the triangle of every pixel, by looking at all pixels of all triangles' bounding boxes at once.

    A triangle that the shape has turned over is left out: where a fold covers a pixel three times, the two other
    triangles over it are the right way round, and the later one is taken.

    Args:
        shape: (N, 2), where the points lie.
        triangles: (T, 3), as `triangulate` gives them.
        side: Of the frame, pixels.
    """
    triangles = triangles[_double_area(shape[triangles]) > 0]
    points = shape[triangles]
    low = np.clip(np.ceil(points.min(axis=1) - _EDGE), 0, side).astype(np.intp)
    high = np.clip(np.floor(points.max(axis=1) + _EDGE), -1, side - 1).astype(np.intp)
    extent = np.maximum(high - low + 1, 0)
    count = extent.prod(axis=1)
    owner = np.repeat(np.arange(len(triangles)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x = low[owner, 0] + place % extent[owner, 0]
    y = low[owner, 1] + place // extent[owner, 0]
    origin, across, along = points[:, 0], points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    offset = np.stack((x, y), axis=-1) - origin[owner]
    area = _double_area(points)[owner]
    second = _cross(offset, along[owner]) / area
    third = _cross(across[owner], offset) / area
    weights = np.stack((1 - second - third, second, third), axis=-1)
    inside = (weights >= -_EDGE).all(axis=1)
    chosen = np.full(side * side, -1, dtype=np.intp)
    chosen[(y * side + x)[inside]] = np.flatnonzero(inside)
    pixel = np.flatnonzero(chosen >= 0)
    candidate = chosen[pixel]
    return Cover(pixel, triangles[owner[candidate]], weights[candidate], side)


def _cross(first: FloatArray, second: FloatArray) -> FloatArray:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _double_area(points: FloatArray) -> FloatArray:
    """Twice the signed areas of triangles (T, 3, 2)."""
    return _cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])


@dataclass(frozen=True)
class Morph:
    """A face between its neutral and its smiling photograph.

    Attributes:
        neutral: float64 (side, side, 3), grey levels.
        smiling: The same of the other photograph.
        neutral_mesh: float64 (478, 2), pixels of the crop.
        smiling_mesh: The same of the other photograph.
        triangles: (T, 3), over 468 points of the mesh and 8 of the border.
    """

    neutral: FloatArray
    smiling: FloatArray
    neutral_mesh: FloatArray
    smiling_mesh: FloatArray
    triangles: NDArray[np.intp]

    def at(self, intensity: float) -> tuple[FloatArray, FloatArray]:
        """Return the picture, float64 (side, side, 3), and the mesh, float64 (478, 2), at an intensity in [0, 1]."""
        side = len(self.neutral)
        mesh = (1 - intensity) * self.neutral_mesh + intensity * self.smiling_mesh
        found = cover(_with_border(mesh, side), self.triangles, side)
        neutral = sample(self.neutral, found.sources(_with_border(self.neutral_mesh, side)))
        smiling = sample(self.smiling, found.sources(_with_border(self.smiling_mesh, side)))
        return (1 - intensity) * neutral + intensity * smiling, mesh


def make_morph(
    neutral: NDArray[np.uint8],
    smiling: NDArray[np.uint8],
    neutral_mesh: FloatArray,
    smiling_mesh: FloatArray,
    side: int,
) -> Morph:
    """Bring two photographs to one crop.

    Args:
        neutral: uint8 (H, W, 3).
        smiling: uint8 (H, W, 3), of any size.
        neutral_mesh: (478, 2), pixels of the neutral photograph.
        smiling_mesh: (478, 2), pixels of the smiling one.
        side: Of the crop, pixels.

    Raises:
        InputError: A mesh that is no face: eyes on one point, or all points on a line.
    """
    places = eye_similarity(neutral_mesh, side), eye_similarity(smiling_mesh, side)
    placed = places[0](neutral_mesh)
    return Morph(
        resample(neutral, places[0], side, shrink=True),
        resample(smiling, places[1], side, shrink=True),
        placed,
        places[1](smiling_mesh),
        triangulate(_with_border(placed, side)),
    )


def _with_border(mesh: FloatArray, side: int) -> FloatArray:
    return np.concatenate((mesh[:_CORNERS], border(side)))

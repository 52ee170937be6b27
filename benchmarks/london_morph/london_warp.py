"""Two photographs of one face, brought to one crop and morphed into each other along a mesh; points in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import Delaunay

FloatArray = NDArray[np.float64]

_CORNERS = 468  # points of the mesh that carry the triangles: all but the ten of the irises, which follow the gaze
_LEFT_EYE, _RIGHT_EYE = (33, 133), (362, 263)
_EYE_DISTANCE, _EYE_HEIGHT = 0.36, 0.40


@dataclass(frozen=True)
class Similarity:
    """Rotation, scale and shift: ``p -> a p + b`` of points as complex numbers x + iy."""

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
    """Map a photograph with its mesh (478, 2) to a crop: eye centres level, 0.36 of the side apart, at 0.40 of it.

    An eye's centre is the middle between its two corners: by no other choice do the people of `london-morph` differ so
    little in the distance of their eyes.
    """
    left, right = (complex(*mesh[list(eye)].mean(axis=0)) for eye in (_LEFT_EYE, _RIGHT_EYE))
    a = _EYE_DISTANCE * side / (right - left)
    return Similarity(a, side * complex(0.5, _EYE_HEIGHT) - a * (left + right) / 2)


def resample(image: NDArray[np.generic], place: Similarity, side: int, *, shrink: bool) -> FloatArray:
    """Draw an image (H, W, C) in a square frame, (side, side, C); beyond its edge the nearest pixel goes on.

    With `shrink` the area of a frame's pixel is averaged, for a frame much coarser than the image; else bilinear.
    """
    back = place.inverse()
    parts = max(1, int(np.ceil(abs(back.a)))) if shrink else 1
    steps = (np.arange(side * parts) + 0.5) / parts - 0.5
    fine = _sample(image, back(np.stack(np.meshgrid(steps, steps), axis=-1)))
    drawn: FloatArray = fine.reshape(side, parts, side, parts, -1).mean(axis=(1, 3))
    return drawn


@dataclass(frozen=True)
class Morph:
    """A face between its neutral and its smiling photograph.

    Attributes:
        neutral: float64 (side, side, 3), grey levels.
        smiling: The same of the other photograph.
        neutral_mesh: float64 (478, 2), pixels of the crop.
        smiling_mesh: The same of the other photograph.
    """

    neutral: FloatArray
    smiling: FloatArray
    neutral_mesh: FloatArray
    smiling_mesh: FloatArray

    def at(self, intensity: float) -> tuple[FloatArray, FloatArray]:
        """Return the picture, (side, side, 3), and the mesh, (478, 2), at an intensity in [0, 1]."""
        side = len(self.neutral)
        mesh = (1 - intensity) * self.neutral_mesh + intensity * self.smiling_mesh
        triangles = Delaunay(_with_border(mesh, side))
        axis = np.arange(side, dtype=np.float64)
        pixels = np.stack(np.meshgrid(axis, axis), axis=-1)
        inside = triangles.find_simplex(pixels, tol=1e-9)
        to_weights = triangles.transform[inside]
        two = np.einsum("...ij,...j->...i", to_weights[..., :2, :], pixels - to_weights[..., 2, :])
        weights = np.concatenate((two, 1 - two.sum(axis=-1, keepdims=True)), axis=-1)
        corners = triangles.simplices[inside]
        neutral, smiling = (
            _sample(picture, np.einsum("...k,...kd->...d", weights, _with_border(shape, side)[corners]))
            for picture, shape in ((self.neutral, self.neutral_mesh), (self.smiling, self.smiling_mesh))
        )
        return (1 - intensity) * neutral + intensity * smiling, mesh


def make_morph(
    photographs: tuple[NDArray[np.uint8], NDArray[np.uint8]], meshes: tuple[FloatArray, FloatArray], side: int
) -> Morph:
    """Bring a neutral and a smiling photograph, uint8 (H, W, 3), and their meshes (478, 2) to one crop."""
    places = [eye_similarity(mesh, side) for mesh in meshes]
    crops = [resample(image, place, side, shrink=True) for image, place in zip(photographs, places, strict=True)]
    return Morph(*crops, *(place(mesh) for place, mesh in zip(places, meshes, strict=True)))


def _sample(image: NDArray[np.generic], points: FloatArray) -> FloatArray:
    """The bilinear values of an image (H, W, C) at points (..., 2); beyond the edge the nearest."""
    at = (points[..., 1], points[..., 0])
    channels = [
        map_coordinates(channel, at, output=np.float64, order=1, mode="nearest") for channel in image.T.swapaxes(1, 2)
    ]
    return np.stack(channels, axis=-1)


def _with_border(mesh: FloatArray, side: int) -> FloatArray:
    """The triangles' corners: the mesh, and the corners and middles of the frame's edges."""
    low, middle, high = 0.0, (side - 1) / 2, side - 1.0
    border = [(x, y) for y in (low, middle, high) for x in (low, middle, high) if (x, y) != (middle, middle)]
    return np.concatenate((mesh[:_CORNERS], border))

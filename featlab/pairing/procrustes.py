"""Face shapes compared as scipy.spatial.procrustes does, but for millions of pairs, through an inner-product index.

With a shape as complex numbers a = x + iy, centred and of unit norm, the disparity of two shapes is 1 - s² with
s = max(|aᴴb|, |aᵀb|): the best rotation, or the best reflection (Kendall 1984). |aᴴb| is a maximum over all rotations
and no inner product, but it has a tight bound that is one. Let m be the mean shape and turn every shape so that
a = αm + u with α = |mᴴa| and u orthogonal to m. Then

    |aᴴb|² = |αβ + uᴴv|² <= α²β² + 2αβ Re(uᴴv) + |u|²|v|² = <(α², √2 αu, |u|²), (β², √2 βv, |v|²)>,

an inner product of two unit vectors of 2P + 2 numbers, which faiss can hold. Faces are near their mean, so u and v are
small and the bound is nearly the value. A reflection can't be better than cos(∠(a, m) - ∠(b̄, m)), with b̄ the mirror
image of b; faces are far from the mirror images of other faces, so this rules reflections out at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.pairing.search import Neighbours, Rows, Space, nearest, product_error

_FLAT = 1e-6  # float32 pixels can't tell points apart that are nearer than this part of their coordinates


def normalise_shapes(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """Centre shapes and scale them to unit norm, as complex numbers x + iy.

    Args:
        landmarks: (N, P, 2), x and y in pixels.

    Returns:
        Shapes complex128 (N, P), zero where invalid, and valid (N,): False for a shape with a coordinate that is not
        finite, or with all points in one place.

    Raises:
        InputError: Another shape of array.
    """
    if landmarks.ndim != 3 or landmarks.shape[2] != 2:
        raise InputError(f"landmarks must be (rows, points, 2), not {landmarks.shape}")
    points = landmarks.astype(np.float64)
    valid = np.isfinite(points).all(axis=(1, 2))
    points[~valid] = 0.0
    largest = np.abs(points).max(axis=(1, 2), initial=0.0)
    shapes = points[:, :, 0] + 1j * points[:, :, 1]
    if shapes.shape[1]:
        shapes -= shapes.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(shapes, axis=1)
    valid &= norm > _FLAT * largest
    shapes[~valid] = 0.0
    shapes[valid] /= norm[valid, None]
    return shapes, valid


def disparity(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return the disparity that scipy.spatial.procrustes gives, 1 - max(|aᴴb|, |aᵀb|)², in [0, 1].

    Both are complex128 (..., P), valid shapes from `normalise_shapes`, and broadcast.
    """
    rotation = np.abs(np.sum(a.conj() * b, axis=-1))
    reflection = np.abs(np.sum(a * b, axis=-1))
    return np.asarray(np.clip(1.0 - np.maximum(rotation, reflection) ** 2, 0.0, 1.0))


def search_shapes(
    queries: NDArray[np.complex128],
    base: NDArray[np.complex128],
    k: int,
    *,
    skip: Rows | None = None,
    backend: str = "auto",
) -> Neighbours:
    """Find each query's k base shapes of least disparity, exactly; ties go to the lowest index.

    Args:
        queries: complex128 (n, P), valid shapes from `normalise_shapes`.
        base: complex128 (m, P), valid shapes.
        k: Neighbours a query, 1 to m.
        skip: (n, 2), base rows [start, stop) that each query may not have (see `featlab.pairing.search.nearest`).
        backend: As in `featlab.pairing.search.search`.

    Returns:
        Disparities as scores, lowest first, inf where there are fewer than k.

    Raises:
        InputError: Different numbers of points, or a k that is not between 1 and m.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"shapes must be (rows, points) with as many points, not {queries.shape} and {base.shape}")
    mean = np.linalg.eigh(base.T @ base.conj())[1][:, -1]
    left, query_cosine = _lifted(queries, mean)
    right, _ = _lifted(base, mean)
    # Of the mirror images of all base shapes, the one whose angle to the mean is nearest to the query's.
    mirrored = np.abs(base @ mean)
    mirror = np.clip(query_cosine, mirrored.min(initial=1.0), mirrored.max(initial=0.0))
    reflection = (query_cosine * mirror + _sine(query_cosine) * _sine(mirror)) ** 2
    # A square changes by at most twice the error of its root.
    error = 4.0 * product_error(left.shape[1])
    small, small_base = queries.astype(np.complex64), base.astype(np.complex64)

    def limit(rows: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(np.maximum(inner, reflection[rows]) + error)

    def quick(rows: Rows) -> NDArray[np.float32]:
        rotation, mirror = np.abs(small[rows].conj() @ small_base.T), np.abs(small[rows] @ small_base.T)
        return np.asarray(np.square(np.maximum(rotation, mirror)))

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        return 1.0 - disparity(queries[rows], base[columns])

    found = nearest(Space(left, right, limit, quick, exact, np.ones(len(left)), error), k, skip=skip, backend=backend)
    return found._replace(score=1.0 - found.score)


def _lifted(
    shapes: NDArray[np.complex128], mean: NDArray[np.complex128]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the unit vectors (α², √2 αu, |u|²), float32 (n, 2P + 2), and α (n,)."""
    along = shapes @ mean.conj()
    cosine = np.minimum(np.abs(along), 1.0)
    turn = np.divide(along.conj(), cosine, out=np.ones_like(along), where=cosine > 0)
    rest = shapes * turn[:, None] - cosine[:, None] * mean
    middle = np.sqrt(2.0) * cosine[:, None] * rest
    parts = [np.square(cosine)[:, None], middle.real, middle.imag, np.square(_sine(cosine))[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32), cosine


def _sine(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(1.0 - np.square(cosine))

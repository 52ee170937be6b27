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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.pairing.nearest import Neighbours, Rows, Space, nearest, product_error
from featlab.pairing.search import find

_FLAT = 1e-6  # float32 pixels can't tell points apart that are nearer than this part of their coordinates
_BLOCK = 4096  # rows whose shapes are made at once: results don't depend on it


@dataclass(frozen=True, eq=False)
class Shapes:
    """Face shapes, centred and of unit norm, as complex numbers x + iy; made of landmarks when they are needed."""

    landmarks: NDArray[np.floating]  # (N, P, 2), x and y in pixels.
    centre: NDArray[np.complex128]  # (N,), the mean of each shape's points.
    norm: NDArray[np.float64]  # (N,), the size of each shape; infinite for one that is not valid: it becomes zero.
    valid: NDArray[np.bool_]  # (N,), False where a coordinate is not finite or all points are in one place.

    @classmethod
    def of(cls, landmarks: NDArray[np.floating]) -> Shapes:
        """Measure the shapes of (N, P, 2) landmarks; another shape of array is an InputError."""
        if landmarks.ndim != 3 or landmarks.shape[2] != 2:
            raise InputError(f"landmarks must be (rows, points, 2), not {landmarks.shape}")
        rows = len(landmarks)
        made = cls(landmarks, np.zeros(rows, dtype=np.complex128), np.ones(rows), np.zeros(rows, dtype=np.bool_))
        for block in (slice(first, first + _BLOCK) for first in range(0, rows, _BLOCK)):
            finite = np.isfinite(landmarks[block]).all(axis=(1, 2))
            made.norm[block][~finite] = np.inf
            points = made[block]
            largest = np.maximum(np.abs(points.real), np.abs(points.imag)).max(axis=1, initial=0.0)
            if points.shape[1]:
                made.centre[block] = points.mean(axis=1)
            norm = np.linalg.norm(points - made.centre[block, None], axis=1)
            made.valid[block] = finite & (norm > _FLAT * largest)
            made.norm[block] = np.where(made.valid[block], norm, np.inf)
        return made

    def __getitem__(self, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.complex128]:
        """Return complex128 (r, P) shapes; zero where not valid."""
        points = self.landmarks[rows].astype(np.float64)
        norm, centre = self.norm[rows, None, None], self.centre[rows, None].view(np.float64)
        points[np.isinf(norm[:, 0, 0])] = 0.0
        points -= centre[:, None]
        points /= norm
        return points.view(np.complex128)[..., 0]


def disparity(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return the disparity that scipy.spatial.procrustes gives, 1 - max(|aᴴb|, |aᵀb|)², in [0, 1].

    Both are complex128 (..., P), valid `Shapes`, and broadcast.
    """
    rotation = np.abs(np.sum(a.conj() * b, axis=-1))
    reflection = np.abs(np.sum(a * b, axis=-1))
    return np.asarray(np.clip(1.0 - np.maximum(rotation, reflection) ** 2, 0.0, 1.0))


def search_shapes(
    queries: Shapes,
    base: Shapes,
    k: int,
    *,
    skip: Rows | None = None,
    chosen: tuple[Rows, Rows] | None = None,
    index: str = "",
) -> Neighbours:
    """Find each query's k base shapes of least disparity, as `featlab.pairing.search.search` finds embeddings.

    Scores are disparities, lowest first, inf where there are fewer than k. Rows that are ``chosen`` must be valid.
    Different numbers of points are an InputError.
    """
    points = queries.landmarks.shape[1]
    if base.landmarks.shape[1] != points:
        raise InputError(f"shapes must have as many points, not {points} and {base.landmarks.shape[1]}")
    query_rows, base_rows = chosen or (np.arange(len(queries.valid)), np.arange(len(base.valid)))
    product = np.zeros((points, points), dtype=np.complex128)
    for part in _parts(base, base_rows):
        product += part.T @ part.conj()
    mean = np.linalg.eigh(product)[1][:, -1]
    cosine = np.concatenate([np.abs(part @ mean.conj()) for part in _parts(queries, query_rows)])
    mirrored = np.concatenate([np.abs(part @ mean) for part in _parts(base, base_rows)])
    # Of the mirror images of all base shapes, the one whose angle to the mean is nearest to the query's.
    cosine = np.minimum(cosine, 1.0)
    mirror = np.clip(cosine, mirrored.min(initial=1.0), mirrored.max(initial=0.0))
    reflection = (cosine * mirror + _sine(cosine) * _sine(mirror)) ** 2
    width = 2 * points + 2
    # A square changes by at most twice the error of its root.
    error = 4.0 * product_error(width)

    def limit(rows: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(np.maximum(inner, reflection[rows]) + error)

    def quick(tile: slice) -> Callable[[Rows], NDArray[np.float32]]:
        small_base = np.concatenate([part.astype(np.complex64) for part in _parts(base, base_rows[tile])])

        def score(rows: Rows) -> NDArray[np.float32]:
            small = queries[query_rows[rows]].astype(np.complex64)
            best = np.maximum(np.abs(small.conj() @ small_base.T), np.abs(small @ small_base.T))
            return np.asarray(np.square(best))

        return score

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        return 1.0 - disparity(queries[query_rows[rows]], base[base_rows[columns]])

    def left(rows: Rows) -> NDArray[np.float32]:
        return np.concatenate([_lifted(part, mean) for part in _parts(queries, query_rows[rows])])

    def right(tile: slice | Rows) -> NDArray[np.float32]:
        return np.concatenate([_lifted(part, mean) for part in _parts(base, base_rows[tile])])

    space = Space(len(query_rows), len(base_rows), width, left, right, limit, quick, exact, error)
    found = find(space, k, skip=skip, index=index) if index else nearest(space, k, skip)
    return found._replace(score=1.0 - found.score)


def _parts(shapes: Shapes, rows: Rows) -> Iterator[NDArray[np.complex128]]:
    """Yield the shapes of some rows, a block at a time; one block, which may be empty, at least."""
    return (shapes[rows[first : first + _BLOCK]] for first in range(0, max(1, len(rows)), _BLOCK))


def _lifted(shapes: NDArray[np.complex128], mean: NDArray[np.complex128]) -> NDArray[np.float32]:
    """Return the unit vectors (α², √2 αu, |u|²), float32 (n, 2P + 2)."""
    along = shapes @ mean.conj()
    cosine = np.minimum(np.abs(along), 1.0)
    turn = np.divide(along.conj(), cosine, out=np.ones_like(along), where=cosine > 0)
    rest = shapes * turn[:, None] - cosine[:, None] * mean
    middle = np.sqrt(2.0) * cosine[:, None] * rest
    parts = [np.square(cosine)[:, None], middle.real, middle.imag, np.square(_sine(cosine))[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _sine(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(1.0 - np.square(cosine))

"""Face shapes compared as scipy.spatial.procrustes does, but for millions of pairs: exact, by matrix products.

The disparity of two shapes A and B, (P, 2) each, centred and of unit norm, is 1 - s² where s is the sum of the singular
values of the 2 x 2 matrix M = AᵀB (Schönemann 1966; rotation, reflection and scale are free). Two numbers have a closed
sum: s² = ‖M‖² + 2 |det M|. So all s² between two sets of shapes take four real products of length P a pair, that is two
matrix products of stacked x and y coordinates, and a few element-wise operations. No SVD, no loop over pairs.

With a = x + iy the same reads s = max(|aᴴb|, |aᵀb|) (Kendall 1984): the best rotation, or the best reflection. It shows
why an inner-product index such as faiss's doesn't do the search directly: |aᴴb| is a maximum over all rotations, not
one inner product. It becomes one in the lifted features a aᴴ, but those have (P-1)² dimensions, 4489 for 68 points, and
are searched twice, for the reflection too, against four products of length 68 here. And shapes turned to a common
direction can be proposed by one inner product, but whether the proposals hold the nearest must be proven row by row,
and the bound that would prove it is looser than the gaps between faces. `benchmarks/pairing.py` times all of these; the
direct products are the fastest of the exact ways, so landmarks don't go through faiss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.pairing.exact_search import RowIndex, Scorer, nearest, product_error

__all__ = ["disparity", "normalise_shapes", "search_shapes"]

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

    Args:
        a: complex128 (..., P), valid shapes from `normalise_shapes`.
        b: complex128 (..., P), of a shape that broadcasts with `a`.

    Returns:
        float64, the broadcast shape without P.
    """
    rotation = np.abs(np.sum(a.conj() * b, axis=-1))
    reflection = np.abs(np.sum(a * b, axis=-1))
    return np.asarray(np.clip(1.0 - np.maximum(rotation, reflection) ** 2, 0.0, 1.0))


def search_shapes(
    queries: NDArray[np.complex128],
    base: NDArray[np.complex128],
    k: int,
    *,
    skip: NDArray[np.intp] | None = None,
    byte_budget: int = 8 << 20,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Find each query's k base shapes of least disparity, exactly; ties go to the lowest index.

    Args:
        queries: complex128 (n, P), valid shapes from `normalise_shapes`.
        base: complex128 (m, P), valid shapes.
        k: Neighbours a query, 1 to m.
        skip: (n, 2), base rows [start, stop) that each query may not have (see `featlab.pairing.search.nearest`).
        byte_budget: Bytes for one tile of scores; results don't depend on it.

    Returns:
        Disparities, float64 (n, k), lowest first, and indices into `base`, (n, k). A query with fewer than k base rows
        left after `skip` gets inf and -1 in the places that stay empty.

    Raises:
        InputError: Different numbers of points, or a k that is not between 1 and m.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"shapes must be (rows, points) with as many points, not {queries.shape} and {base.shape}")
    points = base.shape[1]
    query_x, query_y = (np.ascontiguousarray(part, dtype=np.float32) for part in (queries.real, queries.imag))
    base_x, base_y = (np.ascontiguousarray(part, dtype=np.float32) for part in (base.real, base.imag))

    def quick(rows: RowIndex, first: int, last: int) -> NDArray[np.float32]:
        x, y = query_x[rows], query_y[rows]
        stacked = np.concatenate([x, y])
        from_x, from_y = stacked @ base_x[first:last].T, stacked @ base_y[first:last].T
        return _squared_nuclear_norm(from_x[: len(x)], from_y[: len(x)], from_x[len(x) :], from_y[len(x) :])

    def exact(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        return 1.0 - disparity(queries[rows], base[columns])

    scorer = Scorer(
        queries=len(queries),
        base=len(base),
        quick=quick,
        exact=exact,
        scale=np.ones(len(queries)),
        error=4.0 * product_error(points),  # s² changes by at most 2√2 times the error of M, and rounds itself
        pair_bytes=24,
        exact_bytes=64 * points,
    )
    scores, index = nearest(scorer, k, skip=skip, byte_budget=byte_budget)
    return 1.0 - scores, index


def _squared_nuclear_norm(
    xx: NDArray[np.float32], xy: NDArray[np.float32], yx: NDArray[np.float32], yy: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (sum of singular values)² of the matrices [[xx, xy], [yx, yy]]; overwrites its arguments."""
    determinant = xx * yy
    determinant -= xy * yx
    np.abs(determinant, out=determinant)
    determinant *= 2.0
    for entry in (xx, xy, yx, yy):
        np.square(entry, out=entry)
        determinant += entry
    return determinant

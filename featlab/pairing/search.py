"""Exact nearest neighbours: faiss proposes, float64 decides, and a bound proves that nothing better was left out.

Each kind of score (cosine, distance, face shape) comes with float32 vectors whose inner product bounds it from above.
faiss (Johnson, Douze & Jégou 2021) finds the base rows with the largest inner products; they are scored again in
float64. Where the k-th of them is better than the bound allows for any row that was not proposed, the answer is proven.
The other query rows, and all of them where faiss can't be used, are searched in full. So the answer is the same on
every machine, with and without faiss, and ties go to the lowest index. No n x m matrix is ever held.

This is the only module that imports faiss, and only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest

BACKENDS = ("auto", "faiss", "numpy")
METRICS = ("cosine", "l2")

SHORTEST = 1e-30
"""A vector shorter than this has no direction: in float32 its inverse would overflow."""

_TIE = 1e-13  # scores nearer than this, relative to their scale, tie; float64 sums of equal rows may differ so
_BLOCK_ROWS = 1024  # queries a block: enough for a matrix product to run at full speed
_PROPOSED = 32  # base rows that are proposed beyond k
_BYTES = 64 << 20  # for one tile of scores or of vectors; results don't depend on it
Rows = NDArray[np.intp]


class Neighbours(NamedTuple):
    """The k best base rows of each query; -1, with the worst possible score, where there are fewer than k.

    Attributes:
        score: float64 (n, k), best first.
        rows: (n, k) base rows; of equal scores the lowest comes first.
        searched_in_full: Queries whose proposals could not be proven to hold the best.
    """

    score: NDArray[np.float64]
    rows: Rows
    searched_in_full: int


@dataclass(frozen=True, eq=False)
class Space:
    """How well n queries match m base rows; a higher score is better."""

    left: NDArray[np.float32]  # float32 (n, d) vectors of the queries.
    right: NDArray[np.float32]  # float32 (m, d) vectors of the base rows.
    # (query rows, inner products) -> float64, what no base row with a smaller inner product can exceed.
    limit: Callable[[Rows, NDArray[np.float32]], NDArray[np.float64]]
    quick: Callable[[Rows], NDArray[np.float32]]  # query rows (r,) -> float32 (r, m) scores.
    # ((p,) query rows, (p,) base rows) -> float64 (p,) scores of those pairs.
    exact: Callable[[Rows, Rows], NDArray[np.float64]]
    scale: NDArray[np.float64]  # float64 (n,), the size of the largest score that each query can have.
    error: float  # How far `quick` may be from `exact`, relative to `scale`.


def product_error(length: int) -> float:
    """Return how far a float32 inner product of two unit vectors may be from the true one.

    λ √n u with u = 2⁻²⁴ and λ = 16: a bound that holds but for a chance of about 2n exp(-λ²/2) (Higham & Mary 2019).
    """
    return 16.0 * float(np.sqrt(length)) * 2.0**-24


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, float64 (n,), of the rows of a float32 (n, D) array."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


def search(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    k: int,
    *,
    backend: str = "auto",
    metric: str = "cosine",
    skip: Rows | None = None,
) -> Neighbours:
    """Find each query's k nearest base rows, exactly; ties go to the lowest index, whatever the backend.

    Args:
        queries: float32 (n, D), finite.
        base: float32 (m, D), finite.
        k: Neighbours a query, 1 to m.
        backend: "faiss", "numpy", or "auto": faiss if it can be imported and FEATLAB_NO_FAISS is not set to 1.
        metric: "cosine" (similarity, highest first; 0 for a vector shorter than `SHORTEST`) or "l2" (Euclidean
            distance, lowest first).
        skip: As in `nearest`.

    Raises:
        InputError: Arrays that don't fit together, values that are not finite, or a k that is not between 1 and m.
        ConfigError: An unknown metric or backend, or faiss asked for by name and not to be had.
    """
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}{closest(metric, METRICS)}")
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"queries and base must be (rows, D) with one D, not {queries.shape} and {base.shape}")
    if not all(np.isfinite(lengths(vectors)).all() for vectors in (queries, base)):
        raise InputError("neighbours need finite vectors; some rows hold NaN or infinity")
    if metric == "cosine":
        return nearest(_cosine_space(queries, base), k, skip=skip, backend=backend)
    found = nearest(_distance_space(queries, base), k, skip=skip, backend=backend)
    return found._replace(score=np.sqrt(-found.score))


def nearest(space: Space, k: int, *, skip: Rows | None = None, backend: str = "auto") -> Neighbours:
    """Find each query's k best base rows, exactly.

    Args:
        space: The n queries and m base rows.
        k: Neighbours a query, 1 to m.
        skip: (n, 2), a range [start, stop) of base rows that each query may not have. Fast when queries with the same
            range follow one another and ranges ascend (rows sorted by subject); correct in any order.
        backend: As in `search`.

    Raises:
        InputError: k is not between 1 and m.
        ConfigError: faiss asked for by name and not to be had.
    """
    n, m = len(space.left), len(space.right)
    if not 1 <= k <= m:
        raise InputError(f"can't find {k} neighbours a row among {m} rows; ask for 1 to {m}")
    faiss = _load_faiss(backend)
    ranges = np.zeros((n, 2), dtype=np.intp) if skip is None else skip
    found = Neighbours(np.full((n, k), -np.inf), np.full((n, k), -1, dtype=np.intp), 0)
    in_full = 0
    for start in range(0, n, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, n))
        if faiss is not None:
            columns, inner, left_out = _proposals(faiss, space, rows, ranges[rows], k + _PROPOSED)
            tie = 2 * _TIE * space.scale[rows]
            for wanted in (_largest(inner, k), None):
                # First the k with the largest bounds, then whatever may be better than the k-th of them.
                near = space.limit(rows[:, None], inner) >= (found.score[rows, -1] - tie)[:, None]
                query, place = np.nonzero((near if wanted is None else wanted) & (inner > -np.inf))
                _keep_best(found, space, rows[query], columns[query, place])
            proven = found.score[rows, -1] > space.limit(rows, left_out) + tie
            rows = rows[~proven & (left_out > -np.inf)]
        in_full += len(rows)
        step = max(1, _BYTES // (4 * m))
        for part in (rows[first : first + step] for first in range(0, len(rows), step)):
            _keep_best(found, space, *_near_the_best(space, part, ranges[part], k))
    return found._replace(searched_in_full=in_full)


def _proposals(
    faiss: Any, space: Space, rows: Rows, ranges: Rows, count: int
) -> tuple[Rows, NDArray[np.float32], NDArray[np.float32]]:
    """Return base rows (r, c), their inner products (-inf: not allowed), and the largest of what was left out (r,)."""
    low, high = int(ranges[:, 0].min()), int(ranges[:, 1].max())
    queries, parts = space.left[rows], []
    for first, last in ((0, low), (high, len(space.right))):  # rows that no query of the block skips
        if last > first:
            kind = faiss.METRIC_INNER_PRODUCT
            with _one_thread(faiss):
                inner, near = faiss.knn(queries, space.right[first:last], min(count, last - first), metric=kind)
            parts.append((near + first, inner, last - first))
    if high > low:
        kept = min(count, high - low)
        near = np.empty((len(rows), kept), dtype=np.intp)
        inner = np.empty((len(rows), kept), dtype=np.float32)
        step = max(1, _BYTES // (4 * (high - low)))
        for part in (slice(first, first + step) for first in range(0, len(rows), step)):
            scores = queries[part] @ space.right[low:high].T
            _exclude(scores, ranges[part] - low)
            near[part] = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
            inner[part] = np.take_along_axis(scores, near[part], axis=1)
        parts.append((near + low, inner, high - low))
    left_out = [np.where(len(inner[0]) < size, inner.min(axis=1), -np.inf) for _, inner, size in parts]
    columns, inner = (np.concatenate([part[place] for part in parts], axis=1) for place in (0, 1))
    return columns, inner, np.max(left_out, axis=0)


def _largest(inner: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Return which k places of each row hold the largest values."""
    chosen = np.zeros(inner.shape, dtype=np.bool_)
    np.put_along_axis(chosen, np.argpartition(-inner, k - 1, axis=1)[:, :k], True, axis=1)
    return chosen


def _near_the_best(space: Space, rows: Rows, ranges: Rows, k: int) -> tuple[Rows, Rows]:
    """Return the pairs (query row, base row) that rounding could have kept from the k best."""
    scores = space.quick(rows)
    _exclude(scores, ranges)
    kth = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k]
    slack = 2.0 * space.error * space.scale[rows]
    query, column = np.nonzero((scores >= (kth - slack)[:, None]) & (scores > -np.inf))
    return rows[query], column


def _exclude(scores: NDArray[np.float32], ranges: Rows) -> None:
    for row, (start, stop) in enumerate(ranges):
        scores[row, max(start, 0) : max(stop, 0)] = -np.inf


def _keep_best(found: Neighbours, space: Space, rows: Rows, columns: Rows) -> None:
    """Score candidate pairs exactly and put the best of each row into `found`."""
    exact = np.empty(len(rows))
    step = max(1, _BYTES // (32 * space.left.shape[1]))
    for part in (slice(first, first + step) for first in range(0, len(rows), step)):
        exact[part] = space.exact(rows[part], columns[part])
    grade = np.rint(exact / (space.scale[rows] * _TIE))
    order = np.lexsort((columns, -grade, rows))
    rows, columns, exact = rows[order], columns[order], exact[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = rank < found.rows.shape[1]
    found.score[rows[best], rank[best]] = exact[best]
    found.rows[rows[best], rank[best]] = columns[best]


def _cosine_space(queries: NDArray[np.float32], base: NDArray[np.float32]) -> Space:
    query_inverse, base_inverse = _inverse(lengths(queries)), _inverse(lengths(base))
    right = base * base_inverse.astype(np.float32)[:, None]
    left = right if queries is base else queries * query_inverse.astype(np.float32)[:, None]
    error = product_error(queries.shape[1])

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        a, b = queries[rows].astype(np.float64), base[columns].astype(np.float64)
        return np.asarray(np.einsum("pd,pd->p", a, b) * query_inverse[rows] * base_inverse[columns])

    def limit(_: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.add(inner, 2 * error, dtype=np.float64)

    def quick(rows: Rows) -> NDArray[np.float32]:
        return np.asarray(left[rows] @ right.T)

    return Space(left, right, limit, quick, exact, np.ones(len(left)), error)


def _distance_space(queries: NDArray[np.float32], base: NDArray[np.float32]) -> Space:
    """Return scores -|a - b|² = <(2a, 1), (b, -|b|²)> - |a|²."""
    query_lengths, base_lengths = lengths(queries), lengths(base)
    left = np.concatenate([2 * queries, np.ones((len(queries), 1), dtype=np.float32)], axis=1)
    right = np.concatenate([base, -np.square(base_lengths)[:, None].astype(np.float32)], axis=1)
    scale = np.maximum((query_lengths + base_lengths.max(initial=0.0)) ** 2, SHORTEST)
    squares, error = query_lengths**2, 2 * product_error(left.shape[1])

    def limit(rows: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(inner - squares[rows] + 2 * error * scale[rows])

    def quick(rows: Rows) -> NDArray[np.float32]:
        return np.asarray(left[rows] @ right.T - squares[rows, None].astype(np.float32))

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        return np.asarray(-np.square(queries[rows].astype(np.float64) - base[columns]).sum(axis=1))

    return Space(left, right, limit, quick, exact, scale, error)


def _inverse(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms >= SHORTEST)


def _load_faiss(backend: str) -> Any:
    """Return the faiss module, or None for the numpy path."""
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}{closest(backend, BACKENDS)}")
    if backend == "numpy" or (backend == "auto" and os.environ.get("FEATLAB_NO_FAISS") == "1"):
        return None
    try:
        import faiss
    except ImportError as error:
        if backend == "auto":
            return None
        raise ConfigError(f"faiss can't be imported ({error}); install faiss-cpu or use backend 'numpy'") from error
    return faiss


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Run faiss on one thread: torch brings an OpenMP runtime too, and two at work crash on macOS and Windows.

    Put back afterwards, because on Linux the call reaches torch's runtime as well and would slow all that follows.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)

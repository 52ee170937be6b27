"""Exact nearest neighbours: faiss proposes, float64 decides, and a bound proves that nothing better was left out.

Each kind of score (cosine, face shape) comes with float32 vectors whose inner product bounds it from above.
faiss (Johnson, Douze & Jégou 2021) finds the base rows with the largest inner products; they are scored again in
float64. Where the k-th of them is better than the bound allows for any row that was not proposed, the answer is proven.
The other query rows, and all of them where faiss can't be used, are searched in full. So the answer is the same on
every machine, with and without faiss, and ties go to the lowest index.

Vectors are made tile by tile, and no n x m matrix is ever held: memory is a few hundred MiB, whatever n and m.

This is the only module that imports faiss, and only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from featlab.errors import InputError

TIE = 1e-13
"""Scores nearer than this tie; float64 sums of equal rows may differ so."""
_PROPOSED = 32  # base rows that are proposed beyond k
_BLOCK_ROWS = 1024  # queries a block: enough for a matrix product to run at full speed
_BYTES = 64 << 20  # for one tile of vectors; results don't depend on it
Rows = NDArray[np.intp]


class Neighbours(NamedTuple):
    """The k best base rows of each query; -1, with the worst possible score, where there are fewer than k."""

    score: NDArray[np.float64]  # (n, k), best first.
    rows: Rows  # (n, k) base rows; of equal scores the lowest comes first.
    searched_in_full: int = 0  # Queries whose proposals could not be proven to hold the best, or broke the rules.
    # How many true neighbours of a sample of queries an index was to find, and how many it found.
    checked: tuple[int, int] = (0, 0)

    @classmethod
    def none(cls, n: int, k: int) -> Neighbours:
        """Return n queries that have found nothing yet."""
        return cls(np.full((n, k), -np.inf), np.full((n, k), -1, dtype=np.intp))


@dataclass(frozen=True, eq=False)
class Space:
    """How well n queries match m base rows; a higher score is better, and none is above 1."""

    queries: int  # n.
    base: int  # m.
    width: int  # d, the length of a vector.
    left: Callable[[Rows], NDArray[np.float32]]  # query rows (r,) -> float32 (r, d) vectors.
    right: Callable[[slice | Rows], NDArray[np.float32]]  # t base rows -> float32 (t, d) vectors.
    # (query rows, inner products) -> float64, what no base row with a smaller inner product can exceed.
    limit: Callable[[Rows, NDArray[np.float32]], NDArray[np.float64]]
    # t base rows -> (query rows (r,) -> float32 (r, t) scores).
    quick: Callable[[slice], Callable[[Rows], NDArray[np.float32]]]
    # ((p,) query rows, (p,) base rows) -> float64 (p,) scores of those pairs.
    exact: Callable[[Rows, Rows], NDArray[np.float64]]
    error: float  # How far `quick` may be from `exact`.

    def tiles(self, rows: int, each: int = 1) -> Iterator[slice]:
        """Yield slices of so many rows, each of as many as fit into a tile with ``each`` vectors a row."""
        step = max(1, _BYTES // (4 * self.width * each))
        return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def product_error(length: int) -> float:
    """Return how far a float32 inner product of two unit vectors may be from the true one.

    λ √n u with u = 2⁻²⁴ and λ = 16: a bound that holds but for a chance of about 2n exp(-λ²/2) (Higham & Mary 2019).
    """
    return 16.0 * float(np.sqrt(length)) * 2.0**-24


def nearest(space: Space, k: int, skip: Rows | None) -> Neighbours:
    """Find each query's k best base rows, exactly; a k that is not between 1 and m is an InputError.

    ``skip`` are (n, 2), a range [start, stop) of base rows that each query may not have. It is fast when queries with
    the same range follow one another and ranges ascend (rows sorted by subject), and correct in any order.
    """
    ranges = ranges_of(space, skip)
    if not 1 <= k <= space.base:
        raise InputError(f"can't find {k} neighbours a row among {space.base} rows; ask for 1 to {space.base}")
    faiss = load_faiss()
    found = Neighbours.none(space.queries, k)
    unproven = np.arange(space.queries)
    if faiss is not None:
        with one_thread():
            parts = [_unproven(faiss, space, found, unproven[slab], ranges) for slab in space.tiles(space.queries)]
        unproven = np.concatenate([unproven[:0], *parts])
    search_in_full(space, found, unproven, ranges)
    return found._replace(searched_in_full=len(unproven))


def ranges_of(space: Space, skip: Rows | None) -> Rows:
    """Return the (n, 2) ranges that are skipped; empty ones by default."""
    return np.zeros((space.queries, 2), dtype=np.intp) if skip is None else skip


def _unproven(faiss: Any, space: Space, found: Neighbours, rows: Rows, ranges: Rows) -> Rows:
    """Put the best of what faiss proposes for some queries into `found`; return those where it may not be the best."""
    columns, inner = _proposals(faiss, space, rows, ranges[rows], found.rows.shape[1] + _PROPOSED)
    keep_likely(found, space, rows, columns, inner)
    left_out = inner.min(axis=1)
    near = found.score[rows, -1] <= space.limit(rows, left_out) + 2 * TIE
    return np.asarray(rows[near & (left_out > -np.inf)])


def keep_likely(found: Neighbours, space: Space, rows: Rows, columns: Rows, inner: NDArray[np.float32]) -> None:
    """Put the best of (r, c) base rows, k at least, into `found`; inner products (-inf: none) tell which to score."""
    k = found.rows.shape[1]
    largest = np.zeros(inner.shape, dtype=np.bool_)
    np.put_along_axis(largest, np.argpartition(-inner, k - 1, axis=1)[:, :k], True, axis=1)
    for wanted in (largest, ~largest):
        # First the k with the largest bounds, then whatever may be better than the k-th of them.
        wanted &= space.limit(rows[:, None], inner) >= found.score[rows, -1, None] - 2 * TIE
        query, place = np.nonzero(wanted & (inner > -np.inf))
        _keep_best(found, space, rows[query], columns[query, place])


def _proposals(faiss: Any, space: Space, rows: Rows, ranges: Rows, count: int) -> tuple[Rows, NDArray[np.float32]]:
    """Return (r, count) base rows with the largest inner products, and those; -inf where there are no more."""
    left = space.left(rows)
    columns = np.zeros((len(rows), count), dtype=np.intp)
    inner = np.full((len(rows), count), -np.inf, dtype=np.float32)
    for tile in space.tiles(space.base):
        right = space.right(tile)
        for first in range(0, len(rows), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            parts = _of_tile(faiss, left[block], right, ranges[block] - tile.start, count)
            near = np.concatenate([columns[block], *(part + tile.start for part, _ in parts)], axis=1)
            products = np.concatenate([inner[block], *(part for _, part in parts)], axis=1)
            best = np.argpartition(-products, count - 1, axis=1)[:, :count]
            columns[block] = np.take_along_axis(near, best, axis=1)
            inner[block] = np.take_along_axis(products, best, axis=1)
    return columns, inner


def _of_tile(
    faiss: Any, left: NDArray[np.float32], right: NDArray[np.float32], ranges: Rows, count: int
) -> list[tuple[Rows, NDArray[np.float32]]]:
    """Return the largest products with the rows that no query skips, and with the others (-inf: skipped)."""
    low, high = (int(bound) for bound in np.clip((ranges[:, 0].min(), ranges[:, 1].max()), 0, len(right)))
    parts = []
    for first, last in ((0, low), (high, len(right))):
        if last > first:
            kind = faiss.METRIC_INNER_PRODUCT
            inner, near = faiss.knn(left, right[first:last], min(count, last - first), metric=kind)
            parts.append((near + first, inner))
    if high > low:
        kept, near, inner = min(count, high - low), [], []
        step = max(1, _BYTES // (4 * (high - low)))
        for part in (slice(first, first + step) for first in range(0, len(left), step)):
            scores = left[part] @ right[low:high].T
            _exclude(scores, ranges[part] - low)
            near.append(np.argpartition(-scores, kept - 1, axis=1)[:, :kept])
            inner.append(np.take_along_axis(scores, near[-1], axis=1))
        parts.append((np.concatenate(near) + low, np.concatenate(inner)))
    return parts


def search_in_full(space: Space, found: Neighbours, rows: Rows, ranges: Rows) -> None:
    """Put the best of all base rows into `found` for some queries, without faiss."""
    found.score[rows], found.rows[rows] = -np.inf, -1
    k = found.rows.shape[1]
    for tile in space.tiles(space.base if len(rows) else 0):
        quick, width = space.quick(tile), tile.stop - tile.start
        step = max(1, _BYTES // (16 * width))
        for part in (rows[first : first + step] for first in range(0, len(rows), step)):
            scores = quick(part)
            _exclude(scores, ranges[part] - tile.start)
            kth = found.score[part, -1]
            if k <= width:
                kth = np.maximum(kth, np.partition(scores, width - k, axis=1)[:, -k])
            # What rounding could have kept from the k best.
            near = scores >= (kth - 2.0 * space.error)[:, None]
            query, column = np.nonzero(near & (scores > -np.inf))
            _keep_best(found, space, part[query], column + tile.start)


def _exclude(scores: NDArray[np.float32], ranges: Rows) -> None:
    for row, (start, stop) in enumerate(np.maximum(ranges, 0).tolist()):
        scores[row, start:stop] = -np.inf


def _keep_best(found: Neighbours, space: Space, rows: Rows, columns: Rows) -> None:
    """Score candidate pairs, none of which is there already, exactly, and put the best of each row into `found`."""
    k = found.rows.shape[1]
    exact = np.empty(len(rows))
    step = max(1, _BYTES // (32 * space.width))
    for part in (slice(first, first + step) for first in range(0, len(rows), step)):
        exact[part] = space.exact(rows[part], columns[part])
    touched = np.unique(rows)
    kept = found.rows[touched] >= 0
    rows = np.concatenate([rows, np.repeat(touched, k)[kept.ravel()]])
    columns = np.concatenate([columns, found.rows[touched][kept]])
    exact = np.concatenate([exact, found.score[touched][kept]])
    grade = np.rint(exact / TIE)
    order = np.lexsort((columns, -grade, rows))
    rows, columns, exact = rows[order], columns[order], exact[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = rank < k
    found.score[rows[best], rank[best]] = exact[best]
    found.rows[rows[best], rank[best]] = columns[best]


def load_faiss() -> Any:
    """Return the faiss module; ``None`` where it can't be imported, or where FEATLAB_NO_FAISS is 1."""
    if os.environ.get("FEATLAB_NO_FAISS") == "1":
        return None
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def one_thread() -> Any:
    """Run faiss on one thread: torch brings an OpenMP runtime too, and two at work crash on macOS and Windows."""
    return threadpool_limits(limits=1, user_api="openmp")

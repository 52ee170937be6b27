"""Exact nearest neighbours in blocks, whatever the score: float32 matrix products propose, float64 decides.

`nearest` never holds more than a tile of the (queries, base) score matrix: a fast float32 product scores a tile, every
base row that rounding could have kept from the k best stays a candidate, and the candidates are scored again in float64
and ranked. The answer is therefore the same on every backend and machine, and ties go to the lowest index. What costs
extra is base rows that tie within rounding, since all of them are candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = ["Proposer", "RowIndex", "Scorer", "nearest", "product_error"]

_TIE = 1e-13  # scores nearer than this, relative to their scale, tie; float64 sums of equal rows may differ so
_BLOCK_ROWS = 1024  # queries a block: enough for a matrix product to run at full speed
_PENDING = 1 << 20  # candidates held before they are ranked: 20 bytes each
_EXTRA = 8  # neighbours asked of a proposer beyond k: room for near ties before numpy has to look

RowIndex = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Scorer:
    """How well n queries match m base rows; a higher score is better.

    Attributes:
        queries: n.
        base: m.
        quick: (query rows, first base row, last base row + 1) -> float32 scores, one row a query.
        exact: ((p,) query rows, (p,) base rows) -> float64 (p,) scores of those pairs.
        scale: float64 (n,), the size of the largest score that each query can have.
        error: How far `quick` may be from `exact`, relative to `scale`.
        pair_bytes: Bytes that `quick` needs for one pair while it works.
        exact_bytes: Bytes that `exact` needs for one pair while it works.
    """

    queries: int
    base: int
    quick: Callable[[RowIndex, int, int], NDArray[np.float32]]
    exact: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]
    scale: NDArray[np.float64]
    error: float
    pair_bytes: int
    exact_bytes: int


Proposer = Callable[[slice, int, int, int], tuple[NDArray[np.float32], NDArray[np.intp]]]
"""(query rows, first base row, last + 1, count) -> the count best scores, best first, and their base rows."""


def product_error(length: int) -> float:
    """Return how far a float32 inner product of two unit vectors may be from the true one.

    λ √n u with u = 2⁻²⁴ and λ = 16: a bound that holds but for a chance of about 2n exp(-λ²/2) (Higham & Mary 2019).
    """
    return 16.0 * float(np.sqrt(length)) * 2.0**-24


def nearest(
    scorer: Scorer,
    k: int,
    *,
    skip: NDArray[np.intp] | None = None,
    propose: Proposer | None = None,
    byte_budget: int = 32 << 20,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Find each query's k best base rows, exactly.

    Args:
        scorer: The n queries and m base rows.
        k: Neighbours a query, 1 to m.
        skip: (n, 2), a range [start, stop) of base rows that each query may not have. Fast when queries with the same
            range follow one another and ranges ascend (rows sorted by subject); correct in any order.
        propose: A faster search that may miss ties; what it might have missed is searched without it.
        byte_budget: Bytes for one tile of scores; results don't depend on it.

    Returns:
        Scores float64 (n, k), best first, and base rows (n, k). Of equal scores the lowest base row comes first. A
        query that has fewer than k base rows left after `skip` gets -inf and -1 in the places that stay empty.

    Raises:
        InputError: k is not between 1 and m.
    """
    if not 1 <= k <= scorer.base:
        raise InputError(f"can't find {k} neighbours a row among {scorer.base} rows; ask for 1 to {scorer.base}")
    ranges = np.zeros((scorer.queries, 2), dtype=np.intp) if skip is None else skip
    scores = np.full((scorer.queries, k), -np.inf)
    index = np.full((scorer.queries, k), -1, dtype=np.intp)
    for start in range(0, scorer.queries, _BLOCK_ROWS):
        block = _Block(scorer, start, min(start + _BLOCK_ROWS, scorer.queries), k, ranges, byte_budget)
        if propose is None:
            block.scan(0, scorer.base)
        else:
            block.ask(propose)
        rows, columns, exact, rank = block.ranked()
        scores[start + rows, rank] = exact
        index[start + rows, rank] = columns
    return scores, index


class _Block:
    """The search for one block of queries: which base rows are still candidates."""

    def __init__(
        self, scorer: Scorer, start: int, stop: int, k: int, ranges: NDArray[np.intp], byte_budget: int
    ) -> None:
        self.scorer, self.start, self.stop, self.k, self.byte_budget = scorer, start, stop, k, byte_budget
        self.ranges = ranges[start:stop]
        self.slack = (2.0 * scorer.error * scorer.scale[start:stop]).astype(np.float32)
        self.top = np.full((stop - start, k), -np.inf, dtype=np.float32)  # the k best quick scores so far, unsorted
        self.found: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]] = []
        self.pending = 0

    def scan(self, first: int, last: int, rows: NDArray[np.intp] | None = None) -> None:
        """Score base rows [first, last) for all queries of the block, or for some, tile by tile."""
        local = np.arange(self.stop - self.start) if rows is None else rows
        where: RowIndex = slice(self.start, self.stop) if rows is None else rows + self.start
        runs = list(_runs(self.ranges[local]))
        width = max(1, self.byte_budget // (self.scorer.pair_bytes * max(1, len(local))))
        for left in range(first, last, width):
            right = min(left + width, last)
            scores = self.scorer.quick(where, left, right)
            for begin, end, start, stop in runs:
                scores[begin:end, max(start - left, 0) : max(stop - left, 0)] = -np.inf
            self.keep(local, scores, None, left)

    def ask(self, propose: Proposer) -> None:
        """Have `propose` search what no query of the block skips; scan the rest, and what it may have missed."""
        low, high = int(self.ranges[:, 0].min()), int(self.ranges[:, 1].max())
        everyone = np.arange(self.stop - self.start)
        worst = []
        for first, last in ((0, low), (high, self.scorer.base)):
            count = min(self.k + _EXTRA, last - first)
            if count == 0:
                continue
            scores, columns = propose(slice(self.start, self.stop), first, last, count)
            self.keep(everyone, scores, columns, 0)
            if count < last - first:
                worst.append(scores[:, -1])
        self.scan(low, high)
        missed = np.zeros(len(everyone), dtype=np.bool_)
        for lowest in worst:
            missed |= lowest >= self.top.min(axis=1) - self.slack
        if missed.any():
            # From scratch: a pair that counts twice among the best would hide another.
            kept = [(found, ~missed[found[0]]) for found in self.found]
            self.found = [(rows[keep], columns[keep], quick[keep]) for (rows, columns, quick), keep in kept]
            self.top[missed] = -np.inf
            self.scan(0, self.scorer.base, np.flatnonzero(missed))

    def keep(
        self, rows: NDArray[np.intp], scores: NDArray[np.float32], columns: NDArray[np.intp] | None, left: int
    ) -> None:
        """Keep the pairs that may be among the k best; `columns` are base rows, or left, left + 1, ... if None."""
        better = np.flatnonzero(scores.max(axis=1) > self.top[rows].min(axis=1))
        if len(better):
            both = np.concatenate([self.top[rows[better]], scores[better]], axis=1)
            both.partition(both.shape[1] - self.k, axis=1)
            self.top[rows[better]] = both[:, -self.k :]
        threshold = self.top[rows].min(axis=1) - self.slack[rows]
        # -inf is what a query may not have, and passes while fewer than k are known.
        near = (scores >= threshold[:, None]) & (scores > -np.inf)
        row, column = np.nonzero(near)
        self.found.append((rows[row], column + left if columns is None else columns[row, column], scores[near]))
        self.pending += len(row)
        if self.pending > _PENDING:
            rows, columns, _, _ = self.ranked()
            quick = np.full(len(rows), np.inf, dtype=np.float32)
            self.found, self.pending = [(rows, columns, quick)], len(rows)

    def ranked(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
        """Return (query of the block, base row, exact score, rank) of the best k candidates of each query."""
        rows = np.concatenate([found[0] for found in self.found])
        columns = np.concatenate([found[1] for found in self.found])
        quick = np.concatenate([found[2] for found in self.found])
        # Early tiles kept candidates by a threshold that has risen since.
        near = quick >= (self.top.min(axis=1) - self.slack)[rows]
        rows, columns = rows[near], columns[near]
        exact = np.empty(len(rows))
        step = max(1, self.byte_budget // self.scorer.exact_bytes)
        for left in range(0, len(rows), step):
            part = slice(left, left + step)
            exact[part] = self.scorer.exact(rows[part] + self.start, columns[part])
        grade = np.rint(exact / (self.scorer.scale[self.start + rows] * _TIE))
        order = np.lexsort((columns, -grade, rows))
        rows, columns, exact = rows[order], columns[order], exact[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self.k
        return rows[best], columns[best], exact[best], rank[best]


def _runs(ranges: NDArray[np.intp]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first row, last row + 1, start, stop) of neighbouring rows with the same, non-empty range."""
    edges = np.flatnonzero((ranges[1:] != ranges[:-1]).any(axis=1)) + 1
    bounds = [0, *edges.tolist(), len(ranges)]
    for begin, end in itertools.pairwise(bounds):
        start, stop = (int(bound) for bound in ranges[begin])
        if start < stop:
            yield begin, end, start, stop

"""Nearest neighbours of vectors, by cosine or distance, through faiss.

The float32 scores come from faiss (Johnson, Douze & Jégou 2021) or, without faiss, from numpy. faiss alone leaves open
which of two equal rows it returns; here it only proposes, and a row of queries whose proposals might not hold all
candidates is scored by numpy (see `featlab.pairing.exact_search`).

This is the only module that imports faiss, and only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest
from featlab.pairing.exact_search import Proposer, RowIndex, Scorer, nearest, product_error

__all__ = ["BACKENDS", "METRICS", "lengths", "search"]

BACKENDS = ("auto", "faiss", "numpy")
METRICS = ("cosine", "l2")

SHORTEST = 1e-30
"""A vector shorter than this has no direction: in float32 its inverse would overflow."""


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, float64 (n,), of the rows of a float32 (n, D) array."""
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def search(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    k: int,
    *,
    backend: str = "auto",
    metric: str = "cosine",
    skip: NDArray[np.intp] | None = None,
    byte_budget: int = 32 << 20,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Find each query's k nearest base rows, exactly; ties go to the lowest index, whatever the backend.

    Args:
        queries: float32 (n, D), finite.
        base: float32 (m, D), finite.
        k: Neighbours a query, 1 to m.
        backend: "faiss", "numpy", or "auto": faiss if it can be imported and FEATLAB_NO_FAISS is not set to 1.
        metric: "cosine" (similarity, highest first; 0 for a vector shorter than `SHORTEST`) or "l2" (Euclidean
            distance, lowest first).
        skip: As in `nearest`.
        byte_budget: As in `nearest`.

    Returns:
        Similarities or distances, float64 (n, k), and indices into `base`, (n, k). A query with fewer than k base rows
        left after `skip` gets -1 in the places that stay empty, with a score of -inf (cosine) or inf (l2).

    Raises:
        InputError: Arrays that don't fit together, values that are not finite, or a k that is not between 1 and m.
        ConfigError: An unknown metric or backend, or faiss asked for by name and not to be had.
    """
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}{closest(metric, METRICS)}")
    faiss = _load_faiss(backend)
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"queries and base must be (rows, D) with one D, not {queries.shape} and {base.shape}")
    scorer, left, right = _vector_scorer(queries, base, metric)
    propose = None if faiss is None else _faiss_proposer(faiss, left, right, metric)
    scores, index = nearest(scorer, k, skip=skip, propose=propose, byte_budget=byte_budget)
    return (scores, index) if metric == "cosine" else (np.sqrt(-scores), index)


def _vector_scorer(
    queries: NDArray[np.float32], base: NDArray[np.float32], metric: str
) -> tuple[Scorer, NDArray[np.float32], NDArray[np.float32]]:
    """Return the scorer of cosine or of -(distance²), and the vectors whose product or distance faiss is to search."""
    query_lengths, base_lengths = lengths(queries), lengths(base)
    if not (np.isfinite(query_lengths).all() and np.isfinite(base_lengths).all()):
        raise InputError("neighbours need finite vectors; some rows hold NaN or infinity")
    query_inverse, base_inverse = _inverse(query_lengths), _inverse(base_lengths)
    query_squares, base_squares = (query_lengths**2).astype(np.float32), (base_lengths**2).astype(np.float32)
    left, right = queries, base
    scale = np.maximum((query_lengths + base_lengths.max(initial=0.0)) ** 2, SHORTEST)
    if metric == "cosine":
        scale = np.ones(len(queries))
        right = base * base_inverse.astype(np.float32)[:, None]
        left = right if queries is base else queries * query_inverse.astype(np.float32)[:, None]

    def quick(rows: RowIndex, first: int, last: int) -> NDArray[np.float32]:
        scores = left[rows] @ right[first:last].T
        if metric == "l2":
            scores *= 2.0
            scores -= query_squares[rows, None]
            scores -= base_squares[first:last]
        return scores

    def exact(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        a, b = queries[rows].astype(np.float64), base[columns].astype(np.float64)
        if metric == "l2":
            return np.asarray(-np.square(a - b).sum(axis=1))
        return np.asarray(np.einsum("pd,pd->p", a, b) * query_inverse[rows] * base_inverse[columns])

    scorer = Scorer(
        queries=len(queries),
        base=len(base),
        quick=quick,
        exact=exact,
        scale=scale,
        error=product_error(queries.shape[1]),
        pair_bytes=8,
        exact_bytes=32 * queries.shape[1] + 1,
    )
    return scorer, left, right


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


def _faiss_proposer(faiss: Any, queries: NDArray[np.float32], base: NDArray[np.float32], metric: str) -> Proposer:
    queries, base = np.ascontiguousarray(queries), np.ascontiguousarray(base)
    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2

    def propose(rows: slice, first: int, last: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        with _one_thread(faiss):
            scores, columns = faiss.knn(queries[rows], base[first:last], count, metric=kind)
        return scores if metric == "cosine" else -scores, columns + first

    return propose


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

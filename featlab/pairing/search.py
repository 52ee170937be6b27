"""Nearest embeddings, by cosine similarity or by distance: exactly, or with an index that proposes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError, closest
from featlab.pairing.index import find
from featlab.pairing.nearest import Neighbours, Rows, Space

METRICS = ("cosine", "l2")

SHORTEST = 1e-30
"""A vector shorter than this has no direction: in float32 its inverse would overflow."""


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
    chosen: tuple[Rows, Rows] | None = None,
    index: str = "",
) -> Neighbours:
    """Find each query's k nearest base rows; ties go to the lowest row, whatever the backend.

    Args:
        queries: float32 (n, D), finite.
        base: float32 (m, D), finite.
        k: Neighbours a query, 1 to m.
        backend: As in `featlab.pairing.nearest.load_faiss`.
        metric: "cosine" (similarity, highest first; 0 for a vector shorter than `SHORTEST`) or "l2" (Euclidean
            distance, lowest first).
        skip: As in `featlab.pairing.nearest.nearest`.
        chosen: Which rows of ``queries`` search and which rows of ``base`` may be found, without copies of them; what
            is found are places among the latter. All by default.
        index: As in `featlab.pairing.index.find`; exact by default.

    Raises:
        InputError: Arrays that don't fit together, values that are not finite, or a k that is not between 1 and m.
        ConfigError: An unknown metric or backend, or faiss asked for by name and not to be had; a bad index.
    """
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}{closest(metric, METRICS)}")
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"queries and base must be (rows, D) with one D, not {queries.shape} and {base.shape}")
    norms = lengths(queries)
    sizes = (norms, norms if base is queries else lengths(base))
    if not all(np.isfinite(size).all() for size in sizes):
        raise InputError("neighbours need finite vectors; some rows hold NaN or infinity")
    rows = (np.arange(len(queries)), np.arange(len(base))) if chosen is None else chosen
    sizes = (sizes[0][rows[0]], sizes[1][rows[1]])
    make = _cosine_space if metric == "cosine" else _distance_space
    found = find(make((queries, base), rows, sizes), k, skip=skip, backend=backend, index=index)
    return found if metric == "cosine" else found._replace(score=np.sqrt(-found.score))


def _cosine_space(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    chosen: tuple[Rows, Rows],
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Space:
    (queries, base), (query_rows, base_rows) = vectors, chosen
    query_inverse, base_inverse = (
        np.divide(1.0, size, out=np.zeros_like(size), where=size >= SHORTEST) for size in sizes
    )
    error = product_error(queries.shape[1])

    def left(rows: Rows) -> NDArray[np.float32]:
        taken = queries[query_rows[rows]]
        taken *= query_inverse[rows, None].astype(np.float32)
        return taken

    def right(tile: slice | Rows) -> NDArray[np.float32]:
        taken = base[base_rows[tile]]
        taken *= base_inverse[tile, None].astype(np.float32)
        return taken

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        a, b = queries[query_rows[rows]].astype(np.float64), base[base_rows[columns]].astype(np.float64)
        return np.asarray(np.einsum("pd,pd->p", a, b) * query_inverse[rows] * base_inverse[columns])

    def limit(_: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.add(inner, 2 * error, dtype=np.float64)

    def quick(tile: slice) -> Callable[[Rows], NDArray[np.float32]]:
        taken = right(tile)
        return lambda rows: np.asarray(left(rows) @ taken.T)

    return Space(len(base_rows), queries.shape[1], left, right, limit, quick, exact, np.ones(len(query_rows)), error)


def _distance_space(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    chosen: tuple[Rows, Rows],
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Space:
    """Return scores -|a - b|² = <(2a, 1), (b, -|b|²)> - |a|²."""
    (queries, base), (query_rows, base_rows) = vectors, chosen
    squares, base_squares = (np.square(size) for size in sizes)
    width = queries.shape[1] + 1
    scale = np.maximum((sizes[0] + sizes[1].max(initial=0.0)) ** 2, SHORTEST)
    error = 2 * product_error(width)

    def left(rows: Rows) -> NDArray[np.float32]:
        return np.pad(2 * queries[query_rows[rows]], ((0, 0), (0, 1)), constant_values=1)

    def right(tile: slice | Rows) -> NDArray[np.float32]:
        last = -base_squares[tile, None].astype(np.float32)
        return np.concatenate([base[base_rows[tile]], last], axis=1)

    def limit(rows: Rows, inner: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(inner - squares[rows] + 2 * error * scale[rows])

    def quick(tile: slice) -> Callable[[Rows], NDArray[np.float32]]:
        taken = right(tile)
        return lambda rows: np.asarray(left(rows) @ taken.T - squares[rows, None].astype(np.float32))

    def exact(rows: Rows, columns: Rows) -> NDArray[np.float64]:
        difference = queries[query_rows[rows]].astype(np.float64) - base[base_rows[columns]]
        return np.asarray(-np.square(difference).sum(axis=1))

    return Space(len(base_rows), width, left, right, limit, quick, exact, scale, error)

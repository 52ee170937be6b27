"""Nearest embeddings by cosine similarity: exactly, or with an index of faiss that proposes.

An index is for more rows than can be compared one with the other. It proposes base rows, of which the exact scores
choose. A row's own subject is left out while the index is searched. What it misses is not proven to be worse, as it is
in `featlab.pairing.nearest`: a sample of the rows is searched in full, too, and the share of its true neighbours that
were found (the recall) is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import ConfigError, InputError
from featlab.pairing.nearest import (
    TIE,
    Neighbours,
    Rows,
    Space,
    keep_likely,
    load_faiss,
    nearest,
    one_thread,
    product_error,
    ranges_of,
    search_in_full,
)

SHORTEST = 1e-30
"""A vector shorter than this has no direction: in float32 its inverse would overflow."""


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms, float64 (n,), of the rows of a float32 (n, D) array."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


def search(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    k: int,
    *,
    skip: Rows | None = None,
    chosen: tuple[Rows, Rows] | None = None,
    index: str = "",
) -> Neighbours:
    """Find each query's k most similar base rows by the cosine; ties go to the lowest row, with and without faiss.

    Args:
        queries: float32 (n, D), finite. A vector shorter than `SHORTEST` has similarity 0 to all others.
        base: float32 (m, D), finite.
        k: Neighbours a query, 1 to m.
        skip: (n, 2), a range of base rows that each query may not have, as in `featlab.pairing.nearest.nearest`.
        chosen: Which rows of ``queries`` search and which rows of ``base`` may be found, without copies of them; what
            is found are places among the latter. All by default.
        index: As in `find`; exact by default.

    Raises:
        InputError: Arrays that don't fit together, values that are not finite, or a k that is not between 1 and m.
        ConfigError: A bad index.
    """
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InputError(f"queries and base must be (rows, D) with one D, not {queries.shape} and {base.shape}")
    norms = lengths(queries)
    sizes = (norms, norms if base is queries else lengths(base))
    if not all(np.isfinite(size).all() for size in sizes):
        raise InputError("neighbours need finite vectors; some rows hold NaN or infinity")
    rows = (np.arange(len(queries)), np.arange(len(base))) if chosen is None else chosen
    return find(_cosine_space((queries, base), rows, sizes), k, skip=skip, index=index)


def _cosine_space(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    chosen: tuple[Rows, Rows],
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Space:
    """Return the space of the chosen rows of queries and base; ``sizes`` are the lengths of all of them."""
    (queries, base), (query_rows, base_rows) = vectors, chosen
    query_inverse, base_inverse = (
        np.divide(1.0, size[rows], out=np.zeros(len(rows)), where=size[rows] >= SHORTEST)
        for size, rows in zip(sizes, chosen, strict=True)
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

    return Space(len(query_rows), len(base_rows), queries.shape[1], left, right, limit, quick, exact, error)


SMALLEST = 10_000
"""Among fewer base rows than this the exact search takes no longer than making an index."""
_SAMPLE = 1000  # queries that are searched in full, too
_TRAINED_ON = 2  # tiles of base rows that an index is trained on: 128 MiB
_WANTED, _GAIN = 0.95, 0.01  # more effort, until that recall, or while it brings so much
_FEWEST = 16  # proposals beyond k
_EFFORTS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def find(space: Space, k: int, *, skip: Rows | None, index: str) -> Neighbours:
    """Find each query's k best base rows: exactly, as `nearest` does, or among those that an index proposes.

    ``skip`` are (n, 2) ranges of base rows that each query may not have.
    ``index`` is a factory string of faiss ("PCA64,IVF4096,SQfp16", "HNSW32"). Empty, or with fewer than
    `SMALLEST` base rows: exact. One that faiss can't make of these rows, or can't search with rules, is a ConfigError.
    """
    if not index or space.base < SMALLEST:
        return nearest(space, k, skip)
    faiss = load_faiss()
    if faiss is None:
        raise ConfigError(f"pair.index = {index} needs faiss, which is switched off or can't be imported")
    try:
        with one_thread():
            return _find(faiss, space, k, ranges_of(space, skip), index)
    except RuntimeError as error:
        reason = " ".join(str(error).rsplit(": ", 1)[-1].split())
        raise ConfigError(
            f"pair.index = {index}: faiss can't use it for {space.base:,} rows of {space.width} values ({reason}); "
            "take e.g. IVF1024,Flat, or leave it out for an exact search"
        ) from None


def _find(faiss: Any, space: Space, k: int, ranges: Rows, factory: str) -> Neighbours:
    made = _filled(faiss, space, factory)
    n = space.queries
    sample = np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.intp))
    true = Neighbours.none(n, k)
    search_in_full(space, true, sample, ranges)

    def tried(rows: Rows, effort: int, more: int) -> tuple[Neighbours, tuple[int, int]]:
        found = Neighbours.none(n, k)
        _propose(faiss, made, space, found, rows, ranges, effort, min(k + more, space.base))
        return found, _checked(space, true, found, sample)

    hits = 0
    for effort in _EFFORTS:
        before, (hits, of) = hits, tried(sample, effort, 2 * effort)[1]
        if hits >= _WANTED * of or hits < before + _GAIN * of:
            break
    more, enough = 2 * effort, min(hits, _WANTED * of)
    # Half as many proposals to score again are enough for an index that holds vectors nearly as they are.
    while more > _FEWEST and tried(sample, effort, more // 2)[1][0] >= enough:
        more //= 2
    found = tried(np.arange(n), effort, more)[0]
    allowed = space.base - np.maximum(ranges[:, 1] - ranges[:, 0], 0)
    lacking = np.flatnonzero((found.rows >= 0).sum(axis=1) < np.minimum(allowed, k))
    search_in_full(space, found, lacking, ranges)
    return found._replace(searched_in_full=len(lacking), checked=_checked(space, true, found, sample))


def _filled(faiss: Any, space: Space, factory: str) -> Any:
    """Return the index of the base rows; it is trained on some of them."""
    made = faiss.index_factory(space.width, factory, faiss.METRIC_INNER_PRODUCT)
    if cells := faiss.try_extract_index_ivf(made):
        cells.cp.min_points_per_centroid = 1  # or faiss warns on stderr; the recall tells more
    tiles = list(space.tiles(space.base))
    some = space.right(slice(0, space.base, -(-len(tiles) // _TRAINED_ON)))
    if isinstance(made, faiss.IndexPreTransform):
        first = faiss.downcast_VectorTransform(made.chain.at(0))
        if isinstance(first, faiss.PCAMatrix):
            first.train(some)
            first.have_bias = False  # Less their mean, other vectors would have the largest inner products.
    made.train(some)
    for tile in tiles:
        made.add(space.right(tile))
    return made


def _propose(
    faiss: Any, made: Any, space: Space, found: Neighbours, rows: Rows, ranges: Rows, effort: int, count: int
) -> None:
    """Put the best of what the index proposes for some queries, so many for each, into `found`."""
    for tile in space.tiles(len(rows), count):
        left = space.left(rows[tile])
        columns = _search(faiss, made, left, ranges[rows[tile]], effort, count)
        # Again, since the index may hold vectors in short.
        right = space.right(columns.ravel()).reshape(*columns.shape, space.width)
        inner = np.where(columns >= 0, (right @ left[:, :, None])[:, :, 0], -np.inf).astype(np.float32)
        keep_likely(found, space, rows[tile], columns, inner)


def _search(faiss: Any, made: Any, vectors: NDArray[np.float32], ranges: Rows, effort: int, count: int) -> Rows:
    """Return (r, count) base rows outside the range of each of r queries, -1 where the index has no more.

    ``effort``: how many cells of an IVF are searched, or the width of a graph's search.
    """
    if isinstance(made, faiss.IndexPreTransform):
        for place in range(made.chain.size()):
            vectors = made.chain.at(place).apply_py(vectors)
        made = faiss.downcast_index(made.index)
    inner = np.empty((len(vectors), count), dtype=np.float32)
    columns = np.empty((len(vectors), count), dtype=np.int64)
    if isinstance(made, faiss.IndexIVF):
        # Of all queries at a time: for those of one subject it takes twice as long.
        products, cells = made.quantizer.search(vectors, min(effort, made.nlist))
    another = np.flatnonzero((np.diff(ranges, axis=0) != 0).any(axis=1)) + 1
    for first, last in zip([0, *another], [*another, len(vectors)], strict=True):
        run, (start, stop) = slice(first, last), (int(bound) for bound in ranges[first])
        selector = faiss.IDSelectorNot(faiss.IDSelectorRange(start, max(start, stop)))
        if isinstance(made, faiss.IndexIVF):
            options = faiss.SearchParametersIVF(sel=selector, nprobe=cells.shape[1])
            given = (vectors[run], count, cells[run], products[run], inner[run], columns[run])
            pointers = (item if isinstance(item, int) else faiss.swig_ptr(item) for item in given)
            made.search_preassigned_c(int(last - first), *pointers, False, options)
        else:
            graph = isinstance(made, faiss.IndexHNSW)
            options = (
                faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
                if graph
                else faiss.SearchParameters(sel=selector)
            )
            columns[run] = made.search(vectors[run], count, params=options)[1]
    return columns


def _checked(space: Space, true: Neighbours, found: Neighbours, sample: Rows) -> tuple[int, int]:
    """Return how many of a sample's found neighbours are as good as true ones, and how many of those there are."""
    worst = np.where(true.rows[sample] >= 0, true.score[sample], np.inf).min(axis=1)
    good = found.score[sample] >= (worst - 2 * TIE)[:, None]
    return int((good & (found.rows[sample] >= 0)).sum()), int((true.rows[sample] >= 0).sum())

"""Nearest neighbours with an index of faiss, for more rows than can be compared one with the other.

The index proposes base rows, of which the exact scores choose. A row's own subject is left out while the index is
searched. What it misses is not proven to be worse, as it is in `featlab.pairing.nearest`: a sample of the rows is
searched in full, too, and the share of its true neighbours that were found (the recall) is told.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featlab.errors import ConfigError
from featlab.pairing.nearest import (
    TIE,
    Neighbours,
    Rows,
    Space,
    keep_likely,
    load_faiss,
    nearest,
    one_thread,
    search_in_full,
)

SMALLEST = 10_000
"""Among fewer base rows than this the exact search takes no longer than making an index."""
_SAMPLE = 1000  # queries that are searched in full, too
_TRAINED_ON = 2  # tiles of base rows that an index is trained on: 128 MiB
_WANTED, _GAIN = 0.95, 0.01  # more effort, until that recall, or while it brings so much
_EFFORTS = (16, 32, 64, 128, 256, 512, 1024)


def find(space: Space, k: int, *, skip: Rows | None = None, backend: str = "auto", index: str = "") -> Neighbours:
    """Find each query's k best base rows: exactly, or among those that an index proposes.

    Args:
        space: The n queries and m base rows.
        k: Neighbours a query, 1 to m.
        skip: As in `nearest`.
        backend: As in `nearest`; an index needs faiss.
        index: A factory string of faiss ("IVF1024,Flat", "HNSW32", "OPQ16,IVF4096,PQ16"). Empty, or fewer than
            `SMALLEST` base rows: exact.

    Raises:
        InputError: k is not between 1 and m.
        ConfigError: As in `nearest`; an index that faiss can't make of these rows, or can't search with rules.
    """
    if not index or space.base < SMALLEST:
        return nearest(space, k, skip=skip, backend=backend)
    faiss = load_faiss(backend)
    if faiss is None:
        raise ConfigError(f"pair.index = {index} needs faiss, which is switched off or can't be imported")
    ranges = np.zeros((len(space.scale), 2), dtype=np.intp) if skip is None else skip
    try:
        with one_thread(faiss):
            return _find(faiss, space, k, ranges, index)
    except RuntimeError as error:
        reason = " ".join(str(error).rsplit(": ", 1)[-1].split())
        raise ConfigError(
            f"pair.index = {index}: faiss can't use it for {space.base:,} rows of {space.width} values ({reason}); "
            "take e.g. IVF1024,Flat, or leave it out for an exact search"
        ) from None


def _find(faiss: Any, space: Space, k: int, ranges: Rows, factory: str) -> Neighbours:
    made = _filled(faiss, space, factory)
    n = len(space.scale)
    sample = np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.intp))
    true = Neighbours.none(n, k)
    search_in_full(space, true, sample, ranges)
    before = 0.0
    for effort in _EFFORTS:
        found = Neighbours.none(n, k)
        _propose(faiss, made, space, found, sample, ranges, effort)
        hits, of = _checked(space, true, found, sample)
        if hits >= _WANTED * of or hits < (before + _GAIN) * of:
            break
        before = hits / of
    found = Neighbours.none(n, k)
    _propose(faiss, made, space, found, np.arange(n), ranges, effort)
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
    made.train(space.right(slice(0, space.base, -(-len(tiles) // _TRAINED_ON))))
    for tile in tiles:
        made.add(space.right(tile))
    return made


def _propose(faiss: Any, made: Any, space: Space, found: Neighbours, rows: Rows, ranges: Rows, effort: int) -> None:
    """Put the best of what the index proposes for some queries into `found`."""
    count = min(found.rows.shape[1] + 2 * effort, space.base)
    another = np.flatnonzero((np.diff(ranges[rows], axis=0) != 0).any(axis=1)) + 1
    for run in np.split(rows, another):
        start, stop = (int(bound) for bound in ranges[run[0]])
        selector = faiss.IDSelectorNot(faiss.IDSelectorRange(start, max(start, stop)))
        options = _options(faiss, made, selector, effort)
        for tile in space.tiles(len(run), count):
            left = space.left(run[tile])
            _, columns = made.search(left, count, params=options)
            # Again, since the index may hold vectors in short.
            right = space.right(columns.ravel()).reshape(*columns.shape, space.width)
            inner = np.where(columns >= 0, (right @ left[:, :, None])[:, :, 0], -np.inf).astype(np.float32)
            keep_likely(found, space, run[tile], columns, inner)


def _options(faiss: Any, made: Any, selector: Any, effort: int) -> Any:
    """Return how to search: without what is not selected, and how far (cells of an IVF, width of a graph's search)."""
    made = faiss.downcast_index(made)
    if isinstance(made, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_options(faiss, made.index, selector, effort))
    if isinstance(made, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, made.nlist))
    if isinstance(made, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
    return faiss.SearchParameters(sel=selector)


def _checked(space: Space, true: Neighbours, found: Neighbours, sample: Rows) -> tuple[int, int]:
    """Return how many of a sample's found neighbours are as good as true ones, and how many of those there are."""
    worst = np.where(true.rows[sample] >= 0, true.score[sample], np.inf).min(axis=1)
    good = found.score[sample] >= (worst - 2 * TIE * space.scale[sample])[:, None]
    return int((good & (found.rows[sample] >= 0)).sum()), int((true.rows[sample] >= 0).sum())

"""The claims about pairing: see `benchmarks/claims.py`.

Rows of drawn people, 40 each, in the order of a cache, as `featlab pair` has them. Where a search over all rows would
take minutes, both ways search for the same 4,000 of them among all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import scipy.spatial
from claims import Claim
from numpy.typing import NDArray

from featlab import FeatureTable
from featlab.config.sections import PairConfig
from featlab.pairing.nearest import one_thread
from featlab.pairing.pairs import make_pairs
from featlab.pairing.procrustes import Shapes, disparity, search_shapes
from featlab.pairing.search import search

FRAMES, DIM, POINTS = 40, 512, 68
SEARCHING = 4000
PROCRUSTES = 500  # calls of scipy.spatial.procrustes that stand for all


def claims(folder: Path) -> Iterator[Claim]:
    """Yield the claims about pairing; nothing is written."""
    table = synthetic(100_000)
    embeddings, points = table.embeddings, table.landmarks
    assert points is not None
    chosen = np.arange(SEARCHING), np.arange(len(table))
    own = table.subject[:SEARCHING]
    skip = np.stack([np.searchsorted(table.subject, own, side) for side in ("left", "right")], axis=1)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    queries = flat.reconstruct_n(0, SEARCHING)

    def bare_faiss() -> None:
        with one_thread():
            flat.search(queries, 1)

    yield Claim(
        f"cosine pairs, {SEARCHING:,} of 100,000 rows of {DIM} values, with the subject rule",
        "faiss IndexFlatIP, without rules",
        1.3,
        partial(search, embeddings, embeddings, 1, skip=skip, chosen=chosen),
        bare_faiss,
    )
    few = table.take(slice(4000))
    others = few.take(few.subject != few.subject[0]).landmarks
    yield Claim(
        "landmark pairs of 4,000 rows",
        "a nested loop over scipy.spatial.procrustes, extrapolated",
        1 / 5000,
        partial(make_pairs, few, PairConfig("landmark"), seed=0),
        partial(scipy_loop, points[0], others),
        times=len(few) * (len(few) - FRAMES) / PROCRUSTES,
    )
    shapes = Shapes.of(points)
    ours = partial(search_shapes, shapes, shapes, 1, skip=skip, chosen=chosen)
    queried, theirs = shapes[chosen[0]], blocked_product(shapes, skip)
    # The product is in float32: where it chooses another shape, that one is as near but for its rounding.
    assert np.allclose(ours().score[:, 0], disparity(queried, shapes[theirs]), rtol=0, atol=1e-6)
    yield Claim(
        f"landmark pairs, {SEARCHING:,} of 100,000 rows, the same pairs",
        "a blocked matrix product over everything",
        1,
        ours,
        partial(blocked_product, shapes, skip),
    )


def synthetic(rows: int) -> FeatureTable:
    """Draw people with embeddings and landmarks."""
    rng = np.random.default_rng(0)
    subject = (np.arange(rows) // FRAMES).astype(np.int32)
    people = int(subject.max()) + 1
    face, shape = rng.normal(size=(POINTS, 2)), 0.1 * rng.normal(size=(people, POINTS, 2))
    identity = rng.normal(size=(people, DIM))
    return FeatureTable(
        embeddings=(identity[subject] + 0.5 * rng.normal(size=(rows, DIM))).astype(np.float32),
        label=rng.integers(2, size=rows).astype(np.int16),
        subject=subject,
        video=np.zeros(rows, np.int32),
        frame=np.arange(rows, dtype=np.int32),
        subjects=tuple(f"s{code:04d}" for code in range(people)),
        videos=("v",),
        classes=("neutral", "pain"),
        neutral="neutral",
        landmarks=(100 * (face + shape[subject] + 0.03 * rng.normal(size=(rows, POINTS, 2)))).astype(np.float32),
    )


def scipy_loop(face: NDArray[np.float32], others: NDArray[np.float32]) -> int:
    """Return whose shape is nearest among the first so many."""
    return int(np.argmin([scipy.spatial.procrustes(face, other)[2] for other in others[:PROCRUSTES]]))


def blocked_product(shapes: Shapes, skip: NDArray[np.intp], width: int = 256) -> NDArray[np.intp]:
    """Return the nearest shape of another subject by complex products with all of them, float32."""
    small = shapes[:].astype(np.complex64)
    found = []
    for start in range(0, len(skip), width):
        block = small[start : min(start + width, len(skip))]
        scores = np.maximum(np.abs(block.conj() @ small.T), np.abs(block @ small.T))
        for row, (first, last) in enumerate(skip[start : start + width]):
            scores[row, first:last] = -np.inf
        found.append(scores.argmax(axis=1))
    return np.concatenate(found)

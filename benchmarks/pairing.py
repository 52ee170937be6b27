"""How long pairing takes, against other ways to the same pairs in the same run.

    python benchmarks/pairing.py                     # synthetic people: 3000 rows, 512 features, 68 points
    python benchmarks/pairing.py --cache cache.h5    # the rows of a cache
    python benchmarks/pairing.py --rows 10000

Times are the best of `--repeat` runs, the ratio is to the first line of each group (what featlab does), and the note
says how many of the pairs are the same. Ways that stop at float32 or at proposals need not find the nearest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.spatial
from numpy.typing import NDArray

from featlab.cache import FeatureTable, open_cache
from featlab.config.sections import PairConfig
from featlab.pairing.pairs import make_pairs
from featlab.pairing.procrustes import disparity, normalise_shapes, search_shapes
from featlab.pairing.search import search

SCIPY_ROWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="a cache with landmarks; default: synthetic people")
    parser.add_argument("--rows", type=int, default=3000, help="synthetic rows")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if options.cache:
        with open_cache(options.cache) as cache:
            table = cache.read()
    else:
        table = synthetic(options.rows)
    if table.landmarks is None:
        parser.error(f"{options.cache} holds no landmarks")
    print(f"{len(table)} rows, {len(table.subjects)} subjects, {table.dim} features, {table.landmarks.shape[1]} points")
    pairs_of(table, options.repeat)
    landmark_search(table, options.repeat)
    cosine_search(table, options.repeat)


def synthetic(rows: int, dim: int = 512, points: int = 68, frames: int = 40) -> FeatureTable:
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(-(-rows // frames)), frames)[:rows].astype(np.int32)
    people = int(subject.max()) + 1
    face, shape = rng.normal(size=(points, 2)), 0.1 * rng.normal(size=(people, points, 2))
    identity = rng.normal(size=(people, dim))
    return FeatureTable(
        embeddings=(identity[subject] + 0.5 * rng.normal(size=(rows, dim))).astype(np.float32),
        label=rng.integers(2, size=rows).astype(np.int16),
        subject=subject,
        video=np.zeros(rows, np.int32),
        frame=np.arange(rows, dtype=np.int32),
        subjects=tuple(f"s{code:04d}" for code in range(people)),
        videos=("v",),
        classes=("neutral", "pain"),
        neutral="neutral",
        landmarks=(100 * (face + shape[subject] + 0.03 * rng.normal(size=(rows, points, 2)))).astype(np.float32),
    )


def pairs_of(table: FeatureTable, repeat: int) -> None:
    lines = []
    for strategy in ("landmark", "cosine", "random"):
        for rule in ("any", "same", "different"):
            config = PairConfig(strategy, rule)
            seconds, _ = timed(partial(make_pairs, table, config, seed=0), repeat)
            lines.append((f"{strategy}, {rule} label", seconds, ""))
    report("make_pairs, one reference a row", lines)


def landmark_search(table: FeatureTable, repeat: int) -> None:
    assert table.landmarks is not None
    shapes, valid = normalise_shapes(table.landmarks)
    shapes, subject = shapes[valid], table.subject[valid]
    skip = own_rows(subject)
    seconds, (_, best, in_full) = timed(lambda: search_shapes(shapes, shapes, 1, skip=skip), repeat)
    lines = [("faiss proposes, a bound proves", seconds, f"{in_full} of {len(shapes)} rows searched in full")]

    seconds, found = timed(lambda: search_shapes(shapes, shapes, 1, skip=skip, backend="numpy"), repeat)
    lines.append(
        ("every row in full, without faiss", seconds, f"same pairs: {agree(shapes, best[:, 0], found.rows[:, 0])}")
    )

    seconds, index = timed(lambda: complex_blocks(shapes, skip), repeat)
    lines.append(
        ("complex products in blocks, float32 only", seconds, f"same pairs: {agree(shapes, best[:, 0], index)}")
    )

    points = table.landmarks[valid].astype(np.float64)
    rows = np.linspace(0, len(points) - 1, SCIPY_ROWS).astype(int)
    seconds, index = timed(lambda: scipy_loop(points, subject, rows), 1)
    note = f"same pairs: {agree(shapes[rows], best[rows, 0], index, shapes)}; from {SCIPY_ROWS} rows"
    lines.append(("a loop over scipy.spatial.procrustes", seconds * len(points) / SCIPY_ROWS, note))
    report("landmark: nearest shape of another subject", lines)


def cosine_search(table: FeatureTable, repeat: int) -> None:
    rows = table.embeddings
    skip = own_rows(table.subject)
    lines = []
    expected = None
    for k in (1, 5):
        for backend in ("faiss", "numpy"):
            seconds, (_, index, in_full) = timed(partial(search, rows, rows, k, skip=skip, backend=backend), repeat)
            expected = index[:, :1] if expected is None else expected
            lines.append(
                (
                    f"{backend}, k = {k}",
                    seconds,
                    f"same pairs: {np.array_equal(index[:, :1], expected)}; {in_full} in full",
                )
            )
    assert expected is not None
    seconds, index = timed(lambda: whole_matrix(rows, table.subject), repeat)
    note = f"same pairs: {np.mean(index == expected[:, 0]):.2%}; {4 * len(rows) ** 2 / 1e6:.0f} MB of scores"
    lines.append(("numpy, the whole symmetric matrix, float32", seconds, note))
    report("cosine: nearest embedding of another subject", lines)


def complex_blocks(shapes: NDArray[np.complex128], skip: NDArray[np.intp], width: int = 256) -> NDArray[np.intp]:
    small = shapes.astype(np.complex64)
    found = []
    for start in range(0, len(small), width):
        block = small[start : start + width]
        scores = np.maximum(np.abs(block.conj() @ small.T), np.abs(block @ small.T))
        for row, (first, last) in enumerate(skip[start : start + width]):
            scores[row, first:last] = -np.inf
        found.append(scores.argmax(axis=1))
    return np.concatenate(found)


def scipy_loop(points: NDArray[np.float64], subject: NDArray[np.int32], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    found = []
    for row in rows:
        others = np.flatnonzero(subject != subject[row])
        costs = [scipy.spatial.procrustes(points[row], points[other])[2] for other in others]
        found.append(others[int(np.argmin(costs))])
    return np.array(found)


def whole_matrix(rows: NDArray[np.float32], subject: NDArray[np.int32]) -> NDArray[np.intp]:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = unit @ unit.T
    scores[subject[:, None] == subject] = -np.inf
    return np.asarray(scores.argmax(axis=1))


def own_rows(subject: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.stack([np.searchsorted(subject, subject, side) for side in ("left", "right")], axis=1)


def agree(
    queries: NDArray[np.complex128],
    expected: NDArray[np.intp],
    found: NDArray[np.intp],
    base: NDArray[np.complex128] | None = None,
) -> str:
    base = queries if base is None else base
    worse = disparity(queries, base[found]) - disparity(queries, base[expected])
    return f"{np.mean(found == expected):.2%} (worst by {worse.max():.0e})"


def timed(run: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def report(title: str, lines: list[tuple[str, float, str]]) -> None:
    print(f"\n{title}")
    for name, seconds, note in lines:
        print(f"  {name:<52} {seconds:10.3f} s  {seconds / lines[0][1]:8.1f} x  {note}")


if __name__ == "__main__":
    main()

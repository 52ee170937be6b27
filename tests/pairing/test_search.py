import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featlab
import featlab.pairing.nearest as nearest_module
from featlab.errors import ConfigError, InputError
from featlab.pairing.search import search

BACKENDS = ("faiss", "numpy")


def brute_force(queries, base, k, metric, skip=None):
    """Each query by itself in float64; equal scores (to twelve digits) by the lower index."""
    scores, index = np.full((len(queries), k), np.nan), np.full((len(queries), k), -1)
    for row, query in enumerate(queries.astype(np.float64)):
        if metric == "l2":
            cost = np.array([np.linalg.norm(query - other) for other in base.astype(np.float64)])
        else:
            norms = np.linalg.norm(query) * np.linalg.norm(base.astype(np.float64), axis=1)
            cost = -np.divide(base.astype(np.float64) @ query, norms, out=np.zeros(len(base)), where=norms > 0)
        allowed = np.ones(len(base), bool)
        if skip is not None:
            allowed[skip[row, 0] : skip[row, 1]] = False
        order = [i for i in np.lexsort((np.arange(len(base)), np.round(cost, 12))) if allowed[i]][:k]
        index[row, : len(order)] = order
        scores[row, : len(order)] = cost[order] if metric == "l2" else -cost[order]
    return scores, index


def clusters(rng, n, dim, groups=6, spread=1e-3):
    centres = rng.normal(size=(groups, dim))
    return (centres[rng.integers(groups, size=n)] + spread * rng.normal(size=(n, dim))).astype(np.float32)


def compare(found, expected, atol=1e-9):
    scores, index = found[:2]
    np.testing.assert_array_equal(index, expected[1])
    np.testing.assert_allclose(scores[index >= 0], expected[0][index >= 0], atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("k", [1, 7, 90])
@pytest.mark.parametrize("data", ["spread", "clustered"])
def test_neighbours_equal_brute_force(backend, metric, k, data):
    rng = np.random.default_rng(k)
    rows = rng.normal(size=(150, 40)).astype(np.float32) if data == "spread" else clusters(rng, 150, 40)
    queries, base = rows[:60], rows[60:]
    compare(search(queries, base, k, backend=backend, metric=metric), brute_force(queries, base, k, metric))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_equal_rows_come_in_index_order_also_in_bounded_memory(backend, metric, monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(5, 16)).astype(np.float32)[rng.integers(5, size=300)]
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    compare(search(queries, base, 12, backend=backend, metric=metric), brute_force(queries, base, 12, metric))
    monkeypatch.setattr(nearest_module, "_BYTES", 2_000)
    ones = np.ones((90, 3), dtype=np.float32)
    index = search(ones, ones, 4, backend=backend, metric=metric).rows
    np.testing.assert_array_equal(index, np.tile(np.arange(4), (90, 1)))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_both_backends_agree_to_the_last_bit_whatever_the_tile(metric, monkeypatch):
    rng = np.random.default_rng(1)
    base = np.concatenate([clusters(rng, 700, 33, spread=1e-5), rng.normal(size=(700, 33)).astype(np.float32)])
    queries = base[rng.permutation(len(base))[:500]]
    expected = search(queries, base, 5, backend="faiss", metric=metric)
    for backend, tile in (("numpy", 64 << 20), ("numpy", 70_000), ("faiss", 70_000)):
        monkeypatch.setattr(nearest_module, "_BYTES", tile)
        scores, index, *_ = search(queries, base, 5, metric=metric, backend=backend)
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(scores, expected[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_skipped_rows_are_never_found(backend, order, monkeypatch):
    monkeypatch.setattr(nearest_module, "_BLOCK_ROWS", 32)
    rng = np.random.default_rng(2)
    group = np.sort(rng.integers(8, size=200))
    base = clusters(rng, 200, 12)
    queries = np.arange(200) if order == "sorted" else rng.permutation(200)
    skip = np.stack([np.searchsorted(group, group[queries], side) for side in ("left", "right")], axis=1)
    found = search(base[queries], base, 3, backend=backend, skip=skip)
    compare(found, brute_force(base[queries], base, 3, "cosine", skip))
    assert (group[found[1]] != group[queries][:, None]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_places_without_a_neighbour_stay_empty(backend):
    base = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    skip = np.array([[0, 5], [1, 5], [0, 0]])
    scores, index, *_ = search(base[:3], base, 2, backend=backend, skip=skip)
    assert index[0].tolist() == [-1, -1]
    assert index[1].tolist() == [0, -1]
    assert (index[2] >= 0).all()
    assert np.isneginf(scores[index < 0]).all()
    distances, *_ = search(base[:3], base, 2, backend=backend, metric="l2", skip=skip)
    assert np.isposinf(distances[index < 0]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_without_direction_has_similarity_zero(backend):
    base = np.array([[-1.0, 0.0], [0.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    scores, index, *_ = search(np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32), base, 3, backend=backend)
    assert index.tolist() == [[1, 2, 0], [0, 1, 2]]
    np.testing.assert_allclose(scores, [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])


def test_similarity_is_of_the_vectors_given_not_of_rounded_unit_vectors():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(1, 64)) + 3e-4 * rng.normal(size=(200, 64))
    base = (base * rng.uniform(0.1, 10, size=(200, 1))).astype(np.float32)
    compare(search(base[:50], base, 4), brute_force(base[:50], base, 4, "cosine"), atol=1e-12)


def test_bad_input_is_refused(refused):
    good = np.ones((5, 2), dtype=np.float32)
    bad = good.copy()
    bad[3, 1] = np.nan
    for kind, words, given, options in (
        (InputError, "can't find 0 neighbours a row among 5 rows; ask for 1 to 5", (good, good, 0), {}),
        (InputError, "can't find 6 neighbours a row among 5 rows; ask for 1 to 5", (good, good, 6), {}),
        (InputError, "finite", (good, bad, 1), {}),
        (InputError, "one D, not (5, 2) and (5, 1)", (good, good[:, :1], 1), {}),
        (ConfigError, "did you mean 'cosine'", (good, good, 1), {"metric": "cosin"}),
        (ConfigError, "unknown backend 'gpu'", (good, good, 1), {"backend": "gpu"}),
    ):
        with refused(kind, words):
            search(*given, **options)


def test_without_faiss_auto_uses_numpy_and_faiss_by_name_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = np.random.default_rng(5).normal(size=(30, 8)).astype(np.float32)
    compare(search(rows, rows, 2), brute_force(rows, rows, 2, "cosine"))
    with pytest.raises(ConfigError, match="install faiss-cpu or use backend 'numpy'"):
        search(rows, rows, 2, backend="faiss")


def test_the_environment_switches_faiss_off():
    code = (
        "import sys, numpy as np; from featlab.pairing.search import search; rows = np.eye(4, dtype=np.float32);"
        "assert 'faiss' not in sys.modules; search(rows, rows, 1); print('faiss' in sys.modules)"
    )
    for value, expected in (("1", "False"), ("0", "True")):
        environment = {**os.environ, "FEATLAB_NO_FAISS": value}
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert result.stdout.strip() == expected, result.stderr


def test_a_search_leaves_the_threads_of_torch_as_they_were():
    import torch

    rows = np.eye(4, dtype=np.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        search(rows, rows, 1, backend="faiss")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_only_this_module_imports_faiss():
    importers = []
    for path in Path(featlab.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text if "faiss" in text else "")):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "faiss" for name in names):
                importers.append(path.name)
    assert importers == ["nearest.py"]

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featlab
import featlab.pairing.nearest as nearest_module
from featlab.errors import InputError
from featlab.pairing.search import search


@pytest.fixture(params=["faiss", "numpy"])
def _backend(request, monkeypatch):
    monkeypatch.setenv("FEATLAB_NO_FAISS", str(int(request.param == "numpy")))


pytestmark = pytest.mark.usefixtures("_backend")


def brute_force(queries, base, k, skip=None):
    """Each query by itself in float64; equal scores (to twelve digits) by the lower index."""
    scores, index = np.full((len(queries), k), -np.inf), np.full((len(queries), k), -1)
    base = base.astype(np.float64)
    for row, query in enumerate(queries.astype(np.float64)):
        norms = np.linalg.norm(query) * np.linalg.norm(base, axis=1)
        similarity = np.divide(base @ query, norms, out=np.zeros(len(base)), where=norms > 0)
        order = np.lexsort((np.arange(len(base)), -np.round(similarity, 12)))
        if skip is not None:
            order = order[(order < skip[row, 0]) | (order >= skip[row, 1])]
        index[row, : len(order)] = order[:k]
        scores[row, : len(order)] = similarity[order[:k]]
    return scores, index


def clusters(rng, n, dim, spread=1e-3):
    centres = rng.normal(size=(6, dim))
    return (centres[rng.integers(6, size=n)] + spread * rng.normal(size=(n, dim))).astype(np.float32)


def compare(found, expected, atol=1e-9):
    scores, index = found[:2]
    np.testing.assert_array_equal(index, expected[1])
    np.testing.assert_allclose(scores, expected[0], atol=atol)


def test_neighbours_equal_brute_force():
    rng = np.random.default_rng(1)
    for rows in (rng.normal(size=(150, 40)).astype(np.float32), clusters(rng, 150, 40)):
        queries, base = rows[:60], rows[60:]
        for k in (1, 7, 90):
            compare(search(queries, base, k), brute_force(queries, base, k))


def test_equal_rows_come_in_index_order_also_in_bounded_memory(monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(5, 16)).astype(np.float32)[rng.integers(5, size=300)]
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    compare(search(queries, base, 12), brute_force(queries, base, 12))
    monkeypatch.setattr(nearest_module, "_BYTES", 2_000)
    ones = np.ones((90, 3), dtype=np.float32)
    np.testing.assert_array_equal(search(ones, ones, 4).rows, np.tile(np.arange(4), (90, 1)))


def test_both_backends_agree_to_the_last_bit_whatever_the_tile(monkeypatch):
    rng = np.random.default_rng(1)
    base = np.concatenate([clusters(rng, 700, 33, spread=1e-5), rng.normal(size=(700, 33)).astype(np.float32)])
    queries = base[rng.permutation(len(base))[:500]]
    found = [search(queries, base, 5)]
    monkeypatch.setattr(nearest_module, "_BYTES", 70_000)
    for switch in ("0", "1"):
        monkeypatch.setenv("FEATLAB_NO_FAISS", switch)
        found.append(search(queries, base, 5))
    for scores, index, *_ in found[1:]:
        np.testing.assert_array_equal(index, found[0].rows)
        np.testing.assert_array_equal(scores, found[0].score)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_skipped_rows_are_never_found(order, monkeypatch):
    monkeypatch.setattr(nearest_module, "_BLOCK_ROWS", 32)
    rng = np.random.default_rng(2)
    group = np.sort(rng.integers(8, size=200))
    base = clusters(rng, 200, 12)
    queries = np.arange(200) if order == "sorted" else rng.permutation(200)
    skip = np.stack([np.searchsorted(group, group[queries], side) for side in ("left", "right")], axis=1)
    found = search(base[queries], base, 3, skip=skip)
    compare(found, brute_force(base[queries], base, 3, skip))
    assert (group[found.rows] != group[queries][:, None]).all()
    # Places without a neighbour stay empty.
    few, skip = base[:5], np.array([[0, 5], [1, 5], [0, 0]])
    found = search(few[:3], few, 2, skip=skip)
    compare(found, brute_force(few[:3], few, 2, skip))
    assert (found.rows < 0).sum() == 3


def test_a_vector_without_direction_has_similarity_zero():
    base = np.array([[-1.0, 0.0], [0.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    scores, index, *_ = search(np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32), base, 3)
    assert index.tolist() == [[1, 2, 0], [0, 1, 2]]
    np.testing.assert_allclose(scores, [[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])


def test_similarity_is_of_the_vectors_given_not_of_rounded_unit_vectors():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(1, 64)) + 3e-4 * rng.normal(size=(200, 64))
    base = (base * rng.uniform(0.1, 10, size=(200, 1))).astype(np.float32)
    compare(search(base[:50], base, 4), brute_force(base[:50], base, 4), atol=1e-12)


def test_bad_input_is_refused(refused):
    good = np.ones((5, 2), dtype=np.float32)
    bad = good.copy()
    bad[3, 1] = np.nan
    for words, *given in (
        ("can't find 0 neighbours a row among 5 rows; ask for 1 to 5", good, good, 0),
        ("can't find 6 neighbours a row among 5 rows; ask for 1 to 5", good, good, 6),
        ("finite", good, bad, 1),
        ("one D, not (5, 2) and (5, 1)", good, good[:, :1], 1),
    ):
        with refused(InputError, words):
            search(*given)


def test_without_faiss_numpy_takes_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = np.random.default_rng(5).normal(size=(30, 8)).astype(np.float32)
    found = search(rows, rows, 2)
    compare(found, brute_force(rows, rows, 2))
    assert found.searched_in_full == 30


def test_the_environment_switches_faiss_off_and_the_threads_of_torch_stay():
    code = (
        "import sys, numpy as np, torch; from featlab.pairing.search import search; rows = np.eye(4, dtype=np.float32);"
        "torch.set_num_threads(2); assert 'faiss' not in sys.modules; search(rows, rows, 1);"
        "print('faiss' in sys.modules, torch.get_num_threads())"
    )
    result = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True)
    assert result.stdout.split() == [str(os.environ["FEATLAB_NO_FAISS"] == "0"), "2"], result.stderr


def test_only_this_module_imports_faiss():
    files = Path(featlab.__file__).parent.rglob("*.py")
    found = [
        path.name for path in files if re.search(r"^\s*(import|from) faiss\b", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert found == ["nearest.py"]

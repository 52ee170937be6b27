import numpy as np
import pytest
import scipy.spatial

import featlab.pairing.nearest as nearest_module
from featlab.errors import InputError
from featlab.pairing.procrustes import Shapes, _lifted, disparity, search_shapes


def faces(rng, n, points=68, spread=0.05):
    """Shapes about one template, turned, scaled and moved as faces in images are; a third of them mirrored."""
    template = rng.normal(size=(points, 2))
    shapes = template + spread * rng.normal(size=(n, points, 2))
    shapes[::3, :, 0] *= -1
    angle = rng.uniform(-np.pi, np.pi, size=n)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(n, 2, 2)
    moved = np.einsum("npc,ncd->npd", shapes, turn) * rng.uniform(20, 200, size=(n, 1, 1))
    return (moved + rng.uniform(100, 900, size=(n, 1, 2))).astype(np.float32)


def by_closed_form(queries, base):
    """All disparities at once from SVDs, for searches too large for a loop over scipy's function."""

    def unit(shapes):
        centred = shapes.astype(np.float64) - shapes.mean(axis=1, keepdims=True, dtype=np.float64)
        return centred / np.linalg.norm(centred, axis=(1, 2), keepdims=True)

    products = np.einsum("npc,mpd->nmcd", unit(queries), unit(base))
    return 1.0 - np.linalg.svd(products, compute_uv=False).sum(axis=-1) ** 2


@pytest.mark.parametrize("points", [3, 5, 68])
def test_disparity_equals_scipys(points):
    landmarks = faces(np.random.default_rng(points), 12, points, spread=0.5)
    shapes = Shapes.of(landmarks)[:]
    for i in range(12):
        for j in range(12):
            expected = scipy.spatial.procrustes(landmarks[i], landmarks[j])[2]
            assert disparity(shapes[i], shapes[j]) == pytest.approx(expected, abs=1e-12)


def test_normalised_shapes_are_centred_and_of_unit_norm_and_those_without_a_face_or_extent_invalid():
    landmarks = faces(np.random.default_rng(2), 6)
    landmarks[1], landmarks[2, 5, 1], landmarks[3], landmarks[4, 0, 0] = np.nan, np.nan, [312.7, 90.1], np.inf
    made = Shapes.of(landmarks)
    shapes, valid = made[:], made.valid
    assert valid.tolist() == [True, False, False, False, False, True]
    assert not shapes[~valid].any()
    np.testing.assert_allclose(shapes[valid].mean(axis=1), 0.0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(shapes[valid], axis=1), 1.0)


def test_other_arrays_than_points_in_the_plane_are_refused(refused):
    landmarks = faces(np.random.default_rng(0), 4)
    shapes = Shapes.of(landmarks)
    for call, words in (
        (lambda: Shapes.of(np.zeros((4, 68, 3))), "rows, points, 2"),
        (lambda: search_shapes(shapes, Shapes.of(landmarks[:, :5]), 1), "as many points"),
        (lambda: search_shapes(shapes, shapes, 5), "5 neighbours a row among 4 rows"),
    ):
        with refused(InputError, words):
            call()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("spread", [0.5, 0.02, 1e-4])
def test_the_search_equals_all_disparities_sorted(k, spread):
    rng = np.random.default_rng(3)
    landmarks = faces(rng, 420, spread=spread)
    all_disparities = by_closed_form(landmarks[:120], landmarks[120:])
    found, index, *_ = search_shapes(Shapes.of(landmarks[:120]), Shapes.of(landmarks[120:]), k)
    expected = np.argsort(all_disparities, axis=1)[:, :k]
    np.testing.assert_allclose(found, np.take_along_axis(all_disparities, expected, axis=1), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(index, expected)


def test_with_and_without_faiss_whatever_the_tile_the_neighbours_are_the_same(monkeypatch):
    shapes = Shapes.of(faces(np.random.default_rng(4), 200))
    whole = search_shapes(shapes, shapes, 3)
    monkeypatch.setenv("FEATLAB_NO_FAISS", "1")
    in_full = search_shapes(shapes, shapes, 3)
    monkeypatch.delenv("FEATLAB_NO_FAISS")
    assert in_full.searched_in_full == len(shapes.valid)
    monkeypatch.setattr(nearest_module, "_BYTES", 10_000)
    for found in (in_full, search_shapes(shapes, shapes, 3)):
        np.testing.assert_array_equal(whole.rows, found.rows)
        np.testing.assert_array_equal(whole.score, found.score)


def test_the_choice_among_upright_faces_is_proven_and_a_bound_is_never_below_the_score():
    rng = np.random.default_rng(5)
    landmarks = rng.normal(size=(68, 2)) + 0.05 * rng.normal(size=(600, 68, 2))
    made = Shapes.of(landmarks)
    found = search_shapes(made, made, 1, skip=np.stack([np.arange(600), np.arange(600) + 1], axis=1))
    assert found.searched_in_full < 60
    shapes = made[:]
    both = np.concatenate([shapes, shapes.conj()])
    mean = shapes[0]
    left, right = _lifted(shapes[:50], mean), _lifted(both, mean)
    rotation = np.abs(shapes[:50].conj() @ both.T) ** 2
    assert (left @ right.T >= rotation - 1e-5).all()

"""Clusters, their labels and purities, and which rows are kept."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from featlab.errors import ConfigError
from featlab.methods.losses.pseudo_labels import cluster_rows, label_clusters, purest_rows


def rng(seed=0):
    return np.random.default_rng(seed)


# --- labels and purity ------------------------------------------------------------------------------------------------


def test_majorities_and_purities_of_three_clusters():
    cluster = np.repeat([0, 1, 2], [5, 4, 3])
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 2, 2, 0])
    found = label_clusters(cluster, predicted, clusters=4, classes=3)
    assert found.label.tolist() == [0, 1, 2, -1]
    np.testing.assert_allclose(found.purity[:3], [0.8, 0.75, 2 / 3])
    assert np.isnan(found.purity[3])


def test_labels_and_purities_equal_a_loop_over_clusters():
    cluster, predicted = rng().integers(0, 30, size=400), rng(1).integers(0, 7, size=400)
    cluster[cluster == 11] = 12
    found = label_clusters(cluster, predicted, clusters=30, classes=7)
    for number in range(30):
        mine = predicted[cluster == number]
        if not len(mine):
            assert (number, found.label[number]) == (11, -1)
            continue
        values, counts = np.unique(mine, return_counts=True)
        assert found.label[number] == values[counts.argmax()]
        assert found.purity[number] == pytest.approx(counts.max() / len(mine))
    known = found.label >= 0
    assert ((found.purity[known] >= 1 / 7) & (found.purity[known] <= 1)).all()


def test_of_equally_frequent_classes_the_first_names_the_cluster():
    found = label_clusters(np.zeros(4, dtype=np.int64), np.array([2, 1, 2, 1]), clusters=4, classes=3)
    assert (found.label[0], found.purity[0]) == (1, 0.5)


def test_predictions_of_one_class_make_every_cluster_pure():
    cluster = rng().integers(0, 8, size=50)
    found = label_clusters(cluster, np.full(50, 3), clusters=8, classes=7)
    assert (found.label[cluster] == 3).all()
    assert (found.purity[cluster] == 1).all()


@pytest.mark.parametrize("clusters", [2, 3])
def test_no_more_clusters_than_classes_are_refused(clusters, refused):
    with refused(ConfigError, f"{clusters} clusters", "3 classes", "prototypes"):
        label_clusters(np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64), clusters=clusters, classes=3)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "share", "kept"), [(9, 0.1, 0), (10, 0.1, 1), (100, 0.29, 28), (4, 1.0, 4), (4, 0.0, 0)]
)
def test_the_number_of_kept_rows_is_rounded_down_as_the_published_code_does(rows, share, kept):
    assert int(share * rows) == kept
    assert len(purest_rows(np.zeros(rows, dtype=np.int64), rng().random(rows), share)) == kept


def test_the_share_is_taken_class_by_class_and_a_small_class_vanishes():
    label = np.repeat([0, 2], [20, 9])
    kept = purest_rows(label, rng().random(29), 0.1)
    assert label[kept].tolist() == [0, 0]


def test_kept_rows_equal_a_stable_sort_of_each_class():
    label = rng().integers(0, 5, size=200)
    confidence = rng(1).integers(1, 6, size=200) / 5
    expected = []
    for code in range(5):
        mine = np.flatnonzero(label == code)
        order = sorted(mine, key=lambda row: (-confidence[row], row))
        expected += order[: int(0.3 * len(mine))]
    assert purest_rows(label, confidence, 0.3).tolist() == sorted(expected)


def test_of_equally_pure_rows_the_first_are_kept():
    assert purest_rows(np.full(10, 4), np.ones(10), 0.3).tolist() == [0, 1, 2]


def test_nothing_is_kept_of_no_rows():
    assert len(purest_rows(np.zeros(0, dtype=np.int64), np.zeros(0), 0.5)) == 0


# --- k-means ----------------------------------------------------------------------------------------------------------


def blobs(clusters=5, rows=8, dim=12):
    centre = 5 * rng().normal(size=(clusters, dim))
    truth = np.repeat(np.arange(clusters), rows)
    return (centre[truth] + 0.05 * rng(1).normal(size=(len(truth), dim))).astype(np.float32), truth


def test_rows_of_one_direction_are_one_cluster_whatever_their_length():
    codes, truth = blobs()
    assert adjusted_rand_score(truth, cluster_rows(codes, 5, seed=0)) == 1
    # The appended one tells only short rows from long ones: among long rows length is nothing.
    long = 1e4 * codes * (1 + np.arange(len(codes)) % 3)[:, None].astype(np.float32)
    assert adjusted_rand_score(truth, cluster_rows(long, 5, seed=0)) == 1


def test_the_appended_one_tells_a_short_row_from_a_long_one_of_the_same_direction():
    codes = np.array([[0.01, 0], [0.02, 0], [9, 0], [8, 0]], dtype=np.float32)
    assert adjusted_rand_score([0, 0, 1, 1], cluster_rows(codes, 2, seed=0)) == 1


def test_the_same_seed_gives_the_same_clusters_and_moves_no_global_generator():
    codes = rng().normal(size=(600, 20)).astype(np.float32)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (cluster_rows(codes, 50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("kind", ["constant", "zero", "two"])
def test_fewer_different_rows_than_clusters_leave_clusters_empty_without_a_warning(kind):
    codes = np.ones((12, 4), dtype=np.float32)
    if kind == "zero":
        codes[:] = 0
    if kind == "two":
        codes[6:] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster = cluster_rows(codes, 5, seed=0)
    assert len(np.unique(cluster)) == (2 if kind == "two" else 1)
    found = label_clusters(cluster, np.zeros(12, dtype=np.int64), clusters=5, classes=3)
    assert (found.label[cluster] == 0).all()
    assert (found.label == -1).sum() == (3 if kind == "two" else 4)

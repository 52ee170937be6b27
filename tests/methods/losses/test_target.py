"""What target rows ask of a model: entropies, information, agreement, SHOT's labels, CluP's clusters and kept rows."""

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from featlab.errors import ConfigError
from featlab.methods.losses.target import (
    EPSILON,
    centre_labels,
    class_centres,
    cluster_rows,
    entropies,
    information_loss,
    label_clusters,
    marginal_entropy,
    mean_entropy,
    neighbour_agreement,
    purest_rows,
    unit_codes,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def softmax(logits):
    return torch.softmax(tensor(logits), dim=1)


def probabilities(rows, classes, seed=0):
    return softmax(2 * rng(seed).normal(size=(rows, classes)))


def one_hot(*classes, count):
    return torch.eye(count)[list(classes)]


def test_entropies_equal_scipys():
    p = probabilities(9, 5)
    np.testing.assert_allclose(entropies(p), scipy_entropy(p.numpy(), axis=1), atol=5 * EPSILON)
    np.testing.assert_allclose(mean_entropy(p), scipy_entropy(p.numpy(), axis=1).mean(), atol=5 * EPSILON)
    np.testing.assert_allclose(marginal_entropy(p), scipy_entropy(p.numpy().mean(axis=0)), atol=5 * EPSILON)


def test_information_is_least_when_predictions_are_sure_and_balanced():
    balanced, one_class = one_hot(0, 1, 2, 3, count=4), one_hot(2, 2, 2, count=4)
    pair = tensor([[0.9, 0.1], [0.8, 0.2]])
    for p, expected in ((torch.full((5, 4), 0.25), 0), (one_class, 0), (balanced, -1.38626), (pair, -0.009966)):
        assert float(mean_entropy(p) - marginal_entropy(p)) == pytest.approx(expected, abs=5e-6)


def test_information_loss_of_certain_predictions_is_scikit_learns_and_that_of_small_cases_known():
    balanced, uniform, smooth = one_hot(0, 1, 2, 3, count=4), torch.full((5, 4), 0.25), softmax([[5.0, 0, 0, 0]] * 6)
    p = tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]])
    for first, second, expected, atol in (
        (balanced, balanced, -1.386294, 1e-6),
        (uniform, uniform, 0, 1e-6),
        (smooth, smooth, 0, 1e-6),
        (one_hot(0, 1, count=2), one_hot(0, 0, count=2), -0.084950, 1e-6),
        (p[:2], p[:2], -0.00018768, 1e-7),
    ):
        assert float(information_loss(first, second)) == pytest.approx(expected, abs=atol)
    assert float(information_loss(p, p)) < float(information_loss(p, p.flip(0)[[2, 0, 4, 1, 3]]))
    first, second = rng(1).integers(0, 4, size=(2, 60))
    # Of both orders, because the joint distribution is made symmetric.
    expected = mutual_info_score(np.concatenate([first, second]), np.concatenate([second, first]))
    loss = information_loss(one_hot(*first, count=4), one_hot(*second, count=4))
    assert float(loss) == pytest.approx(-expected, abs=1e-5)


def test_agreement_is_the_weighted_overlap_and_no_gradient_reaches_the_neighbours_predictions():
    p, scores = probabilities(4, 3).requires_grad_(), probabilities(8, 3, seed=1).view(4, 2, 3).requires_grad_()
    affinity = tensor([[1, 0.1], [0.1, 1], [1, 1], [0.1, 0.1]])
    overlap = np.einsum("nk,nmk,nm->", p.detach().numpy(), scores.detach().numpy(), affinity.numpy())
    assert neighbour_agreement(p, scores, affinity).item() == pytest.approx(-overlap / 4, rel=1e-5)
    neighbour_agreement(p, scores, 1.0).backward()
    assert scores.grad is None
    torch.testing.assert_close(p.grad, -scores.detach().sum(dim=1) / 4)


Z = torch.tensor([[1, 0], [0.9, 0.1], [0.2, 1], [0, 1]])
LOGITS = [[2, 0], [1, 0], [0.5, 0], [0, 2]]


def test_only_classes_that_enough_rows_are_predicted_as_are_assigned():
    for logits in (LOGITS, [[*row, -9] for row in LOGITS]):
        assert centre_labels(Z, softmax(logits))[0].tolist() == [0, 0, 1, 1]
    first = [[0.508892, 0.244012, 0.715870], [0.192272, 0.550923, 0.711086]]
    second = [[0.687116, 0.037062, 0.724178], [0.070014, 0.703623, 0.703623]]
    for weight, centres in ((softmax(LOGITS), first), (one_hot(0, 0, 1, 1, count=2), second)):
        np.testing.assert_allclose(class_centres(unit_codes(Z), weight), centres, atol=1e-6)
    assert centre_labels(Z, softmax([[0, 3, 1]] * 4))[0].tolist() == [1, 1, 1, 1]
    z, p = tensor([[1, 0]] * 3 + [[0, 1]] * 2), tensor([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2)
    assert centre_labels(z, p, threshold=1)[0].tolist() == [0, 0, 0, 1, 1]
    assert centre_labels(z, p, threshold=2)[0].tolist() == [0, 0, 0, 0, 0]
    # Where no class has so many rows, there is no label but by the classes that there are.
    assert centre_labels(z, p, threshold=3)[0].tolist() == [0, 0, 0, 1, 1]


def test_labels_and_distances_equal_scipys():
    z, p = tensor(rng().normal(size=(50, 6))), probabilities(50, 4, seed=1)
    codes = np.concatenate([z.double().numpy(), np.ones((50, 1))], axis=1)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_codes(z), codes, atol=1e-6)
    weight = p.double().numpy()
    for rounds in (1, 2):
        centres = weight.T @ codes / (1e-8 + weight.sum(axis=0)[:, None])
        distance = cdist(codes, centres, "cosine")
        labels, found = centre_labels(z, p, rounds=rounds)
        assert np.array_equal(labels, distance.argmin(axis=1))
        np.testing.assert_allclose(found, distance.min(axis=1), atol=1e-6)
        weight = np.eye(4)[distance.argmin(axis=1)]


def test_a_class_that_loses_its_rows_in_the_first_round_gets_none_in_the_second():
    """Its centre is zero then, and has no direction."""
    z = tensor([[5, 0], [5, 0], [0, 5], [0, 5], [5, 0]])
    p = tensor([[0.69, 0.01, 0.3]] * 2 + [[0.01, 0.69, 0.3]] * 2 + [[0.3, 0.3, 0.4]])
    assert p.argmax(dim=1).tolist() == [0, 0, 1, 1, 2]
    assert centre_labels(z, p, rounds=1)[0].tolist() == [0, 0, 1, 1, 0]
    labels, distance = centre_labels(z, p)
    assert labels.tolist() == [0, 0, 1, 1, 0]
    assert torch.isfinite(distance).all()
    assert class_centres(unit_codes(Z), tensor([[1, 0]] * 4))[1].tolist() == [0, 0, 0]


def test_labels_and_purities_equal_a_loop_over_clusters():
    cluster, predicted = np.repeat([0, 1, 2], [5, 4, 3]), np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 2, 2, 0])
    label, purity = label_clusters(cluster, predicted, clusters=4, classes=3)
    assert (label.tolist(), purity[:3].round(4).tolist()) == ([0, 1, 2, -1], [0.8, 0.75, 0.6667])
    cluster, predicted = rng().integers(0, 30, size=400), rng(1).integers(0, 7, size=400)
    cluster[cluster == 11] = 12
    # Of equally frequent classes the first names the cluster.
    label, purity = label_clusters(cluster, predicted, clusters=30, classes=7)
    for number in range(30):
        mine = predicted[cluster == number]
        if not len(mine):
            assert (number, label[number]) == (11, -1)
            continue
        values, counts = np.unique(mine, return_counts=True)
        assert label[number] == values[counts.argmax()]
        assert purity[number] == pytest.approx(counts.max() / len(mine))


def test_no_more_clusters_than_classes_are_refused(refused):
    for clusters in (2, 3):
        with refused(ConfigError, f"{clusters} clusters", "3 classes", "prototypes"):
            label_clusters(np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64), clusters=clusters, classes=3)


def test_kept_rows_equal_a_stable_sort_of_each_class_rounded_down():
    for rows, fraction, kept in ((9, 0.1, 0), (10, 0.1, 1), (100, 0.29, 28), (4, 1.0, 4), (4, 0.0, 0), (0, 0.5, 0)):
        assert len(purest_rows(np.zeros(rows, dtype=np.int64), rng().random(rows), fraction)) == kept
    label = np.repeat([0, 2], [20, 9])
    assert label[purest_rows(label, rng().random(29), 0.1)].tolist() == [0, 0]
    label = rng().integers(0, 5, size=200)
    confidence = rng(1).integers(1, 6, size=200) / 5
    expected = []
    for code in range(5):
        mine = np.flatnonzero(label == code)
        order = sorted(mine, key=lambda row: (-confidence[row], row))
        expected += order[: int(0.3 * len(mine))]
    assert purest_rows(label, confidence, 0.3).tolist() == sorted(expected)


def test_rows_of_one_direction_are_one_cluster_whatever_their_length():
    truth = np.repeat(np.arange(5), 8)
    codes = (5 * rng().normal(size=(5, 12))[truth] + 0.05 * rng(1).normal(size=(40, 12))).astype(np.float32)
    # The appended one tells only short rows from long ones: among long rows length is nothing.
    long = 1e4 * codes * (1 + np.arange(len(codes)) % 3)[:, None].astype(np.float32)
    for rows in (codes, long):
        assert adjusted_rand_score(truth, cluster_rows(rows, 5, seed=0)) == 1
    short = np.array([[0.01, 0], [0.02, 0], [9, 0], [8, 0]], dtype=np.float32)
    assert adjusted_rand_score([0, 0, 1, 1], cluster_rows(short, 2, seed=0)) == 1


def test_fewer_different_rows_than_clusters_leave_clusters_empty_without_a_warning():
    for first, second, different in ((1, 1, 1), (0, 0, 1), (1, -1, 2)):
        codes = np.repeat(np.array([[first] * 4, [second] * 4], dtype=np.float32), 6, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cluster = cluster_rows(codes, 5, seed=0)
        label, purity = label_clusters(cluster, np.zeros(12, dtype=np.int64), clusters=5, classes=3)
        assert (len(np.unique(cluster)), (label == -1).sum()) == (different, 5 - different)
        assert {*label[cluster], *purity[cluster]} == {0, 1}

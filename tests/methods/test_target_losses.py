"""What the source-free methods share, against numbers worked out beforehand and against NumPy, SciPy, scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import NearestNeighbors

from featlab.methods import nrc as neighbour_bank
from featlab.methods.losses.pseudo_labels import centre_labels, class_centres, unit_codes
from featlab.methods.losses.target import (
    EPSILON,
    entropies,
    information_loss,
    marginal_entropy,
    mean_entropy,
    neighbour_agreement,
)
from featlab.methods.nrc import WEAK_AFFINITY, NeighbourBank
from featlab.methods.tpds import HOPS, confident_rows, destinations, neighbour_walks


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def probabilities(rows, classes, seed=0, sharpness=2.0):
    values = sharpness * np.random.default_rng(seed).normal(size=(rows, classes))
    return torch.softmax(tensor(values), dim=1)


def one_hot(*classes, count):
    return torch.eye(count)[list(classes)]


def information_maximisation(p):
    return float(mean_entropy(p) - marginal_entropy(p))


# --- entropies --------------------------------------------------------------------------------------------------------


def test_entropies_equal_scipys():
    p = probabilities(9, 5)
    np.testing.assert_allclose(entropies(p), scipy_entropy(p.numpy(), axis=1), atol=5 * EPSILON)
    np.testing.assert_allclose(mean_entropy(p), scipy_entropy(p.numpy(), axis=1).mean(), atol=5 * EPSILON)
    np.testing.assert_allclose(marginal_entropy(p), scipy_entropy(p.numpy().mean(axis=0)), atol=5 * EPSILON)


def test_entropies_of_two_rows():
    p = tensor([[0.9, 0.1], [0.8, 0.2]])
    assert float(mean_entropy(p)) == pytest.approx(0.412723, abs=1e-6)
    assert float(marginal_entropy(p)) == pytest.approx(0.422689, abs=1e-6)
    assert information_maximisation(p) == pytest.approx(-0.009966, abs=1e-6)


def test_sure_of_one_class_and_knowing_nothing_score_the_same_and_only_balance_reaches_the_minimum():
    ignorant, single = torch.full((8, 4), 0.25), one_hot(*[2] * 8, count=4)
    balanced, uneven = one_hot(0, 1, 2, 3, count=4), one_hot(0, 0, 0, 1, 2, 3, count=4)
    assert information_maximisation(ignorant) == pytest.approx(0, abs=1e-6)
    assert information_maximisation(single) == pytest.approx(0, abs=1e-6)
    assert information_maximisation(balanced) == pytest.approx(-1.38626, abs=1e-5)
    assert information_maximisation(balanced) < information_maximisation(uneven) < -0.5


def test_diversity_is_subtracted_a_more_varied_batch_scores_lower():
    """Some take the term's sign the other way round."""
    assert information_maximisation(one_hot(0, 1, count=2)) < information_maximisation(one_hot(0, 0, count=2))


# --- IIC --------------------------------------------------------------------------------------------------------------


def test_information_loss_of_balanced_uniform_and_single_class_predictions():
    balanced = one_hot(0, 1, 2, 3, count=4)
    assert float(information_loss(balanced, balanced)) == pytest.approx(-1.386294, abs=1e-6)
    uniform = torch.full((5, 4), 0.25)
    assert float(information_loss(uniform, uniform)) == pytest.approx(0, abs=1e-6)
    smooth = torch.softmax(tensor([[5.0, 0, 0, 0]] * 6), dim=1)
    assert float(information_loss(smooth, smooth)) == pytest.approx(0, abs=1e-6)


def test_information_loss_of_small_cases():
    assert float(information_loss(one_hot(0, 1, count=2), one_hot(0, 0, count=2))) == pytest.approx(-0.084950, abs=1e-6)
    p = tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]])
    first = p[:2]
    assert float(information_loss(first, first)) == pytest.approx(-0.00018768, abs=1e-7)
    assert float(information_loss(p, p)) < float(information_loss(p, p.flip(0)[[2, 0, 4, 1, 3]]))


def test_information_loss_of_certain_predictions_is_scikit_learns_mutual_information():
    random = np.random.default_rng(1)
    first, second = random.integers(0, 4, size=60), random.integers(0, 4, size=60)
    # Of both orders, because the joint distribution is made symmetric.
    expected = mutual_info_score(np.concatenate([first, second]), np.concatenate([second, first]))
    loss = information_loss(one_hot(*first, count=4), one_hot(*second, count=4))
    assert float(loss) == pytest.approx(-expected, abs=1e-5)


def test_information_loss_of_pairs_does_not_depend_on_which_is_first_or_on_the_order():
    p, q = probabilities(7, 3), probabilities(7, 3, seed=1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert float(information_loss(p, q)) == pytest.approx(float(information_loss(q, p)), abs=1e-6)
    assert float(information_loss(p, q)) == pytest.approx(float(information_loss(p[order], q[order])), abs=1e-6)


def loss_of(name, p):
    return {
        "entropy": lambda: mean_entropy(p),
        "diversity": lambda: -marginal_entropy(p),
        "information": lambda: information_loss(p, p),
        "agreement": lambda: neighbour_agreement(p, p[:, None, :], WEAK_AFFINITY),
    }[name]()


LOSSES = ("entropy", "diversity", "information", "agreement")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0, 1e6])
def test_losses_and_gradients_are_finite_when_all_rows_are_of_one_class(name, rows, scale):
    """From 200 on, the other probabilities are zero exactly."""
    logits = tensor([[0.0, scale, -scale]] * rows).requires_grad_()
    p = torch.softmax(logits, dim=1)
    assert (scale < 100) or (p.detach() == 0).any()
    loss = loss_of(name, p)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_finite_on_probabilities_of_zero_and_one(name):
    p = one_hot(1, 1, 1, count=3).requires_grad_()
    loss = loss_of(name, p)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    logits = 0.5 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed = torch.softmax(logits.flip(0), dim=1)

    def loss(values):
        p = torch.softmax(values, dim=1)
        return neighbour_agreement(p, fixed[:, None, :], 0.3) if name == "agreement" else loss_of(name, p)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_(), atol=1e-6)


# --- neighbours (NRC) -------------------------------------------------------------------------------------------------

DIRECTIONS = [[1, 0], [0.98, 0.2], [0.6, 0.8], [0, 1], [-0.1, 1]]
SCORES = [[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]]
ALL = torch.arange(5)


@pytest.fixture
def bank():
    return NeighbourBank.of(tensor(DIRECTIONS), tensor(SCORES))


def test_neighbours_and_affinities_of_five_rows(bank):
    around = bank.neighbourhood(ALL, 2, 2)
    assert around.near.tolist() == [[1, 2], [0, 2], [3, 1], [4, 2], [3, 2]]
    torch.testing.assert_close(around.affinity, tensor([[1, 0.1], [1, 1], [1, 1], [1, 1], [1, 0.1]]))
    assert around.expanded.tolist() == [[around.near[k].tolist() for k in row] for row in around.near.tolist()]


def test_the_three_terms_of_five_rows(bank):
    p, around = tensor(SCORES), bank.neighbourhood(ALL, 2, 2)
    near = neighbour_agreement(p, bank.scores[around.near], around.affinity)
    expanded = neighbour_agreement(p, bank.scores[around.expanded.flatten(1)], WEAK_AFFINITY)
    diversity = -marginal_entropy(p)
    assert float(near) == pytest.approx(-1.012, abs=1e-6)
    assert float(expanded) == pytest.approx(-0.220, abs=1e-6)
    assert float(diversity) == pytest.approx(-0.693127, abs=1e-6)
    assert float(near + expanded + diversity) == pytest.approx(-1.925127, abs=1e-6)


def test_the_gradient_is_that_of_the_official_divergence_whose_value_differs(bank):
    around = bank.neighbourhood(ALL, 2, 2)
    s = bank.scores[around.near]

    def divergence(p):
        weighted = around.affinity * (torch.special.xlogy(s, s) - p[:, None, :] * s).sum(dim=2)
        return weighted.sum(dim=1).mean()

    gradients = []
    for loss in (lambda p: neighbour_agreement(p, s, around.affinity), divergence):
        p = tensor(SCORES).requires_grad_()
        loss(p).backward()
        gradients.append(p.grad)
    torch.testing.assert_close(*gradients)
    assert float(divergence(tensor(SCORES))) == pytest.approx(-1.847340, abs=1e-6)


def test_no_gradient_reaches_the_neighbours_predictions():
    p, scores = probabilities(4, 3).requires_grad_(), probabilities(8, 3, seed=1).view(4, 2, 3).requires_grad_()
    neighbour_agreement(p, scores, 1.0).backward()
    assert scores.grad is None
    torch.testing.assert_close(p.grad, -scores.detach().sum(dim=1) / 4)


def test_a_bank_holds_no_gradient_and_what_it_was_given_stays_as_it_was():
    z, p = torch.randn(4, 3).requires_grad_(), probabilities(4, 2)
    before = p.clone()
    bank = NeighbourBank.of(z, p)
    bank.renew(torch.tensor([1, 3]), 2 * z[:2], p[:2].requires_grad_())
    assert not bank.directions.requires_grad
    assert not bank.scores.requires_grad
    assert torch.equal(p, before)
    torch.testing.assert_close(bank.directions.norm(dim=1), torch.ones(4))
    assert torch.equal(bank.scores[[1, 3]], before[:2])
    assert torch.equal(bank.scores[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("block", [1, 97, 1 << 22])
def test_neighbours_equal_scikit_learns(block, monkeypatch):
    monkeypatch.setattr(neighbour_bank, "_BLOCK", block)
    z = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    bank = NeighbourBank.of(torch.from_numpy(z), probabilities(40, 3))
    ranked = NearestNeighbors(n_neighbors=6, metric="cosine").fit(z).kneighbors(z, return_distance=False)
    rows = torch.tensor([7, 3, 39, 0])
    around = bank.neighbourhood(rows, 5, 3)
    assert np.array_equal(around.near, ranked[rows, 1:6])
    assert np.array_equal(around.expanded, ranked[around.near, 1:4])
    mutual = np.array([[row in ranked[k, 1:4] for k in near] for row, near in zip(rows, around.near, strict=True)])
    np.testing.assert_allclose(around.affinity, np.where(mutual, 1, 0.1), rtol=1e-6)
    assert 0 < mutual.sum() < mutual.size


def test_a_row_is_never_its_own_neighbour_however_many_are_equal():
    bank = NeighbourBank.of(tensor([[1.0, 2.0]] * 9 + [[0.0, 0.0]] * 3), probabilities(12, 3))
    around = bank.neighbourhood(torch.arange(12), 4, 4)
    assert not (around.near == torch.arange(12)[:, None]).any()
    assert not (around.expanded == around.near[:, :, None]).any()


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_there_are_no_more_neighbours_than_other_rows(rows):
    bank = NeighbourBank.of(torch.randn(rows, 3), probabilities(rows, 2))
    around = bank.neighbourhood(torch.arange(rows), 5, 4)
    assert around.near.shape == (rows, rows - 1)
    assert around.expanded.shape == (rows, rows - 1, min(4, rows - 1))
    assert sorted(around.near[0].tolist()) == list(range(1, rows))


# --- pseudo-labels (SHOT) ---------------------------------------------------------------------------------------------

Z = [[1, 0], [0.9, 0.1], [0.2, 1], [0, 1]]
LOGITS = [[2, 0], [1, 0], [0.5, 0], [0, 2]]


def test_pseudo_labels_of_four_rows():
    z, p = tensor(Z), torch.softmax(tensor(LOGITS), dim=1)
    assert p.argmax(dim=1).tolist() == [0, 0, 0, 1]
    first, second = centre_labels(z, p, rounds=1), centre_labels(z, p)
    assert second.labels.tolist() == [0, 0, 1, 1]
    expected = tensor([[0.508892, 0.244012, 0.715870], [0.192272, 0.550923, 0.711086]])
    torch.testing.assert_close(first.centres, expected, atol=1e-6, rtol=0)
    expected = tensor([[0.687116, 0.037062, 0.724178], [0.070014, 0.703623, 0.703623]])
    torch.testing.assert_close(second.centres, expected, atol=1e-6, rtol=0)


def test_a_class_that_is_never_predicted_is_never_assigned():
    p = torch.softmax(tensor([[*row, -9] for row in LOGITS]), dim=1)
    assert centre_labels(tensor(Z), p).labels.tolist() == [0, 0, 1, 1]


def test_one_predicted_class_is_every_rows_label():
    p = torch.softmax(tensor([[0, 3, 1]] * 4), dim=1)
    assert centre_labels(tensor(Z), p).labels.tolist() == [1, 1, 1, 1]


def test_labels_and_distances_equal_scipys():
    z, p = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), probabilities(50, 4)
    codes = np.concatenate([z.double().numpy(), np.ones((50, 1))], axis=1)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_codes(z), codes, atol=1e-6)
    weight = p.double().numpy()
    for rounds in (1, 2):
        centres = weight.T @ codes / (1e-8 + weight.sum(axis=0)[:, None])
        distance = cdist(codes, centres, "cosine")
        found = centre_labels(z, p, rounds=rounds)
        assert np.array_equal(found.labels, distance.argmin(axis=1))
        np.testing.assert_allclose(found.distance, distance.min(axis=1), atol=1e-6)
        weight = np.eye(4)[distance.argmin(axis=1)]


def test_a_class_counts_when_more_rows_than_the_threshold_are_predicted_as_it():
    z, p = tensor([[1, 0]] * 3 + [[0, 1]] * 2), tensor([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2)
    assert centre_labels(z, p, threshold=1).labels.tolist() == [0, 0, 0, 1, 1]
    assert centre_labels(z, p, threshold=2).labels.tolist() == [0, 0, 0, 0, 0]
    # Where no class has so many rows, there is no label but by the classes that there are.
    assert centre_labels(z, p, threshold=3).labels.tolist() == [0, 0, 0, 1, 1]


def test_a_class_that_loses_its_rows_in_the_first_round_gets_none_in_the_second():
    """Its centre is zero then, and has no direction."""
    z = tensor([[5, 0], [5, 0], [0, 5], [0, 5], [5, 0]])
    p = tensor([[0.69, 0.01, 0.3]] * 2 + [[0.01, 0.69, 0.3]] * 2 + [[0.3, 0.3, 0.4]])
    assert p.argmax(dim=1).tolist() == [0, 0, 1, 1, 2]
    assert centre_labels(z, p, rounds=1).labels.tolist() == [0, 0, 1, 1, 0]
    found = centre_labels(z, p)
    assert found.labels.tolist() == [0, 0, 1, 1, 0]
    assert found.centres[2].tolist() == [0, 0, 0]
    assert torch.isfinite(found.distance).all()


@pytest.mark.parametrize("z", [[[0.0, 0.0]] * 3, [[1e15, -1e15]] * 3, [[1.0, 2.0]] * 3], ids=["zero", "large", "equal"])
def test_pseudo_labels_of_degenerate_rows_are_finite(z):
    found = centre_labels(tensor(z), probabilities(3, 4))
    assert torch.isfinite(found.distance).all()
    assert torch.isfinite(found.centres).all()
    assert ((found.labels >= 0) & (found.labels < 4)).all()


def test_the_centre_of_a_class_without_weight_is_zero():
    centres = class_centres(unit_codes(tensor(Z)), tensor([[1, 0]] * 4))
    assert centres[1].tolist() == [0, 0, 0]


# --- walks (TPDS) -----------------------------------------------------------------------------------------------------


def walk_by_hand(features, start, hops):
    """One walk, by the definition."""
    similarity = features @ features.T / np.outer(*[np.linalg.norm(features, axis=1)] * 2)
    here, visited, walk = start, {start}, []
    for _ in range(hops):
        here = max((row for row in range(len(features)) if row not in visited), key=lambda row: similarity[here, row])
        visited.add(here)
        walk.append(here)
    return walk


def test_walks_equal_the_definition(monkeypatch):
    features = np.random.default_rng(0).normal(size=(30, 5))
    expected = [walk_by_hand(features, row, 12) for row in range(30)]
    assert neighbour_walks(tensor(features), 12).tolist() == expected
    monkeypatch.setattr("featlab.methods.tpds._BLOCK_BYTES", 100)
    assert neighbour_walks(tensor(features), 12).tolist() == expected


@pytest.mark.parametrize("rows", [2, 3, 20, 80])
def test_a_walk_visits_no_row_twice_and_has_no_more_hops_than_there_are_other_rows(rows):
    walks = neighbour_walks(torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)))
    assert walks.shape == (rows, min(HOPS, rows - 1))
    visited = torch.cat([torch.arange(rows)[:, None], walks], dim=1)
    assert all(len(set(row)) == visited.shape[1] for row in visited.tolist())


@pytest.mark.parametrize("features", [torch.zeros(6, 3), torch.ones(6, 3), 1e12 * torch.ones(6, 3)], ids=str)
def test_walks_over_equal_rows_go_to_the_first_that_is_left(features):
    walks = neighbour_walks(features).tolist()
    assert walks[0] == [1, 2, 3, 4, 5]
    assert walks[3] == [0, 1, 2, 4, 5]


def test_a_walk_stops_at_the_first_confident_row():
    walks = torch.tensor([[1, 2, 3], [0, 2, 3], [3, 1, 0], [2, 1, 0]])
    confident = torch.tensor([False, False, False, True])
    assert destinations(walks, confident).tolist() == [3, 3, 3, 2]
    assert destinations(walks, torch.ones(4, dtype=torch.bool)).tolist() == [1, 0, 3, 2]
    assert destinations(walks, torch.zeros(4, dtype=torch.bool)).tolist() == [1, 0, 3, 2]


def test_where_all_rows_are_confident_each_is_paired_with_its_nearest():
    features = np.random.default_rng(2).normal(size=(25, 4))
    reached = destinations(neighbour_walks(tensor(features)), torch.ones(25, dtype=torch.bool))
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(features).kneighbors(return_distance=False)[:, 0]
    assert np.array_equal(reached, nearest)


def test_a_row_is_unsure_only_when_its_entropy_is_large_and_it_is_far_from_every_centre():
    entropy = tensor([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    distance = tensor([9, 1, 8, 2, 3, 4, 5, 6, 7, 0])
    # Large: rows 0 to 4. Far: all but the six nearest, 9, 1, 3, 4, 5, 6.
    assert confident_rows(entropy, distance).tolist() == [False, True, False] + [True] * 7


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 100])
def test_equal_rows_are_all_confident(rows):
    """Of equals the first are uncertain, and the first are near; there are more of these."""
    assert confident_rows(torch.zeros(rows), torch.zeros(rows)).all()


def test_shares_are_rounded_down():
    falling = torch.arange(5, 0, -1.0)
    # Two of five are uncertain, three of five near: the last three.
    assert confident_rows(falling, falling).tolist() == [False, False, True, True, True]
    assert confident_rows(falling[:1], falling[:1]).tolist() == [True]

"""SHOT, NRC and TPDS: the optimiser, what they renew, neighbours and walks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from featlab.compute import seeded
from featlab.methods import make_method, shot
from featlab.methods.base import ordered_features
from featlab.methods.fit import SGDConfig, Student, fit_sgd, make_student
from featlab.methods.losses.target import marginal_entropy, neighbour_agreement
from featlab.methods.neighbourhood import HOPS, NeighbourBank, confident_rows, destinations, neighbour_walks
from featlab.model.networks import SourceHead
from featlab.protocol.splits import target_of


def run(name, bundle, target, **options):
    return make_method(name, {name: options}).adapt(bundle, target)


@pytest.fixture(scope="module")
def target(mine):
    """36 rows, of every class."""
    return target_of(mine)


def fresh_student():
    with seeded(0):
        return Student(None, SourceHead(5, 5, 3).eval().requires_grad_(False))


@pytest.mark.parametrize("decay", [True, False])
def test_every_step_is_nesterovs_with_weight_decay_at_its_own_and_its_parts_rate(decay, monkeypatch):
    """The rate falls from the first step on, to its lowest at the last."""
    monkeypatch.setattr(SGDConfig, "decay", decay)
    student, places = fresh_student(), []

    def losses(picked):
        biases = torch.stack([student.head.linear.bias[0], student.head.classifier.bias[0]])
        places.append(biases.tolist())
        return {"linear": biases.sum()}

    rates = {"bottleneck": 1.0, "classifier": 0.5}
    fit_sgd(student, 10, SGDConfig(epochs=4, batch=5, lr=0.1, bn_mode="eval"), losses, seed=0, rates=rates)
    losses(None)
    place, velocity = np.array(places[0]), 0.0
    for step, found in enumerate(places, 1):
        np.testing.assert_allclose(found, place, rtol=1e-5)
        gradient = 1 + 1e-3 * place
        velocity = 0.9 * velocity + gradient
        rate = 0.1 * ((1 + 10 * step / 8) ** -0.75 if decay else 1)
        place = place - rate * np.array([1, 0.5]) * (gradient + 0.9 * velocity)
    assert len(places) == 9


def test_a_last_batch_of_one_row_is_skipped_where_batch_norm_needs_two():
    for rows, mode, steps in ((9, "train", 2), (9, "eval", 3), (8, "train", 2), (1, "train", 0)):
        student = fresh_student()

        def losses(picked, student=student):
            return {"any": student.logits(torch.ones(len(picked), 5)).square().mean()}

        fit = fit_sgd(student, rows, SGDConfig(epochs=1, batch=4, bn_mode=mode), losses, seed=0)
        assert fit.iterations == steps
        assert bool(fit.warnings) == (steps == 0)


def test_shot_renews_pseudo_labels_every_epoch(bundle, target, monkeypatch):
    calls, real = [], shot.centre_labels

    def spy(z, p, **options):
        calls.append((z, options))
        return real(z, p, **options)

    monkeypatch.setattr(shot, "centre_labels", spy)
    run("shot", bundle, target, epochs=4, batch=16, threshold=3)
    assert [options for _, options in calls] == [{"threshold": 3}] * 4
    assert not torch.equal(calls[-1][0], calls[0][0])


def test_nrc_writes_a_batch_into_its_memory_before_it_searches(bundle, target, monkeypatch):
    seen, real = [], NeighbourBank.around

    def spy(bank, rows, *sizes):
        seen.append((rows, bank.directions.clone(), bank.scores.clone(), sizes))
        return real(bank, rows, *sizes)

    monkeypatch.setattr(NeighbourBank, "around", spy)
    run("nrc", bundle, target, epochs=4, batch=16, bn_mode="train")
    features, student = ordered_features(bundle, target), make_student(bundle, "none", 0)
    first, directions, scores, _ = seen[0]
    with torch.no_grad():
        expected = student.bottleneck(features)
        student.set_mode("train")
        expected[first] = student.bottleneck(features[first])
    torch.testing.assert_close(directions, F.normalize(expected, dim=1), atol=1e-6, rtol=0)
    torch.testing.assert_close(scores, torch.softmax(bundle.head.classify(expected), dim=1), atol=1e-6, rtol=0)
    # K and M grow after half of the training.
    assert [sizes for *_, sizes in seen] == [(3, 2)] * 6 + [(5, 4)] * 6


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def drawn(rows, width):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def probabilities(rows, classes):
    return torch.softmax(2 * drawn(rows, classes), dim=1)


def test_neighbours_equal_scikit_learns():
    z = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    ranked = NearestNeighbors(n_neighbors=6, metric="cosine").fit(z).kneighbors(z, return_distance=False)
    rows = torch.tensor([7, 3, 39, 0])
    near, beyond, affinity = NeighbourBank.of(torch.from_numpy(z), probabilities(40, 3)).around(rows, 5, 3)
    assert np.array_equal(near, ranked[rows, 1:6])
    assert np.array_equal(beyond, ranked[near, 1:4])
    mutual = np.array([[row in ranked[k, 1:4] for k in own] for row, own in zip(rows, near, strict=True)])
    np.testing.assert_allclose(affinity, np.where(mutual, 1, 0.1), rtol=1e-6)
    assert 0 < mutual.sum() < mutual.size


def test_the_objective_of_nrc_in_a_small_case():
    z = tensor([[1, 0], [0.98, 0.2], [0.6, 0.8], [0, 1], [-0.1, 1]])
    p = tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]])
    near, beyond, affinity = NeighbourBank.of(z, p).around(torch.arange(5), 2, 2)
    assert near.tolist() == [[1, 2], [0, 2], [3, 1], [4, 2], [3, 2]]
    assert torch.equal(affinity, tensor([[1, 0.1], [1, 1], [1, 1], [1, 1], [1, 0.1]]))
    agreements = neighbour_agreement(p, p[near], affinity), neighbour_agreement(p, p[beyond.flatten(1)], 0.1)
    assert [*map(float, agreements), -float(marginal_entropy(p))] == pytest.approx([-1.012, -0.22, -0.693127], abs=1e-5)


def test_a_row_is_never_its_own_neighbour_and_there_are_no_more_than_the_others():
    bank = NeighbourBank.of(tensor([[1.0, 2.0]] * 9 + [[0.0, 0.0]] * 3), probabilities(12, 3))
    near, beyond, _ = bank.around(torch.arange(12), 4, 4)
    assert not (near == torch.arange(12)[:, None]).any()
    assert not (beyond == near[:, :, None]).any()
    for rows in (2, 3, 5):
        near, beyond, _ = NeighbourBank.of(drawn(rows, 3), probabilities(rows, 2)).around(torch.arange(rows), 5, 4)
        assert beyond.shape == (rows, rows - 1, min(4, rows - 1))
        assert sorted(near[0].tolist()) == list(range(1, rows))


def walk_by_hand(features, start, hops):
    """One walk, by the definition."""
    similarity = features @ features.T / np.outer(*[np.linalg.norm(features, axis=1)] * 2)
    here, visited, walk = start, {start}, []
    for _ in range(hops):
        here = max((row for row in range(len(features)) if row not in visited), key=lambda row: similarity[here, row])
        visited.add(here)
        walk.append(here)
    return walk


def test_walks_visit_no_row_twice_equal_the_definition_and_stop_at_the_first_confident_row(monkeypatch):
    for rows in (2, 3, 20, 80):
        walks = neighbour_walks(drawn(rows, 4))
        assert walks.shape == (rows, min(HOPS, rows - 1))
        visited = torch.cat([torch.arange(rows)[:, None], walks], dim=1)
        assert all(len(set(row)) == visited.shape[1] for row in visited.tolist())
    for value in (0.0, 1.0, 1e12):
        walks = neighbour_walks(torch.full((6, 3), value)).tolist()
        assert (walks[0], walks[3]) == ([1, 2, 3, 4, 5], [0, 1, 2, 4, 5])
    features = np.random.default_rng(0).normal(size=(30, 5))
    expected = [walk_by_hand(features, row, 12) for row in range(30)]
    assert neighbour_walks(tensor(features), 12).tolist() == expected
    monkeypatch.setattr("featlab.methods.neighbourhood._BLOCK_BYTES", 100)
    assert neighbour_walks(tensor(features), 12).tolist() == expected
    walks = torch.tensor([[1, 2, 3], [0, 2, 3], [3, 1, 0], [2, 1, 0]])
    assert destinations(walks, torch.tensor([False, False, False, True])).tolist() == [3, 3, 3, 2]
    for confident in (True, False):
        assert destinations(walks, torch.full((4,), confident)).tolist() == [1, 0, 3, 2]


def test_a_row_is_unsure_only_when_its_entropy_is_large_and_it_is_far_from_every_centre():
    entropy = tensor([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    distance = tensor([9, 1, 8, 2, 3, 4, 5, 6, 7, 0])
    # Large: rows 0 to 4. Far: all but the six nearest, 9, 1, 3, 4, 5, 6.
    assert confident_rows(entropy, distance).tolist() == [False, True, False] + [True] * 7
    # Fractions are rounded down: two of five are uncertain, three of five near.
    falling = torch.arange(5, 0, -1.0)
    assert confident_rows(falling, falling).tolist() == [False, False, True, True, True]
    # Of equals the first are uncertain, and the first are near; there are more of these.
    for rows in (1, 2, 3, 5, 100):
        assert confident_rows(torch.zeros(rows), torch.zeros(rows)).all()

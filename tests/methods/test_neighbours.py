"""NRC's neighbour bank and TPDS's walks, against known values, the definitions and scikit-learn."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from featlab.methods import neighbourhood as nrc
from featlab.methods.neighbourhood import HOPS, NeighbourBank, confident_rows, destinations, neighbour_walks


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def drawn(rows, width):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def probabilities(rows, classes):
    return torch.softmax(2 * drawn(rows, classes), dim=1)


def test_a_bank_holds_no_gradient_and_what_it_was_given_stays_as_it_was():
    z, p = drawn(4, 3).requires_grad_(), probabilities(4, 2)
    before = p.clone()
    bank = NeighbourBank.of(z, p)
    bank.renew(torch.tensor([1, 3]), 2 * z[:2], p[:2].requires_grad_())
    assert not bank.directions.requires_grad
    assert not bank.scores.requires_grad
    assert torch.equal(p, before)
    torch.testing.assert_close(bank.directions.norm(dim=1), torch.ones(4))
    assert torch.equal(bank.scores, before[[0, 0, 2, 1]])


def test_neighbours_equal_scikit_learns_in_blocks_of_any_size(monkeypatch):
    z = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    ranked = NearestNeighbors(n_neighbors=6, metric="cosine").fit(z).kneighbors(z, return_distance=False)
    rows = torch.tensor([7, 3, 39, 0])
    for block in (1, 97, 1 << 22):
        monkeypatch.setattr(nrc, "_BLOCK", block)
        around = NeighbourBank.of(torch.from_numpy(z), probabilities(40, 3)).neighbourhood(rows, 5, 3)
        assert np.array_equal(around.near, ranked[rows, 1:6])
        assert np.array_equal(around.expanded, ranked[around.near, 1:4])
        mutual = np.array([[row in ranked[k, 1:4] for k in near] for row, near in zip(rows, around.near, strict=True)])
        np.testing.assert_allclose(around.affinity, np.where(mutual, 1, 0.1), rtol=1e-6)
        assert 0 < mutual.sum() < mutual.size


def test_a_row_is_never_its_own_neighbour_and_there_are_no_more_than_the_others():
    bank = NeighbourBank.of(tensor([[1.0, 2.0]] * 9 + [[0.0, 0.0]] * 3), probabilities(12, 3))
    around = bank.neighbourhood(torch.arange(12), 4, 4)
    assert not (around.near == torch.arange(12)[:, None]).any()
    assert not (around.expanded == around.near[:, :, None]).any()
    for rows in (2, 3, 5):
        around = NeighbourBank.of(drawn(rows, 3), probabilities(rows, 2)).neighbourhood(torch.arange(rows), 5, 4)
        assert around.expanded.shape == (rows, rows - 1, min(4, rows - 1))
        assert sorted(around.near[0].tolist()) == list(range(1, rows))


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

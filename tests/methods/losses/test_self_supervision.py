"""Views, Sinkhorn, and the losses of SwAV and DeepClusterV2."""

import numpy as np
import torch
import torch.nn.functional as F

from featlab.compute import seeded
from featlab.methods.losses.self_supervision import (
    DeepCluster,
    SwAV,
    make_views,
    sinkhorn,
    spherical_kmeans,
    swav_loss,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def cosines(rows, prototypes, seed=0):
    return F.normalize(normal(rows, 16, seed=seed), dim=1) @ F.normalize(normal(prototypes, 16, seed=9), dim=1).T


def test_codes_equal_balancing_the_exponentials_by_hand_and_stay_balanced_at_any_scale():
    scores = cosines(10, 4)
    q = np.exp(scores.double().numpy() / 0.05).T
    q /= q.sum()
    for _ in range(3):
        q = q / q.sum(axis=1, keepdims=True) / 4
        q = q / q.sum(axis=0, keepdims=True) / 10
    torch.testing.assert_close(sinkhorn(scores).double(), torch.from_numpy(q.T * 10), atol=1e-5, rtol=1e-4)
    for extreme in (torch.zeros(6, 3), 1e4 * cosines(8, 5)):
        codes = sinkhorn(extreme)
        torch.testing.assert_close(codes.sum(dim=1), torch.ones(len(codes)), atol=1e-5, rtol=0)


def test_swav_is_the_cross_entropy_of_each_view_with_the_others_codes_without_a_gradient_through_these():
    first, second = cosines(10, 4, seed=1).requires_grad_(), cosines(10, 4, seed=2)
    expected = 0.5 * (F.cross_entropy(second / 0.1, sinkhorn(first)) + F.cross_entropy(first / 0.1, sinkhorn(second)))
    loss = swav_loss(first, second)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    # Only the term in which the first view predicts is left: (softmax − code of the other) / (temperature n), halved.
    expected = (torch.softmax(first / 0.1, dim=1) - sinkhorn(second)) / 0.1 / 10 / 2
    torch.testing.assert_close(first.grad, expected.detach())


def test_a_centre_without_rows_stays():
    # Against a loop over rows in the tests of SFDA-DE, where such a centre goes back to its start.
    equal = F.normalize(torch.ones(6, 3), dim=1)
    centres, nearest = spherical_kmeans(equal, torch.eye(3))
    torch.testing.assert_close(centres, torch.cat([equal[:1], torch.eye(3)[1:]]))
    assert nearest.tolist() == [0] * 6


def test_another_view_is_another_frame_within_the_window_or_a_damaged_copy_of_one_alone():
    video = np.repeat([0, 1, 5], [9, 2, 7]).astype(np.int32)
    features = torch.arange(18.0)[:, None].expand(18, 3)
    views, random, seen = make_views(features, video, window=2), generator(), set()
    for _ in range(200):
        own, other = views.pair(torch.arange(18), random)
        assert torch.equal(own, features)
        seen |= set(zip(own[:, 0].int().tolist(), other[:, 0].int().tolist(), strict=True))
    assert seen == {(i, j) for i in range(18) for j in range(18) if i != j and video[i] == video[j] and abs(i - j) <= 2}
    video = np.array([0, 1, 1, 2], dtype=np.int32)
    features = normal(4, 500) * 3 + 10
    first, second = make_views(features, video, window=5).pair(torch.arange(4), generator())
    assert torch.equal(first[1:3], features[1:3])
    assert torch.equal(second[1:3], features[[2, 1]])
    for view in (first, second):
        lost = view[[0, 3]] == 0
        assert 0.15 < lost.float().mean() < 0.25
        change = (view - features)[[0, 3]][~lost] / (0.2 * features.std(dim=0, correction=0).expand(2, -1)[~lost])
        assert abs(change.std().item() - 1) < 0.1
    assert not torch.equal(first[0], second[0])


def objective_of(kind):
    with seeded(0):
        return kind(10, 6, 20, generator(3))


def directions_of(objective):
    return objective.directions(normal(40, 10)).chunk(2)


def test_swavs_prototypes_rest_in_the_first_epoch_and_only_their_directions_count():
    objective = objective_of(SwAV)
    for epoch in (0, 1):
        objective.start_epoch(epoch)
        objective.zero_grad()
        loss = objective.loss(*directions_of(objective), torch.arange(20))
        loss.backward()
        assert (objective.prototypes.grad is not None) == (epoch == 1)
        assert all(value.grad is not None for value in objective.projector.parameters())
    with torch.no_grad():
        objective.prototypes.mul_(7)
    torch.testing.assert_close(objective.loss(*directions_of(objective), torch.arange(20)), loss)


def test_deepcluster_learns_nothing_at_first_and_then_the_mean_over_clusterings_and_views():
    objective = objective_of(DeepCluster)
    objective.start_epoch(0)
    rows = torch.arange(19, -1, -1)
    first, second = directions_of(objective)
    loss = objective.loss(first, second, rows)
    loss.backward()
    assert loss.item() == 0
    assert all((value.grad == 0).all() for value in objective.projector.parameters())
    assert torch.equal(objective.memory[rows], first.detach())
    objective = objective_of(DeepCluster)
    first, second = directions_of(objective)
    objective.loss(first, second, torch.arange(20))
    objective.start_epoch(1)
    assert not any(value.requires_grad for value in (objective.centres, objective.assigned, objective.memory))
    assert objective.assigned.min() >= 0
    picked = torch.tensor([3, 17, 5])
    terms = [
        F.cross_entropy(view[picked] @ centres.T / 0.1, assigned[picked])
        for view in (first, second)
        for centres, assigned in zip(objective.centres, objective.assigned, strict=True)
    ]
    torch.testing.assert_close(objective.loss(first[picked], second[picked], picked), torch.stack(terms).mean())

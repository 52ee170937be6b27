"""SFDA-DE: clustering, surrogate Gaussians, and what its steps do to a source model."""

import itertools

import numpy as np
import pytest
import torch

from featlab.methods import make_method
from featlab.methods.fit import make_student
from featlab.methods.losses.domains import contrastive_discrepancy
from featlab.methods.sfda_de import SFDADEConfig, classes_of_clusters, discrepancy_terms, estimate_surrogates
from featlab.protocol.splits import target_of


def drawn(rows, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width))).float()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_hand(values, anchors):
    """Spherical k-means and the best of all permutations, in float64."""
    rows, starts = unit(values.astype(float)), unit(anchors.astype(float))
    centres, shift = starts, 1.0
    while shift >= 1e-3:
        nearest = (rows @ centres.T).argmax(axis=1)
        sums = [rows[nearest == code].sum(axis=0) for code in range(len(starts))]
        moved = np.array([unit(own) if own.any() else start for own, start in zip(sums, starts, strict=True)])
        shift, centres = np.mean(0.5 * (1 - (moved * centres).sum(axis=1))), moved
    likeness = centres @ starts.T
    orders = [list(order) for order in itertools.permutations(range(len(starts)))]
    matched = max(orders, key=lambda order: sum(likeness[range(len(starts)), order]))
    nearest = (rows @ centres.T).argmax(axis=1)
    return np.array(matched)[nearest].tolist(), (0.5 * (1 - rows @ centres.T)).min(axis=1)


def test_clusters_equal_a_loop_over_rows():
    for seed in range(8):
        values, anchors = drawn(40, 3, seed), drawn(4, 3, seed + 100)
        labels, distance = classes_of_clusters(values, anchors)
        expected, apart = by_hand(values.numpy(), anchors.numpy())
        assert labels.tolist() == expected
        np.testing.assert_allclose(distance, apart, atol=1e-6)
    # On a circle, from bad anchors, the best matching swaps two classes (the first case) or cycles three.
    for seed in (6, 48, 147, 561, 1453):
        values, anchors = drawn(40, 2, seed), drawn(4, 2, seed + 100)
        labels, _ = classes_of_clusters(values, anchors)
        assert labels.tolist() == by_hand(values.numpy(), anchors.numpy())[0]
        assert len(labels.unique()) == 4


def test_a_cluster_without_rows_stays_at_its_anchor_and_rows_of_zeros_are_never_kept():
    values = torch.eye(3)[[0] * 8 + [1] * 8] + 0.05 * drawn(16, 3)
    anchors = torch.tensor([[1.0, 0.3, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, -1.0]])
    labels, distance = classes_of_clusters(values, anchors)
    assert labels.tolist() == [0] * 8 + [1] * 8
    assert torch.isfinite(distance).all()
    assert len(estimate_surrogates(torch.zeros(9, 4), drawn(3, 4), 0.5, 5).classes) == 0


SPREAD = torch.tensor([[0.3, 0.1], [-0.3, 0.1], [0.1, -0.1], [-0.1, -0.1], [0.2, 0.3], [-0.2, -0.3]])


def test_surrogates_are_as_long_as_the_target_along_the_anchor_without_far_rows_and_small_classes():
    surrogates = estimate_surrogates(SPREAD + torch.tensor([0.0, 2.0]), torch.tensor([[3.0, 4.0], [3.0, -4.0]]), 0.5, 5)
    assert surrogates.classes.tolist() == [0]
    torch.testing.assert_close(surrogates.mean, torch.tensor([[1.2, 1.6]]))
    assert surrogates.member.tolist() == [[1.0] * 6]
    values = torch.cat([torch.eye(2)[[0] * 6 + [1] * 4] * torch.arange(1.0, 11)[:, None], torch.tensor([[1.0, -3.0]])])
    near, small, far = [1.0] * 6 + [0.0] * 5, [0.0] * 6 + [1.0] * 4 + [0.0], [1.0] * 6 + [0.0] * 4 + [1.0]
    for threshold, minimum, member in ((0.1, 5, [near]), (0.1, 4, [near, small]), (0.5, 5, [far]), (0.0, 1, [])):
        found = estimate_surrogates(values, torch.eye(2), threshold, minimum)
        assert found.classes.tolist() == list(range(len(member)))
        assert found.member.tolist() == member
    # A row at a right angle to its centre has the cosine distance 0.5, exactly: at the threshold is too far.
    values = torch.cat([torch.tensor([[1.0, 0.0]]).expand(6, 2), torch.zeros(1, 2)])
    assert estimate_surrogates(values, torch.eye(2), 0.5, 1).member[:, -1].tolist() == [0.0]


def test_surrogate_rows_have_the_mean_and_the_scaled_variance_of_the_class():
    other = SPREAD.flip(1) * torch.tensor([1.0, -2.0]) + torch.tensor([4.0, 0.0])
    values = torch.cat([SPREAD + torch.tensor([0.0, 4.0]), other])
    surrogates = estimate_surrogates(values, torch.tensor([[0.1, 1.0], [1.0, 0.1]]), 0.5, 5)
    assert surrogates.classes.tolist() == [0, 1]
    for spread in (1.0, 2.0):
        rows = surrogates.draw(60000, spread, torch.Generator().manual_seed(0))
        assert rows.shape == (2, 60000, 2)
        for code, own in enumerate((values[:6], values[6:])):
            expected = spread**2 * np.diag(np.diag(np.cov(own.numpy().T)))
            np.testing.assert_allclose(rows[code].mean(dim=0), surrogates.mean[code], atol=0.01 * spread)
            np.testing.assert_allclose(np.cov(rows[code].numpy().T), expected, atol=0.03 * spread**2 * own.var().item())
    # A class of one row has no spread.
    alone = estimate_surrogates(torch.tensor([[2.0, 0.0]]), torch.eye(2), 0.5, 1)
    assert alone.draw(2, 1.0, torch.Generator().manual_seed(0)).tolist() == [[[2.0, 0.0]] * 2]


def adapt(bundle, rows, **options):
    return make_method("sfda-de", {"sfda-de": {"epochs": 2, "steps": 10} | options}).adapt(bundle, target_of(rows))


def test_batch_norm_has_its_own_rate_and_weight_decay_is_applied(bundle, mine, monkeypatch):
    def first_step(name, value):
        monkeypatch.setattr(SFDADEConfig, name, value)
        head = adapt(bundle, mine, epochs=1, steps=1).model.head
        return head.linear.weight - bundle.head.linear.weight, head.norm.weight - bundle.head.norm.weight

    (linear, still), (_, one), (_, ten) = (first_step("norm_rate", rate) for rate in (0, 1.0, 10.0))
    assert torch.count_nonzero(still) == 0 < torch.count_nonzero(linear)
    assert (ten.norm() / one.norm()).item() == pytest.approx(10, rel=1e-3)
    # With nothing else to follow than the loss, the first step differs by rate times decay times weight.
    plain, decayed = (first_step("weight_decay", decay)[0] for decay in (0.0, 0.5))
    torch.testing.assert_close(plain - decayed, 1e-3 * 0.5 * bundle.head.linear.weight, atol=1e-6, rtol=1e-3)


def test_each_term_equals_the_discrepancy_of_its_values_and_reaches_all_of_the_bottleneck(bundle, mine):
    student = make_student(bundle, "none", 0)
    for parameter in student.parameters_of("bottleneck"):
        parameter.requires_grad_(True)
    features = bundle.projection(torch.from_numpy(mine.embeddings[:12]))
    rows, ours = drawn(12, 6).view(3, 4, 6), student.bottleneck(features).view(3, 4, 6)
    terms = discrepancy_terms(student, rows, features)
    torch.testing.assert_close(terms["bottleneck"], contrastive_discrepancy(rows, ours))
    predicted = [torch.softmax(student.head.classify(z), dim=2) for z in (rows, ours)]
    torch.testing.assert_close(terms["predictions"], contrastive_discrepancy(*predicted))
    for term in terms.values():
        slopes = torch.autograd.grad(term, student.parameters_of("bottleneck"), retain_graph=True)
        assert all(slope.abs().max() > 0 for slope in slopes)


def test_too_few_rows_teach_nothing_and_it_says_so(bundle, mine):
    for count, options in ((1, {}), (2, {}), (4, {}), (1, {"least": 1})):
        model = adapt(bundle, mine.take(slice(count)), **options)
        assert (model.iterations, len(model.warnings)) == (0, 1)
        assert options or "adapt.sfda-de.least = 5" in model.warnings[0]
        state = model.model.head.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in bundle.head.state_dict().items())
    # One row is no batch in training, and enough in evaluation mode.
    assert adapt(bundle, mine.take([0]), least=1, bn_mode="eval").iterations == 20

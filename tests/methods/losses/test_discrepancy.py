"""Discrepancies against loops and optimal assignments; adversarial parts against published figures and NumPy."""

import numpy as np
import pytest
import scipy.special
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import nn

from featlab.compute import seeded
from featlab.methods.losses import domains
from featlab.methods.losses.domains import (
    Discriminator,
    certainty_weights,
    class_discrepancies,
    class_weights,
    condition,
    conditional_domain_loss,
    contrastive_discrepancy,
    drop,
    exponential_kernel,
    marginal_weights,
    maximum_mean_discrepancy,
    random_directions,
    reversal_strength,
    sliced_wasserstein,
)


def rows_of(count, width=5, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, size=(count, width)))


def discrepancy(x, y, weights, bandwidth=2.0):
    return maximum_mean_discrepancy(exponential_kernel(torch.cat([x, y]), bandwidth), weights)


def discrepancy_by_kernels(x, y, alpha, bandwidth):
    """MMD² as three weighted sums over pairs."""
    alpha, beta = np.asarray(alpha) / np.sum(alpha), np.full(len(y), 1 / len(y))
    ours, across, theirs = (np.exp(-cdist(*pair) / bandwidth) for pair in ((x, x), (x, y), (y, y)))
    return alpha @ ours @ alpha - 2 * alpha @ across @ beta + beta @ theirs @ beta


def test_bandwidth_0_is_the_mean_distance_and_has_no_gradient():
    x = rows_of(4).requires_grad_(True)
    distance = cdist(x.detach().numpy(), x.detach().numpy())
    kernel = exponential_kernel(x)
    np.testing.assert_allclose(kernel.detach(), np.exp(-distance / distance.mean()), rtol=1e-12)
    fixed = exponential_kernel(x, float(distance.mean()))
    torch.testing.assert_close(*(torch.autograd.grad(values.sum(), x)[0] for values in (kernel, fixed)))


def test_discrepancy_equals_sums_over_pairs():
    x = rows_of(5)
    for count, bandwidth in ((1, 0.7), (4, 2.0), (7, 2.0)):
        y = rows_of(count, seed=1, shift=1.0)
        for alpha in ([1.0] * 5, [7.0] * 5, [0.5, 0.0, 3.0, 1.0, 1.0]):
            expected = discrepancy_by_kernels(x.numpy(), y.numpy(), alpha, bandwidth)
            weights = marginal_weights(torch.tensor(alpha).double(), count)
            assert discrepancy(x, y, weights, bandwidth).item() == pytest.approx(expected, abs=1e-12)
    # A source without a weight is compared with nothing.
    assert discrepancy(x, y, marginal_weights(torch.zeros(5).double(), 7)).item() == 0


def conditional(x, y, first, second):
    return discrepancy(x, y, class_weights(torch.tensor(first), torch.tensor(second), 3).to(x.dtype))


def test_conditional_discrepancy_equals_one_of_each_class_alone_and_one_that_lacks_rows_adds_nothing():
    x, y = rows_of(6), rows_of(5, seed=1)
    first, second = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    expected = [
        discrepancy_by_kernels(x.numpy()[first == code], y.numpy()[second == code], np.ones((first == code).sum()), 2.0)
        for code in range(3)
    ]
    np.testing.assert_allclose(conditional(x, y, first, second), expected, atol=1e-7)
    for first, shared in (([0, 0, 1], [0]), ([1, 1, 1], [])):
        values = conditional(rows_of(3), rows_of(3, seed=1), first, [0, 2, 2])
        assert torch.nonzero(values).flatten().tolist() == shared


def test_sliced_wasserstein_equals_optimal_assignments_in_any_order():
    directions = random_directions(4, 16, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(16).double())
    for count in (1, 2, 8):
        p, q = rows_of(count, 4), rows_of(count, 4, seed=1)
        costs = []
        for direction in directions.T.numpy():
            cost = np.square((p.numpy() @ direction)[:, None] - q.numpy() @ direction)
            costs.append(cost[linear_sum_assignment(cost)].mean())
        assert sliced_wasserstein(p, q, directions).item() == pytest.approx(np.mean(costs), rel=1e-12)
        assert sliced_wasserstein(p, p.flip(0), directions).item() == pytest.approx(0, abs=1e-30)
    many = random_directions(7, 20_000, torch.Generator().manual_seed(0))
    assert sliced_wasserstein(*torch.eye(7)[:2, None], many).item() == pytest.approx(2 / 7, rel=0.02)


def drawn(*shape, seed=0, shift=0.0):
    rows = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(rows + shift * np.arange(shape[0])[:, None, None])


def by_kernels(source, target, fixed=None):
    """MMD² of every pair of classes; bandwidths of ``fixed`` target rows."""
    found = np.zeros((len(source), len(target)))
    for code, other in np.ndindex(found.shape):
        ours, theirs = source[code], target[other]
        both = np.concatenate([ours, theirs if fixed is None else fixed[other]])
        mean = cdist(both, both, "sqeuclidean").sum() / (len(both) * (len(both) - 1))

        def kernel(rows, columns, mean=mean):
            squares = cdist(rows, columns, "sqeuclidean")
            return sum(np.exp(-squares / (mean * 2.0**power)).mean() for power in (-2, -1, 0, 1, 2))

        found[code, other] = kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
    return found


def contrast(pairs):
    """The same class less the others."""
    classes = len(pairs)
    return np.trace(pairs) / classes - (pairs.sum() - np.trace(pairs)) / (classes * (classes - 1))


def test_every_pair_of_classes_and_their_contrast_equal_a_loop_over_kernels():
    for m, n in ((4, 4), (3, 5), (1, 4), (1, 1)):
        source, target = drawn(3, m, 6, shift=0.7), drawn(3, n, 6, seed=1, shift=1.1)
        pairs = by_kernels(source.numpy(), target.numpy())
        np.testing.assert_allclose(class_discrepancies(source, target), pairs, atol=1e-12)
        assert contrastive_discrepancy(source, target).item() == pytest.approx(contrast(pairs), abs=1e-12)
    points = drawn(2, 1, 6)
    np.testing.assert_allclose(class_discrepancies(points, points), [[0, 6.186276], [6.186276, 0]], atol=1e-6)
    source, target = drawn(1, 4, 3), drawn(1, 5, 3, seed=1)
    assert torch.equal(contrastive_discrepancy(source, target), class_discrepancies(source, target)[0, 0])


def test_the_gradient_is_that_of_fixed_bandwidths():
    """Against central differences of the loop, whose bandwidths are taken at the start."""
    source, target = drawn(2, 3, 2, shift=1.0), drawn(2, 3, 2, seed=1).requires_grad_(True)
    contrastive_discrepancy(source, target).backward()
    start, step = target.detach().numpy(), 1e-6
    numeric = np.zeros_like(start)
    for place in np.ndindex(start.shape):
        move = np.zeros_like(start)
        move[place] = step
        ahead, behind = (contrast(by_kernels(source.numpy(), start + sign * move, start)) for sign in (1, -1))
        numeric[place] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(target.grad.numpy(), numeric, atol=1e-7)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def discriminator_of():
    with seeded(0):
        return Discriminator(6, generator()).double()


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(domains, "drop", lambda values, share, random: values)


def sample(source=4, target=3):
    """z (source + target, 2) and probabilities of 3 classes."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(source + target, 2)))
    return z, torch.softmax(torch.from_numpy(2 * rng.normal(size=(source + target, 3))), dim=1)


def test_the_strength_of_the_reversal_is_the_published_one():
    for step, expected in ((0, 0.0), (1000, 0.462117), (5000, 0.986614), (10_000, 0.999909)):
        assert reversal_strength(step) == pytest.approx(expected, abs=5e-7)
        assert reversal_strength(step // 20, 500) == pytest.approx(expected, abs=5e-7)


def test_conditioning_is_the_kronecker_product_weights_know_scipys_entropy_and_predictions_get_no_gradient():
    z, p = sample()
    expected = [np.kron(prediction, row) for prediction, row in zip(p.numpy(), z.numpy(), strict=True)]
    np.testing.assert_allclose(condition(z, p), expected, rtol=1e-12)
    expected = 1 + np.exp(-scipy.special.entr(p.numpy()).sum(axis=1))
    np.testing.assert_allclose(certainty_weights(p), expected, atol=1e-4)
    np.testing.assert_allclose(certainty_weights(torch.full((1, 7), 1 / 7)), [1.142867], atol=1e-5)
    z, p = z.requires_grad_(True), p.detach().requires_grad_(True)
    (condition(z, p).sum(dim=1) * certainty_weights(p)).sum().backward()
    assert p.grad is None
    torch.testing.assert_close(z.grad, certainty_weights(p).unsqueeze(1).expand_as(z))


def test_dropout_keeps_the_mean_and_draws_from_its_own_generator():
    state = torch.get_rng_state()
    values = torch.ones(200, 200)
    dropped = drop(values, 0.6, generator())
    assert dropped.unique().tolist() == [0.0, pytest.approx(2.5)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropped, drop(values, 0.6, generator()))
    assert torch.equal(torch.get_rng_state(), state)


def logits_by_hand(discriminator, rows):
    """Three layers with a leak of a fifth."""
    for layer in (discriminator.first, discriminator.second, discriminator.last):
        rows = rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if layer is not discriminator.last:
            rows = np.where(rows > 0, rows, 0.2 * rows)
    return rows[:, 0]


def test_the_loss_is_the_weighted_cross_entropy_of_each_domain(no_dropout):
    z, p = sample()
    discriminator = discriminator_of()
    rows = condition(z, p)
    logits = logits_by_hand(discriminator, rows.numpy())
    np.testing.assert_allclose(discriminator(rows).detach(), logits)
    weights = certainty_weights(p).numpy()
    source = np.average(-np.log(scipy.special.expit(logits[:4])), weights=weights[:4])
    target = np.average(-np.log(scipy.special.expit(-logits[4:])), weights=weights[4:])
    loss = conditional_domain_loss(discriminator, z.requires_grad_(), p, 4, 1.0)
    assert loss.item() == pytest.approx((source + target) / 2, rel=1e-10)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_features_climb_where_the_discriminator_descends(strength, no_dropout):
    z, p = sample()
    discriminator = discriminator_of()
    plain, turned = (z.clone().requires_grad_(True) for _ in range(2))
    conditional_domain_loss(discriminator, turned, p, 4, strength).backward()
    gradients = [parameter.grad.clone() for parameter in discriminator.parameters()]
    assert all(gradient.abs().max() > 0 for gradient in gradients[-2:])
    # The same loss without the reversal, from its parts.
    weights = certainty_weights(p)
    weights = torch.cat([part / part.sum() / 2 for part in (weights[:4], weights[4:])])
    signs = torch.tensor([1.0] * 4 + [-1.0] * 3, dtype=torch.float64)
    discriminator.zero_grad()
    (weights * nn.functional.softplus(-signs * discriminator(condition(plain, p)))).sum().backward()
    torch.testing.assert_close(turned.grad, -strength * plain.grad)
    for gradient, parameter in zip(gradients, discriminator.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)

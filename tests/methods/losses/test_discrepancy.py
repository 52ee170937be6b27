"""Discrepancies against double loops, optimal assignments and closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from featlab.methods.losses.discrepancy import (
    class_weights,
    exponential_kernel,
    joint_kernel,
    marginal_weights,
    maximum_mean_discrepancy,
    random_directions,
    sliced_wasserstein,
)


def rows_of(count, width=5, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, size=(count, width)))


def discrepancy(x, y, alpha=None, bandwidth=2.0):
    weights = marginal_weights(torch.ones(len(x), dtype=x.dtype) if alpha is None else alpha, len(y))
    return maximum_mean_discrepancy(joint_kernel(x, y, bandwidth), weights)


def discrepancy_by_loops(x, y, alpha, bandwidth):
    """MMD² as three sums over pairs."""
    alpha = np.asarray(alpha) / np.sum(alpha)
    value = 0.0
    for i, first in enumerate(x):
        for j, second in enumerate(x):
            value += alpha[i] * alpha[j] * np.exp(-np.linalg.norm(first - second) / bandwidth)
        for second in y:
            value -= 2 * alpha[i] / len(y) * np.exp(-np.linalg.norm(first - second) / bandwidth)
    for first in y:
        for second in y:
            value += np.exp(-np.linalg.norm(first - second) / bandwidth) / len(y) ** 2
    return value


def test_the_kernel_falls_with_the_distance_that_is_not_squared():
    x, y = rows_of(4), rows_of(6, seed=1)
    for bandwidth in (0.5, 2.0, 30.0):
        expected = np.exp(-cdist(x.numpy(), y.numpy()) / bandwidth)
        np.testing.assert_allclose(exponential_kernel(x, y, bandwidth), expected, rtol=1e-12)


def test_bandwidth_0_is_the_mean_distance_and_has_no_gradient():
    x, y = rows_of(4).requires_grad_(True), rows_of(6, seed=1)
    distance = cdist(x.detach().numpy(), y.numpy())
    kernel = exponential_kernel(x, y)
    np.testing.assert_allclose(kernel.detach(), np.exp(-distance / distance.mean()), rtol=1e-12)
    (given,) = torch.autograd.grad(kernel.sum(), x)
    (expected,) = torch.autograd.grad(exponential_kernel(x, y, float(distance.mean())).sum(), x)
    torch.testing.assert_close(given, expected)


def test_equal_rows_have_kernel_1_and_a_finite_gradient():
    for value in (0.0, 1.0, 1e4):
        x = torch.full((40, 3), value, requires_grad=True)
        kernel = joint_kernel(x, x)
        kernel.sum().backward()
        assert torch.equal(kernel, torch.ones(80, 80))
        assert torch.equal(x.grad, torch.zeros(40, 3))


def test_discrepancy_equals_sums_over_pairs():
    x = rows_of(5)
    alpha = torch.tensor([0.5, 0.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    for count, bandwidth in ((1, 0.7), (4, 2.0), (7, 2.0)):
        y = rows_of(count, seed=1, shift=1.0)
        for weights in (torch.ones(5, dtype=torch.float64), torch.full((5,), 7.0, dtype=torch.float64), alpha):
            expected = discrepancy_by_loops(x.numpy(), y.numpy(), weights.numpy(), bandwidth)
            assert discrepancy(x, y, weights, bandwidth).item() == pytest.approx(expected, abs=1e-12)
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert discrepancy(x, y).item() == pytest.approx(2 - 2 * np.exp(-2.5))


def test_identical_sets_have_no_discrepancy_and_it_grows_with_a_shift():
    for count in (1, 2, 33):
        x = rows_of(count).float()
        for bandwidth in (0.0, 2.0):
            for same in (x.clone(), x.flip(0)):
                assert discrepancy(x, same, bandwidth=bandwidth).item() == pytest.approx(0.0, abs=1e-6)
    values = [discrepancy(rows_of(20), rows_of(20, seed=1, shift=shift)).item() for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[0] > 0


def test_rows_of_weight_0_are_as_good_as_absent():
    x, y = rows_of(5), rows_of(4, seed=1)
    alpha = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=x.dtype)
    torch.testing.assert_close(discrepancy(x, y, alpha), discrepancy(x[[0, 2]], y))
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(discrepancy(x, y, alpha), x)
    assert ((gradient.abs() > 0).all(dim=1) == (alpha > 0)).all()
    assert torch.equal(gradient[alpha == 0], torch.zeros(3, 5, dtype=x.dtype))
    nothing = discrepancy(x, y, torch.zeros(5, dtype=x.dtype))
    assert nothing.item() == 0
    assert torch.equal(torch.autograd.grad(nothing, x)[0], torch.zeros_like(x))


def test_the_gradient_brings_the_sets_together():
    x, y = rows_of(20, shift=1.0).requires_grad_(True), rows_of(20, seed=1)
    before = discrepancy(x, y)
    before.backward()
    assert discrepancy(x.detach() - x.grad, y).item() < before.item()
    assert ((x.grad * (x.detach() - y.mean(dim=0))).sum() > 0).item()


def conditional(x, y, first, second, classes=3):
    weights = class_weights(torch.tensor(first), torch.tensor(second), classes).to(x.dtype)
    return maximum_mean_discrepancy(joint_kernel(x, y, 2.0), weights)


def test_conditional_discrepancy_equals_one_of_each_class_alone():
    x, y = rows_of(6), rows_of(5, seed=1)
    first, second = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    expected = [
        discrepancy_by_loops(x.numpy()[first == code], y.numpy()[second == code], np.ones((first == code).sum()), 2.0)
        for code in range(3)
    ]
    np.testing.assert_allclose(conditional(x, y, first, second), expected, atol=1e-7)


def test_conditional_discrepancy_of_identical_sets_is_0_and_of_exchanged_classes_is_not():
    x, labels = torch.cat([rows_of(4), rows_of(4, shift=3.0)]), [0] * 4 + [1] * 4
    assert conditional(x, x, labels, labels, 2).abs().max() < 1e-7
    assert conditional(x, x, labels, labels[::-1], 2).min() > 0.5


def test_a_class_that_lacks_rows_in_either_set_adds_nothing():
    second = [0, 2, 2]
    for first in ([0, 0, 1], [1, 1, 1]):
        x, y = rows_of(3).requires_grad_(True), rows_of(3, seed=1)
        values = conditional(x, y, first, second)
        shared = sorted(set(first) & set(second))
        assert torch.nonzero(values).flatten().tolist() == shared
        values.sum().backward()
        assert torch.equal(x.grad.abs().sum(dim=1) > 0, torch.tensor([code in shared for code in first]))


def directions_of(classes, count=16, seed=0):
    return random_directions(classes, count, torch.Generator().manual_seed(seed)).double()


def one_hot_rows(count, classes, code):
    return torch.nn.functional.one_hot(torch.full((count,), code), classes).double()


def test_two_corners_are_2_over_k_apart():
    for classes in (2, 7):
        corners = (one_hot_rows(4, classes, code) for code in (0, 1))
        value = sliced_wasserstein(*corners, directions_of(classes, 200_000)).item()
        assert value == pytest.approx(2 / classes, rel=0.02)


def test_sliced_wasserstein_equals_optimal_assignments_in_any_order():
    directions = directions_of(4)
    for count in (1, 2, 8):
        p, q = rows_of(count, 4), rows_of(count, 4, seed=1)
        costs = []
        for direction in directions.T.numpy():
            cost = np.square((p.numpy() @ direction)[:, None] - q.numpy() @ direction)
            costs.append(cost[linear_sum_assignment(cost)].mean())
        assert sliced_wasserstein(p, q, directions).item() == pytest.approx(np.mean(costs), rel=1e-12)
        assert sliced_wasserstein(p, p.flip(0), directions).item() == pytest.approx(0, abs=1e-30)


def test_both_samples_get_a_gradient_and_ties_a_finite_one():
    p, q = (one_hot_rows(5, 3, code).requires_grad_(True) for code in (0, 1))
    sliced_wasserstein(p, q, directions_of(3)).backward()
    torch.testing.assert_close(p.grad.sum(dim=0), -q.grad.sum(dim=0))
    assert (p.grad[:, 0] > 0).all()


def test_directions_are_unit_columns_from_their_own_generator():
    state = torch.get_rng_state()
    first, again = (directions_of(3, 50, seed=4) for _ in range(2))
    torch.testing.assert_close(first.norm(dim=0), torch.ones(50).double())
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)

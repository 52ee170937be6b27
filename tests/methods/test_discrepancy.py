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


# --- kernel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [0.5, 2.0, 30.0])
def test_the_kernel_falls_with_the_distance_that_is_not_squared(bandwidth):
    x, y = rows_of(4), rows_of(6, seed=1)
    expected = np.exp(-cdist(x.numpy(), y.numpy()) / bandwidth)
    np.testing.assert_allclose(exponential_kernel(x, y, bandwidth), expected, rtol=1e-12)


def test_the_published_bandwidth_is_two():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert exponential_kernel(x, y, 2.0).item() == pytest.approx(np.exp(-2.5))


def test_bandwidth_0_is_the_mean_distance_and_has_no_gradient():
    x, y = rows_of(4).requires_grad_(True), rows_of(6, seed=1)
    distance = cdist(x.detach().numpy(), y.numpy())
    kernel = exponential_kernel(x, y)
    np.testing.assert_allclose(kernel.detach(), np.exp(-distance / distance.mean()), rtol=1e-12)
    # Rows that are scaled keep their kernel; were the bandwidth in the gradient, then x · gradient would show it.
    fixed = exponential_kernel(x, y, float(distance.mean()))
    (given,) = torch.autograd.grad(kernel.sum(), x)
    (expected,) = torch.autograd.grad(fixed.sum(), x)
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_equal_rows_have_kernel_1_and_a_finite_gradient(value):
    x = torch.full((40, 3), value, requires_grad=True)
    kernel = joint_kernel(x, x)
    kernel.sum().backward()
    assert torch.equal(kernel, torch.ones(80, 80))
    assert torch.equal(x.grad, torch.zeros(40, 3))


# --- maximum mean discrepancy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize("bandwidth", [0.0, 2.0])
def test_identical_sets_have_no_discrepancy(count, bandwidth):
    x = rows_of(count).float()
    assert discrepancy(x, x.clone(), bandwidth=bandwidth).item() == pytest.approx(0.0, abs=1e-6)
    assert discrepancy(x, x.flip(0), bandwidth=bandwidth).item() == pytest.approx(0.0, abs=1e-6)


def test_two_points_have_a_closed_form():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert discrepancy(x, y).item() == pytest.approx(2 - 2 * np.exp(-2.5))


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("bandwidth", [0.7, 2.0])
def test_discrepancy_equals_sums_over_pairs(count, bandwidth):
    x, y = rows_of(5), rows_of(count, seed=1, shift=1.0)
    alpha = torch.tensor([0.5, 0.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    for weights in (torch.ones(5, dtype=torch.float64), alpha):
        expected = discrepancy_by_loops(x.numpy(), y.numpy(), weights.numpy(), bandwidth)
        assert discrepancy(x, y, weights, bandwidth).item() == pytest.approx(expected, abs=1e-12)


def test_discrepancy_is_positive_and_grows_with_a_shift():
    x = rows_of(20)
    values = [discrepancy(x, rows_of(20, seed=1, shift=shift)).item() for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    assert values[0] > 0


def test_weights_of_1_are_the_plain_discrepancy_whatever_their_scale():
    x, y = rows_of(5), rows_of(4, seed=1)
    plain = discrepancy(x, y)
    torch.testing.assert_close(discrepancy(x, y, torch.full((5,), 7.0, dtype=x.dtype)), plain)


def test_rows_of_weight_0_are_as_good_as_absent():
    x, y = rows_of(5), rows_of(4, seed=1)
    alpha = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=x.dtype)
    torch.testing.assert_close(discrepancy(x, y, alpha), discrepancy(x[[0, 2]], y))
    x.requires_grad_(True)
    discrepancy(x, y, alpha).backward()
    assert torch.equal(x.grad[[1, 3, 4]], torch.zeros(3, 5, dtype=x.dtype))
    assert (x.grad[[0, 2]].abs() > 0).all()


def test_no_weight_at_all_is_no_discrepancy():
    x, y = rows_of(5).requires_grad_(True), rows_of(4, seed=1)
    value = discrepancy(x, y, torch.zeros(5, dtype=x.dtype))
    value.backward()
    assert value.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_the_gradient_brings_the_sets_together():
    x, y = rows_of(20, shift=1.0).requires_grad_(True), rows_of(20, seed=1)
    before = discrepancy(x, y)
    before.backward()
    assert discrepancy(x.detach() - x.grad, y).item() < before.item()
    assert ((x.grad * (x.detach() - y.mean(dim=0))).sum() > 0).item()


# --- class by class ---------------------------------------------------------------------------------------------------


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
    assert conditional(x, x, labels, [1] * 4 + [0] * 4, 2).min() > 0.5
    assert discrepancy(x, x).abs() < 1e-7


@pytest.mark.parametrize(("first", "second"), [([0, 0, 1], [0, 2, 2]), ([1, 1, 1], [0, 2, 2])])
def test_a_class_that_lacks_rows_in_either_set_adds_nothing(first, second):
    x, y = rows_of(3).requires_grad_(True), rows_of(3, seed=1)
    values = conditional(x, y, first, second)
    shared = sorted(set(first) & set(second))
    assert torch.nonzero(values).flatten().tolist() == shared
    values.sum().backward()
    assert torch.equal(x.grad.abs().sum(dim=1) > 0, torch.tensor([code in shared for code in first]))


# --- sliced Wasserstein -----------------------------------------------------------------------------------------------


def one_hot_rows(count, classes, code):
    return torch.nn.functional.one_hot(torch.full((count,), code), classes).double()


@pytest.mark.parametrize(("classes", "expected"), [(2, 1.0), (7, 0.2857)])
def test_two_corners_are_2_over_k_apart(classes, expected):
    directions = random_directions(classes, 200_000, torch.Generator().manual_seed(0)).double()
    value = sliced_wasserstein(one_hot_rows(4, classes, 0), one_hot_rows(4, classes, 1), directions)
    assert value.item() == pytest.approx(expected, abs=0.01)
    assert value.item() == pytest.approx(2 / classes, rel=0.02)


def test_the_order_of_rows_is_nothing_to_it():
    p = torch.softmax(rows_of(9, 4), dim=1)
    directions = random_directions(4, 16, torch.Generator().manual_seed(0)).double()
    assert sliced_wasserstein(p, p.flip(0), directions).item() == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_sliced_wasserstein_equals_optimal_assignments(count):
    p, q = rows_of(count, 4), rows_of(count, 4, seed=1)
    directions = random_directions(4, 16, torch.Generator().manual_seed(0)).double()
    costs = []
    for direction in directions.T.numpy():
        cost = np.square((p.numpy() @ direction)[:, None] - q.numpy() @ direction)
        costs.append(cost[linear_sum_assignment(cost)].mean())
    assert sliced_wasserstein(p, q, directions).item() == pytest.approx(np.mean(costs), rel=1e-12)


def test_both_samples_get_a_gradient_and_ties_a_finite_one():
    directions = random_directions(3, 16, torch.Generator().manual_seed(0)).double()
    p, q = one_hot_rows(5, 3, 0).requires_grad_(True), one_hot_rows(5, 3, 1).requires_grad_(True)
    sliced_wasserstein(p, q, directions).backward()
    torch.testing.assert_close(p.grad.sum(dim=0), -q.grad.sum(dim=0))
    assert (p.grad[:, 0] > 0).all()


def test_directions_are_unit_columns_from_their_own_generator():
    state = torch.get_rng_state()
    first, again = (random_directions(3, 50, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (3, 50)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(50))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)

"""Contrastive discrepancy: closed forms, a loop over kernels as oracle, gradients, rows that are no distribution."""

import math

import numpy as np
import pytest
import torch

from featlab.errors import InputError
from featlab.methods.losses.discrepancy import class_discrepancies, contrastive_discrepancy

ONE_POINT = 10 - 2 * sum(math.exp(-4 / 2**power) for power in range(5))


def drawn(*shape, seed=0, shift=0.0):
    rows = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(rows + shift * np.arange(shape[0])[:, None, None])


def by_loops(source, target, fixed=None):
    """MMD² of every pair of classes, one kernel value after the other; bandwidths of ``fixed`` target rows."""
    found = np.zeros((len(source), len(target)))
    for code, ours in enumerate(source):
        for other, theirs in enumerate(target):
            both = np.concatenate([ours, theirs if fixed is None else fixed[other]])
            apart = [np.sum((a - b) ** 2) for i, a in enumerate(both) for j, b in enumerate(both) if i != j]
            widths = [np.mean(apart) * 2.0**power for power in (-2, -1, 0, 1, 2)]

            def kernel(rows, columns, widths=widths):
                return np.mean(
                    [sum(np.exp(-np.sum((a - b) ** 2) / width) for width in widths) for a in rows for b in columns]
                )

            found[code, other] = kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
    return found


def contrast(pairs):
    """The same class less the others."""
    classes = len(pairs)
    return np.trace(pairs) / classes - (pairs.sum() - np.trace(pairs)) / (classes * (classes - 1))


def test_every_pair_of_classes_and_their_contrast_equal_a_loop_over_kernels():
    for m, n in ((4, 4), (3, 5), (1, 4), (1, 1)):
        source, target = drawn(3, m, 6, shift=0.7), drawn(3, n, 6, seed=1, shift=1.1)
        pairs = by_loops(source.numpy(), target.numpy())
        np.testing.assert_allclose(class_discrepancies(source, target), pairs, atol=1e-12)
        assert contrastive_discrepancy(source, target).item() == pytest.approx(contrast(pairs), abs=1e-12)
    source, target = drawn(1, 4, 3), drawn(1, 5, 3, seed=1)
    assert torch.equal(contrastive_discrepancy(source, target), class_discrepancies(source, target)[0, 0])


def test_two_classes_of_one_point_each_have_the_published_value_at_any_distance():
    assert pytest.approx(6.186276, abs=1e-6) == ONE_POINT
    for apart in (1e-3, 1.0, 1e4):
        points = torch.tensor([[[0.0, 0.0]], [[apart, 0.0]]])
        expected = torch.tensor([[0.0, ONE_POINT], [ONE_POINT, 0.0]])
        torch.testing.assert_close(class_discrepancies(points, points), expected)
        assert contrastive_discrepancy(points, points).item() == pytest.approx(-ONE_POINT, abs=1e-5)


def test_a_set_has_no_discrepancy_from_itself_and_clean_classes_a_negative_sum():
    """The sign that an implementation with a mask on one axis of the kernel gets wrong."""
    rows = 0.01 * drawn(2, 20, 8)
    rows[1] += 5
    pairs = class_discrepancies(rows, rows)
    assert pairs.diagonal().abs().max() < 1e-12
    # All of the distance is between the classes, and it is m² of the m (2m − 1) pairs of rows.
    fraction = 20 / 39
    expected = 10 - 2 * sum(math.exp(-4 / (2**power * fraction)) for power in range(5))
    assert pairs[0, 1].item() == pytest.approx(expected, rel=1e-3)
    right, wrong = contrastive_discrepancy(rows, rows), contrastive_discrepancy(rows, rows.flip(0))
    assert right.item() == pytest.approx(-expected, rel=1e-3)
    assert wrong.item() == pytest.approx(-right.item(), abs=1e-9)
    far = class_discrepancies(drawn(5, 7, 3), drawn(5, 4, 3, seed=2, shift=30.0))
    assert -1e-12 < far.min() <= far.max() <= 10


def test_the_gradient_is_that_of_fixed_bandwidths():
    """Against central differences of the loop, whose bandwidths are taken at the start."""
    source, target = drawn(2, 3, 2, shift=1.0), drawn(2, 3, 2, seed=1).requires_grad_(True)
    contrastive_discrepancy(source, target).backward()
    start, step = target.detach().numpy(), 1e-6
    numeric = np.zeros_like(start)
    for place in np.ndindex(start.shape):
        move = np.zeros_like(start)
        move[place] = step
        ahead, behind = (contrast(by_loops(source.numpy(), start + sign * move, start)) for sign in (1, -1))
        numeric[place] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(target.grad.numpy(), numeric, atol=1e-7)


def test_descending_brings_a_class_to_its_own_surrogates_and_away_from_the_others():
    source = drawn(2, 8, 3, shift=3.0)
    target = (source.mean(dim=(0, 1)) + 0.3 * drawn(2, 8, 3, seed=1)).requires_grad_(True)
    before = torch.cdist(target.mean(dim=1), source.mean(dim=1)).detach()
    optimiser = torch.optim.SGD([target], lr=1.0)
    for _ in range(100):
        optimiser.zero_grad()
        contrastive_discrepancy(source, target).backward()
        optimiser.step()
    after = torch.cdist(target.mean(dim=1), source.mean(dim=1)).detach()
    assert (after.diagonal() < 0.5 * before.diagonal()).all()
    assert (after.fliplr().diagonal() > before.fliplr().diagonal()).all()


@pytest.mark.parametrize("kind", ["zero", "constant", "one equals the other", "nearly equal", "large"])
def test_rows_without_spread_give_finite_values_and_gradients(kind):
    target = {
        "zero": torch.zeros(2, 4, 3),
        "constant": torch.ones(2, 4, 3),
        "one equals the other": torch.arange(2.0)[:, None, None].expand(2, 4, 3).clone(),
        "nearly equal": 1e-9 * drawn(2, 4, 3).float(),
        "large": 1e8 * drawn(2, 4, 3).float(),
    }[kind].requires_grad_(True)
    loss = contrastive_discrepancy(torch.zeros(2, 4, 3), target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(target.grad).all()
    # Rows that differ by rounding alone are no reason for a leap.
    assert kind != "nearly equal" or target.grad.abs().max() < 1e4


def test_shapes_that_do_not_fit_are_refused(refused):
    shape = (2, 3, 4)
    for source, target in ((shape, (3, 3, 4)), (shape, (2, 3, 5)), ((2, 0, 4), shape), ((0, 3, 4),) * 2, ((3, 4),) * 2):
        with refused(InputError, "class discrepancies", str(source), str(target)):
            contrastive_discrepancy(torch.zeros(source), torch.zeros(target))

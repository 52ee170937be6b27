import doctest
from functools import partial

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import featlab.model.losses
from featlab.errors import InputError
from featlab.model.losses import expression_loss, group_statistics, statistics_along, style_loss, style_statistics
from featlab.model.networks import SourceHead

EPSILON = 1e-6


def rows(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


@pytest.fixture
def head():
    torch.manual_seed(1)
    return SourceHead(6, 4, 3).double().eval().requires_grad_(False)


def test_style_is_numpys_mean_and_std_with_epsilon_inside_the_root_and_its_loss_their_squared_distance():
    values = rows(9, 5)
    for axis, over in (("subject", 0), ("vector", 1)):
        mean, std = style_statistics(values, axis)
        np.testing.assert_allclose(mean, values.numpy().mean(axis=over), rtol=1e-12)
        np.testing.assert_allclose(std, np.sqrt(values.numpy().std(axis=over) ** 2 + EPSILON), rtol=1e-12)
    for ours, theirs in zip(style_statistics(values), style_statistics(values.flip(0)), strict=True):
        torch.testing.assert_close(ours, theirs)
    mean, std, other_mean, other_std = (rows(7, seed=seed).abs() for seed in range(4))
    expected = ((mean - other_mean) ** 2).numpy().sum() / 7 + ((std - other_std) ** 2).numpy().sum() / 7
    assert style_loss(mean, std, other_mean, other_std).item() == pytest.approx(expected, rel=1e-12)


def test_the_style_of_some_rows_is_theirs_alone_and_nan_where_there_is_none():
    values = torch.stack([rows(6, 5) for _ in range(3)])
    known = torch.tensor([[1, 0, 1, 1, 0, 1], [0] * 6, [1] * 6], dtype=torch.bool)
    given = values.masked_fill(~known[..., None], torch.nan)
    for place in (0, 2):
        found = [statistic[place] for statistic in statistics_along(given, 1, some=True)]
        torch.testing.assert_close(found, [*style_statistics(values[place][known[place]])])
    assert all(statistic[1].isnan().all() for statistic in statistics_along(given, 1, some=True))
    for found, expected in zip(statistics_along(given, 2, some=True), statistics_along(values, 2), strict=True):
        torch.testing.assert_close(found, expected.masked_fill(~known, torch.nan), equal_nan=True)


def test_one_row_and_constant_rows_have_sigma_near_zero_and_a_finite_gradient():
    for values in (rows(1, 5), torch.full((4, 5), 3.0, dtype=torch.float64)):
        values.requires_grad_()
        mean, std = style_statistics(values)
        torch.testing.assert_close(std, torch.full_like(std, EPSILON**0.5))
        style_loss(mean, std, mean.detach() + 1, std.detach() + 1).backward()
        assert torch.isfinite(values.grad).all()
        assert values.grad.abs().sum() > 0


def test_group_statistics_are_each_groups_style_statistics():
    values, group = rows(11, 4), torch.tensor([2, 0, 0, 1, 2, 2, 1, 3, 0, 2, 1])
    means, stds = group_statistics(values, group, 4)
    for code in range(4):
        mean, std = style_statistics(values[group == code])
        torch.testing.assert_close(means[code], mean)
        torch.testing.assert_close(stds[code], std)


def test_what_does_not_fit_is_refused(refused):
    zeros = torch.zeros
    for shape in ((0, 5), (5,), (2, 3, 4), ()):
        with refused(InputError, "rows of features (n, D)", str(shape)):
            style_statistics(zeros(shape))
    with refused(InputError, "'batch'", "subject, vector"):
        style_statistics(rows(3, 2), "batch")
    for group, groups, word in (
        ([0, 0, 2], 3, "without rows"),
        ([0, 1, 2], 2, "[0, 2)"),
        ([-1, 0, 1], 2, "[0, 2)"),
        ([0, 1], 2, "a subject each"),
    ):
        with refused(InputError, word):
            group_statistics(rows(3, 2), torch.tensor(group), groups)
    for shapes, word in ((((4,), (4,), (1,), (4,)), "means"), (((4,), (4,), (4,), (1,)), "stds")):
        with refused(InputError, f"{word} differ in shape", "(4,)", "(1,)"):
            style_loss(*map(zeros, shapes))
    equal = (((0, 2),) * 2, ((3,),) * 2, ((),) * 2, ((2, 3, 4),) * 2)
    for ours, theirs in (((3, 2), (3, 4)), ((3, 2), (4, 2)), ((3, 2), (1, 2)), *equal):
        with refused(InputError, "equal logits (n, K)", str(ours)):
            expression_loss(zeros(ours), zeros(theirs))


def test_expression_loss_is_scipys_relative_entropy_reference_first():
    for classes in (2, 3, 7):
        reference, translated = 3 * rows(8, classes, seed=1), 3 * rows(8, classes, seed=2)
        p, q = (scipy.special.softmax(logits.numpy(), axis=1) for logits in (reference, translated))
        loss = expression_loss(reference, translated).item()
        assert loss == pytest.approx(scipy.special.rel_entr(p, q).sum(axis=1).mean(), rel=1e-10)
        assert abs(loss - scipy.stats.entropy(q, p, axis=1).mean()) > 1e-3
    logits = rows(8, 3)
    assert expression_loss(logits, logits).item() == 0.0
    assert expression_loss(logits, logits + rows(8, 1)).item() == pytest.approx(0, abs=1e-12)


def test_one_class_and_probabilities_that_underflow_give_a_finite_loss_and_gradient():
    one = (rows(4, 1, seed=1), rows(4, 1), 0.0)
    underflow = (torch.tensor([[0.0, -1e4], [1e4, 0.0]]), torch.tensor([[-1e4, 0.0], [1e4, 0.0]]), 5e3)
    for reference, translated, expected in (one, underflow):
        loss = expression_loss(reference, translated.requires_grad_())
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert torch.isfinite(translated.grad).all()


def by_parity(values):
    return group_statistics(values, torch.arange(len(values)) % 2, 2)


def style_term(ours, theirs, of=style_statistics):
    return style_loss(*of(ours), *of(theirs))


LOSSES = {
    "style of a subject": lambda t, r, head: style_term(t, r),
    "style of a vector": lambda t, r, head: style_term(t, r, partial(style_statistics, axis="vector")),
    "style of the bottleneck": lambda t, r, head: style_term(head.bottleneck(t), head.bottleneck(r)),
    "expression": lambda t, r, head: expression_loss(head(r), head(t)),
    "style of groups": lambda t, r, head: style_term(t, r, by_parity),
}


@pytest.mark.parametrize("name", LOSSES)
def test_analytic_and_numeric_gradients_agree_and_the_reference_has_none(name, head):
    reference = rows(4, 6, seed=3).requires_grad_()
    translated = rows(4, 6, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: LOSSES[name](values, reference.detach(), head), (translated,))
    LOSSES[name](translated, reference, head).backward()
    assert reference.grad is None


def test_the_docstrings_examples_are_true():
    assert doctest.testmod(featlab.model.losses).failed == 0

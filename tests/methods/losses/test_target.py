"""Entropies, IIC's information loss and NRC's agreement, against known values, SciPy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from featlab.methods.losses.target import (
    EPSILON,
    entropies,
    information_loss,
    marginal_entropy,
    mean_entropy,
    neighbour_agreement,
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def probabilities(rows, classes, seed=0):
    return torch.softmax(tensor(2 * np.random.default_rng(seed).normal(size=(rows, classes))), dim=1)


def one_hot(*classes, count):
    return torch.eye(count)[list(classes)]


def test_entropies_equal_scipys():
    p = probabilities(9, 5)
    np.testing.assert_allclose(entropies(p), scipy_entropy(p.numpy(), axis=1), atol=5 * EPSILON)
    np.testing.assert_allclose(mean_entropy(p), scipy_entropy(p.numpy(), axis=1).mean(), atol=5 * EPSILON)
    np.testing.assert_allclose(marginal_entropy(p), scipy_entropy(p.numpy().mean(axis=0)), atol=5 * EPSILON)


def test_information_loss_of_small_cases():
    balanced, uniform = one_hot(0, 1, 2, 3, count=4), torch.full((5, 4), 0.25)
    smooth = torch.softmax(tensor([[5.0, 0, 0, 0]] * 6), dim=1)
    p = tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]])
    for first, second, expected, atol in (
        (balanced, balanced, -1.386294, 1e-6),
        (uniform, uniform, 0, 1e-6),
        (smooth, smooth, 0, 1e-6),
        (one_hot(0, 1, count=2), one_hot(0, 0, count=2), -0.084950, 1e-6),
        (p[:2], p[:2], -0.00018768, 1e-7),
    ):
        assert float(information_loss(first, second)) == pytest.approx(expected, abs=atol)
    assert float(information_loss(p, p)) < float(information_loss(p, p.flip(0)[[2, 0, 4, 1, 3]]))


def test_information_loss_of_certain_predictions_is_scikit_learns_mutual_information():
    random = np.random.default_rng(1)
    first, second = random.integers(0, 4, size=60), random.integers(0, 4, size=60)
    # Of both orders, because the joint distribution is made symmetric.
    expected = mutual_info_score(np.concatenate([first, second]), np.concatenate([second, first]))
    loss = information_loss(one_hot(*first, count=4), one_hot(*second, count=4))
    assert float(loss) == pytest.approx(-expected, abs=1e-5)


LOSSES = {
    "entropy": mean_entropy,
    "diversity": lambda p: -marginal_entropy(p),
    "information": lambda p: information_loss(p, p),
    "agreement": lambda p: neighbour_agreement(p, p[:, None, :], 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_finite_when_all_rows_are_of_one_class(name):
    """From 200 on, the other probabilities are zero exactly."""
    starts = [
        (tensor([[0.0, scale, -scale]] * rows), torch.nn.Softmax(dim=1))
        for rows in (1, 6)
        for scale in (1.0, 30.0, 200.0, 1e6)
    ]
    for values, distribution in (*starts, (one_hot(1, 1, 1, count=3), torch.nn.Identity())):
        values.requires_grad_()
        loss = LOSSES[name](distribution(values))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    logits = 0.5 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed = torch.softmax(logits.flip(0), dim=1)

    def loss(values):
        p = torch.softmax(values, dim=1)
        return neighbour_agreement(p, fixed[:, None, :], 0.3) if name == "agreement" else LOSSES[name](p)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_(), atol=1e-6)


def test_agreement_is_the_weighted_overlap_and_no_gradient_reaches_the_neighbours_predictions():
    p, scores = probabilities(4, 3).requires_grad_(), probabilities(8, 3, seed=1).view(4, 2, 3).requires_grad_()
    affinity = tensor([[1, 0.1], [0.1, 1], [1, 1], [0.1, 0.1]])
    overlap = np.einsum("nk,nmk,nm->", p.detach().numpy(), scores.detach().numpy(), affinity.numpy())
    assert neighbour_agreement(p, scores, affinity).item() == pytest.approx(-overlap / 4, rel=1e-5)
    neighbour_agreement(p, scores, 1.0).backward()
    assert scores.grad is None
    torch.testing.assert_close(p.grad, -scores.detach().sum(dim=1) / 4)

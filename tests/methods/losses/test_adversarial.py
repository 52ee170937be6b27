"""Domain-adversarial parts against published figures, NumPy and gradients by hand."""

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn

from featlab.methods.losses.domains import (
    Discriminator,
    certainty_weights,
    condition,
    conditional_domain_loss,
    drop,
    reversal_strength,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def discriminator_of(dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Discriminator(6, 5, dropout, generator()).double()


def sample(source=4, target=3):
    """z (source + target, 2) and probabilities of 3 classes."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(source + target, 2)))
    return z, torch.softmax(torch.from_numpy(2 * rng.normal(size=(source + target, 3))), dim=1)


def test_the_strength_of_the_reversal_is_the_published_one():
    for step, expected in ((0, 0.0), (1000, 0.462117), (5000, 0.986614), (10_000, 0.999909)):
        assert reversal_strength(step) == pytest.approx(expected, abs=5e-7)
        assert reversal_strength(step // 20, 500) == pytest.approx(expected, abs=5e-7)


def test_conditioning_is_the_kronecker_product_of_each_row_and_no_gradient_goes_through_the_prediction():
    z, p = sample()
    expected = [np.kron(prediction, row) for prediction, row in zip(p.numpy(), z.numpy(), strict=True)]
    np.testing.assert_allclose(condition(z, p), expected, rtol=1e-12)
    z, p = z.requires_grad_(True), p.detach().requires_grad_(True)
    (condition(z, p).sum(dim=1) * certainty_weights(p)).sum().backward()
    assert p.grad is None
    torch.testing.assert_close(z.grad, certainty_weights(p).unsqueeze(1).expand_as(z))


def test_weights_are_1_plus_the_exponential_of_scipys_entropy():
    _, p = sample()
    expected = 1 + np.exp(-scipy.special.entr(p.numpy()).sum(axis=1))
    np.testing.assert_allclose(certainty_weights(p), expected, atol=1e-4)


def test_dropout_keeps_the_mean_and_draws_from_its_own_generator():
    state = torch.get_rng_state()
    values = torch.ones(200, 200)
    dropped = drop(values, 0.6, generator())
    assert dropped.unique().tolist() == [0.0, pytest.approx(2.5)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropped, drop(values, 0.6, generator()))
    assert not torch.equal(dropped, drop(values, 0.6, generator(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert drop(values, 0.0, generator()) is values
    assert torch.equal(drop(values, 1.0, generator()), torch.zeros(200, 200))
    discriminator, rows = discriminator_of(dropout=0.5), torch.ones(9, 6, dtype=torch.float64)
    assert not torch.equal(discriminator(rows), discriminator(rows))


def logits_by_hand(discriminator, rows):
    """Three layers with a leak of a fifth."""
    for layer in (discriminator.first, discriminator.second, discriminator.last):
        rows = rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        if layer is not discriminator.last:
            rows = np.where(rows > 0, rows, 0.2 * rows)
    return rows[:, 0]


def test_the_loss_is_the_weighted_cross_entropy_of_each_domain():
    z, p = sample()
    discriminator = discriminator_of()
    rows = condition(z, p)
    logits = logits_by_hand(discriminator, rows.numpy())
    np.testing.assert_allclose(discriminator(rows).detach(), logits)
    weights = certainty_weights(p).numpy()
    source = np.average(-np.log(scipy.special.expit(logits[:4])), weights=weights[:4])
    target = np.average(-np.log(scipy.special.expit(-logits[4:])), weights=weights[4:])
    loss = conditional_domain_loss(discriminator, z, p, 4, 1.0)
    assert loss.item() == pytest.approx((source + target) / 2, rel=1e-10)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_features_climb_where_the_discriminator_descends(strength):
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

"""Domain-adversarial training: gradient reversal, and a discriminator conditioned on predictions (CDAN-E)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.methods.losses.target import EPSILON


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradient, None


def reverse_gradient(values: Tensor, strength: float) -> Tensor:
    """Return the values; their gradient comes back times −strength (Ganin & Lempitsky, 2015)."""
    reversed_values: Tensor = _Reversal.apply(values, strength)  # type: ignore[no-untyped-call]
    return reversed_values


def reversal_strength(step: int, total: int = 10_000) -> float:
    """Return 2 / (1 + exp(−10 t/T)) − 1: 0 at the first step, so that an untrained discriminator moves nothing."""
    return 2.0 / (1.0 + math.exp(-10.0 * step / total)) - 1.0


def condition(z: Tensor, p: Tensor) -> Tensor:
    """Return (n, K·H) rows p_i ⊗ z_i; no gradient goes through p (Long et al., 2018)."""
    return (p.detach().unsqueeze(2) * z.unsqueeze(1)).flatten(1)


def certainty_weights(p: Tensor) -> Tensor:
    """Return (n,) weights 1 + exp(−H(p_i)), without a gradient: about 1 for a guess, 2 for certainty (CDAN-E)."""
    p = p.detach()
    return 1.0 + torch.exp((p * torch.log(p + EPSILON)).sum(dim=1))


def drop(values: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return values with a random share of them 0 and the others scaled up: dropout from a CPU generator of its own."""
    if share == 0:
        return values
    # Where everything is dropped there is nothing to scale up.
    scale = 1.0 / (1.0 - share) if share < 1 else 0.0
    kept = torch.rand(values.shape, generator=random).ge_(share).mul_(scale)
    return values * kept.to(values.device)


class Discriminator(nn.Module):
    """Source or target? dim → hidden → hidden → 1 with LeakyReLU (0.2) and dropout."""

    def __init__(self, dim: int, hidden: int, dropout: float, random: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        self.dropout = dropout
        self.random = random

    def forward(self, values: Tensor) -> Tensor:
        """Return (n,) logits: positive for source."""
        for layer in (self.first, self.second):
            values = drop(F.leaky_relu(layer(values), 0.2), self.dropout, self.random)
        logits: Tensor = self.last(values).squeeze(1)
        return logits


def conditional_domain_loss(
    discriminator: Discriminator, z: Tensor, p: Tensor, source_rows: int, strength: float
) -> Tensor:
    """Return the loss of CDAN-E (Long et al., 2018): minimised by D, maximised by the features.

    Binary cross-entropy of D on p ⊗ z, each row weighted by the certainty of its prediction; the weights of a domain
    sum to one half, however many rows it has.
    """
    logits = discriminator(reverse_gradient(condition(z, p), strength))
    weights = certainty_weights(p)
    ours, theirs = weights[:source_rows], weights[source_rows:]
    weight = torch.cat([0.5 * ours / ours.sum(), 0.5 * theirs / theirs.sum()])
    domain = torch.zeros_like(weights)
    domain[:source_rows] = 1.0
    return F.binary_cross_entropy_with_logits(logits, domain, weight=weight, reduction="sum")

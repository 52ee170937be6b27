"""Losses between two domains: domain-adversarial training (CDAN-E), and distances between two samples of rows.

Distances: maximum mean, contrastive, sliced Wasserstein.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.methods.losses.target import EPSILON


def reverse_gradient(values: Tensor, strength: float) -> Tensor:
    """Return values that need a gradient; it comes back times −strength (Ganin & Lempitsky, 2015)."""
    same = values.view_as(values)
    same.register_hook(lambda gradient: -strength * gradient)  # type: ignore[no-untyped-call]
    return same


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
    kept = torch.rand(values.shape, generator=random).ge_(share).mul_(1.0 / (1.0 - share))
    return values * kept.to(values.device)


class Discriminator(nn.Module):
    """Source or target? dim → 512 → 512 → 1 with LeakyReLU (0.2) and dropout (0.5), as published for CDAN."""

    def __init__(self, dim: int, random: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 512)
        self.second = nn.Linear(512, 512)
        self.last = nn.Linear(512, 1)
        self.random = random

    def forward(self, values: Tensor) -> Tensor:
        """Return (n,) logits: positive for source."""
        for layer in (self.first, self.second):
            values = drop(F.leaky_relu(layer(values), 0.2), 0.5, self.random)
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


MINIMUM_BANDWIDTH = 1e-6
"""Bandwidth of rows that are all the same."""


def exponential_kernel(rows: Tensor, bandwidth: float = 0.0) -> Tensor:
    """Return the (n, n) kernel exp(−‖x_i − x_j‖ / bandwidth) of (n, H) rows; 0 takes the mean distance.

    The distance is not squared, as in the code of the published methods that use it.
    """
    # Not by a matrix product: equal rows have to be at distance 0, where the gradient is 0 too.
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distance / (bandwidth or distance.detach().mean().clamp_min(MINIMUM_BANDWIDTH)))


def marginal_weights(first: Tensor, count: int) -> Tensor:
    """Return (n + m,) weights of two whole samples."""
    total = first.sum()
    if total == 0:
        return first.new_zeros(len(first) + count)
    return torch.cat([first / total, first.new_full((count,), -1.0 / count)])


def class_weights(first: Tensor, second: Tensor, classes: int) -> Tensor:
    """Return (K, n + m) weights that compare two samples class by class."""
    codes = torch.arange(classes, device=first.device).unsqueeze(1)
    mine, theirs = (first == codes).float(), (second == codes).float()
    n, m = mine.sum(dim=1, keepdim=True), theirs.sum(dim=1, keepdim=True)
    weights = torch.cat([mine / n.clamp_min(1), -theirs / m.clamp_min(1)], dim=1)
    return weights * ((n > 0) & (m > 0))


def maximum_mean_discrepancy(kernel: Tensor, weights: Tensor) -> Tensor:
    """Return the squared discrepancy wᵀKw (Gretton et al., 2012)."""
    return ((weights @ kernel) * weights).sum(dim=-1)


def random_directions(dim: int, count: int, random: torch.Generator) -> Tensor:
    """Return (dim, count) directions, uniform on the sphere, on the CPU."""
    directions = torch.randn(dim, count, generator=random)
    lengths: Tensor = torch.linalg.vector_norm(directions, dim=0)
    return directions / lengths


def sliced_wasserstein(p: Tensor, q: Tensor, directions: Tensor) -> Tensor:
    """Return the mean over directions of the squared 2-Wasserstein distance of projections (Lee et al., 2019)."""
    ours = torch.sort(p @ directions, dim=0).values
    theirs = torch.sort(q @ directions, dim=0).values
    distance: Tensor = (ours - theirs).square().mean()
    return distance


WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the five Gaussian kernels, in units of the mean squared distance within a pair of classes."""
MINIMUM_SQUARED_BANDWIDTH = 1e-12
"""Rows closer than a millionth are equal but for rounding; in units of their distance its gradient would explode."""


def class_discrepancies(source: Tensor, target: Tensor) -> Tensor:
    """Return (C, C) MMD² between every class of the source, (C, m, D) rows, and every class of the target, (C, n, D).

    The kernel is a sum of five Gaussians, k(a, b) = Σ_w exp(−‖a − b‖² / (w γ)). The bandwidth γ belongs to a pair of
    classes: the mean squared distance between two different rows of their union; no gradient is taken through it. The
    estimator is the biased one, so that a set has no discrepancy from itself.
    """
    m, n = source.shape[1], target.shape[1]
    # (C, 1, m, m), (1, C, n, n) and (C, C, m, n): blocks of each pair of classes.
    within_source = _squared_distances(source, source).unsqueeze(1)
    within_target = _squared_distances(target, target).unsqueeze(0)
    between = _squared_distances(source.unsqueeze(1), target.unsqueeze(0))
    total = within_source.sum(dim=(2, 3)) + within_target.sum(dim=(2, 3)) + 2 * between.sum(dim=(2, 3))
    bandwidth = (total / ((m + n) * (m + n - 1))).detach()[:, :, None, None]
    return (
        _mean_kernel(within_source, bandwidth)
        + _mean_kernel(within_target, bandwidth)
        - 2 * _mean_kernel(between, bandwidth)
    )


def contrastive_discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Return CDD, the mean MMD² of the same class less the mean MMD² of different classes (Kang et al., equation 5)."""
    pairs = class_discrepancies(source, target)
    classes = len(pairs)
    same = pairs.diagonal().sum()
    return same / classes - (pairs.sum() - same) / max(1, classes * (classes - 1))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return (…, m, n) squared distances; exactly 0 between equal rows, where the product form is not."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def _mean_kernel(distances: Tensor, bandwidth: Tensor) -> Tensor:
    """Return (C, C) means of the kernel over the blocks of (C or 1, C or 1, m, n) squared distances."""
    scaled = distances / bandwidth.clamp_min(MINIMUM_SQUARED_BANDWIDTH)
    return torch.stack([torch.exp(-scaled / width) for width in WIDTHS]).sum(dim=0).mean(dim=(2, 3))

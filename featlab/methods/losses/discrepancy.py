"""Distances between two samples: maximum mean discrepancy with weights and by class, sliced Wasserstein distance.

Maximum mean discrepancies are the biased estimate (V-statistic): never negative, and 0 for identical samples, which the
unbiased one is not. Both samples are put behind one another, so that a discrepancy is one quadratic form wᵀKw of the
joint kernel matrix with positive weights on the first sample and negative ones on the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_BANDWIDTH = 1e-6
"""Bandwidth of rows that are all the same."""


def exponential_kernel(x: Tensor, y: Tensor, bandwidth: float = 0.0) -> Tensor:
    """Return the (n, m) kernel exp(−‖x_i − y_j‖ / bandwidth) of (n, H) and (m, H) rows.

    The distance is not squared, as in the code of the published methods that use it.
    """
    # Not by a matrix product: equal rows have to be at distance 0, where the gradient is 0 too.
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    scale = distance.detach().mean().clamp_min(LEAST_BANDWIDTH) if bandwidth == 0 else bandwidth
    return torch.exp(-distance / scale)


def joint_kernel(x: Tensor, y: Tensor, bandwidth: float = 0.0) -> Tensor:
    """Return the (n + m, n + m) kernel matrix of two samples behind one another; see `exponential_kernel`."""
    joint = torch.cat([x, y])
    return exponential_kernel(joint, joint, bandwidth)


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

"""Distances between two samples of rows: maximum mean, contrastive, sliced Wasserstein."""

from __future__ import annotations

import torch
from torch import Tensor

from featlab.errors import InputError

MINIMUM_BANDWIDTH = 1e-6
"""Bandwidth of rows that are all the same."""


def exponential_kernel(x: Tensor, y: Tensor, bandwidth: float = 0.0) -> Tensor:
    """Return the (n, m) kernel exp(−‖x_i − y_j‖ / bandwidth) of (n, H) and (m, H) rows.

    The distance is not squared, as in the code of the published methods that use it.
    """
    # Not by a matrix product: equal rows have to be at distance 0, where the gradient is 0 too.
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    scale = distance.detach().mean().clamp_min(MINIMUM_BANDWIDTH) if bandwidth == 0 else bandwidth
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


WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the five Gaussian kernels, in units of the mean squared distance within a pair of classes."""
MINIMUM_SQUARED_BANDWIDTH = 1e-12
"""Rows closer than a millionth are equal but for rounding; in units of their distance its gradient would explode."""


def class_discrepancies(source: Tensor, target: Tensor) -> Tensor:
    """Return MMD² between every class of the source and every class of the target.

    The kernel is a sum of five Gaussians, k(a, b) = Σ_w exp(−‖a − b‖² / (w γ)). The bandwidth γ belongs to a pair of
    classes: the mean squared distance between two different rows of their union; no gradient is taken through it. The
    estimator is the biased one, so that a set has no discrepancy from itself.
    """
    fits = source.ndim == target.ndim == 3 and source.shape[::2] == target.shape[::2]
    if not fits or not source.numel() or not target.numel():
        raise InputError(
            "class discrepancies need rows (C, m, D) of the same classes with m ≥ 1, got "
            f"{tuple(source.shape)} and {tuple(target.shape)}"
        )
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

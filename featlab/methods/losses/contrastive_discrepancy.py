"""Contrastive domain discrepancy: how far rows of a class are from their own class, less how far from the others.

Source: Kang et al., Contrastive Adaptation Network, CVPR 2019, equations 3 to 5, as SFDA-DE (Ding et al., CVPR 2022)
uses it with surrogate source rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from featlab.errors import InputError

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the five Gaussian kernels, in units of the mean squared distance within a pair of classes."""
LEAST_BANDWIDTH = 1e-12
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
    scaled = distances / bandwidth.clamp_min(LEAST_BANDWIDTH)
    return torch.stack([torch.exp(-scaled / width) for width in WIDTHS]).sum(dim=0).mean(dim=(2, 3))

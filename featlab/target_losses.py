"""Losses on unlabelled target predictions that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EPSILON", "marginal_entropy", "mean_entropy"]

EPSILON = 1e-5
"""Inside the logarithm of an entropy, as in the code of SHOT: at exact zeros it keeps value and gradient finite."""


def mean_entropy(p: Tensor) -> Tensor:
    """Return the mean over rows of −Σ_c p log(p + ε), for (n, K) probabilities (SHOT, equation 3)."""
    return -(p * torch.log(p + EPSILON)).sum(dim=1).mean()


def marginal_entropy(p: Tensor) -> Tensor:
    """Return the entropy of the mean row of (n, K) probabilities; large when predictions are varied (equation 4)."""
    mean = p.mean(dim=0)
    return -(mean * torch.log(mean + EPSILON)).sum()

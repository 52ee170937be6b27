"""Losses on unlabelled target predictions that several methods share.

Probabilities p and q are (n, K), rows sum to one. Every loss is finite, with finite gradients, at exact zeros and ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5
"""Inside the logarithm of an entropy, as in the code of SHOT: at exact zeros it keeps value and gradient finite."""

_SMALLEST = 2.0**-52
"""Least joint or marginal probability in `information_loss`, as in the code of IIC."""


def entropies(p: Tensor) -> Tensor:
    """Return −Σ_c p log(p + ε) of each row, (n,)."""
    return -(p * torch.log(p + EPSILON)).sum(dim=1)


def mean_entropy(p: Tensor) -> Tensor:
    """Return the mean entropy of a row; small when each prediction is sure (SHOT, Liang et al. 2020, equation 3)."""
    return entropies(p).mean()


def marginal_entropy(p: Tensor) -> Tensor:
    """Return the entropy of the mean row; large when predictions are varied (SHOT, Liang et al. 2020, equation 4)."""
    return entropies(p.mean(dim=0, keepdim=True)).squeeze(0)


def information_loss(p: Tensor, q: Tensor) -> Tensor:
    """Return minus the mutual information between the classes of paired rows (IIC, Ji et al. 2019, equation 3).

    The joint distribution is P = Σ_i p_i q_iᵀ, made symmetric and of sum one; the loss is −Σ P log(P / (P_r P_c)), from
    −log K (sure, paired, balanced) to 0 (unrelated, or all of one class). Marginals are clamped like the joint: with
    one class alone and exact zeros the logarithm of a marginal would be infinite.
    """
    joint = p.T @ q
    joint = (joint + joint.T) / 2
    joint = joint / joint.sum()
    marginal = joint.sum(dim=0).clamp(min=_SMALLEST).log()
    joint = joint.clamp(min=_SMALLEST)
    return -(joint * (joint.log() - marginal[:, None] - marginal[None, :])).sum()


def neighbour_agreement(p: Tensor, scores: Tensor, weight: Tensor | float) -> Tensor:
    """Return −(1/n) Σ_i Σ_k w_ik p_i · s_ik: small when rows predict what their neighbours do (NRC)."""
    agreement = torch.einsum("nc,nmc->nm", p, scores.detach())
    return -(weight * agreement).sum(dim=1).mean()

"""Pseudo-labels of unlabelled rows from weighted class centres (SHOT, Liang et al. 2020, equations 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CentreLabels", "centre_labels", "class_centres", "unit_codes"]


@dataclass(frozen=True, eq=False)
class CentreLabels:
    """Rows assigned to class centres.

    Attributes:
        labels: (n,) int64, the class of the nearest centre.
        distance: (n,), the cosine distance 1 − cos to it.
        centres: (K, H + 1), what the rows were compared with; a class that no row was predicted as has one too, but no
            row is assigned to it.
    """

    labels: Tensor
    distance: Tensor
    centres: Tensor


def unit_codes(z: Tensor) -> Tensor:
    """Return (n, H + 1): a one is appended to each row of (n, H) bottleneck outputs, then its length is made 1."""
    return F.normalize(torch.cat([z, torch.ones_like(z[:, :1])], dim=1), dim=1)


def class_centres(codes: Tensor, weight: Tensor) -> Tensor:
    """Return the (K, C) weighted means c_k = Σ_i w_ik x_i / (10⁻⁸ + Σ_i w_ik) of (n, C) codes x with (n, K) weights."""
    return (weight.T @ codes) / (1e-8 + weight.sum(dim=0))[:, None]


def centre_labels(z: Tensor, p: Tensor, *, threshold: int = 0, rounds: int = 2) -> CentreLabels:
    """Assign each row to the class whose centre is nearest in angle.

    Centres are weighted by the predictions in the first round, by the assignments in every further one. A class counts
    when more than ``threshold`` rows are predicted as it (in further rounds: assigned to it); where none has so many,
    every class with a row counts.

    Args:
        z: (n, H) bottleneck outputs, in evaluation mode.
        p: (n, K) predictions for them.
        threshold: 0 as published; 10 for a target that lacks classes (partial-set adaptation).
        rounds: 2 in SHOT, 1 in TPDS.
    """
    codes = unit_codes(z)
    labels, weight = p.argmax(dim=1), p
    for _ in range(rounds):
        centres = class_centres(codes, weight)
        count = F.one_hot(labels, p.shape[1]).sum(dim=0)
        kept = count > (threshold if bool((count > threshold).any()) else 0)
        similarity = (codes @ F.normalize(centres, dim=1).T).masked_fill(~kept, -torch.inf)
        nearest, labels = similarity.max(dim=1)
        weight = F.one_hot(labels, p.shape[1]).to(codes.dtype)
    return CentreLabels(labels, 1 - nearest, centres)

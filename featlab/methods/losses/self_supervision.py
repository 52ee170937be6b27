"""Self-supervision on features: two views of a row, and what SwAV and DeepClusterV2 ask of their embeddings.

SwAV (Caron et al. 2020): each view predicts the balanced soft cluster (Sinkhorn) of the other. DeepClusterV2 (same
paper, section 4.1, after Caron et al. 2018): both views predict the k-means cluster of the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

HIDDEN, OUTPUT = 128, 128
"""Widths of the projector; its output is as published, its hidden layer has 2048 units there."""
TEMPERATURE = 0.1
HEADS = 3
"""Clusterings of DeepClusterV2, each from other centres."""
NOISE, DROPOUT = 0.2, 0.2
"""On a damaged copy: noise, in standard deviations of a feature, and the share of values that are set to zero."""


@dataclass(frozen=True, eq=False)
class Views:
    """How a second view of a row is made: another frame of its clip, or, for a row that has none, a damaged copy."""

    features: Tensor  # (n, D), sorted by video and frame.
    first: Tensor  # (n,) int64, the first row that can stand for each row.
    last: Tensor  # (n,) int64, the last one; the row itself lies between.
    scale: Tensor  # (D,) standard deviation of the features.

    def pair(self, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return two views, both (b, D), of the (b,) rows: the frame and another one, or two damaged copies."""
        first, others = self.first[rows], (self.last - self.first)[rows]
        drawn = first + (torch.rand(len(rows), generator=random) * others).long().clamp(max=others - 1)
        # The rows after the row itself are one further on, because it is left out.
        partner = torch.where(others > 0, drawn + (drawn >= rows), rows)
        own, other = self.features[rows], self.features[partner]
        alone = (others == 0)[:, None].to(self.features.device)
        if not alone.any():
            return own, other
        damaged = self._damaged(own, random), self._damaged(own, random)
        return torch.where(alone, damaged[0], own), torch.where(alone, damaged[1], other)

    def _damaged(self, values: Tensor, random: torch.Generator) -> Tensor:
        noise = torch.randn(values.shape, generator=random).to(values.device)
        kept = (torch.rand(values.shape, generator=random) >= DROPOUT).to(values.device)
        return (values + NOISE * self.scale * noise) * kept


def make_views(features: Tensor, video: NDArray[np.int32], *, window: int) -> Views:
    """Return the views of a target's rows."""
    row = np.arange(len(video))
    first = np.maximum(np.searchsorted(video, video, side="left"), row - window)
    last = np.minimum(np.searchsorted(video, video, side="right") - 1, row + window)
    scale = features.std(dim=0, correction=0)
    return Views(features, torch.from_numpy(first), torch.from_numpy(last), scale)


def sinkhorn(scores: Tensor) -> Tensor:
    """Return balanced soft assignments of rows to prototypes (SwAV, equations 3 to 5, ε = 0.05), by logarithms."""
    rows, prototypes = scores.shape
    logs = scores / 0.05
    for _ in range(3):
        logs = logs - torch.logsumexp(logs, dim=0, keepdim=True) - math.log(prototypes)
        logs = logs - torch.logsumexp(logs, dim=1, keepdim=True) - math.log(rows)
    return torch.exp(logs + math.log(rows))


def swav_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the swapped prediction of two views from (b, P) cosine scores (SwAV, equation 2); no gradient in codes."""
    with torch.no_grad():
        codes = sinkhorn(first), sinkhorn(second)
    swapped = ((codes[0], second), (codes[1], first))
    terms = [-(code * F.log_softmax(scores / TEMPERATURE, dim=1)).sum(dim=1).mean() for code, scores in swapped]
    return torch.stack(terms).mean()


def deepcluster_loss(scores: Tensor, assigned: Tensor) -> Tensor:
    """Return the cross-entropy of (b, P) cosine scores with (b,) clusters; a row at -1 doesn't count (all: 0)."""
    total = F.cross_entropy(scores / TEMPERATURE, assigned, ignore_index=-1, reduction="sum")
    return total / (assigned >= 0).sum().clamp(min=1)


def spherical_kmeans(
    rows: Tensor, start: Tensor, *, rounds: int = 10, at_rest: float = 0.0, stay: bool = True
) -> tuple[Tensor, Tensor]:
    """Return (P, D) centres and the (n,) nearest one of (n, D) directions: k-means by cosine from (P, D) directions on.

    It ends after ``rounds``, or when centres move less than ``at_rest``, a mean cosine distance. A centre without rows
    stays where it was, or goes back to its start.
    """
    centres = start
    for _ in range(rounds):
        member = F.one_hot((rows @ centres.T).argmax(dim=1), len(start)).to(rows.dtype)
        found = member.sum(dim=0)[:, None] > 0
        moved = torch.where(found, F.normalize(member.T @ rows, dim=1), centres if stay else start)
        shift = 0.5 * (1 - (moved * centres).sum(dim=1)).mean()
        centres = moved
        if shift < at_rest:
            break
    return centres, (rows @ centres.T).argmax(dim=1)


class Objective(nn.Module):
    """A projector from bottleneck outputs to directions, and a loss on two views of them; made for so many rows."""

    def __init__(self, width: int, prototypes: int, rows: int, random: torch.Generator) -> None:
        super().__init__()
        self.random = random
        self.projector = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUT)
        )

    def directions(self, codes: Tensor) -> Tensor:
        """Return (b, 128) embeddings of length 1 of (b, H) bottleneck outputs."""
        return F.normalize(self.projector(codes), dim=1)

    def start_epoch(self, epoch: int) -> None:
        """Get ready for an epoch, counted from 0."""
        raise NotImplementedError

    def loss(self, first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of two views, (b, 128) directions each, of the (b,) rows."""
        raise NotImplementedError


class SwAV(Objective):
    """Swapped assignments between views, with prototypes that are learnt and rest in the first epoch."""

    def __init__(self, width: int, prototypes: int, rows: int, random: torch.Generator) -> None:
        super().__init__(width, prototypes, rows, random)
        self.prototypes = nn.Parameter(torch.randn(prototypes, OUTPUT))

    def start_epoch(self, epoch: int) -> None:
        """Let the prototypes move from the second epoch on."""
        self.prototypes.requires_grad_(epoch > 0)

    def loss(self, first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
        """Return `swav_loss` of the cosines with the prototypes."""
        prototypes = F.normalize(self.prototypes, dim=1)
        return swav_loss(first @ prototypes.T, second @ prototypes.T)


class DeepCluster(Objective):
    """k-means on what the last epoch saw of each row; its centres classify this epoch's views, without a gradient.

    Nothing is learnt in the first epoch: there is no clustering yet.
    """

    memory: Tensor
    centres: Tensor
    assigned: Tensor

    def __init__(self, width: int, prototypes: int, rows: int, random: torch.Generator) -> None:
        super().__init__(width, prototypes, rows, random)
        self.register_buffer("memory", torch.zeros(rows, OUTPUT))
        self.register_buffer("centres", torch.zeros(HEADS, prototypes, OUTPUT))
        self.register_buffer("assigned", torch.full((HEADS, rows), -1))

    def start_epoch(self, epoch: int) -> None:
        """Cluster the memory anew, from the second epoch on."""
        if epoch:
            starts = (torch.randperm(len(self.memory), generator=self.random) for _ in range(HEADS))
            found = [spherical_kmeans(self.memory, self.memory[rows[: self.centres.shape[1]]]) for rows in starts]
            self.centres, self.assigned = (torch.stack(part) for part in zip(*found, strict=True))

    def loss(self, first: Tensor, second: Tensor, rows: Tensor) -> Tensor:
        """Return `deepcluster_loss` over clusterings and views; remember the first view."""
        self.memory[rows] = first.detach()
        _, prototypes, width = self.centres.shape
        scores = torch.cat([first, second]) @ self.centres.reshape(-1, width).T
        assigned = self.assigned[:, rows].T.repeat(2, 1)
        return deepcluster_loss(scores.reshape(-1, prototypes), assigned.reshape(-1))

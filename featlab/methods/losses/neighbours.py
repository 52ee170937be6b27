"""A memory of every target row's direction and prediction, and its nearest neighbours (NRC, Yang et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WEAK_AFFINITY = 0.1
"""Of a neighbour that is not a mutual one, and of the neighbours of neighbours; a mutual neighbour's is 1."""

_BLOCK = 1 << 22
"""Similarities held at once."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Neighbours of b rows, and the neighbours' neighbours.

    Attributes:
        near: (b, K) int64, row numbers, most similar first; never the row itself.
        expanded: (b, K, M) int64, the neighbours of each of ``near``. The row itself and duplicates may be among them.
        affinity: (b, K), 1 where the row is one of its neighbour's M neighbours, else `WEAK_AFFINITY`.
    """

    near: Tensor
    expanded: Tensor
    affinity: Tensor


@dataclass(frozen=True, eq=False)
class NeighbourBank:
    """What is remembered of n rows; `renew` writes in place.

    Attributes:
        directions: (n, H) bottleneck outputs of length 1, without gradient.
        scores: (n, K) predictions, without gradient.
    """

    directions: Tensor
    scores: Tensor

    @classmethod
    def of(cls, z: Tensor, p: Tensor) -> NeighbourBank:
        """Return a bank of (n, H) bottleneck outputs and (n, K) predictions."""
        return cls(F.normalize(z.detach(), dim=1), p.detach().clone())

    def renew(self, rows: Tensor, z: Tensor, p: Tensor) -> None:
        """Write (b, H) bottleneck outputs and (b, K) predictions of the (b,) rows."""
        self.directions[rows] = F.normalize(z.detach(), dim=1)
        self.scores[rows] = p.detach()

    def nearest(self, rows: Tensor, count: int) -> Tensor:
        """Return (b, count) rows most similar to (b,) rows by cosine, best first.

        A row is kept out of its own neighbours by its number and not by its rank: frames of a video often are equal,
        and the first of several equal rows need not be the row itself.
        """
        rows = rows.to(self.directions.device)
        found = []
        for part in torch.split(rows, max(1, _BLOCK // len(self.directions))):
            similarity = self.directions[part] @ self.directions.T
            similarity.scatter_(1, part[:, None], -torch.inf)
            found.append(similarity.topk(count, dim=1).indices)
        return torch.cat(found)

    def neighbourhood(self, rows: Tensor, neighbours: int, expanded: int) -> Neighbourhood:
        """Return neighbours, their neighbours and affinities of (b,) rows."""
        most = len(self.directions) - 1
        near = self.nearest(rows, min(neighbours, most))
        # A row is a neighbour of many: each is searched for once.
        distinct, place = torch.unique(near, return_inverse=True)
        beyond = self.nearest(distinct, min(expanded, most))[place]
        mutual = (beyond == rows.to(near.device)[:, None, None]).any(dim=2)
        affinity = torch.where(mutual, 1.0, WEAK_AFFINITY).to(self.scores.dtype)
        return Neighbourhood(near, beyond, affinity)

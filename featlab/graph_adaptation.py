"""AGRA's graph: nodes of both domains exchange what they hold, first within a domain, then across.

A face is R nodes a domain, the whole face first and then R − 1 local regions: source nodes, then target nodes. A row
has the nodes of its own domain; those of the other are filled with the nearest mean of a cluster of that domain's rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GraphAdaptation", "cluster_means", "moved_means", "nearest_mean", "normalised_links", "prior_links"]


def prior_links(regions: int) -> tuple[Tensor, Tensor]:
    """Return the (2R, 2R) links within a domain and across domains that the graph starts with.

    Within: a node and itself 1, the face and a region 0.8, two regions 0.5. Across: a node and itself 1, the two faces
    0.9, a face and a region 0.4, a region and the same region 0.9, two different regions 0.25 (Xie et al., 2020).
    """
    itself = torch.eye(regions)
    within = torch.full((regions, regions), 0.5)
    within[0, :] = within[:, 0] = 0.8
    within.fill_diagonal_(1.0)
    across = torch.full((regions, regions), 0.25)
    across[0, :] = across[:, 0] = 0.4
    across.fill_diagonal_(0.9)
    nothing = torch.zeros(regions, regions)
    return (
        torch.cat([torch.cat([within, nothing], dim=1), torch.cat([nothing, within], dim=1)]),
        torch.cat([torch.cat([itself, across], dim=1), torch.cat([across, itself], dim=1)]),
    )


def normalised_links(links: Tensor) -> Tensor:
    """Return links without the negative ones, each row scaled to a sum of 1."""
    links = links.clamp_min(0)
    return links / links.sum(dim=1, keepdim=True).clamp_min(1e-6)


class GraphAdaptation(nn.Module):
    """Two graph convolutions, width → hidden within a domain and hidden → width across, with links that are learnt.

    The second starts at zero: before any step no node changes.

    Args:
        width: H, of a node.
        hidden: Width between the two.
        regions: R.
    """

    def __init__(self, width: int, hidden: int, regions: int) -> None:
        super().__init__()
        within, across = prior_links(regions)
        self.within = nn.Parameter(within)
        self.across = nn.Parameter(across)
        # Nodes that the prior does not link stay so.
        self.register_buffer("within_mask", (within > 0).float())
        self.register_buffer("across_mask", (across > 0).float())
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    within_mask: Tensor
    across_mask: Tensor

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the (n, 2R, H) changes of (n, 2R, H) nodes."""
        passed = torch.relu(self.first(normalised_links(self.within * self.within_mask) @ nodes))
        changes: Tensor = self.last(normalised_links(self.across * self.across_mask) @ passed)
        return changes


def cluster_means(rows: Tensor, start: Tensor, rounds: int = 10) -> Tensor:
    """Return (K, H) means of the clusters of (n, H) rows, by Lloyd's k-means; an empty cluster keeps its mean.

    Args:
        rows: What is clustered.
        start: (K, H) means to start from.
        rounds: Assignments at most; it ends sooner when the means stay.
    """
    for _ in range(rounds):
        means = moved_means(start, rows, 1.0)
        if torch.equal(means, start):
            break
        start = means
    return start


def moved_means(means: Tensor, rows: Tensor, momentum: float) -> Tensor:
    """Return (K, H) means, each moved by a share of the way to the mean of the (n, H) rows that are nearest to it."""
    member = torch.cdist(rows, means).argmin(dim=1)
    one_hot = torch.nn.functional.one_hot(member, len(means)).to(rows.dtype)
    count = one_hot.sum(dim=0).unsqueeze(1)
    centre = one_hot.T @ rows / count.clamp_min(1)
    return torch.where(count > 0, (1.0 - momentum) * means + momentum * centre, means)


def nearest_mean(rows: Tensor, means: Tensor) -> Tensor:
    """Return (n, H): for each of (n, H) rows the nearest of (K, H) means."""
    return means[torch.cdist(rows, means).argmin(dim=1)]

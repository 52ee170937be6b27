"""Walks from neighbour to neighbour until a confident row is met (TPDS, Tang et al. 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featlab.neighbours import search

__all__ = ["HOPS", "confident_rows", "destinations", "neighbour_walks"]

HOPS = 70
"""Longest walk, as in the code of TPDS."""
UNCERTAIN_SHARE = 0.5
"""Of the rows, those with the largest entropies are uncertain, …"""
NEAR_SHARE = 0.6
"""… unless they are among this share of the rows, the nearest to a class centre."""

_BLOCK_BYTES = 32 << 20
"""For which rows have been visited on the walks of one block."""


def neighbour_walks(features: Tensor, hops: int = HOPS) -> Tensor:
    """Walk from each row to its most similar row that the walk has not visited, and on from there.

    A walk depends on the features alone. Where these are frozen it is made once, and only where on it a walk stops
    changes while B and C are trained.

    Args:
        features: (n, D) finite, n ≥ 2; compared by cosine, ties to the lowest row number.
        hops: Longest walk; no longer than n − 1.

    Returns:
        (n, min(hops, n − 1)) int64: the rows that a walk visits, in order. None is visited twice, the start included.
    """
    values = features.detach().cpu().numpy()
    count = len(values)
    hops = min(hops, count - 1)
    itself = np.arange(count)[:, None] + np.array([0, 1])
    # On hop h a row has h − 1 visited rows at most among its neighbours: of the h nearest, one is free.
    _, ranked = search(values, values, hops, skip=itself)
    walks = np.empty((count, hops), dtype=np.int64)
    for start in range(0, count, max(1, _BLOCK_BYTES // count)):
        here = np.arange(start, min(start + max(1, _BLOCK_BYTES // count), count))
        walker = np.arange(len(here))
        visited = np.zeros((len(here), count), dtype=np.bool_)
        for hop in range(hops):
            visited[walker, here] = True
            ahead = ranked[here, : hop + 1]
            free = ~visited[walker[:, None], ahead]
            here = ahead[walker, free.argmax(axis=1)]
            walks[start + walker, hop] = here
    return torch.from_numpy(walks).to(features.device)


def confident_rows(entropy: Tensor, distance: Tensor) -> Tensor:
    """Return which rows are confident, (n,) bool: all but those of large entropy that are far from every class centre.

    Args:
        entropy: (n,) of the predictions; the ``UNCERTAIN_SHARE`` largest, rounded down, are uncertain.
        distance: (n,) to the nearest class centre; the ``NEAR_SHARE`` smallest, rounded down, are near.
    """
    count = len(entropy)
    uncertain, near = torch.zeros_like(entropy, dtype=torch.bool), torch.zeros_like(entropy, dtype=torch.bool)
    uncertain[entropy.argsort(descending=True, stable=True)[: int(UNCERTAIN_SHARE * count)]] = True
    near[distance.argsort(stable=True)[: int(NEAR_SHARE * count)]] = True
    return ~uncertain | near


def destinations(walks: Tensor, confident: Tensor) -> Tensor:
    """Return the first confident row on each walk, (n,) int64; the walk's first row where none on it is confident.

    Args:
        walks: (n, hops) int64, hops ≥ 1.
        confident: (n,) bool.
    """
    hops = walks.shape[1]
    met = torch.where(confident[walks], torch.arange(hops, device=walks.device), hops).amin(dim=1)
    return walks.gather(1, torch.where(met < hops, met, 0)[:, None]).squeeze(1)

"""Methods that let neighbours vouch for one another: NRC, and TPDS, which walks from row to row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.config.options import option
from featlab.methods.fit import RATES, SGDConfig, SGDMethod, Student, TargetObjective
from featlab.methods.losses.target import (
    centre_labels,
    entropies,
    information_loss,
    marginal_entropy,
    neighbour_agreement,
)
from featlab.model.training import Terms
from featlab.pairing.search import search

WEAK_AFFINITY = 0.1
"""Of a neighbour that is not a mutual one, and of the neighbours of neighbours; a mutual neighbour's is 1."""


@dataclass(frozen=True, eq=False)
class NeighbourBank:
    """What is remembered of n rows; `renew` writes in place."""

    directions: Tensor  # (n, H) bottleneck outputs of length 1, without gradient.
    scores: Tensor  # (n, K) predictions, without gradient.

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
        similarity = self.directions[rows] @ self.directions.T
        similarity.scatter_(1, rows[:, None], -torch.inf)
        return similarity.topk(min(count, len(self.directions) - 1), dim=1).indices

    def around(self, rows: Tensor, neighbours: int, expanded: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (b, K) neighbours of (b,) rows, best first, (b, K, M) neighbours of these, and (b, K) affinities.

        The row itself and duplicates may be among the neighbours' neighbours. The affinity is 1 where the row is one of
        its neighbour's neighbours, else `WEAK_AFFINITY`.
        """
        near = self.nearest(rows, neighbours)
        # A row is a neighbour of many: each is searched for once.
        distinct, place = torch.unique(near, return_inverse=True)
        beyond = self.nearest(distinct, expanded)[place]
        mutual = (beyond == rows.to(near.device)[:, None, None]).any(dim=2)
        return near, beyond, torch.where(mutual, 1.0, WEAK_AFFINITY).to(self.scores.dtype)


@dataclass(frozen=True)
class NRCConfig(SGDConfig):
    """Neighbourhood reciprocity clustering. No row has more neighbours than there are others."""

    weight_decay = 5e-4
    decay = False
    # K and M in the second half of the epochs.
    late_neighbours = 5
    late_expanded = 4

    epochs: int = option(40, search=(15, 40))
    lr: float = option(1e-3, search=(3e-4, 1e-3, 3e-3))
    neighbours: int = option(3, "K, neighbours of a row, in the first half of the epochs.", minimum=1, search=(2, 3))
    expanded: int = option(2, "M, neighbours of a neighbour, in the first half.", minimum=1)


class NRC(SGDMethod):
    """Neighbourhood reciprocity clustering (Yang, van de Weijer, Herranz & Jui, NeurIPS 2021)."""

    name = "nrc"
    published = (
        "Objective, neighbourhoods, optimiser, constant rate and epochs of the Office-Home experiments, BatchNorm in "
        "training mode; B and C at the full rate. The affinity is the paper's, 1 for mutual neighbours and 0.1 for "
        "others. A row is left out of its own neighbours by its number, not by its rank, which counts when frames are "
        "equal; the last iterate is taken. Analogue: B and C are trained on cached features, the backbone is not "
        "(trunk = adapter puts a residual MLP on features in its place), without image augmentation."
    )
    config_type = NRCConfig
    rates = RATES | {"classifier": 1.0}
    neighbours_teach = True

    def objective(self, student: Student, features: Tensor) -> TargetObjective:
        """Return the agreement with neighbours and with theirs, and the size of the neighbourhood by epoch."""
        with student.evaluating():
            z = student.bottleneck(features)
            bank = NeighbourBank.of(z, torch.softmax(student.head.classify(z), dim=1))
        config: NRCConfig = self.config
        sizes = config.neighbours, config.expanded

        def grow(epoch: int) -> None:
            nonlocal sizes
            if 2 * epoch >= config.epochs:
                sizes = config.late_neighbours, config.late_expanded

        def losses(rows: Tensor) -> Terms:
            z = student.bottleneck(features[rows])
            p = torch.softmax(student.head.classify(z), dim=1)
            bank.renew(rows, z, p)
            near, beyond, affinity = bank.around(rows, *sizes)
            return {
                "neighbours": neighbour_agreement(p, bank.scores[near], affinity),
                "expanded neighbours": neighbour_agreement(p, bank.scores[beyond.flatten(1)], WEAK_AFFINITY),
                "diversity": -marginal_entropy(p),
            }

        return losses, grow


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
    """
    values = features.detach().cpu().numpy()
    count = len(values)
    hops = min(hops, count - 1)
    itself = np.arange(count)[:, None] + np.array([0, 1])
    # On hop h a row has h − 1 visited rows at most among its neighbours: of the h nearest, one is free.
    ranked = search(values, values, hops, skip=itself).rows
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
    """Return (n,) bool, the confident rows: all but those of large entropy that are far from every class centre."""
    count = len(entropy)
    uncertain, near = torch.zeros_like(entropy, dtype=torch.bool), torch.zeros_like(entropy, dtype=torch.bool)
    uncertain[entropy.argsort(descending=True, stable=True)[: int(UNCERTAIN_SHARE * count)]] = True
    near[distance.argsort(stable=True)[: int(NEAR_SHARE * count)]] = True
    return ~uncertain | near


def destinations(walks: Tensor, confident: Tensor) -> Tensor:
    """Return the first confident row on each walk, (n,) int64; the walk's first row where none on it is confident."""
    hops = walks.shape[1]
    met = torch.where(confident[walks], torch.arange(hops, device=walks.device), hops).amin(dim=1)
    return walks.gather(1, torch.where(met < hops, met, 0)[:, None]).squeeze(1)


@dataclass(frozen=True)
class TPDSConfig(SGDConfig):
    """Target prediction distribution searching; the rest in `SGDConfig`."""

    diversity: float = option(
        1.0, "Weight of the entropy of the mean prediction, made large.", minimum=0, search=(0.0, 0.5, 1.0)
    )


class TPDS(SGDMethod):
    """Target prediction distribution searching (Tang et al., IJCV 2023)."""

    name = "tpds"
    published = (
        "Objective and weights of the Office experiments, confident rows renewed every epoch, walks of up to 70 hops, "
        "optimiser, schedule and epochs as published, BatchNorm in training mode; B at the full rate, C at a tenth. "
        "Marginals are clamped, so that certain predictions of one class give a finite loss. "
        "Analogue: the published walk goes over backbone features that move in training; cached features don't, so the "
        "walks are made once and only where they stop changes. With trunk = adapter they go over the features before "
        "the adapter. No image augmentation."
    )
    config_type = TPDSConfig
    rates = RATES | {"classifier": 0.1}
    neighbours_teach = True

    def objective(self, student: Student, features: Tensor) -> TargetObjective:
        """Return the information that rows share with the ends of their walks, which are renewed every epoch."""
        walks = neighbour_walks(features)
        reached = walks[:, 0].clone()

        def stop_walks(epoch: int) -> None:
            with student.evaluating():
                z = student.bottleneck(features)
                p = torch.softmax(student.head.classify(z), dim=1)
                _, distance = centre_labels(z, p, rounds=1)
                reached.copy_(destinations(walks, confident_rows(entropies(p), distance)))

        def losses(rows: Tensor) -> Terms:
            p = torch.softmax(student.logits(features[rows]), dim=1)
            q = torch.softmax(student.logits(features[reached[rows]]), dim=1)
            return {"information": information_loss(p, q), "diversity": -self.config.diversity * marginal_entropy(p)}

        return losses, stop_walks

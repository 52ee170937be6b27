"""Walks from neighbour to neighbour until a confident row is met (TPDS, Tang et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import Method, ordered_features
from featlab.methods.fit import Rates, SGDConfig, fit_sgd
from featlab.methods.losses.pseudo_labels import centre_labels
from featlab.methods.losses.target import entropies, information_loss, marginal_entropy
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.pairing.search import search
from featlab.protocol.splits import Target

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
        1.0,
        "Weight of the entropy of the mean prediction, which is made large: 1 for Office and DomainNet, "
        "0.5 for Office-Home, 0 for VisDA.",
        minimum=0,
        search=(0.0, 0.5, 1.0),
    )


class TPDS(Method):
    """Target prediction distribution searching (Tang et al., IJCV 2023)."""

    name = "tpds"
    title = "TPDS (Tang et al., 2023)"
    setting = "SFDA (model-based)"
    published = (
        "Objective and weights of the Office experiments, confident rows renewed every epoch, walks of up to 70 hops, "
        "optimiser, schedule and epochs as published, BatchNorm in training mode; B at the full rate, C at a tenth. "
        "Marginals are clamped, so that certain predictions of one class give a finite loss. "
        "Analogue: the published walk goes over backbone features that move in training; cached features don't, so the "
        "walks are made once and only where they stop changes. With trunk = adapter they go over the features before "
        "the adapter. No image augmentation."
    )
    config_type = TPDSConfig
    supports_single_class = False
    updates = ("translator", "bottleneck", "classifier")

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(f))."""
        self.check(bundle, target)
        features = ordered_features(bundle, target)
        student = make_student(bundle, self.config.trunk, seed)
        if len(features) < 2:
            return AdaptedModel(student.model(bundle), warnings=("one row has no neighbour: nothing was learnt",))
        walks = neighbour_walks(features)
        reached = walks[:, 0].clone()

        def stop_walks(epoch: int) -> None:
            with student.evaluating():
                z = student.bottleneck(features)
                p = torch.softmax(student.head.classify(z), dim=1)
                distance = centre_labels(z, p, rounds=1).distance
                reached.copy_(destinations(walks, confident_rows(entropies(p), distance)))

        def losses(rows: Tensor) -> Terms:
            p = torch.softmax(student.logits(features[rows]), dim=1)
            q = torch.softmax(student.logits(features[reached[rows]]), dim=1)
            return {"information": information_loss(p, q), "diversity": -self.config.diversity * marginal_entropy(p)}

        rates = Rates(classifier=0.1)
        fit = fit_sgd(student, len(features), self.config, losses, seed=seed, rates=rates, on_epoch=stop_walks)
        return AdaptedModel(student.model(bundle), **fit.summary())

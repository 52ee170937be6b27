"""TPDS: each row shares information with a confident row that a walk over neighbours reaches from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from featlab.bundle import Bundle
from featlab.methods.base import AdaptedModel, Method
from featlab.methods.registry import register
from featlab.methods.sgd import Rates, SGDConfig, Terms, fit_sgd
from featlab.methods.student import make_student, ordered_features
from featlab.protocol import Target
from featlab.pseudo_labels import centre_labels
from featlab.settings import check_at_least
from featlab.target_losses import entropies, information_loss, marginal_entropy
from featlab.walks import confident_rows, destinations, neighbour_walks

__all__ = ["TPDS", "TPDSConfig"]


@dataclass(frozen=True)
class TPDSConfig(SGDConfig):
    """Target prediction distribution searching; the rest in `SGDConfig`.

    Attributes:
        diversity: Weight of the entropy of the mean prediction, which is made large: 1 for Office and DomainNet, 0.5
            for Office-Home, 0 for VisDA.
    """

    section: ClassVar[str] = "adapt.tpds"

    diversity: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(f"{self.section}.diversity", self.diversity, 0)


@register
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
    space = (
        ("lr", (1e-3, 3e-3, 1e-2)),
        ("epochs", (5, 15)),
        ("diversity", (0.0, 0.5, 1.0)),
        ("bn_mode", ("train", "eval")),
    )

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
        return AdaptedModel(student.model(bundle), **fit.facts())

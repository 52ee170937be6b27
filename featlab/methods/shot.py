"""SHOT and its half without pseudo-labels, SHOT-IM (Liang, Hu & Feng, ICML 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.config.options import option
from featlab.methods.fit import SGDConfig, SGDMethod, Student, TargetObjective
from featlab.methods.losses.target import centre_labels, information_terms
from featlab.model.training import Terms


@dataclass(frozen=True)
class ShotIMConfig(SGDConfig):
    """Information maximisation; the rest in `SGDConfig`."""

    diversity: float = option(
        1.0, "Weight of the entropy of the mean prediction, made large; 0, as published, where classes lack.", minimum=0
    )


class ShotIM(SGDMethod):
    """Predictions that are sure one by one and varied together (Liang, Hu & Feng, ICML 2020)."""

    name = "shot-im"
    published = (
        "Objective, optimiser, schedule and epochs as published, BatchNorm in training mode; C frozen. Analogue: B is "
        "trained on cached features, the backbone is not (the official code has that path too; trunk = adapter puts a "
        "residual MLP on features in its place), and there is no image augmentation. On a neutral clip the diversity "
        "term pays for classes that are not there, and BatchNorm in training mode takes the class mean away with the "
        "person's."
    )
    config_type = ShotIMConfig

    def objective(self, student: Student, features: Tensor) -> TargetObjective:
        """Return information maximisation."""

        def losses(rows: Tensor) -> Terms:
            return information_terms(student.logits(features[rows]), self.config.diversity)

        return losses, None


@dataclass(frozen=True)
class ShotConfig(ShotIMConfig):
    """SHOT; the rest in `ShotIMConfig`."""

    pseudo: float = option(0.3, "Weight of the cross-entropy with pseudo-labels.", minimum=0, search=(0.1, 0.3))
    threshold: int = option(0, "A class that no more rows than this are predicted as gets no pseudo-label.", minimum=0)


class Shot(ShotIM):
    """Information maximisation and self-supervised pseudo-labels, renewed every epoch (Liang, Hu & Feng, ICML 2020)."""

    name = "shot"
    published = (
        "Objective and weights of the Office experiments, two rounds of pseudo-labels every epoch in evaluation mode, "
        "optimiser, schedule and epochs as published, BatchNorm in training mode; C frozen. Analogue: B is trained on "
        "cached features, the backbone is not (the official code has that path too; trunk = adapter puts a residual "
        "MLP on features in its place), and there is no image augmentation. For a target that lacks classes the "
        "published variant is diversity = 0 and threshold = 10."
    )
    config_type = ShotConfig

    def objective(self, student: Student, features: Tensor) -> TargetObjective:
        """Return information maximisation, and the cross-entropy with pseudo-labels that are renewed every epoch."""
        labels = torch.zeros(len(features), dtype=torch.int64, device=features.device)

        def renew(epoch: int) -> None:
            with student.evaluating():
                z = student.bottleneck(features)
                p = torch.softmax(student.head.classify(z), dim=1)
                labels.copy_(centre_labels(z, p, threshold=self.config.threshold)[0])

        def losses(rows: Tensor) -> Terms:
            logits = student.logits(features[rows])
            terms = information_terms(logits, self.config.diversity)
            return terms | {"pseudo-labels": self.config.pseudo * F.cross_entropy(logits, labels[rows])}

        return losses, renew

"""SHOT-IM: information maximisation on the target's rows, C frozen."""

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
from featlab.target_losses import marginal_entropy, mean_entropy


@dataclass(frozen=True)
class ShotIMConfig(SGDConfig):
    """Information maximisation; see `SGDConfig`."""

    section: ClassVar[str] = "adapt.shot-im"


@register
class ShotIM(Method):
    """Predictions that are sure one by one and varied together (Liang, Hu & Feng, 2020, equations 3 and 4)."""

    name = "shot-im"
    title = "SHOT-IM (Liang et al., 2020)"
    setting = "SFDA (model-based)"
    published = (
        "Objective, optimiser, schedule and epochs as published, BatchNorm in training mode; C frozen. Analogue: B is "
        "trained on cached features, the backbone is not (the official code has that path too), and there is no image "
        "augmentation. On a neutral clip the diversity term pays for classes that are not there."
    )
    config_type = ShotIMConfig
    supports_single_class = False
    updates = ("translator", "bottleneck")
    space = (("lr", (1e-3, 3e-3, 1e-2)), ("epochs", (5, 15)), ("bn_mode", ("train", "eval")))

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B'(f))."""
        self.check(bundle, target)
        features = ordered_features(bundle, target)
        student = make_student(bundle, self.config.trunk, seed)

        def losses(rows: Tensor) -> Terms:
            p = torch.softmax(student.logits(features[rows]), dim=1)
            return {"entropy": mean_entropy(p), "diversity": -marginal_entropy(p)}

        fit = fit_sgd(student, len(features), self.config, losses, seed=seed, rates=Rates())
        return AdaptedModel(student.model(bundle), **fit.facts())

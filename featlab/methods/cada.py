"""CADA: a discriminator, conditioned on predictions, can't tell source from target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.joint import JointBatch, JointConfig, fit_joint, new_part
from featlab.methods.losses.adversarial import Discriminator, conditional_domain_loss, reversal_strength
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.protocol.splits import Target
from featlab.seeding import torch_generator


@dataclass(frozen=True)
class CADAConfig(JointConfig):
    """Conditional domain-adversarial training."""

    iterations: int = option(500, search=(100, 500))
    domain: float = option(1.0, "Weight of the discriminator's loss.", minimum=0, search=(0.1, 1.0))
    hidden: int = option(512, "Width of the discriminator's two hidden layers.", minimum=1)
    dropout: float = option(0.5, "Of the discriminator.", minimum=0, maximum=1)


def new_discriminator(bundle: Bundle, config: CADAConfig, seed: int) -> Discriminator:
    """Return an untrained discriminator of (n, K·H) rows p ⊗ z on the bundle's device."""
    width = len(bundle.classes) * bundle.head.linear.out_features
    random = torch_generator(seed, "dropout")
    device = bundle.projection.mean.device
    return new_part(lambda: Discriminator(width, config.hidden, config.dropout, random), device, seed, "discriminator")


class CADA(SourceAccess):
    """Cross-entropy, and CDAN-E: features that no discriminator tells apart (Long, Cao, Wang & Jordan, 2018)."""

    name = "cada"
    title = "CADA (Long et al., 2018)"
    published = (
        "As published on B's output: CDAN-E, the discriminator on p ⊗ z (p without a gradient), rows weighted by "
        "certainty per domain, 512-512-1 with LeakyReLU 0.2 and dropout 0.5, weight 1, gradient reversal of strength "
        "2/(1+exp(−10 t/T))−1. T is the number of steps, 10 000 as published; the discriminator learns ten times as "
        "fast as B and C, as there. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = CADAConfig
    supports_single_class = False
    updates = ("bottleneck", "classifier")

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return C'(B'(f))."""
        config: CADAConfig = self.config
        student = make_student(bundle, "none", seed)
        discriminator = new_discriminator(bundle, config, seed)

        def losses(batch: JointBatch) -> Terms:
            count = len(batch.source)
            z = student.bottleneck(torch.cat([batch.source, batch.target]))
            logits = student.head.classify(z)
            strength = reversal_strength(batch.step, batch.total)
            domain = conditional_domain_loss(discriminator, z, torch.softmax(logits, dim=1), count, strength)
            return {
                "classification": F.cross_entropy(logits[:count], batch.labels),
                "domain": config.domain * domain,
            }

        extra = list(discriminator.parameters())
        features = ordered_features(bundle, target)
        fit = fit_joint(student, source, features, config, losses, seed=seed, extra=extra)
        return AdaptedModel(student.model(bundle), **fit.summary())

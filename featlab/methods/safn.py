"""SAFN: the norms of features grow step by step, on source and target alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.joint import JointBatch, JointConfig, both_domains, fit_joint
from featlab.methods.losses.target import mean_entropy
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.protocol.splits import Target


def norm_growth_loss(z: Tensor, step: float) -> Tensor:
    """Return the mean over rows of (‖z_i‖ − (‖z_i‖ without a gradient + step))² (Xu et al., 2019).

    Its value is step², always; what matters is the gradient, −2 · step along z_i / ‖z_i‖, and 0 at z_i = 0.
    """
    norms = torch.linalg.vector_norm(z, dim=1)
    loss: Tensor = (norms - (norms.detach() + step)).square().mean()
    return loss


@dataclass(frozen=True)
class SAFNConfig(JointConfig):
    """Stepwise adaptive feature norm."""

    lr: float = option(1e-3, search=(1e-4, 3e-4, 1e-3))
    norm: float = option(0.05, "Weight of the growth of norms, per domain.", minimum=0, search=(0.01, 0.05, 0.1))
    norm_step: float = option(1.0, "Δr, by how much a norm is to grow.", minimum=0)
    entropy: float = option(
        0.0,
        "Weight of the entropy of target predictions; 0.1 in the paper's variant with entropy.",
        minimum=0,
        search=(0.0, 0.1),
    )


class SAFN(SourceAccess):
    """Cross-entropy on source rows, and larger feature norms on both domains (Xu, Li, Yang & Lin, 2019)."""

    name = "safn"
    title = "SAFN (Xu et al., 2019)"
    published = (
        "The paper's loss on source and target, weight 0.05, Δr = 1. Analogue: on B's output in place of a layer of "
        "1000 with ReLU and dropout, so there is no dropout to keep the norm through; B ends in BatchNorm, so in its "
        "training mode norms grow by its scale and shift. B and C for 500 steps in place of a network for 60 epochs; "
        "no entropy by default."
    )
    config_type = SAFNConfig
    supports_single_class = False
    updates = ("bottleneck", "classifier")

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return C'(B'(f))."""
        config: SAFNConfig = self.config
        student = make_student(bundle, "none", seed)

        def losses(batch: JointBatch) -> Terms:
            ours, theirs = both_domains(student.bottleneck, batch)
            terms = {
                "classification": F.cross_entropy(student.head.classify(ours), batch.labels),
                "source norm": config.norm * norm_growth_loss(ours, config.norm_step),
                "target norm": config.norm * norm_growth_loss(theirs, config.norm_step),
            }
            if config.entropy:
                p = torch.softmax(student.head.classify(theirs), dim=1)
                terms["entropy"] = config.entropy * mean_entropy(p)
            return terms

        fit = fit_joint(student, source, ordered_features(bundle, target), config, losses, seed=seed)
        return AdaptedModel(student.model(bundle), **fit.summary())

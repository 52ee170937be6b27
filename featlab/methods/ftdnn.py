"""FTDNN: fine-tuning on the labelled source rows; the target is not looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.joint import JointBatch, JointConfig, fit_joint
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.protocol.splits import Target


@dataclass(frozen=True)
class FTDNNConfig(JointConfig):
    """Source fine-tuning; see `JointConfig`."""

    iterations: int = option(500, search=(100, 500))


class FTDNN(SourceAccess):
    """Cross-entropy on source rows from the source model on (Zavarez, Berriel & Oliveira-Santos, 2017)."""

    name = "ftdnn"
    title = "FTDNN (Zavarez et al., 2017)"
    published = (
        "As in the benchmark that the table comes from: fine-tuning on source data, no target batch. There a network "
        "is fine-tuned for 60 epochs, here B and C on cached features for 500 steps."
    )
    config_type = FTDNNConfig
    updates = ("bottleneck", "classifier")

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return C'(B'(f))."""
        student = make_student(bundle, "none", seed)

        def losses(batch: JointBatch) -> Terms:
            return {"classification": F.cross_entropy(student.logits(batch.source), batch.labels)}

        fit = fit_joint(student, source, ordered_features(bundle, target), self.config, losses, seed=seed)
        return AdaptedModel(student.model(bundle), **fit.summary())

"""DFA: the means of the domains together, rows of a class together, rows of different classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.joint import JointBatch, JointConfig, both_domains, fit_joint
from featlab.methods.losses.discrepancy import exponential_kernel
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.protocol.splits import Target


def mean_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return ‖mean of x − mean of y‖² of (n, H) and (m, H) rows."""
    return (x.mean(dim=0) - y.mean(dim=0)).square().sum()


def discriminative_loss(z: Tensor, labels: Tensor, bandwidth: float) -> Tensor:
    """Return half the mean distance of pairs of one class minus half that of pairs of two.

    A pair's distance is 1 − exp(−‖z_i − z_j‖ / bandwidth), in [0, 1]: there is an end to how far classes are pushed.
    """
    distance = 1.0 - exponential_kernel(z, z, bandwidth)
    same = (labels.unsqueeze(1) == labels).to(z.dtype)
    other = 1.0 - same
    # The diagonal adds nothing to the sum of distances within a class, and is not counted.
    within = (distance * same).sum() / (same.sum() - len(z)).clamp_min(1)
    between = (distance * other).sum() / other.sum().clamp_min(1)
    return 0.5 * (within - between)


@dataclass(frozen=True)
class DFAConfig(JointConfig):
    """Discriminative feature adaptation."""

    align: float = option(1.0, "Weight of the squared distance of the domains' means.", minimum=0, search=(0.1, 1.0))
    discriminate: float = option(1.0, "Weight of the discriminative term on source rows.", minimum=0, search=(0.1, 1.0))
    bandwidth: float = option(0.0, "Of the distance of pairs; 0 takes their mean distance.", minimum=0)


class DFA(SourceAccess):
    """Cross-entropy, aligned domain means and separated classes (after Zhu, Sang & Zhao, 2016)."""

    name = "dfa"
    title = "DFA (Zhu et al., 2016)"
    published = (
        "Analogue, after a description, because the paper was not available: squared distance of the domains' means, "
        "and half the difference of mean distances within and between classes of the source batch, bounded by a kernel "
        "so that it has a minimum. "
        "Weights of 1 are ours. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = DFAConfig
    supports_single_class = False
    updates = ("bottleneck", "classifier")

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return C'(B'(f))."""
        config: DFAConfig = self.config
        student = make_student(bundle, "none", seed)

        def losses(batch: JointBatch) -> Terms:
            ours, theirs = both_domains(student.bottleneck, batch)
            return {
                "classification": F.cross_entropy(student.head.classify(ours), batch.labels),
                "alignment": config.align * mean_distance(ours, theirs),
                "discrimination": config.discriminate * discriminative_loss(ours, batch.labels, config.bandwidth),
            }

        fit = fit_joint(student, source, ordered_features(bundle, target), config, losses, seed=seed)
        return AdaptedModel(student.model(bundle), **fit.summary())

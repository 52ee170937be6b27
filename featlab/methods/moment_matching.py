"""Methods that match statistics of two domains: DFA, DETN and ECAN by discrepancies, SAFN by lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.config.options import option
from featlab.methods.base import SourceFeatures
from featlab.methods.fit import Student
from featlab.methods.joint import JointBatch, JointConfig, JointMethod, JointObjective, both_domains
from featlab.methods.losses.domains import class_weights, exponential_kernel, marginal_weights, maximum_mean_discrepancy
from featlab.methods.losses.target import mean_entropy
from featlab.model.training import Terms


def discriminative_loss(z: Tensor, labels: Tensor) -> Tensor:
    """Return half the mean distance of pairs of one class minus half that of pairs of two.

    A pair's distance is 1 − exp(−‖z_i − z_j‖ / mean), in [0, 1]: there is an end to how far classes are pushed.
    """
    distance = 1.0 - exponential_kernel(z)
    same = (labels.unsqueeze(1) == labels).to(z.dtype)
    other = 1.0 - same
    # The diagonal adds nothing to the sum of distances within a class, and is not counted.
    within = (distance * same).sum() / (same.sum() - len(z)).clamp_min(1)
    between = (distance * other).sum() / other.sum().clamp_min(1)
    return 0.5 * (within - between)


@dataclass(frozen=True)
class DFAConfig(JointConfig):
    """Discriminative feature adaptation."""

    removed = {"bandwidth": "it is the mean distance of pairs"}  # noqa: RUF012

    align: float = option(1.0, "Weight of the squared distance of the domains' means.", minimum=0, search=(0.1, 1.0))
    discriminate: float = option(1.0, "Weight of the discriminative term on source rows.", minimum=0, search=(0.1, 1.0))


class DFA(JointMethod):
    """Cross-entropy, aligned domain means and separated classes (after Zhu, Sang & Zhao, 2016)."""

    name = "dfa"
    published = (
        "Analogue, after a description, because the paper was not available: squared distance of the domains' means, "
        "and half the difference of mean distances within and between classes of the source batch, bounded by a kernel "
        "so that it has a minimum. "
        "Weights of 1 are ours. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = DFAConfig

    def losses(self, student: Student, batch: JointBatch) -> Terms:
        """Return the alignment of means and the discrimination of classes."""
        config: DFAConfig = self.config
        ours, theirs = both_domains(student.bottleneck, batch)
        return {
            "classification": F.cross_entropy(student.head.classify(ours), batch.labels),
            "alignment": config.align * (ours.mean(dim=0) - theirs.mean(dim=0)).square().sum(),
            "discrimination": config.discriminate * discriminative_loss(ours, batch.labels),
        }


def class_ratios(source: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return α_c = P_t(c) / P_s(c), (K,); 0 for a class without source rows."""
    ours, theirs = (torch.bincount(labels, minlength=classes) / len(labels) for labels in (source, target))
    return torch.where(ours > 0, theirs / ours, torch.zeros_like(ours))


@dataclass(frozen=True)
class DETNConfig(JointConfig):
    """Alignment by reweighted discrepancy."""

    renewals = 3  # How often pseudo-labels and weights are made anew, at equal intervals from the first step.

    align: float = option(1.0, "Γ, weight of the discrepancy of the domains.", minimum=0, search=(0.1, 1.0, 10.0))
    conditional: float = option(
        0.0, "Λ, weight of the mean discrepancy of a class's source rows and target rows.", minimum=0
    )
    bandwidth: float = option(
        0.0, "Of the kernel exp(−‖x − y‖ / bandwidth); 0 takes the batch's mean distance.", minimum=0, search=(0.0, 2.0)
    )


class DETN(JointMethod):
    """Cross-entropy and a class-reweighted maximum mean discrepancy (Li & Deng, 2018)."""

    name = "detn"
    published = (
        "As published in idea: α_c = P_t(c)/P_s(c) from pseudo-labels, renewed every third of the training, Γ = 1 and "
        "Λ = 0 as in the benchmark that the table comes from. The estimate is the biased MMD², 0 for identical sets. "
        "The published kernel exp(−‖x−y‖/2) flattens at the distances of a wide output of B, so the "
        "bandwidth here is the batch's mean distance by default (bandwidth = 2 is the published one). B and C for 500 "
        "steps in place of a network for 60 epochs."
    )
    config_type = DETNConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return the discrepancies of source rows and target rows under their present pseudo-labels."""
        config: DETNConfig = self.config
        classes = student.classes
        pseudo = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        ratios = torch.ones(classes, device=features.device)

        def renew() -> None:
            with student.evaluating():
                pseudo.copy_(student.logits(features).argmax(dim=1))
            ratios.copy_(class_ratios(source.labels, pseudo, classes))

        def losses(batch: JointBatch) -> Terms:
            ours, theirs = both_domains(student.bottleneck, batch)
            kernel = exponential_kernel(torch.cat([ours, theirs]), config.bandwidth)
            weights = marginal_weights(ratios[batch.labels], len(theirs))
            terms = {
                "classification": F.cross_entropy(student.head.classify(ours), batch.labels),
                "alignment": config.align * maximum_mean_discrepancy(kernel, weights),
            }
            if config.conditional:
                by_class = class_weights(batch.labels, pseudo[batch.target_rows], classes)
                mean = maximum_mean_discrepancy(kernel, by_class).mean()
                terms["alignment by class"] = config.conditional * mean
            return terms

        return JointObjective(losses, renew=renew, renewals=config.renewals)


@dataclass(frozen=True)
class ECANConfig(DETNConfig):
    """Alignment by reweighted and conditional discrepancy; see `DETNConfig`."""

    conditional: float = option(1.0, search=(0.1, 1.0))


class ECAN(DETN):
    """Cross-entropy, and reweighted and conditional maximum mean discrepancies (Li & Deng, 2020)."""

    name = "ecan"
    published = (
        "DETN and, as published, the discrepancy of each class's source rows and pseudo-labelled target rows, Λ = 1, "
        "averaged over classes; a class that a batch lacks in either domain adds nothing. "
        "Kernel, pseudo-labels and steps as in DETN here."
    )
    config_type = ECANConfig


def norm_growth_loss(z: Tensor) -> Tensor:
    """Return the mean over rows of (‖z_i‖ − (‖z_i‖ without a gradient + 1))² (Xu et al., 2019, Δr = 1).

    Its value is 1, always; what matters is the gradient, −2 along z_i / ‖z_i‖, and 0 at z_i = 0.
    """
    norms = torch.linalg.vector_norm(z, dim=1)
    loss: Tensor = (norms - (norms.detach() + 1.0)).square().mean()
    return loss


@dataclass(frozen=True)
class SAFNConfig(JointConfig):
    """Stepwise adaptive feature norm."""

    removed = {"norm_step": "norms grow by 1, as published"}  # noqa: RUF012

    lr: float = option(1e-3, search=(1e-4, 3e-4, 1e-3))
    norm: float = option(0.05, "Weight of the growth of norms, per domain.", minimum=0, search=(0.01, 0.05, 0.1))
    entropy: float = option(
        0.0, "Weight of the entropy of target predictions; 0.1 in the paper's variant.", minimum=0, search=(0.0, 0.1)
    )


class SAFN(JointMethod):
    """Cross-entropy on source rows, and larger feature norms on both domains (Xu, Li, Yang & Lin, 2019)."""

    name = "safn"
    published = (
        "The paper's loss on source and target, weight 0.05, Δr = 1. Analogue: on B's output in place of a layer of "
        "1000 with ReLU and dropout, so there is no dropout to keep the norm through; B ends in BatchNorm, so in its "
        "training mode norms grow by its scale and shift. B and C for 500 steps in place of a network for 60 epochs; "
        "no entropy by default."
    )
    config_type = SAFNConfig

    def losses(self, student: Student, batch: JointBatch) -> Terms:
        """Return the growth of norms, and the entropy where it has a weight."""
        config: SAFNConfig = self.config
        ours, theirs = both_domains(student.bottleneck, batch)
        terms = {
            "classification": F.cross_entropy(student.head.classify(ours), batch.labels),
            "source norm": config.norm * norm_growth_loss(ours),
            "target norm": config.norm * norm_growth_loss(theirs),
        }
        if config.entropy:
            p = torch.softmax(student.head.classify(theirs), dim=1)
            terms["entropy"] = config.entropy * mean_entropy(p)
        return terms

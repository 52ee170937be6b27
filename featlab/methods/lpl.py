"""LPL: source rows drawn to their nearest neighbours of the same class; the target is not looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.joint import JointBatch, JointConfig, fit_joint
from featlab.methods.student import make_student
from featlab.model.personal import AdaptedModel
from featlab.model.training import Terms
from featlab.protocol.splits import Target


def locality_loss(z: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """Return the mean over rows of ½‖z_i − mean of its nearest rows of the same class‖² (Li, Deng & Du, 2017).

    The neighbours' mean has no gradient: a row is drawn to its neighbours and does not draw them.
    """
    with torch.no_grad():
        others = labels.unsqueeze(1) == labels
        # By index and not by distance: a row that is there twice is its own copy's neighbour.
        others.fill_diagonal_(False)
        nearest = torch.cdist(z, z).masked_fill(~others, torch.inf).topk(min(neighbours, len(z)), largest=False)
        chosen = z.new_zeros(len(z), len(z))
        chosen.scatter_(1, nearest.indices, torch.isfinite(nearest.values).to(chosen.dtype))
        count = chosen.sum(dim=1, keepdim=True)
        centre = chosen @ z / count.clamp_min(1)
    return 0.5 * ((z - centre).square() * (count > 0)).sum(dim=1).mean()


@dataclass(frozen=True)
class LPLConfig(JointConfig):
    """Locality preserving loss."""

    bn_mode: str = option("train", search=())
    locality: float = option(
        0.003,
        "λ, weight of the locality preserving loss.",
        minimum=0,
        search=(0.0003, 0.003, 0.03),
    )
    neighbours: int = option(20, "k.", minimum=1, search=(5, 20))


class LPL(SourceAccess):
    """Cross-entropy and a locality preserving loss on source rows (Li, Deng & Du, 2017)."""

    name = "lpl"
    title = "LPL (Li et al., 2017)"
    published = (
        "The paper's locality preserving loss on B's output, λ = 0.003 and k = 20, neighbours of the same class within "
        "a batch, no target batch: a method of the source, as in the benchmark that the table comes from. "
        "With 32 rows a batch a class has fewer than k others; all of them are taken. B and C for "
        "500 steps in place of a network for 60 epochs."
    )
    config_type = LPLConfig
    updates = ("bottleneck", "classifier")

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return C'(B'(f))."""
        config: LPLConfig = self.config
        student = make_student(bundle, "none", seed)

        def losses(batch: JointBatch) -> Terms:
            z = student.bottleneck(batch.source)
            return {
                "classification": F.cross_entropy(student.head.classify(z), batch.labels),
                "locality": config.locality * locality_loss(z, batch.labels, config.neighbours),
            }

        fit = fit_joint(student, source, ordered_features(bundle, target), config, losses, seed=seed)
        return AdaptedModel(student.model(bundle), **fit.summary())

"""Methods that never look at the target: ICID, LPL and FTDNN train on labelled source rows alone."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.compute import torch_generator
from featlab.config.options import option
from featlab.methods.base import SourceFeatures
from featlab.methods.fit import Student
from featlab.methods.joint import CombinedHead, JointBatch, JointConfig, JointMethod, JointObjective, new_part
from featlab.methods.losses.domains import drop
from featlab.model.training import Terms


def pair_labels(labels: Tensor) -> Tensor:
    """Return (n,) float: 1 where a row and the next one (after the last comes the first) are of one class."""
    return (labels == labels.roll(-1)).float()


class Channel(nn.Module):
    """A residual linear map of (n, H) rows that starts as the identity, bitwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Linear(width, width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return z + A z + a."""
        changed: Tensor = z + self.change(z)
        return changed


@dataclass(frozen=True)
class ICIDConfig(JointConfig):
    """Fusion of two channels."""

    removed = {"distinction": "both channels' own tasks weigh alike; see pairs"}  # noqa: RUF012
    dropout = 0.6  # Of what the classifiers are given in training.

    pairs: float = option(
        1.0, "Weight of telling, by the intra-category channel, pairs of one class.", minimum=0, search=(0.1, 1.0)
    )


class ICID(JointMethod):
    """Intra-category common and inter-category distinction features, fused (Ji, Hu, Yang, Shen & Shen, 2019)."""

    name = "icid"
    published = (
        "Losses as in the benchmark that the table comes from, source only: pairs of a row and the next one, same "
        "class or not, on the intra-category channel; cross-entropy on the inter-category channel and on half of each; "
        "dropout 0.6. Analogue: the channels keep the width of B's output and start as the identity, and the "
        "classifiers as C, in place of new ones of width 100, so that training starts at the source model; a pair is "
        "judged from the absolute difference of its rows. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = ICIDConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return the losses of both channels; what predicts is C'((common(B'(f)) + distinct(B'(f))) / 2)."""
        config: ICIDConfig = self.config
        width, device = student.head.linear.out_features, features.device
        common, distinct = (new_part(lambda: Channel(width), device, seed, name) for name in ("common", "distinct"))
        judge = new_part(lambda: nn.Linear(width, 1), device, seed, "judge")
        own_classifier = copy.deepcopy(student.head.classifier)
        random = torch_generator(seed, "dropout")

        def predict(z: Tensor) -> Tensor:
            return student.head.classify(0.5 * common(z) + 0.5 * distinct(z))

        def losses(batch: JointBatch) -> Terms:
            z = student.bottleneck(batch.source)
            ours, theirs = common(z), distinct(z)
            fused = drop(0.5 * ours + 0.5 * theirs, config.dropout, random)
            differences = drop((ours - ours.roll(-1, dims=0)).abs(), config.dropout, random)
            pairs = F.binary_cross_entropy_with_logits(judge(differences).squeeze(1), pair_labels(batch.labels))
            alone = own_classifier(drop(theirs, config.dropout, random))
            return {
                "classification": F.cross_entropy(student.head.classify(fused), batch.labels),
                "pairs": config.pairs * pairs,
                "distinction": F.cross_entropy(alone, batch.labels),
            }

        new = [*common.parameters(), *distinct.parameters(), *judge.parameters()]
        head = CombinedHead(student.head, predict, common=common, distinct=distinct)
        return JointObjective(losses, list(own_classifier.parameters()), new, head=head)


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
        0.003, "λ, weight of the locality preserving loss.", minimum=0, search=(0.0003, 0.003, 0.03)
    )
    neighbours: int = option(20, "k.", minimum=1, search=(5, 20))


class LPL(JointMethod):
    """Cross-entropy and a locality preserving loss on source rows (Li, Deng & Du, 2017)."""

    name = "lpl"
    published = (
        "The paper's locality preserving loss on B's output, λ = 0.003 and k = 20, neighbours of the same class within "
        "a batch, no target batch: a method of the source, as in the benchmark that the table comes from. "
        "With 32 rows a batch a class has fewer than k others; all of them are taken. B and C for "
        "500 steps in place of a network for 60 epochs."
    )
    config_type = LPLConfig

    def losses(self, student: Student, batch: JointBatch) -> Terms:
        """Return the classification and the locality of source rows."""
        z = student.bottleneck(batch.source)
        return {
            "classification": F.cross_entropy(student.head.classify(z), batch.labels),
            "locality": self.config.locality * locality_loss(z, batch.labels, self.config.neighbours),
        }


@dataclass(frozen=True)
class FTDNNConfig(JointConfig):
    """Source fine-tuning; see `JointConfig`."""

    iterations: int = option(500, search=(100, 500))


class FTDNN(JointMethod):
    """Cross-entropy on source rows from the source model on (Zavarez, Berriel & Oliveira-Santos, 2017)."""

    name = "ftdnn"
    published = (
        "As in the benchmark that the table comes from: fine-tuning on source data, no target batch. There a network "
        "is fine-tuned for 60 epochs, here B and C on cached features for 500 steps."
    )
    config_type = FTDNNConfig

    def losses(self, student: Student, batch: JointBatch) -> Terms:
        """Return the classification of source rows."""
        return {"classification": F.cross_entropy(student.logits(batch.source), batch.labels)}

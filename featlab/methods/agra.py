"""AGRA: a graph of source and target nodes changes B's output, and a discriminator can't tell the domains apart."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.adversarial import conditional_domain_loss, reversal_strength
from featlab.bundle import Bundle
from featlab.graph_adaptation import GraphAdaptation, cluster_means, moved_means, nearest_mean
from featlab.methods.base import AdaptedModel
from featlab.methods.cada import CADAConfig, new_discriminator
from featlab.methods.joint import JointBatch, fit_joint, is_due, new_part
from featlab.methods.registry import register
from featlab.methods.sgd import Terms
from featlab.methods.source_access import SourceAccess, SourceFeatures
from featlab.methods.student import make_student, ordered_features
from featlab.models import PersonalModel, SourceHead
from featlab.protocol import Target
from featlab.settings import check_at_least, check_share

SOURCE, TARGET = 0, 1
"""Places of the two nodes of a row."""


def pair_nodes(z: Tensor, means: Tensor, own: int) -> Tensor:
    """Return (n, 2, H) nodes of rows of one domain.

    Args:
        z: (n, H) rows.
        means: (K, H) cluster means of the other domain, the nearest of which is a row's other node.
        own: `SOURCE` or `TARGET`, the rows' domain.
    """
    other = nearest_mean(z, means)
    return torch.stack([z, other] if own == SOURCE else [other, z], dim=1)


def normalised(norm: nn.BatchNorm1d, values: Tensor, bn_mode: str) -> Tensor:
    """Return all (n, H) rows of a domain as its batches are normalised in training; running statistics stay."""
    if bn_mode == "train" and len(values) > 1:
        return F.batch_norm(values, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class GraphHead(nn.Module):
    """B with the target's BatchNorm, the graph with the source's cluster means, and C.

    Args:
        head: B and C.
        graph: Of one region.
        source_means: (K, H).
    """

    source_means: Tensor

    def __init__(self, head: SourceHead, graph: GraphAdaptation, source_means: Tensor) -> None:
        super().__init__()
        self.head = head
        self.graph = graph
        self.register_buffer("source_means", source_means)

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, K) logits of (n, D) features of target rows."""
        z = self.head.bottleneck(features)
        change = self.graph(pair_nodes(z, self.source_means, TARGET))[:, TARGET]
        return self.head.classify(z + change)


@dataclass(frozen=True)
class AGRAConfig(CADAConfig):
    """Adversarial graph representation adaptation.

    Attributes:
        graph_hidden: Width between the two graph convolutions.
        renewals: How often the clusters are made anew, at equal intervals from the first step.
        means_momentum: Share of the way that a cluster's mean moves to its rows of a batch.
    """

    section: ClassVar[str] = "adapt.agra"

    graph_hidden: int = 128
    renewals: int = 6
    means_momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("adapt.agra.graph_hidden", self.graph_hidden, 1)
        check_at_least("adapt.agra.renewals", self.renewals, 1)
        check_share("adapt.agra.means_momentum", self.means_momentum)


@register
class AGRA(SourceAccess):
    """CDAN-E on features that passed a graph of both domains (Xie et al., 2020; Chen et al., 2021)."""

    name = "agra"
    title = "AGRA (Chen et al., 2021)"
    published = (
        "CADA's loss, a BatchNorm for each domain, links that are learnt from their published start, k-means renewed "
        "every sixth of the training with momentum 0.1, the other domain's node filled by the nearest cluster mean. "
        "Analogue: a vector has no face regions, so there are two nodes, linked [[1, 0.9], [0.9, 1]]/1.9, and no "
        "classifier of regions; the graph's output is added to B's and starts at zero, so that training starts at the "
        "source model; clusters start from the source's classes. B and C for 500 steps in place of a network for 60 "
        "epochs."
    )
    config_type = AGRAConfig
    supports_single_class = False
    updates = ("bottleneck", "classifier")
    space = (
        ("lr", (1e-4, 3e-4, 1e-3)),
        ("domain", (0.1, 1.0)),
        ("graph_hidden", (64, 128)),
        ("bn_mode", ("train", "eval")),
    )

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(z + graph(z, nearest source mean)) with z = B'(f)."""
        self.check(bundle, target)
        config: AGRAConfig = self.config
        features = ordered_features(bundle, target)
        student = make_student(bundle, "none", seed)
        head = student.head
        # B's own BatchNorm becomes the target's: it is the one that the model predicts with.
        source_norm = copy.deepcopy(head.norm)
        discriminator = new_discriminator(bundle, config, seed)
        width = head.linear.out_features
        graph = new_part(lambda: GraphAdaptation(width, config.graph_hidden, regions=1), features.device, seed, "graph")
        clusters = _Clusters(source, head, source_norm)

        def renew(step: int) -> None:
            if is_due(step, config.iterations, config.renewals):
                with torch.no_grad():
                    clusters.renew(
                        normalised(source_norm, head.linear(source.features), config.bn_mode),
                        normalised(head.norm, head.linear(features), config.bn_mode),
                    )

        def losses(batch: JointBatch) -> Terms:
            source_norm.train(config.bn_mode == "train")
            # One row is no batch: the target's statistics stay.
            head.norm.train(config.bn_mode == "train" and len(batch.target) > 1)
            ours, theirs = source_norm(head.linear(batch.source)), head.bottleneck(batch.target)
            clusters.follow(ours.detach(), theirs.detach(), config.means_momentum)
            nodes = pair_nodes(ours, clusters.target, SOURCE), pair_nodes(theirs, clusters.source, TARGET)
            changes = graph(torch.cat(nodes))
            count = len(ours)
            z = torch.cat([ours + changes[:count, SOURCE], theirs + changes[count:, TARGET]])
            logits = head.classify(z)
            strength = reversal_strength(batch.step, batch.total)
            domain = conditional_domain_loss(discriminator, z, torch.softmax(logits, dim=1), count, strength)
            return {
                "classification": F.cross_entropy(logits[:count], batch.labels),
                "domain": config.domain * domain,
            }

        copies = list(source_norm.parameters())
        extra = [*discriminator.parameters(), *graph.parameters()]
        fit = fit_joint(student, source, features, config, losses, seed=seed, copies=copies, extra=extra, on_step=renew)
        person = GraphHead(head, graph, clusters.source).requires_grad_(False)
        if len(features) == 1 and config.bn_mode == "train":
            fit = replace(
                fit, warnings=("one row is no batch for the target's BatchNorm: the source's statistics stay",)
            )
        return AdaptedModel(PersonalModel(bundle.projection, None, person), **fit.facts())


class _Clusters:
    """Cluster means of both domains, which follow the rows; they start as the source's class means."""

    def __init__(self, source: SourceFeatures, head: SourceHead, source_norm: nn.Module) -> None:
        with torch.no_grad():
            z = source_norm(head.linear(source.features))
            present = torch.unique(source.labels)
            member = (source.labels.unsqueeze(1) == present).to(z.dtype)
            self.source = member.T @ z / member.sum(dim=0).unsqueeze(1)
        self.target = self.source

    def renew(self, source: Tensor, target: Tensor) -> None:
        """Cluster all (N, H) and (n, H) rows, from the means as they are."""
        self.source, self.target = cluster_means(source, self.source), cluster_means(target, self.target)

    def follow(self, source: Tensor, target: Tensor, momentum: float) -> None:
        """Move the means towards a batch's rows."""
        self.source = moved_means(self.source, source, momentum)
        self.target = moved_means(self.target, target, momentum)

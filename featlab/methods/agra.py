"""AGRA's graph: nodes of both domains exchange what they hold, first within a domain, then across.

A row is two nodes, of the source and of the target. It has the one of its own domain; the other is filled with the
nearest mean of a cluster of that domain's rows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featlab.config.options import option
from featlab.methods.adversarial import CADAConfig, domain_terms, new_discriminator
from featlab.methods.base import SourceFeatures
from featlab.methods.fit import Student
from featlab.methods.joint import CombinedHead, JointBatch, JointMethod, JointObjective, is_due, new_part
from featlab.methods.losses.target import class_centres
from featlab.model.training import Terms

ACROSS = ((1.0, 0.9), (0.9, 1.0))
"""Links across domains that the graph starts with (Xie et al., 2020); within a domain a node is linked with itself."""


def normalised_links(links: Tensor) -> Tensor:
    """Return links without the negative ones, each row scaled to a sum of 1."""
    links = links.clamp_min(0)
    return links / links.sum(dim=1, keepdim=True).clamp_min(1e-6)


class GraphAdaptation(nn.Module):
    """Two graph convolutions, width → hidden within a domain and hidden → width across, with links that are learnt.

    The second starts at zero: before any step no node changes.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.within = nn.Parameter(torch.eye(2))
        self.across = nn.Parameter(torch.tensor(ACROSS))
        # Nodes that are not linked at the start stay so.
        self.register_buffer("linked", torch.eye(2))
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    linked: Tensor

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the (n, 2, H) changes of (n, 2, H) nodes."""
        passed = torch.relu(self.first(normalised_links(self.within * self.linked) @ nodes))
        changes: Tensor = self.last(normalised_links(self.across) @ passed)
        return changes


def cluster_means(rows: Tensor, start: Tensor, rounds: int = 10) -> Tensor:
    """Return (K, H) means of the clusters of (n, H) rows, by Lloyd's k-means; an empty cluster keeps its mean."""
    for _ in range(rounds):
        means = moved_means(start, rows, 1.0)
        if torch.equal(means, start):
            break
        start = means
    return start


def moved_means(means: Tensor, rows: Tensor, momentum: float) -> Tensor:
    """Return (K, H) means, each moved by a share of the way to the mean of the (n, H) rows that are nearest to it."""
    one_hot = F.one_hot(nearest(rows, means), len(means)).to(rows.dtype)
    count = one_hot.sum(dim=0).unsqueeze(1)
    centre = one_hot.T @ rows / count.clamp_min(1)
    return torch.where(count > 0, (1.0 - momentum) * means + momentum * centre, means)


def nearest(rows: Tensor, means: Tensor) -> Tensor:
    """Return (n,): for each of (n, H) rows which of (K, H) means is the nearest."""
    return torch.cdist(rows, means).argmin(dim=1)


SOURCE, TARGET = 0, 1
"""Places of the two nodes of a row."""


def pair_nodes(z: Tensor, means: Tensor, own: int) -> Tensor:
    """Return (n, 2, H) nodes of rows of one domain."""
    other = means[nearest(z, means)]
    return torch.stack([z, other] if own == SOURCE else [other, z], dim=1)


def normalised(norm: nn.BatchNorm1d, values: Tensor, bn_mode: str) -> Tensor:
    """Return all (n, H) rows of a domain as its batches are normalised in training; running statistics stay."""
    if bn_mode == "train" and len(values) > 1:
        return F.batch_norm(values, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@dataclass(frozen=True)
class AGRAConfig(CADAConfig):
    """Adversarial graph representation adaptation."""

    # Width between the two graph convolutions; how often clusters are made anew, at equal intervals from the first
    # step; the share of the way that a cluster's mean moves to its rows of a batch.
    graph_hidden = 128
    renewals = 6
    means_momentum = 0.1

    lr: float = option(1e-3, search=(1e-4, 3e-4, 1e-3))
    iterations: int = option(500, search=())


class AGRA(JointMethod):
    """CDAN-E on features that passed a graph of both domains (Xie et al., 2020; Chen et al., 2021)."""

    name = "agra"
    published = (
        "CADA's loss, a BatchNorm for each domain, links that are learnt from their published start, k-means renewed "
        "every sixth of the training with momentum 0.1, the other domain's node filled by the nearest cluster mean. "
        "Analogue: a vector has no face regions, so there are two nodes, linked [[1, 0.9], [0.9, 1]]/1.9, and no "
        "classifier of regions; the graph's output is added to B's and starts at zero, so that training starts at the "
        "source model; clusters start from the source's classes. B and C for 500 steps in place of a network for 60 "
        "epochs."
    )
    config_type = AGRAConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return CADA's terms of z + graph(z, nearest source mean) with z = B'(f), which C' is given to predict."""
        config: AGRAConfig = self.config
        head = student.head
        # B's own BatchNorm becomes the target's: it is the one that the model predicts with.
        source_norm = copy.deepcopy(head.norm)
        discriminator = new_discriminator(student, seed)
        width = head.linear.out_features
        graph = new_part(lambda: GraphAdaptation(width, config.graph_hidden), features.device, seed, "graph")
        # Of the clusters of source and target: the source's class means at first.
        with torch.no_grad():
            member = F.one_hot(source.labels, student.classes).float()
            start = class_centres(source_norm(head.linear(source.features)), member)
        means = [start[torch.unique(source.labels)]] * 2

        def renew(step: int) -> None:
            if is_due(step, config.iterations, config.renewals):
                for domain, norm, rows in ((SOURCE, source_norm, source.features), (TARGET, head.norm, features)):
                    with torch.no_grad():
                        z = normalised(norm, head.linear(rows), config.bn_mode)
                    means[domain] = cluster_means(z, means[domain])

        def losses(batch: JointBatch) -> Terms:
            source_norm.train(config.bn_mode == "train")
            # One row is no batch: the target's statistics stay.
            head.norm.train(config.bn_mode == "train" and len(batch.target) > 1)
            ours, theirs = source_norm(head.linear(batch.source)), head.bottleneck(batch.target)
            for domain, z in ((SOURCE, ours), (TARGET, theirs)):
                means[domain] = moved_means(means[domain], z.detach(), config.means_momentum)
            nodes = pair_nodes(ours, means[TARGET], SOURCE), pair_nodes(theirs, means[SOURCE], TARGET)
            changes = graph(torch.cat(nodes))
            count = len(ours)
            z = torch.cat([ours + changes[:count, SOURCE], theirs + changes[count:, TARGET]])
            return domain_terms(discriminator, z, head.classify(z), batch, config.domain)

        def predict(z: Tensor) -> Tensor:
            return head.classify(z + graph(pair_nodes(z, means[SOURCE], TARGET))[:, TARGET])

        alone = len(features) == 1 and config.bn_mode == "train"
        warning = "one row is no batch for the target's BatchNorm: the source's statistics stay"
        return JointObjective(
            losses,
            copies=list(source_norm.parameters()),
            extra=[*discriminator.parameters(), *graph.parameters()],
            on_step=renew,
            head=CombinedHead(head, predict, graph=graph),
            warnings=(warning,) if alone else (),
        )

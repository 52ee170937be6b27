"""Methods that play two sides against each other: CADA and AGRA by a domain discriminator, SWD by two classifiers."""

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
from featlab.methods.joint import (
    CombinedHead,
    JointBatch,
    JointConfig,
    JointMethod,
    JointObjective,
    both_domains,
    new_part,
)
from featlab.methods.losses.domains import (
    Discriminator,
    conditional_domain_loss,
    random_directions,
    reversal_strength,
    sliced_wasserstein,
)
from featlab.methods.losses.target import class_centres
from featlab.model.training import Terms


@dataclass(frozen=True)
class CADAConfig(JointConfig):
    """Conditional domain-adversarial training."""

    removed = dict.fromkeys(("hidden", "dropout"), "the discriminator is the published one")

    iterations: int = option(500, search=(100, 500))
    domain: float = option(1.0, "Weight of the discriminator's loss.", minimum=0, search=(0.1, 1.0))


def new_discriminator(student: Student, seed: int) -> Discriminator:
    """Return an untrained discriminator of (n, K·H) rows p ⊗ z on the student's device."""
    weight, random = student.head.linear.weight, torch_generator(seed, "dropout")
    return new_part(lambda: Discriminator(student.classes * len(weight), random), weight.device, seed, "discriminator")


class CADA(JointMethod):
    """Cross-entropy, and CDAN-E: features that no discriminator tells apart (Long, Cao, Wang & Jordan, 2018)."""

    name = "cada"
    published = (
        "As published on B's output: CDAN-E, the discriminator on p ⊗ z (p without a gradient), rows weighted by "
        "certainty per domain (without a gradient too, where the code lets one through), 512-512-1 with LeakyReLU 0.2 "
        "and dropout 0.5, weight 1, gradient reversal of strength 2/(1+exp(−10 t/T))−1. T is the number of steps, "
        "10 000 as published; the discriminator learns ten times as fast as B and C, as there. B and C for 500 steps "
        "in place of a network for 60 epochs."
    )
    config_type = CADAConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return the classification of source rows and the loss of the discriminator."""
        discriminator = new_discriminator(student, seed)

        def losses(batch: JointBatch) -> Terms:
            z = student.bottleneck(torch.cat([batch.source, batch.target]))
            return domain_terms(discriminator, z, student.head.classify(z), batch, self.config.domain)

        return JointObjective(losses, extra=list(discriminator.parameters()))


def domain_terms(discriminator: Discriminator, z: Tensor, logits: Tensor, batch: JointBatch, weight: float) -> Terms:
    """Return CADA's terms of (n + m, H) outputs of B and their logits, source rows first."""
    count = len(batch.source)
    strength = reversal_strength(batch.step, batch.total)
    domain = conditional_domain_loss(discriminator, z, torch.softmax(logits, dim=1), count, strength)
    return {"classification": F.cross_entropy(logits[:count], batch.labels), "domain": weight * domain}


def normalised_links(links: Tensor) -> Tensor:
    """Return links without the negative ones, each row scaled to a sum of 1."""
    links = links.clamp_min(0)
    return links / links.sum(dim=1, keepdim=True).clamp_min(1e-6)


class GraphAdaptation(nn.Module):
    """Two graph convolutions, width → hidden within a domain and hidden → width across, with links that are learnt.

    The second starts at zero: before any step no node changes. Links start as published (Xie et al., 2020).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # Nodes that are not linked at the start stay so: what counts is the diagonal.
        self.within = nn.Parameter(torch.eye(2))
        self.across = nn.Parameter(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the (n, 2, H) changes of (n, 2, H) nodes."""
        within = normalised_links(self.within.diag().diag())
        passed = torch.relu(self.first(within @ nodes))
        changes: Tensor = self.last(normalised_links(self.across) @ passed)
        return changes


def cluster_means(rows: Tensor, means: Tensor) -> Tensor:
    """Return (K, H) means of the clusters of (n, H) rows, by k-means from means on; an empty cluster keeps its mean."""
    for _ in range(10):
        means = moved_means(means, rows, 1.0)
    return means


def moved_means(means: Tensor, rows: Tensor, momentum: float) -> Tensor:
    """Return (K, H) means, each moved by a share of the way to the mean of the (n, H) rows that are nearest to it."""
    one_hot = F.one_hot(torch.cdist(rows, means).argmin(dim=1), len(means)).to(rows.dtype)
    count = one_hot.sum(dim=0).unsqueeze(1)
    centre = one_hot.T @ rows / count.clamp_min(1)
    return torch.where(count > 0, (1.0 - momentum) * means + momentum * centre, means)


SOURCE, TARGET = 0, 1
"""Places of the two nodes of a row."""


def pair_nodes(z: Tensor, means: Tensor, own: int) -> Tensor:
    """Return (n, 2, H) nodes of rows of one domain, with the nearest of the other one's means."""
    other = means[torch.cdist(z, means).argmin(dim=1)]
    return torch.stack([z, other] if own == SOURCE else [other, z], dim=1)


def normalised(norm: nn.BatchNorm1d, values: Tensor, bn_mode: str) -> Tensor:
    """Return all (n, H) rows of a domain as its batches are normalised in training; running statistics stay."""
    if bn_mode == "train" and len(values) > 1:
        return F.batch_norm(values, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@dataclass(frozen=True)
class AGRAConfig(CADAConfig):
    """Adversarial graph representation adaptation."""

    graph_hidden = 128  # Width between the two graph convolutions.
    renewals = 6  # How often clusters are made anew, at equal intervals from the first step.
    means_momentum = 0.1  # Share of the way that a cluster's mean moves to its rows of a batch.

    lr: float = option(1e-3, search=(1e-4, 3e-4, 1e-3))
    iterations: int = option(500, search=())


class AGRA(JointMethod):
    """CDAN-E on features that passed a graph of both domains (Xie et al., 2020; Chen et al., 2021).

    A row is two nodes, of the source and of the target. It has the one of its own domain; the other is filled with the
    nearest mean of a cluster of that domain's rows.
    """

    name = "agra"
    published = (
        "CADA's loss, a BatchNorm for each domain, links that are learnt from their published start, k-means renewed "
        "every sixth of the training with momentum 0.1, the other domain's node filled by the nearest cluster mean. "
        "Analogue: a vector has no face regions, so there are two nodes, linked [[1, 0.9], [0.9, 1]]/1.9, and no "
        "classifier of regions; the graph's output is added to B's and starts at zero; clusters start from the classes "
        "of the source. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = AGRAConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return CADA's terms of z + graph(z, nearest source mean) with z = B'(f), which C' is given to predict."""
        config: AGRAConfig = self.config
        head = student.head
        # B's own BatchNorm becomes the target's: it is the one that the model predicts with.
        source_norm = copy.deepcopy(head.norm)
        discriminator = new_discriminator(student, seed)
        sizes = head.linear.out_features, config.graph_hidden
        graph = new_part(lambda: GraphAdaptation(*sizes), features.device, seed, "graph")
        # Of the clusters of source and target: the source's class means at first.
        member = F.one_hot(source.labels, student.classes).float()
        means = [class_centres(source_norm(head.linear(source.features)), member)[torch.unique(source.labels)]] * 2

        def renew() -> None:
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

        warning = "one row is no batch for the target's BatchNorm: the source's statistics stay"
        return JointObjective(
            losses,
            copies=list(source_norm.parameters()),
            extra=[*discriminator.parameters(), *graph.parameters()],
            renew=renew,
            renewals=config.renewals,
            head=CombinedHead(head, predict, graph=graph),
            warnings=(warning,) if len(features) == 1 and config.bn_mode == "train" else (),
        )


def part_ways(first: nn.Module, second: nn.Module, spread: float, random: torch.Generator) -> None:
    """Move the parameters of two equal classifiers apart, the same way in opposite directions, in place."""
    with torch.no_grad():
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            way = torch.randn(one.shape, generator=random).to(one.device) * spread * one.square().mean().sqrt()
            one.add_(way)
            other.sub_(way)


@dataclass(frozen=True)
class SWDConfig(JointConfig):
    """Sliced Wasserstein discrepancy."""

    directions = 128
    spread = 0.1  # How far the classifiers are moved apart before the first step, as a share of C's size.

    disagreement: float = option(
        1.0, "Weight of the discrepancy of the two classifiers on target rows.", minimum=0, search=(0.1, 1.0, 3.0)
    )


class SWD(JointMethod):
    """Maximum classifier discrepancy, measured by sliced Wasserstein distance (Lee, Batra, Baig & Ulbricht, 2019)."""

    name = "swd"
    published = (
        "The three updates as published, with one optimiser: both classifiers and B on source rows; the classifiers "
        "apart on target rows; B so that they agree; 128 random directions, new ones each time. B is the generator. "
        "Analogue: both classifiers start at C, moved a little apart before the first step, in place of two new ones; "
        "the model averages their logits. B and C for 500 steps in place of a network for 60 epochs."
    )
    config_type = SWDConfig

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return the three updates; what predicts is the mean of C₁(B'(f)) and C₂(B'(f))."""
        config: SWDConfig = self.config
        first, second = student.head.classifier, copy.deepcopy(student.head.classifier)
        random = torch_generator(seed, "directions")
        if config.iterations:
            part_ways(first, second, config.spread, random)

        def mean(z: Tensor) -> Tensor:
            # The mean of two that are equal is what both are, bitwise.
            logits: Tensor = 0.5 * first(z) + 0.5 * second(z)
            return logits

        def classification(z: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(first(z), labels) + F.cross_entropy(second(z), labels)

        def disagreement(z: Tensor) -> Tensor:
            p, q = torch.softmax(first(z), dim=1), torch.softmax(second(z), dim=1)
            directions = random_directions(p.shape[1], config.directions, random).to(z.device)
            return config.disagreement * sliced_wasserstein(p, q, directions)

        def learn_source(batch: JointBatch) -> Terms:
            ours, _ = both_domains(student.bottleneck, batch)
            return {"classification": classification(ours, batch.labels)}

        def disagree(batch: JointBatch) -> Terms:
            with torch.no_grad():
                ours, theirs = both_domains(student.bottleneck, batch)
            return {
                "classification of the classifiers": classification(ours, batch.labels),
                "disagreement of the classifiers": -disagreement(theirs),
            }

        def agree(batch: JointBatch) -> Terms:
            _, theirs = both_domains(student.bottleneck, batch)
            return {"disagreement of the features": disagreement(theirs)}

        bottleneck, heads = student.parameters_of("bottleneck"), [*first.parameters(), *second.parameters()]
        return JointObjective(
            learn_source,
            copies=list(second.parameters()),
            more=((disagree, heads), (agree, bottleneck)),
            head=CombinedHead(student.head, mean, second=second),
        )

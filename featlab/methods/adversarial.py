"""Methods that play two sides against each other: CADA by a domain discriminator, SWD by two classifiers."""

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
    width = student.classes * len(weight)
    return new_part(lambda: Discriminator(width, random), weight.device, seed, "discriminator")


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
    # How far the classifiers are moved apart before the first step, as a share of C's size.
    spread = 0.1

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

        def mean(z: Tensor) -> Tensor:
            # The mean of two that are equal is what both are, bitwise.
            logits: Tensor = 0.5 * first(z) + 0.5 * second(z)
            return logits

        def begin(step: int) -> None:
            if step == 0:
                part_ways(first, second, config.spread, random)

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
            on_step=begin,
            head=CombinedHead(student.head, mean, second=second),
        )

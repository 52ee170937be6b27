"""SFDA-DE: estimate each class's source distribution from C's weights, and align the target's clusters with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import torch_generator
from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.methods.base import Method, ordered_features
from featlab.methods.fit import Student, bn_option, make_student
from featlab.methods.losses.domains import contrastive_discrepancy
from featlab.methods.losses.self_supervision import spherical_kmeans
from featlab.model.networks import AdaptedModel
from featlab.model.training import History, Phase, Terms, train
from featlab.protocol.splits import Target

SHIFT = 1e-3
"""Mean cosine distance that the centres may still move when k-means stops."""
MAX_ROUNDS = 100
"""Of k-means, should it not come to rest."""


@dataclass(frozen=True)
class SFDADEConfig(Options):
    """Distribution estimation: loops of clustering, each followed by steps of SGD with momentum; the last iterate."""

    removed = {"covariance": "surrogate rows have the diagonal one of the target's rows of their class"}  # noqa: RUF012
    momentum = 0.9
    weight_decay = 5e-4
    norm_rate = 10.0  # Of B's BatchNorm, as a multiple of ``lr``.

    epochs: int = option(10, "Loops; 0 leaves the source model as it is.", minimum=0)
    steps: int = option(50, "Steps in a loop.", minimum=1)
    rows: int = option(10, "Rows of every class in a step; no more than the smallest class has.", minimum=1)
    lr: float = option(
        1e-3,
        "Learning rate of B's linear layer at the start; it falls as (1 + 5e-4 t)^−2.25.",
        minimum=0,
        search=(1e-4, 1e-3, 1e-2),
    )
    threshold: float = option(
        0.5,
        "Rows further from their cluster's centre are left out; a cosine distance ½(1 − cos), from 0 to 1.",
        minimum=0,
        maximum=1,
        search=(0.078, 0.5),
    )
    least: int = option(5, "Classes with fewer rows are left out.", minimum=1)
    spread: float = option(1.0, "Standard deviation of surrogate rows in units of the target's.", minimum=0)
    bn_mode: str = bn_option("in the steps")


def classes_of_clusters(values: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (n,) classes of (n, H) rows, and their cosine distances ½(1 − cos) to their cluster's centre.

    Rows are clustered by direction, from the (K, H) anchors on, one a class. When the centres have come to rest they
    are matched with the anchors one to one, at the least sum of cosine distances.
    """
    from scipy.optimize import linear_sum_assignment

    rows, starts = F.normalize(values, dim=1), F.normalize(anchors, dim=1)
    centres, cluster = spherical_kmeans(rows, starts, rounds=MAX_ROUNDS, at_rest=SHIFT, stay=False)
    _, matched = linear_sum_assignment(_cosine_distance(centres @ starts.T).cpu().numpy())
    distance = _cosine_distance((rows @ centres.T).amax(dim=1))
    return torch.from_numpy(matched).to(cluster.device)[cluster], distance


@dataclass(frozen=True, eq=False)
class Surrogates:
    """Gaussians that stand for the source rows of the classes that were kept."""

    classes: Tensor  # (C,) int64, which classes.
    member: Tensor  # (C, n) 0 or 1, which target rows each class has.
    mean: Tensor  # (C, H), along the class's anchor and as long as the target's mean.
    deviations: Tensor  # (n, H) target rows minus the mean of their class; of rows that are no member, anything.

    def draw(self, count: int, spread: float, random: torch.Generator) -> Tensor:
        """Return (C, count, H) surrogate rows: N(mean, spread² Σ), Σ the diagonal of the target's covariance."""
        freedom = (self.member.sum(dim=1) - 1).clamp_min(1)[:, None]
        deviation = (self.member @ self.deviations.square() / freedom).sqrt()
        normal = torch.randn(len(self.classes), count, self.mean.shape[1], generator=random).to(self.mean.device)
        return self.mean[:, None, :] + spread * normal * deviation[:, None, :]


def estimate_surrogates(values: Tensor, anchors: Tensor, threshold: float, least: int) -> Surrogates:
    """Cluster the target's rows, keep what is near a centre, and estimate the source's distribution of each class."""
    labels, distance = classes_of_clusters(values, anchors)
    known = torch.arange(len(anchors), device=values.device)[:, None]
    member = (labels == known) & (distance < threshold)
    classes = torch.nonzero(member.sum(dim=1) >= least).squeeze(1)
    weights = member.to(values.dtype)
    means = weights @ values / weights.sum(dim=1, keepdim=True).clamp_min(1)
    estimated = means.norm(dim=1, keepdim=True) * F.normalize(anchors, dim=1)
    return Surrogates(classes, weights[classes], estimated[classes], values - means[labels])


class SFDADE(Method):
    """Source-free domain adaptation via distribution estimation (Ding et al., CVPR 2022); C stays frozen."""

    name = "sfda-de"
    published = (
        "As published: spherical k-means from C's weights, surrogate Gaussians along them, contrastive discrepancy of "
        "bottleneck and predictions, SGD with momentum. There is no official code; details are those of third-party "
        "code: diagonal covariance (the paper scales the full one), the settings for Office (threshold 0.5, "
        "rate 1e-3, 50 steps a loop), whose data sets are as small as a person's, and from VisDA 10 rows of a class in "
        "a step and the decay, by step. 10 loops, not 500: a person has a few hundred rows. All kept classes are in "
        "every step. Analogue: the anchors live in the bottleneck space and B is trained, where the paper has the "
        "backbone's features and trains that. On a neutral clip one class is left, and nothing keeps classes apart."
    )
    config_type = SFDADEConfig

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B'(f))."""
        self.check(bundle, target)
        config: SFDADEConfig = self.config
        student, features = make_student(bundle, "none", seed), ordered_features(bundle, target)
        anchors = student.head.classifier.weight.detach()
        advice = f"lower {config.key('lr')} ({config.lr})"
        groups = [
            {"params": list(student.head.linear.parameters()), "lr": config.lr},
            {"params": list(student.head.norm.parameters()), "lr": config.norm_rate * config.lr},
        ]
        optimiser = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
        random = torch_generator(seed, "surrogates")
        history: History = []
        warnings: list[str] = []

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(config.epochs):
                with student.evaluating():
                    values = student.bottleneck(features)
                if not bool(torch.isfinite(values).all()):
                    raise InputError(f"adaptation diverged at step {len(history)}; {advice}")
                surrogates = estimate_surrogates(values, anchors, config.threshold, config.least)
                kept = len(surrogates.classes)
                count = min(config.rows, int(surrogates.member.sum(dim=1).min())) if kept else 0
                if kept * count < (2 if config.bn_mode == "train" else 1):
                    least = f"{config.key('least')} = {config.least}"
                    warnings.append(
                        f"too few rows near the centre of a class ({least}): stopped after {len(history)} steps"
                    )
                    return
                student.set_mode(config.bn_mode)
                for _ in range(config.steps):
                    rows = torch.multinomial(surrogates.member.cpu(), count, generator=random)
                    yield surrogates.draw(count, config.spread, random), features[rows.flatten()]

        fit = train(
            [Phase(optimiser, lambda batch: discrepancy_terms(student, *batch))],
            batches(),
            advice=advice,
            rate=lambda step: float((1.0 + 5e-4 * step) ** -2.25),
            history=history,
        )
        student.set_mode("eval")
        return AdaptedModel(student.model(bundle), **replace(fit, warnings=tuple(warnings)).summary())


def discrepancy_terms(student: Student, drawn: Tensor, features: Tensor) -> Terms:
    """Return the discrepancy of target rows from surrogate rows, at the bottleneck and in the predictions."""
    ours = student.bottleneck(features).view(drawn.shape)
    predicted, expected = (torch.softmax(student.head.classify(values), dim=-1) for values in (ours, drawn))
    return {
        "bottleneck": contrastive_discrepancy(drawn, ours),
        "predictions": contrastive_discrepancy(expected, predicted),
    }


def _cosine_distance(cosine: Tensor) -> Tensor:
    return 0.5 * (1 - cosine)

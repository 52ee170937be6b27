"""CluP: labels of pure clusters, a target model that learns from itself, then fine-tuning on those labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.compute import generator, half_cosine, run_seed, seeded, torch_generator
from featlab.config.options import Options, option
from featlab.methods.base import Method, base_model, ordered_features
from featlab.methods.fit import Student, new_adapter
from featlab.methods.losses.self_supervision import DeepCluster, Objective, SwAV, Views, make_views
from featlab.methods.losses.target import cluster_rows, label_clusters, purest_rows
from featlab.model.networks import AdaptedModel, SourceHead
from featlab.model.training import Phase, Terms, shuffled_batches, train
from featlab.protocol.splits import Target


@dataclass(frozen=True)
class CluPConfig(Options):
    """The three stages of CluP."""

    momentum = 0.9
    weight_decay = 5e-4
    mixup = 0.2  # Both parameters of the Beta distribution that says how two rows are mixed.
    ssl_prototypes = 64  # Most prototypes of self-supervision; at most a quarter of the rows.
    window = 5  # Frames before and after a row that can be its second view.

    epochs: int = option(
        50,
        "Passes over the kept rows in fine-tuning; 0 leaves the source model as it is, whatever else is set.",
        minimum=0,
    )
    batch: int = option(
        32, "Rows in a step of fine-tuning; a last batch of one row is skipped, because BatchNorm needs two.", minimum=2
    )
    lr: float = option(
        0.1,
        "Learning rate at the start of fine-tuning and of self-supervision; each falls along half a cosine.",
        minimum=0,
        search=(0.01, 0.03, 0.1),
    )
    prototypes: int = option(250, "Most clusters that rows are labelled by; at most a quarter of the rows.", minimum=2)
    keep: float = option(
        0.3,
        "Share of the rows of each class that are kept, the purest ones.",
        minimum=0,
        maximum=1,
        search=(0.1, 0.2, 0.3),
    )
    score: str = option(
        "purity",
        "What makes a row pure: the `purity` of its cluster, which also labels it, or (the paper's "
        "ablation) the `confidence` of the source model, with its own prediction as the label.",
        choices=("purity", "confidence"),
    )
    start: str = option(
        "fresh",
        "The encoder before self-supervision: `fresh`, or the `source` model's B (the paper's ablation, "
        "with `ssl_iterations = 0`).",
        choices=("fresh", "source"),
    )
    ssl_iterations: int = option(
        200,
        "Steps of self-supervision, rounded up to whole passes over the target's rows.",
        minimum=0,
        search=(100, 200),
    )
    ssl_batch: int = option(256, "Rows in a step of self-supervision.", minimum=2)


class CluP(Method):
    """Cluster-level pseudo-labels (Conti, Rota, Wang & Ricci, 2022); what is left open is the self-supervision."""

    config_type = CluPConfig
    supervision: ClassVar[type[Objective]]
    """The self-supervision of bottleneck outputs."""

    @classmethod
    def minimum_rows(cls, classes: int) -> int:
        """Return four rows a cluster and one cluster more than classes."""
        return 4 * (classes + 1)

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(B'(A(f))): adapter, B and C are all learnt on the target."""
        self.check(bundle, target)
        config: CluPConfig = self.config
        features = ordered_features(bundle, target)
        if not config.epochs:
            return AdaptedModel(base_model(bundle))
        rows, labels = _pseudo_labels(bundle, features, config, seed)
        if len(rows) < 2:
            kept = f"{len(rows)} of {len(features)} rows were kept"
            warning = f"{kept}: nothing was learnt; raise {config.key('keep')}"
            return AdaptedModel(base_model(bundle), warnings=(warning,))
        missing = [name for code, name in enumerate(bundle.classes) if code not in labels.tolist()]
        warning = f"no row was kept of {', '.join(missing)}: the new classifier does not know them"
        student = _new_student(bundle, config.start, seed)
        encoder = [*student.parameters_of("trunk"), *student.parameters_of("bottleneck")]
        trained = [*encoder, *student.parameters_of("classifier")]
        trainable = sum(parameter.numel() for parameter in trained)
        history: list[Mapping[str, float]] = []
        if config.ssl_iterations:
            with seeded(seed, "projector"):
                prototypes = min(config.ssl_prototypes, len(features) // 4)
                random = torch_generator(seed, "centres")
                objective = self.supervision(student.head.linear.out_features, prototypes, len(features), random)
            objective.to(features.device)
            # The rows come in the order of their videos.
            views = make_views(features, np.sort(target.video), window=config.window)
            trainable += sum(parameter.numel() for parameter in objective.parameters())
            history += _self_supervise(student, encoder, objective, views, config, seed)
        history += _fine_tune(student, trained, features[torch.from_numpy(rows)], labels, config, seed)
        warnings = (warning,) if missing else ()
        return AdaptedModel(student.model(bundle), len(history), trainable, tuple(history), warnings)


PUBLISHED = (
    "Stage 1 as published, on B's outputs: k-means on their directions, a cluster's majority class as the label of its "
    "rows, the purest rows of each class kept, labels fixed. At most 250 prototypes (one of the two published numbers) "
    "and never more than a quarter of the rows; of the published shares (0.1 to 0.3) the largest, because a clip is "
    "short and the number is rounded down. Stage 2 is an analogue: {ssl} on features instead of images, with frames of "
    "one clip as views (damaged copies where a row has no other frame), and a residual adapter and a B of their own in "
    "place of a ResNet. It pretrains the target model, so the encoder starts fresh: what the source knows comes by the "
    "labels alone. {own} Its settings are scaled down to a clip: 200 steps, not 1000 epochs; 64 prototypes, not "
    "{prototypes}; 128 hidden units of the projector, not 2048; stage 3's optimiser. Stage 3 as published: SGD at 0.1 "
    "along half a cosine, 50 epochs, batch 32, mixup (of features), all weights, BatchNorm in training mode, a new "
    "linear classifier (weight-normalised, as C is); single, not half precision. On a neutral clip every cluster is "
    "pure and the selection says nothing."
)


class CluPSwAV(CluP):
    """CluP with SwAV (Caron et al., 2020) as self-supervision (Conti, Rota, Wang & Ricci, 2022)."""

    name = "clup-swav"
    published = PUBLISHED.format(
        ssl="SwAV",
        own="Temperature, Sinkhorn and the prototypes that rest in the first epoch are SwAV's; its queue is left out.",
        prototypes="5000",
    )
    supervision = SwAV


class CluPDeepCluster(CluP):
    """CluP with DeepClusterV2 (Caron et al., 2018, 2020) as self-supervision (Conti, Rota, Wang & Ricci, 2022)."""

    name = "clup-deepcluster"
    published = PUBLISHED.format(
        ssl="DeepClusterV2",
        own="Temperature, three clusterings of the last epoch's embeddings by 10 rounds of spherical k-means and a "
        "first epoch without labels are DeepClusterV2's.",
        prototypes="3000 a clustering",
    )
    supervision = DeepCluster


def _pseudo_labels(bundle: Bundle, features: Tensor, config: CluPConfig, seed: int) -> tuple[NDArray[np.intp], Tensor]:
    """Return which rows are kept, (m,), and their int64 labels (stage 1)."""
    with torch.no_grad():
        codes = bundle.head.bottleneck(features)
        certainty, predicted = torch.softmax(bundle.head.classify(codes), dim=1).cpu().max(dim=1)
    label, confidence = predicted.numpy(), certainty.numpy().astype(np.float64)
    if config.score == "purity":
        prototypes = min(config.prototypes, len(features) // 4)
        cluster = cluster_rows(codes.cpu().numpy(), prototypes, seed=run_seed(seed, "clusters"))
        names, purity = label_clusters(cluster, label, clusters=prototypes, classes=len(bundle.classes))
        label, confidence = names[cluster], purity[cluster]
    rows = purest_rows(label, confidence, config.keep)
    return rows, torch.from_numpy(label[rows]).to(features.device)


def _new_student(bundle: Bundle, start: str, seed: int) -> Student:
    """Return the target model before any stage: an adapter that changes nothing, B fresh or the source's, C fresh."""
    source = bundle.head
    with seeded(seed, "encoder"):
        head = SourceHead(source.linear.in_features, source.linear.out_features, len(bundle.classes))
    if start == "source":
        head.linear.load_state_dict(source.linear.state_dict())
        head.norm.load_state_dict(source.norm.state_dict())
    return Student(new_adapter(bundle, seed), head.to(bundle.projection.mean.device).requires_grad_(False))


def _self_supervise(
    student: Student, encoder: list[nn.Parameter], objective: Objective, views: Views, config: CluPConfig, seed: int
) -> tuple[Mapping[str, float], ...]:
    """Train the encoder without labels (stage 2)."""
    random, count = torch_generator(seed, "self-supervision"), len(views.features)
    epochs = math.ceil(config.ssl_iterations / math.ceil(count / config.ssl_batch))

    def losses(rows: Tensor) -> Terms:
        codes = student.bottleneck(torch.cat(views.pair(rows, random)))
        first, second = objective.directions(codes).chunk(2)
        return {"self-supervision": objective.loss(first, second, rows)}

    def batches(epoch: int) -> Iterator[Tensor]:
        objective.start_epoch(epoch)
        return shuffled_batches(count, config.ssl_batch, 2, random)

    return _descend(student, [*encoder, *objective.parameters()], losses, batches, epochs, config)


def _fine_tune(
    student: Student, trained: list[nn.Parameter], features: Tensor, labels: Tensor, config: CluPConfig, seed: int
) -> tuple[Mapping[str, float], ...]:
    """Train encoder and classifier on (m, D) rows and their labels, mixed two by two (stage 3)."""
    random, shares = torch_generator(seed, "fine-tuning"), generator(seed, "mixup")

    def losses(rows: Tensor) -> Terms:
        share = float(shares.beta(config.mixup, config.mixup))
        other = rows[torch.randperm(len(rows), generator=random)]
        logits = student.logits(share * features[rows] + (1.0 - share) * features[other])
        one, two = (F.cross_entropy(logits, labels[picked]) for picked in (rows, other))
        return {"classification": share * one + (1.0 - share) * two}

    def batches(epoch: int) -> Iterator[Tensor]:
        return shuffled_batches(len(features), config.batch, 2, random)

    return _descend(student, trained, losses, batches, config.epochs, config)


def _descend(
    student: Student,
    trained: list[nn.Parameter],
    losses: Callable[[Tensor], Terms],
    batches: Callable[[int], Iterator[Tensor]],
    epochs: int,
    config: CluPConfig,
) -> tuple[Mapping[str, float], ...]:
    """Minimise by SGD over an epoch's ``batches``, BatchNorm in training mode, the rate falling epoch by epoch."""
    optimiser = torch.optim.SGD(
        trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    student.set_mode("train")
    epoch = 0

    def all_batches() -> Iterator[Tensor]:
        nonlocal epoch
        for epoch in range(epochs):
            yield from batches(epoch)

    fit = train(
        [Phase(optimiser, losses)],
        all_batches(),
        advice=f"lower {config.key('lr')} ({config.lr})",
        rate=lambda step: half_cosine(epoch, epochs),
    )
    student.set_mode("eval")
    return fit.history

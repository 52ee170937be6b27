"""Training on labelled source rows and unlabelled target rows together: settings, batches and the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.compute import seeded, torch_generator
from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.methods.base import SourceAccess, SourceFeatures, ordered_features
from featlab.methods.fit import Student, bn_option, make_student
from featlab.model.networks import AdaptedModel, PersonalModel, SourceHead
from featlab.model.training import Fit, Phase, Terms, endless_batches, train
from featlab.protocol.splits import Target

M = TypeVar("M", bound=nn.Module)

NEW_RATE = 10.0
"""How many times as fast parts learn that start from nothing."""


@dataclass(frozen=True)
class JointConfig(Options):
    """Optimisation with source access: SGD with momentum, a fixed number of steps, the last iterate."""

    momentum = 0.9
    weight_decay = 5e-4

    iterations: int = option(
        500, "Steps; the rate falls to a tenth after each third. 0 leaves the source model as it is.", minimum=0
    )
    batch: int = option(32, "Rows of each domain in a step.", minimum=2)
    lr: float = option(
        1e-3,
        "Learning rate of B and C; parts that start from nothing learn ten times as fast.",
        minimum=0,
        search=(1e-4, 1e-3, 1e-2),
    )
    bn_mode: str = bn_option("in training", "statistics of the joint batch")


@dataclass(frozen=True, eq=False)
class JointBatch:
    """One step's rows."""

    source: Tensor  # (b, D) features.
    labels: Tensor  # (b,) int64 codes of the source rows.
    target: Tensor  # (m, D) features, m = min(b, target rows).
    target_rows: Tensor  # (m,) which target rows they are.
    step: int  # Number of the step, from 0.
    total: int  # Number of steps.


Losses = Callable[[JointBatch], Terms]
"""Called with BatchNorm in ``bn_mode``; weights included."""


@dataclass(frozen=True, eq=False)
class JointObjective:
    """What a method learns by, and what it trains beside B and C."""

    losses: Losses  # Changes all that is trained.
    copies: Sequence[nn.Parameter] = ()  # Parameters of the method's own that start from the source model.
    extra: Sequence[nn.Parameter] = ()  # Those that start from nothing, and learn ten times as fast.
    more: Sequence[tuple[Losses, Sequence[nn.Parameter]]] = ()  # Updates after that in a step, and what each changes.
    renew: Callable[[], None] = lambda: None  # Called before the first step, and …
    renewals: int = 1  # … so often in all, at equal intervals.
    head: nn.Module | None = None  # Predicts in the place of B and C; ``None`` where they do.
    warnings: tuple[str, ...] = ()  # What the user should know, a line each.


class CombinedHead(nn.Module):
    """B and C with parts of a method's own: ``predict`` makes (n, K) logits of (n, H) outputs of B."""

    def __init__(self, head: SourceHead, predict: Callable[[Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.predict = predict
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, K) logits of (n, D) features."""
        return self.predict(self.head.bottleneck(features))


class JointMethod(SourceAccess):
    """Base of the methods that train B and C on rows of both domains.

    They implement `losses`; or `objective`, where something has to be prepared, renewed or trained besides.
    """

    def losses(self, student: Student, batch: JointBatch) -> Terms:
        """Return the loss terms of a step, weights included."""
        raise NotImplementedError

    def objective(self, student: Student, source: SourceFeatures, features: Tensor, seed: int) -> JointObjective:
        """Return what is learnt by, of copies of B and C, labelled source rows and (n, D) target rows."""
        return JointObjective(partial(self.losses, student))

    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Return the model with the trained B and C, or with what the objective puts in their place."""
        student = make_student(bundle, "none", seed)
        features = ordered_features(bundle, target)
        goal = self.objective(student, source, features, seed)
        fit = fit_jointly(student, source, features, self.config, goal, seed=seed)
        model = PersonalModel(bundle.projection, None, (goal.head or student.head).requires_grad_(False))
        return AdaptedModel(model, **replace(fit, warnings=goal.warnings).summary())


def both_domains(network: Callable[[Tensor], Tensor], batch: JointBatch) -> tuple[Tensor, Tensor]:
    """Return what a network makes of the (b, D) source and the (m, D) target rows, passed together.

    BatchNorm in training then has one batch of both domains, not one of each.
    """
    values = network(torch.cat([batch.source, batch.target]))
    return values[: len(batch.source)], values[len(batch.source) :]


def new_part(build: Callable[[], M], device: torch.device, *seed: object) -> M:
    """Return a module of a method's own with seeded initial weights; the global random state is left alone."""
    with seeded(*seed):
        return build().to(device)


def fit_jointly(
    student: Student, source: SourceFeatures, target: Tensor, config: JointConfig, goal: JointObjective, *, seed: int
) -> Fit:
    """Make an objective's updates on pairs of a source and a target batch, with one optimiser.

    B and C are trained in place. The seed is that of the order of the rows. BatchNorm is left in evaluation mode,
    everything frozen.
    """
    if len(source.labels) < 2:
        raise InputError(f"source access needs 2 labelled source rows or more, got {len(source.labels)}; label them")
    known, new = [*student.head.parameters(), *goal.copies], list(goal.extra)
    groups = [{"params": known, "lr": config.lr}, {"params": new, "lr": NEW_RATE * config.lr}]
    optimiser = torch.optim.SGD(
        groups,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        # One pass over the parameters in place of three: half of a small step's time is the update.
        fused=target.device.type in ("cpu", "cuda"),
    )
    # A last batch that is smaller is left out.
    source_rows, target_rows = (
        endless_batches(rows, size := min(config.batch, rows), size, torch_generator(seed, name))
        for name, rows in (("source", len(source.labels)), ("target", len(target)))
    )

    def batches() -> Iterator[JointBatch]:
        for step in range(config.iterations):
            if goal.renewals * step // config.iterations > goal.renewals * (step - 1) // config.iterations:
                goal.renew()
            student.set_mode(config.bn_mode)
            rows, own_rows = next(source_rows), next(target_rows)
            yield JointBatch(
                source.features[rows], source.labels[rows], target[own_rows], own_rows, step, config.iterations
            )

    fit = train(
        [Phase(optimiser, losses, changed) for losses, changed in ((goal.losses, [*known, *new]), *goal.more)],
        batches(),
        advice=f"lower {config.key('lr')} ({config.lr})",
        rate=lambda step: 0.1 ** (3 * step // config.iterations),
    )
    student.set_mode("eval")
    return fit

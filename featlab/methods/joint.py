"""Training on labelled source rows and unlabelled target rows together: settings, batches and the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from featlab.errors import InputError
from featlab.methods.sgd import SGDFit, Terms
from featlab.methods.source_access import SourceFeatures
from featlab.methods.student import BN_MODES, Student
from featlab.seeding import run_seed
from featlab.settings import check_at_least, check_choice, check_share

__all__ = ["JointBatch", "JointConfig", "fit_joint"]


@dataclass(frozen=True)
class JointConfig:
    """Optimisation with source access: SGD with momentum, a fixed number of steps, the last iterate.

    Attributes:
        iterations: Steps; the rate falls to a tenth after one third and after two thirds of them.
        batch: Rows of each domain in a step.
        lr: Learning rate of B and C; heads that start from nothing learn ten times as fast.
        momentum: Of SGD.
        weight_decay: L2 penalty, inside the gradient.
        bn_mode: BatchNorm in training: ``train`` (statistics of the joint batch) or ``eval`` (the source model's stay).
    """

    section: ClassVar[str] = "adapt"
    """Where the settings live, for messages."""

    iterations: int = 500
    batch: int = 32
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bn_mode: str = "train"

    def __post_init__(self) -> None:
        check_choice(f"{self.section}.bn_mode", self.bn_mode, BN_MODES)
        check_at_least(f"{self.section}.batch", self.batch, 2)
        for name in ("iterations", "lr", "weight_decay"):
            check_at_least(f"{self.section}.{name}", getattr(self, name), 0)
        check_share(f"{self.section}.momentum", self.momentum)


@dataclass(frozen=True, eq=False)
class JointBatch:
    """One step's rows.

    Attributes:
        source: (b, D) features.
        labels: (b,) int64 codes of the source rows.
        target: (m, D) features, m = min(b, target rows).
        target_rows: (m,) which target rows they are.
        step: Number of the step, from 0.
        total: Number of steps.
    """

    source: Tensor
    labels: Tensor
    target: Tensor
    target_rows: Tensor
    step: int
    total: int


def fit_joint(
    student: Student,
    source: SourceFeatures,
    target: Tensor,
    config: JointConfig,
    losses: Callable[[JointBatch], Terms],
    *,
    seed: int,
    extra: Sequence[nn.Parameter] = (),
    on_step: Callable[[int], None] | None = None,
) -> SGDFit:
    """Minimise a loss over pairs of a source and a target batch.

    Args:
        student: B and C are trained, in place.
        source: Labelled source rows.
        target: (n, D) target features.
        config: Optimisation.
        losses: Called with a batch, BatchNorm in ``config.bn_mode``; returns the loss terms, weights included.
        seed: Of the order of the rows.
        extra: Parameters of the method's own (discriminators, heads), trained at ten times the rate.
        on_step: Called with the step's number before it, for what is renewed now and then.

    Returns:
        The fit. BatchNorm is left in evaluation mode, everything frozen.

    Raises:
        InputError: No labelled source row, or a loss that is not finite.
    """
    if not len(source.labels):
        raise InputError("no source row has a label; label the source rows")
    own = [*student.parameters_of("bottleneck"), *student.parameters_of("classifier")]
    trained = [*own, *extra]
    for parameter in trained:
        parameter.requires_grad_(True)
    groups = [{"params": own, "scale": 1.0}] + ([{"params": list(extra), "scale": 10.0}] if extra else [])
    optimiser = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    source_rows = _endless(len(source.labels), config.batch, seed, "source")
    target_rows = _endless(len(target), config.batch, seed, "target")
    history: list[Mapping[str, float]] = []
    for step in range(config.iterations):
        if on_step is not None:
            on_step(step)
        student.set_mode(config.bn_mode)
        rate = config.lr * 0.1 ** (3 * step // config.iterations)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        rows, own_rows = next(source_rows), next(target_rows)
        terms = losses(
            JointBatch(source.features[rows], source.labels[rows], target[own_rows], own_rows, step, config.iterations)
        )
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise InputError(f"adaptation diverged at step {step + 1}; lower {config.section}.lr ({config.lr})")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        history.append({name: term.item() for name, term in terms.items()} | {"loss": loss.item()})
    student.set_mode("eval")
    for parameter in trained:
        parameter.requires_grad_(False)
    return SGDFit(len(history), sum(parameter.numel() for parameter in trained), tuple(history))


def _endless(rows: int, batch: int, *seed: object) -> Iterator[Tensor]:
    """Yield batches of min(batch, rows) row numbers for ever, epoch after epoch, each row once an epoch."""
    random = torch.Generator().manual_seed(run_seed(*seed))
    size = min(batch, rows)
    while True:
        order = torch.randperm(rows, generator=random)
        for start in range(0, rows - size + 1, size):
            yield order[start : start + size]

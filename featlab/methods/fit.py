"""Stochastic gradient descent on a target's rows, as the SHOT family does it: settings, schedule and the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from featlab.config.options import check_at_least, check_choice, check_share
from featlab.errors import InputError
from featlab.methods.student import BN_MODES, TRUNKS, Student
from featlab.model.head import loss_sum, loss_values
from featlab.seeding import run_seed

__all__ = ["Rates", "SGDConfig", "SGDFit", "Terms", "check_finite", "fit_sgd", "shot_decay", "shuffled_batches"]

Terms = Mapping[str, Tensor]
"""Loss terms of one step, weights included: their sum is minimised."""


@dataclass(frozen=True)
class SGDConfig:
    """Optimisation of one adaptation: SGD with Nesterov momentum, a fixed number of epochs, the last iterate.

    Attributes:
        epochs: Passes over the target rows; 0 leaves the source model as it is.
        batch: Rows in a step; a last batch of one row is skipped, because BatchNorm needs two.
        lr: Learning rate of B at the start.
        momentum: Of SGD.
        weight_decay: L2 penalty, inside the gradient.
        decay: Let the rate fall as (1 + 10 t/T)^−¾; else it is constant.
        bn_mode: BatchNorm in adaptation: ``train`` (as published) or ``eval`` (the source's statistics stay).
        trunk: What stands in the backbone's place: ``none``, or an ``adapter`` trained at a tenth of the rate.
    """

    section: ClassVar[str] = "adapt"
    """Where the settings live, for messages."""

    epochs: int = 15
    batch: int = 64
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-3
    decay: bool = True
    bn_mode: str = "train"
    trunk: str = "none"

    def __post_init__(self) -> None:
        check_choice(f"{self.section}.bn_mode", self.bn_mode, BN_MODES)
        check_choice(f"{self.section}.trunk", self.trunk, TRUNKS)
        check_at_least(f"{self.section}.epochs", self.epochs, 0)
        check_at_least(f"{self.section}.batch", self.batch, 2)
        for name in ("lr", "weight_decay"):
            check_at_least(f"{self.section}.{name}", getattr(self, name), 0)
        check_share(f"{self.section}.momentum", self.momentum)


@dataclass(frozen=True)
class Rates:
    """Learning rates as multiples of `SGDConfig.lr`; a part with 0 stays frozen."""

    trunk: float = 0.1
    bottleneck: float = 1.0
    classifier: float = 0.0


@dataclass(frozen=True, eq=False)
class SGDFit:
    """What a fit did.

    Attributes:
        iterations: Steps taken.
        trainable: Parameters that were trained.
        history: Loss terms and their sum, an entry a step.
        warnings: One line each.
    """

    iterations: int
    trainable: int
    history: tuple[Mapping[str, float], ...]
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the keywords that `featlab.methods.AdaptedModel` takes beside the model."""
        return {
            "iterations": self.iterations,
            "trainable": self.trainable,
            "history": self.history,
            "warnings": self.warnings,
        }


def shot_decay(step: int, total: int) -> float:
    """Return the factor of the first learning rate at a step: (1 + 10 t/T)^−¾ (SHOT, Liang et al. 2020)."""
    return float((1.0 + 10.0 * step / max(1, total)) ** -0.75)


def check_finite(parameters: Sequence[Tensor], section: str, lr: float) -> None:
    """Raise an InputError when the last step of a fit, whose loss is never computed, left a parameter not finite."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise InputError(f"adaptation diverged in its last step; lower {section}.lr ({lr})")


def shuffled_batches(rows: int, batch: int, least: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches of one epoch in random order; a last batch of fewer than ``least`` rows is left out."""
    order = torch.randperm(rows, generator=random)
    for start in range(0, rows, batch):
        picked = order[start : start + batch]
        if len(picked) >= least:
            yield picked


def fit_sgd(
    student: Student,
    rows: int,
    config: SGDConfig,
    losses: Callable[[Tensor], Terms],
    *,
    seed: int,
    rates: Rates = Rates(),
    on_epoch: Callable[[int], None] | None = None,
) -> SGDFit:
    """Minimise a loss over batches of target rows.

    Args:
        student: What is trained, in place; parts with a rate of 0 stay frozen.
        rows: n, the number of target rows.
        config: Optimisation.
        losses: Called with the (b,) row numbers of a batch, BatchNorm in ``config.bn_mode``; returns the loss terms.
        seed: Of the order of the rows.
        rates: Per part.
        on_epoch: Called with the epoch's number, from 0, before its first step, BatchNorm in evaluation mode or not as
            the caller left it; here pseudo-labels are renewed (within ``student.evaluating()``).

    Returns:
        The fit. BatchNorm is left in evaluation mode, everything frozen.

    Raises:
        InputError: A loss that is not finite.
    """
    groups = []
    for part in ("trunk", "bottleneck", "classifier"):
        parameters, rate = student.parameters_of(part), float(getattr(rates, part))
        if rate and parameters:
            groups.append({"params": parameters, "lr": rate * config.lr, "rate": rate})
    trained = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.momentum > 0
    )
    random = torch.Generator().manual_seed(run_seed(seed, "batches"))
    least = 2 if config.bn_mode == "train" else 1
    batch = min(config.batch, rows)
    total = config.epochs * sum(1 for start in range(0, rows, batch) if min(batch, rows - start) >= least)
    history: list[Mapping[str, float]] = []
    for epoch in range(config.epochs if total else 0):
        if on_epoch is not None:
            on_epoch(epoch)
        student.set_mode(config.bn_mode)
        for picked in shuffled_batches(rows, batch, least, random):
            # The official code counts the step before it sets the rate: t goes from 1 to T.
            decay = shot_decay(len(history) + 1, total) if config.decay else 1.0
            for group in optimiser.param_groups:
                group["lr"] = config.lr * group["rate"] * decay
            terms = losses(picked)
            loss = loss_sum(terms, len(history) + 1, config.section, config.lr)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            history.append(loss_values(terms, loss))
    check_finite(trained, config.section, config.lr)
    student.set_mode("eval")
    for parameter in trained:
        parameter.requires_grad_(False)
    warnings = (
        () if total or not config.epochs else ("one row is no batch for BatchNorm in training: nothing was learnt",)
    )
    return SGDFit(len(history), sum(parameter.numel() for parameter in trained), tuple(history), warnings)

"""Stochastic gradient descent on a target's rows, as the SHOT family does it: settings, schedule and the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featlab.config.options import Options, option
from featlab.methods.student import BN_MODES, TRUNKS, Student
from featlab.model.training import Fit, Phase, Terms, shuffled_batches, train
from featlab.seeding import torch_generator


@dataclass(frozen=True)
class SGDConfig(Options):
    """Optimisation of one adaptation: SGD with Nesterov momentum, a fixed number of epochs, the last iterate."""

    epochs: int = option(
        15, "Passes over the target rows; 0 leaves the source model as it is.", minimum=0, search=(5, 15)
    )
    batch: int = option(
        64,
        "Rows in a step; a last batch of one row is skipped, because BatchNorm needs two.",
        minimum=2,
    )
    lr: float = option(1e-2, "Learning rate of B at the start.", minimum=0, search=(1e-3, 3e-3, 1e-2))
    momentum: float = option(0.9, "Of SGD.", minimum=0, maximum=1)
    weight_decay: float = option(1e-3, "L2 penalty, inside the gradient.", minimum=0)
    decay: bool = option(True, "Let the rate fall as (1 + 10 t/T)^−¾; else it is constant.")
    bn_mode: str = option(
        "train",
        "BatchNorm in adaptation: `train` (as published) or `eval` (the source's statistics stay).",
        choices=BN_MODES,
        search=("train", "eval"),
    )
    trunk: str = option(
        "none",
        "What stands in the backbone's place: `none`, or an `adapter` trained at a tenth of the rate.",
        choices=TRUNKS,
    )


@dataclass(frozen=True)
class Rates:
    """Learning rates as multiples of `SGDConfig.lr`; a part with 0 stays frozen."""

    trunk: float = 0.1
    bottleneck: float = 1.0
    classifier: float = 0.0


def shot_decay(step: int, total: int) -> float:
    """Return the factor of the first learning rate at a step: (1 + 10 t/T)^−¾ (SHOT, Liang et al. 2020)."""
    return float((1.0 + 10.0 * step / max(1, total)) ** -0.75)


def fit_sgd(
    student: Student,
    rows: int,
    config: SGDConfig,
    losses: Callable[[Tensor], Terms],
    *,
    seed: int,
    rates: Rates = Rates(),
    on_epoch: Callable[[int], None] | None = None,
) -> Fit:
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
    groups = [
        {"params": parameters, "lr": rate * config.lr}
        for part in ("trunk", "bottleneck", "classifier")
        if (rate := float(getattr(rates, part))) and (parameters := student.parameters_of(part))
    ]
    optimiser = torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=config.momentum > 0
    )
    random = torch_generator(seed, "batches")
    minimum = 2 if config.bn_mode == "train" else 1
    batch = min(config.batch, rows)
    total = config.epochs * sum(1 for start in range(0, rows, batch) if min(batch, rows - start) >= minimum)

    def batches() -> Iterator[Tensor]:
        for epoch in range(config.epochs if total else 0):
            if on_epoch is not None:
                on_epoch(epoch)
            student.set_mode(config.bn_mode)
            yield from shuffled_batches(rows, batch, minimum, random)

    # The official code counts the step before it sets the rate: t goes from 1 to T.
    decay = (lambda step: shot_decay(step + 1, total)) if config.decay else None
    advice = f"lower {config.key('lr')} ({config.lr})"
    fit = train([Phase(optimiser, losses)], batches(), advice=advice, rate=decay)
    student.set_mode("eval")
    if config.epochs and not total:
        return replace(fit, warnings=("one row is no batch for BatchNorm in training: nothing was learnt",))
    return fit

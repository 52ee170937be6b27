"""Train the source head: bottleneck B and classifier C on labelled source rows, with cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from featlab.config import HeadConfig
from featlab.errors import InputError
from featlab.models import SourceHead, one_cycle
from featlab.seeding import run_seed

__all__ = ["OnEpoch", "epoch_batches", "loss_sum", "loss_values", "set_learning_rate", "train_head"]

OnEpoch = Callable[[int, int, float], None]
"""Called after each epoch with its number, the number of epochs, and the mean loss."""


def train_head(
    features: Tensor,
    labels: NDArray[np.int16],
    classes: int,
    config: HeadConfig,
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> SourceHead:
    """Train B and C: AdamW, one learning-rate cycle, label smoothing, the last iterate.

    Args:
        features: (N, D) float32, projected source rows.
        labels: (N,) class codes; rows with -1 (unknown) are left out.
        classes: K.
        config: Width and training.
        seed: Of initialisation, order and noise.
        on_epoch: Called after each epoch.

    Returns:
        The head in evaluation mode, without gradients.

    Raises:
        InputError: Only one class among the labelled rows, a code outside [0, K), or labels that don't fit the rows.
    """
    if labels.shape != (len(features),) or labels.max(initial=-1) >= classes:
        raise InputError(
            f"the source head needs a label in [-1, {classes}) for each of {len(features)} rows, got {labels.shape} "
            f"up to {labels.max(initial=-1)}"
        )
    known = labels >= 0
    present = np.unique(labels[known])
    if len(present) < 2:
        raise InputError(f"the source head needs rows of at least 2 classes, got {len(present)}; label the source rows")
    features = features[torch.from_numpy(known)]
    target = torch.from_numpy(labels[known].astype(np.int64)).to(features.device)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every accelerator's generator too, which the fork doesn't put back.
        torch.default_generator.manual_seed(run_seed(seed, "head"))
        head = SourceHead(features.shape[1], config.bottleneck, classes).to(features.device)
    random = torch.Generator().manual_seed(run_seed(seed, "head batches"))
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    batch = min(config.batch, len(features))
    total = config.epochs * (len(features) // batch)
    step = 0
    head.train()
    for epoch in range(config.epochs):
        losses = []
        for rows in epoch_batches(len(features), batch, random):
            set_learning_rate(optimiser, config.lr * one_cycle(step, total))
            inputs = features[rows]
            if config.noise:
                inputs = inputs + config.noise * torch.randn(inputs.shape, generator=random).to(inputs.device)
            loss = F.cross_entropy(head(inputs), target[rows], label_smoothing=config.label_smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
            step += 1
        if on_epoch is not None:
            on_epoch(epoch + 1, config.epochs, float(np.mean(losses)))
    return head.eval().requires_grad_(False)


def epoch_batches(rows: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches of one epoch in random order; a last, smaller batch is left out: BatchNorm needs its size."""
    order = torch.randperm(rows, generator=random)
    for start in range(0, rows - batch + 1, batch):
        yield order[start : start + batch]


def loss_sum(terms: Mapping[str, Tensor], step: int, section: str, lr: float) -> Tensor:
    """Return the sum of the loss terms of one step of an adaptation.

    Args:
        terms: Scalars, weights included.
        step: Its number, from 1, for the message.
        section: Where the method's settings live, for the message.
        lr: Its learning rate, for the message.

    Raises:
        InputError: A sum that is not finite.
    """
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        raise InputError(f"adaptation diverged at step {step}; lower {section}.lr ({lr})")
    return loss


def loss_values(terms: Mapping[str, Tensor], loss: Tensor) -> dict[str, float]:
    """Return a step's entry in a history: the loss terms and their sum."""
    return {name: term.item() for name, term in terms.items()} | {"loss": loss.item()}


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = value

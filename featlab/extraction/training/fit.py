"""The training loop: cross-entropy, AdamW, one learning-rate cycle, a checkpoint after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.errors import InputError
from featlab.evaluation.metrics import subject_metrics
from featlab.extraction.training.augment import augment
from featlab.extraction.training.checkpoint import Checkpoint, Saved
from featlab.extraction.training.config import TrainConfig
from featlab.extraction.training.images import Images, normalise
from featlab.extraction.training.people import balanced_epoch, batches, cells
from featlab.model.networks import one_cycle
from featlab.model.training import set_learning_rate
from featlab.seeding import run_seed

__all__ = ["Classifier", "Fitted", "OnEpoch", "fit", "seeded"]

OnEpoch = Callable[[str, int, int, dict[str, float]], None]
"""Called after each epoch with the phase, the epoch, the number of epochs, and the epoch's facts."""


class Classifier(nn.Module):
    """Network, dropout, linear layer.

    Args:
        network: Images to (n, D).
        dim: D.
        classes: K.
        dropout: Of the embedding.
    """

    def __init__(self, network: nn.Module, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, K) logits of normalised images."""
        logits: Tensor = self.classifier(self.dropout(self.network(images)))
        return logits


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a phase of training came to; the model holds the best epoch's weights.

    Attributes:
        best_epoch: Of the weights; the last one where nothing was validated.
        history: Facts of each epoch.
        resumed: Epochs that an earlier run had done.
    """

    best_epoch: int
    history: list[dict[str, float]]
    resumed: int


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Draw from torch's default generators, seeded, without moving the caller's."""
    cuda = device == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def fit(
    model: Classifier,
    images: Images,
    rows: NDArray[np.intp],
    validation: NDArray[np.intp] | None,
    config: TrainConfig,
    *,
    phase: str,
    epochs: int,
    seed: int,
    device: str,
    checkpoint: Checkpoint,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train ``model`` in place, or take up where an earlier run of the phase stopped.

    Args:
        model: With its initial weights, on the device; ends in evaluation mode with the best epoch's.
        images: Decoded images.
        rows: To train on.
        validation: To score each epoch on; None: the last epoch counts, and nothing ends early.
        config: How.
        phase: Name of the checkpoint.
        epochs: Length of the cycle.
        seed: Of order, augmentation and dropout.
        device: ``cpu`` or ``cuda``.
        checkpoint: Where the state goes after each epoch.
        on_epoch: Progress.

    Raises:
        InputError: The loss is no longer finite.
    """
    groups = cells(images.subject[rows], images.label[rows])
    random = torch.Generator().manual_seed(run_seed(seed, "backbone batches", phase))
    optimiser = _optimiser(model, config)
    scaler = torch.amp.GradScaler(device, enabled=_half(config, device) == torch.float16)
    per_epoch = sum(1 for _ in batches(balanced_epoch(groups, torch.Generator()), config.batch))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    done = best_epoch = 0
    with seeded(run_seed(seed, "backbone dropout", phase), device):
        if (saved := checkpoint.load(phase)) is not None:
            _restore(saved, model, optimiser, random, scaler, device)
            history, best = list(saved.history), dict(saved.best)
            done, best_epoch = saved.epoch, saved.best_epoch
        resumed = done
        while done < epochs and not (validation is not None and done - best_epoch >= config.patience):
            model.train()
            losses = []
            order = balanced_epoch(groups, random)
            for step, part in enumerate(batches(order, config.batch), start=done * per_epoch):
                set_learning_rate(optimiser, config.lr * one_cycle(step, epochs * per_epoch))
                losses.append(_step(model, images, rows[part.numpy()], config, random, optimiser, scaler, device))
            done += 1
            facts = {"loss": float(np.mean(losses))}
            if not np.isfinite(facts["loss"]):
                raise InputError(f"the loss of epoch {done} isn't finite: training diverged; lower lr")
            if validation is not None:
                facts |= _score(model, images, validation, config, device)
            history.append(facts)
            if validation is None:
                best_epoch = done
            elif best_epoch == 0 or _rank(facts) > _rank(history[best_epoch - 1]):
                best_epoch, best = done, {name: value.cpu().clone() for name, value in model.state_dict().items()}
            tensors = _state(model, optimiser, random, device)
            checkpoint.save(phase, Saved(done, tensors, best, best_epoch, history, {"scaler": scaler.state_dict()}))
            if on_epoch is not None:
                on_epoch(phase, done, epochs, facts)
    if best:
        model.load_state_dict(best)
    model.eval()
    return Fitted(best_epoch, history, resumed)


def _step(
    model: Classifier,
    images: Images,
    rows: NDArray[np.intp],
    config: TrainConfig,
    random: torch.Generator,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: str,
) -> float:
    batch = normalise(augment(images.batch(rows, device), config.augment, random))
    target = torch.from_numpy(images.label[rows]).to(device)
    with _autocast(config, device):
        loss = F.cross_entropy(model(batch), target, label_smoothing=config.label_smoothing)
    optimiser.zero_grad()
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimiser)
    scaler.update()
    return loss.item()


def _score(
    model: Classifier, images: Images, rows: NDArray[np.intp], config: TrainConfig, device: str
) -> dict[str, float]:
    """Return the mean loss, and macro F1 as the mean over the subjects of these rows."""
    model.eval()
    with torch.no_grad(), _autocast(config, device):
        logits = [
            model(normalise(images.batch(rows[start : start + config.batch], device))).float().cpu()
            for start in range(0, len(rows), config.batch)
        ]
    joined = torch.cat(logits)
    label, subject = images.label[rows], images.subject[rows]
    predicted = joined.argmax(dim=1).numpy()
    scores = [
        subject_metrics(
            label[subject == who], predicted[subject == who], classes=images.classes, neutral_code=0
        ).macro_f1
        for who in np.unique(subject)
    ]
    loss = F.cross_entropy(joined, torch.from_numpy(label))
    return {"validation_loss": loss.item(), "validation_macro_f1": float(np.mean(scores))}


def _rank(facts: dict[str, float]) -> tuple[float, float]:
    """Sort key of epochs: macro F1, and of equals the lower loss."""
    return facts["validation_macro_f1"], -facts["validation_loss"]


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Decay matrices and kernels, not the scales and offsets of norms."""
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


def _half(config: TrainConfig, device: str) -> torch.dtype | None:
    """Return the type of mixed precision, None for none of it."""
    if not config.amp or device != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _autocast(config: TrainConfig, device: str) -> torch.autocast:
    half = _half(config, device)
    return torch.autocast(device, dtype=half, enabled=half is not None)


def _state(
    model: nn.Module, optimiser: torch.optim.Optimizer, random: torch.Generator, device: str
) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
    tensors |= {"random.batches": random.get_state(), "random.torch": torch.get_rng_state()}
    if device == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _restore(
    saved: Saved,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    random: torch.Generator,
    scaler: torch.amp.GradScaler,
    device: str,
) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in saved.tensors.items() if name.startswith(prefix)}

    model.load_state_dict(under("model."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimiser.").items():
        number, _, field = name.partition(".")
        state.setdefault(int(number), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    if saved.extra["scaler"]:
        scaler.load_state_dict(dict(saved.extra["scaler"]))
    generators = under("random.")
    random.set_state(generators["batches"])
    torch.set_rng_state(generators["torch"])
    # A run that began on the CPU has no state of a GPU's generator; it keeps the seed's.
    if device == "cuda" and "cuda" in generators:
        torch.cuda.set_rng_state(generators["cuda"])

"""The training loop: cross-entropy, AdamW, one learning-rate cycle, a checkpoint after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn

from featlab.compute import one_cycle, set_learning_rate
from featlab.errors import InputError
from featlab.extraction.training.augment import augment
from featlab.extraction.training.checkpoint import Checkpoint, Saved
from featlab.extraction.training.config import TrainConfig
from featlab.extraction.training.data import Images, balanced_epoch, balanced_groups, batches, normalise
from featlab.seeding import run_seed

OnEpoch = Callable[[str, int, int, dict[str, float]], None]
"""Called after each epoch with the phase, the epoch, the number of epochs, and the epoch's metrics."""


class Classifier(nn.Module):
    """Network, dropout, linear layer: normalised images to (n, K) logits."""

    def __init__(self, network: nn.Module, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, K) logits."""
        logits: Tensor = self.classifier(self.dropout(self.network(images)))
        return logits


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a phase of training came to; the model holds the best epoch's weights."""

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
    """Train ``model`` in place, or take up where an earlier run of the phase stopped."""
    trainer = _Trainer(model, images, config, seed=run_seed(seed, "backbone batches", phase), device=device)
    groups = balanced_groups(images.subject[rows], images.label[rows])
    per_epoch = sum(1 for _ in batches(balanced_epoch(groups, torch.Generator()), config.batch))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    done = best_epoch = 0
    with seeded(run_seed(seed, "backbone dropout", phase), device):
        if (saved := checkpoint.load(phase)) is not None:
            trainer.restore(saved)
            history, best = list(saved.history), dict(saved.best)
            done, best_epoch = saved.epoch, saved.best_epoch
        resumed = done
        while done < epochs and not (validation is not None and done - best_epoch >= config.patience):
            model.train()
            losses = []
            order = balanced_epoch(groups, trainer.random)
            for step, part in enumerate(batches(order, config.batch), start=done * per_epoch):
                losses.append(trainer.step(rows[part.numpy()], config.lr * one_cycle(step, epochs * per_epoch)))
            done += 1
            metrics = {"loss": float(np.mean(losses))}
            if not np.isfinite(metrics["loss"]):
                raise InputError(f"the loss of epoch {done} isn't finite: training diverged; lower lr")
            if validation is not None:
                metrics |= trainer.score(validation)
            history.append(metrics)
            if validation is None:
                best_epoch = done
            elif best_epoch == 0 or _rank(metrics) > _rank(history[best_epoch - 1]):
                best_epoch, best = done, {name: value.cpu().clone() for name, value in model.state_dict().items()}
            scaler = {"scaler": trainer.scaler.state_dict()}
            checkpoint.save(phase, Saved(done, trainer.state(), best, best_epoch, history, scaler))
            if on_epoch is not None:
                on_epoch(phase, done, epochs, metrics)
    if best:
        model.load_state_dict(best)
    model.eval()
    return Fitted(best_epoch, history, resumed)


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """Sort key of epochs: macro F1, and of equals the lower loss."""
    return metrics["validation_macro_f1"], -metrics["validation_loss"]


class _Trainer:
    """The model with its optimiser, and all that a checkpoint has to hold of them."""

    def __init__(self, model: Classifier, images: Images, config: TrainConfig, *, seed: int, device: str) -> None:
        self.model, self.images, self.config, self.device = model, images, config, device
        self.random = torch.Generator().manual_seed(seed)
        # Matrices and kernels are decayed, not the scales and offsets of norms.
        parts = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(parts, lr=config.lr)
        self.half = None
        if config.amp and device == "cuda":
            self.half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device, enabled=self.half == torch.float16)

    def step(self, rows: NDArray[np.intp], learning_rate: float) -> float:
        """Take one step on a batch; return its loss."""
        set_learning_rate(self.optimiser, learning_rate)
        batch = normalise(augment(self.images.batch(rows, self.device), self.config.augment, self.random))
        target = torch.from_numpy(self.images.label[rows]).to(self.device)
        with self._autocast():
            loss = F.cross_entropy(self.model(batch), target, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.item()

    def score(self, rows: NDArray[np.intp]) -> dict[str, float]:
        """Return the mean loss, and macro F1 over the classes of each subject as the mean over subjects."""
        self.model.eval()
        with torch.no_grad(), self._autocast():
            logits = torch.cat(
                [
                    self.model(normalise(self.images.batch(part, self.device))).float().cpu()
                    for part in np.split(rows, range(self.config.batch, len(rows), self.config.batch))
                ]
            )
        label, subject, predicted = self.images.label[rows], self.images.subject[rows], logits.argmax(dim=1).numpy()
        scores = [
            f1_score(label[own], predicted[own], labels=np.unique(label[own]), average="macro", zero_division=0)
            for own in (subject == who for who in np.unique(subject))
        ]
        loss = F.cross_entropy(logits, torch.from_numpy(label))
        return {"validation_loss": loss.item(), "validation_macro_f1": float(np.mean(scores))}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.half, enabled=self.half is not None)

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that the next epoch depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        tensors |= {"random.batches": self.random.get_state(), "random.torch": torch.get_rng_state()}
        if self.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return tensors

    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value for name, value in saved.tensors.items() if name.startswith(prefix)
            }

        self.model.load_state_dict(under("model."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in under("optimiser.").items():
            number, _, field = name.partition(".")
            state.setdefault(int(number), {})[field] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if saved.extra["scaler"]:
            self.scaler.load_state_dict(dict(saved.extra["scaler"]))
        generators = under("random.")
        self.random.set_state(generators["batches"])
        torch.set_rng_state(generators["torch"])
        # A run that began on the CPU has no state of a GPU's generator; it keeps the seed's.
        if self.device == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"])

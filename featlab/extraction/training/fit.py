"""A phase of training that a killed run takes up again: ``<phase>.safetensors`` in a folder beside the result.

It holds the network, the optimiser, the random generators and the network of the best epoch; as JSON in its metadata
what the run was asked for (another request is refused) and the metrics of each epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.metrics import f1_score
from torch import Tensor, nn

from featlab.cache.atomic import atomic_write_bytes
from featlab.cache.schema import parse_json
from featlab.compute import one_cycle, run_seed, seeded, set_learning_rate
from featlab.errors import InputError, one_line
from featlab.extraction.training import TrainConfig
from featlab.extraction.training.data import Images, augment, balanced_epoch, balanced_groups, batches, normalise

History = list[dict[str, float]]
"""The metrics of each epoch."""


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Name the first key in which two requests, as JSON has them, differ, with both values; None when in none."""
    for key in (*now, *(key for key in before if key not in now)):
        was, is_now = (json.dumps(values.get(key), ensure_ascii=False) for values in (before, now))
        if was != is_now:
            return f"{key} was {was[:60]} and is {is_now[:60]}"
    return None


@dataclass(frozen=True)
class Checkpoint:
    """The states of a run, a file a phase, and what the run was asked for."""

    folder: Path
    request: Mapping[str, Any]  # JSON-ready

    def save(self, phase: str, history: History, tensors: Mapping[str, Tensor]) -> None:
        """Replace what is kept of a phase. A kill at any moment leaves the earlier state or this one."""
        facts = {"request": json.dumps(self.request), "history": json.dumps(history)}
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        atomic_write_bytes(self.folder / f"{phase}.safetensors", save(plain, facts))

    def load(self, phase: str) -> tuple[History, dict[str, Tensor]]:
        """Return what is kept of a phase, nothing where there is no file; refuse what another request left."""
        path = self.folder / f"{phase}.safetensors"
        if not path.exists():
            return [], {}
        try:
            with safe_open(path, framework="pt") as file:
                facts = {name: parse_json(text) for name, text in file.metadata().items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file isn't a dict
            history, before = list(facts["history"]), dict(facts["request"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({one_line(error)}); --if-exists overwrite starts again") from error
        if (changed := difference(before, self.request)) is not None:
            raise InputError(
                f"{path} is of an unfinished training of another kind: {changed}; --if-exists overwrite starts again"
            )
        return history, tensors


OnEpoch = Callable[[str, int, int, dict[str, float]], None]
"""Called after each epoch with the phase, the epoch, the number of epochs, and the epoch's metrics."""


def best_epoch(history: History) -> int:
    """Return the number of the epoch with the best macro F1, of equals the lower loss; unvalidated, the last."""
    if not history or "validation_macro_f1" not in history[0]:
        return len(history)
    ranks = [(metrics["validation_macro_f1"], -metrics["validation_loss"]) for metrics in history]
    return ranks.index(max(ranks)) + 1


def fit(
    model: nn.Module,
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
) -> tuple[History, int]:
    """Train ``model`` in place, or take up where an earlier run of the phase stopped; it ends as of the best epoch.

    Returns the metrics of each epoch, and how many of these an earlier run had done.
    """
    trainer = _Trainer(model, images, config, seed=run_seed(seed, "backbone batches", phase), device=device)
    groups = balanced_groups(images.subject[rows], images.label[rows])
    per_epoch = sum(1 for _ in batches(balanced_epoch(groups, torch.Generator()), config.batch))
    with seeded(seed, "backbone dropout", phase, device=device):
        history, saved = checkpoint.load(phase)
        best = {name: value for name, value in saved.items() if name.startswith("best.")}
        if saved:
            trainer.restore(saved)
        resumed = len(history)
        while len(history) < epochs and len(history) - best_epoch(history) < config.patience:
            model.train()
            losses = []
            order = balanced_epoch(groups, trainer.random)
            for step, part in enumerate(batches(order, config.batch), start=len(history) * per_epoch):
                losses.append(trainer.step(rows[part.numpy()], config.lr * one_cycle(step, epochs * per_epoch)))
            metrics = {"loss": float(np.mean(losses))}
            if not np.isfinite(metrics["loss"]):
                raise InputError(f"the loss of epoch {len(history) + 1} isn't finite: training diverged; lower lr")
            if validation is not None:
                metrics |= trainer.score(validation)
            history.append(metrics)
            if validation is not None and best_epoch(history) == len(history):
                best = {f"best.{name}": value.cpu().clone() for name, value in model.state_dict().items()}
            checkpoint.save(phase, history, trainer.state() | best)
            if on_epoch is not None:
                on_epoch(phase, len(history), epochs, metrics)
    if best:
        model.load_state_dict(_under("best.", best))
    model.eval()
    return history, resumed


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without that beginning."""
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


class _Trainer:
    """The model with its optimiser, and all that a checkpoint has to hold of them."""

    def __init__(self, model: nn.Module, images: Images, config: TrainConfig, *, seed: int, device: str) -> None:
        self.model, self.images, self.config, self.device = model, images, config, device
        self.random = torch.Generator().manual_seed(seed)
        # Matrices and kernels are decayed, not the scales and offsets of norms.
        parts = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(parts, lr=config.lr)
        # Not float16: its gradients would have to be scaled.
        self.autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=config.amp and device == "cuda")

    def step(self, rows: NDArray[np.intp], learning_rate: float) -> float:
        """Take one step on a batch; return its loss."""
        set_learning_rate(self.optimiser, learning_rate)
        batch = normalise(augment(self.images.batch(rows, self.device), self.config, self.random))
        target = torch.from_numpy(self.images.label[rows]).to(self.device)
        with self.autocast:
            loss = F.cross_entropy(self.model(batch), target, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.item()

    def score(self, rows: NDArray[np.intp]) -> dict[str, float]:
        """Return the mean loss, and macro F1 over the classes of each subject as the mean over subjects."""
        self.model.eval()
        with torch.no_grad(), self.autocast:
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

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that the next epoch depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        tensors |= {"random.batches": self.random.get_state(), "random.torch": torch.get_rng_state()}
        if self.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return tensors

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(_under("model.", saved))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser.", saved).items():
            number, _, field = name.partition(".")
            state.setdefault(int(number), {})[field] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        generators = _under("random.", saved)
        self.random.set_state(generators["batches"])
        torch.set_rng_state(generators["torch"])
        # A run that began on the CPU has no state of a GPU's generator; it keeps the seed's.
        if self.device == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"])

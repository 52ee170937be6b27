"""A training run on disk, so that a killed one goes on: safetensors and JSON in a folder beside the result.

run.json                what the run was asked for; another request is refused
<phase>.safetensors     network, optimiser, random generators, the best epoch's network; epoch and history as metadata
"""

from __future__ import annotations

import json
import shutil
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

from featlab.cache.atomic import atomic_write_bytes, atomic_write_text
from featlab.cache.schema import parse_json
from featlab.compute import one_cycle, run_seed, seeded, set_learning_rate
from featlab.errors import InputError, one_line
from featlab.extraction.training import TrainConfig
from featlab.extraction.training.data import Images, augment, balanced_epoch, balanced_groups, batches, normalise

_FORMAT = 1
_FACTS = ("epoch", "best_epoch", "history")


@dataclass(frozen=True, eq=False)
class Saved:
    """Where a phase of training stands after an epoch."""

    epoch: int
    best_epoch: int
    history: list[dict[str, float]]
    tensors: Mapping[str, Tensor]
    best: Mapping[str, Tensor]  # The network of the best epoch.


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Name the first key in which two requests differ, with both values; None when in none."""
    for key in (*now, *(key for key in before if key not in now)):
        if before.get(key) != now.get(key):
            return f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}"
    return None


class Checkpoint:
    """The folder of one run; refuses a folder of a run with another ``request`` (JSON-ready), unless ``overwrite``."""

    def __init__(self, folder: Path, request: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        content = json.loads(json.dumps({"format_version": _FORMAT, **request}))
        path = folder / "run.json"
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        if not path.exists():
            atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            return
        try:
            before = dict(parse_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        if (changed := difference(before, content)) is not None:
            raise InputError(
                f"{folder} holds an unfinished training of another kind: {changed}; --if-exists overwrite starts again"
            )

    def save(self, phase: str, saved: Saved) -> None:
        """Replace what is kept of a phase. A kill at any moment leaves the earlier state or this one."""
        facts = {name: getattr(saved, name) for name in _FACTS}
        tensors = {f"now.{name}": value for name, value in saved.tensors.items()}
        tensors |= {f"best.{name}": value for name, value in saved.best.items()}
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        atomic_write_bytes(self.folder / f"{phase}.safetensors", save(plain, {"facts": json.dumps(facts)}))

    def load(self, phase: str) -> Saved | None:
        """Read back what is kept of a phase; None when there is nothing."""
        path = self.folder / f"{phase}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts = parse_json(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file isn't a dict
            return Saved(**facts, tensors=_under("now.", tensors), best=_under("best.", tensors))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without that beginning."""
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({one_line(error)}); --if-exists overwrite starts again")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


OnEpoch = Callable[[str, int, int, dict[str, float]], None]
"""Called after each epoch with the phase, the epoch, the number of epochs, and the epoch's metrics."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a phase of training came to; the model holds the best epoch's weights."""

    best_epoch: int
    history: list[dict[str, float]]
    resumed: int


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
) -> Fitted:
    """Train ``model`` in place, or take up where an earlier run of the phase stopped."""
    trainer = _Trainer(model, images, config, seed=run_seed(seed, "backbone batches", phase), device=device)
    groups = balanced_groups(images.subject[rows], images.label[rows])
    per_epoch = sum(1 for _ in batches(balanced_epoch(groups, torch.Generator()), config.batch))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    done = best_epoch = 0
    with seeded(seed, "backbone dropout", phase, device=device):
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
            checkpoint.save(phase, Saved(done, best_epoch, history, trainer.state(), best))
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
        batch = normalise(augment(self.images.batch(rows, self.device), self.config.augment, self.random))
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

    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(_under("model.", saved.tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser.", saved.tensors).items():
            number, _, field = name.partition(".")
            state.setdefault(int(number), {})[field] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        generators = _under("random.", saved.tensors)
        self.random.set_state(generators["batches"])
        torch.set_rng_state(generators["torch"])
        # A run that began on the CPU has no state of a GPU's generator; it keeps the seed's.
        if self.device == "cuda" and "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"])

"""A training run on disk, so that a killed one goes on: safetensors and JSON in a folder beside the result.

run.json                        what the run was asked for; another request is refused
<phase>.json                    epoch, history, and the names of the two files below; written last
<phase>-<epoch>.safetensors     network, classifier, optimiser, states of the random generators
<phase>-best-<epoch>.safetensors    network and classifier of the best epoch so far
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from featlab.cache.atomic import atomic_write_bytes, atomic_write_text
from featlab.errors import InputError
from featlab.extraction.backbones.weights import read_state_dict

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Saved:
    """Where a phase of training stands after an epoch."""

    epoch: int
    tensors: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)


def training_folder(out: Path) -> Path:
    """Where a run that writes ``out`` keeps its state: ``net.pt2`` -> ``net.training/``."""
    return out.with_name(f"{out.stem}.training")


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
        elif (changed := difference(_read_json(path), content)) is not None:
            raise InputError(
                f"{folder} holds an unfinished training of another kind: {changed}; --if-exists overwrite starts again"
            )

    def save(self, phase: str, saved: Saved) -> None:
        """Replace what is kept of a phase. A kill at any moment leaves the earlier state or this one."""
        state, best = f"{phase}-{saved.epoch}.safetensors", f"{phase}-best-{saved.best_epoch}.safetensors"
        self._write(state, saved.tensors)
        if not (self.folder / best).exists() or saved.best_epoch == saved.epoch:
            self._write(best, saved.best)
        content = {
            "epoch": saved.epoch,
            "best_epoch": saved.best_epoch,
            "state": state,
            "best": best,
            "history": saved.history,
            "extra": dict(saved.extra),
        }
        atomic_write_text(self.folder / f"{phase}.json", json.dumps(content, indent=2) + "\n")
        for old in self.folder.glob(f"{phase}-*.safetensors"):
            if old.name not in (state, best):
                old.unlink(missing_ok=True)

    def load(self, phase: str) -> Saved | None:
        """Read back what is kept of a phase; None when there is nothing."""
        path = self.folder / f"{phase}.json"
        if not path.exists():
            return None
        content = _read_json(path)
        try:
            return Saved(
                epoch=int(content["epoch"]),
                tensors=read_state_dict(self.folder / str(content["state"])),
                best=read_state_dict(self.folder / str(content["best"])),
                best_epoch=int(content["best_epoch"]),
                history=[dict(entry) for entry in content["history"]],
                extra=dict(content["extra"]),
            )
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def remove(self) -> None:
        """Delete the folder, once the result is in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        atomic_write_bytes(self.folder / name, save(plain))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(content)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({' '.join(str(error).split())}); --if-exists overwrite starts again")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

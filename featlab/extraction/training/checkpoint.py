"""A training run on disk, so that a killed one goes on: safetensors and JSON in a folder beside the result.

run.json                        what the run was asked for; another request is refused
<phase>.json                    epoch, history, and the names of the two files below; written last
<phase>-<epoch>.safetensors     network, classifier, optimiser, states of the random generators
<phase>-best-<epoch>.safetensors    network and classifier of the best epoch so far
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from featlab.bundle.bundle import read_tensors, write_tensors
from featlab.cache.atomic import atomic_write_text
from featlab.errors import BundleError, InputError

__all__ = [
    "Checkpoint",
    "Saved",
    "difference",
    "read_card",
    "read_meta",
    "training_folder",
]

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Saved:
    """Where a phase of training stands after an epoch.

    Attributes:
        epoch: Epochs that are done.
        tensors: To go on from here.
        best: Network and classifier of the best epoch.
        best_epoch: Which one that is.
        history: Facts of each epoch.
        extra: Other JSON-ready state.
    """

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
    """Name the first fact in which two requests differ, with both values; None when in none."""
    for key in (*now, *(key for key in before if key not in now)):
        if before.get(key) != now.get(key):
            return f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}"
    return None


class Checkpoint:
    """The folder of one run.

    Args:
        folder: Where; made when it isn't there.
        request: JSON-ready facts that decide what comes out.
        overwrite: Start again whatever is there.

    Raises:
        InputError: The folder belongs to a run with another request, or its state is damaged.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        content = json.loads(json.dumps({"format_version": _FORMAT, **request}))
        path = folder / "run.json"
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        if path.exists():
            changed = difference(_read_json(path), content)
            if changed is not None:
                raise InputError(
                    f"{folder} holds an unfinished training of another kind: {changed}; "
                    "--if-exists overwrite starts again"
                )
        else:
            atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def save(self, phase: str, saved: Saved) -> None:
        """Replace what is kept of a phase. A kill at any moment leaves the earlier state or this one."""
        path = self.folder / f"{phase}.json"
        state, best = f"{phase}-{saved.epoch}.safetensors", f"{phase}-best-{saved.best_epoch}.safetensors"
        write_tensors(self.folder / state, saved.tensors)
        if not (self.folder / best).exists() or saved.best_epoch == saved.epoch:
            write_tensors(self.folder / best, saved.best)
        content = {
            "epoch": saved.epoch,
            "best_epoch": saved.best_epoch,
            "state": state,
            "best": best,
            "history": saved.history,
            "extra": dict(saved.extra),
        }
        atomic_write_text(path, json.dumps(content, indent=2) + "\n")
        for old in self.folder.glob(f"{phase}-*.safetensors"):
            if old.name not in (state, best):
                old.unlink(missing_ok=True)

    def load(self, phase: str) -> Saved | None:
        """Read back what is kept of a phase; None when there is nothing.

        Raises:
            InputError: Damaged.
        """
        path = self.folder / f"{phase}.json"
        if not path.exists():
            return None
        content = _read_json(path)
        try:
            return Saved(
                epoch=int(content["epoch"]),
                tensors=read_tensors(self.folder / str(content["state"])),
                best=read_tensors(self.folder / str(content["best"])),
                best_epoch=int(content["best_epoch"]),
                history=[dict(entry) for entry in content["history"]],
                extra=dict(content["extra"]),
            )
        except (BundleError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error

    def remove(self) -> None:
        """Delete the folder, once the result is in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)


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


def read_meta(path: Path) -> dict[str, Any]:
    """Return the content of ``featlab.json`` in a ``.pt2`` file.

    Raises:
        InputError: No such file, not a ``.pt2``, or one without ``featlab.json``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive's one folder is named by torch, and where extra files lie depends on its version.
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == "featlab.json"]
            if not names:
                raise InputError(f"{path} has no featlab.json: it wasn't written by `featlab backbone train`")
            content = json.loads(archive.read(names[0]).decode("utf-8"))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read as a .pt2 file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or content.get("format") != "featlab-backbone":
        raise InputError(f"{path}: its featlab.json describes no backbone")
    return content


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a backbone file: people, classes, scores, as whoever made it wrote them.

    Raises:
        InputError: As `read_meta`.
    """
    card = read_meta(path).get("card", {})
    return dict(card) if isinstance(card, dict) else {}

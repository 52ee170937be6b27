"""A file of every kind that featlab writes, and what reads each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from disturbed import EXTRACTOR, METHODS, SMALL, people, well
from forked import run

from featlab import open_cache, write_table
from featlab.analysis.evaluation.stored import open_results
from featlab.analysis.page import read_page, read_table
from featlab.bundle.bundle import load_bundle
from featlab.bundle.files import load_adaptation
from featlab.errors import InputError
from featlab.evaluation.runner import plan, run_tasks
from featlab.exchange.formats import load_safetensors
from featlab.workspace.contents import check_files
from featlab.workspace.stages import pair_stage, train_stage
from featlab.workspace.workspace import Workspace

SETTINGS = {
    "head.epochs": 2,
    "features.dim": 6,
    "head.bottleneck": 8,
    "protocol.targets": "3",
    "protocol.methods": METHODS[1],
}
Use = Callable[[], object]


@dataclass(frozen=True)
class Artefact:
    """Files, what reads them, their share of the flips, and a command that uses them."""

    name: str
    files: Sequence[Path]
    use: Use
    share: int
    words: tuple[str, ...]


def made(place: Path, seed: int) -> Path:
    """Make a workspace with a file of every kind."""
    place.mkdir()
    write_table(place / "cache.h5", people(9, first=seed, frames=16, dim=48), EXTRACTOR)
    held = ("--targets", "3", *SMALL)
    (place / "featlab.toml").write_text(
        '[head]\nepochs = 2\nbottleneck = 8\n[features]\ndim = 6\n[protocol]\ntargets = "3"\n', encoding="utf-8"
    )
    well(run(("pretrain", *held), place))
    bundle = ("--bundle", str(next(place.glob("bundles/*")).relative_to(place)))
    targets = Workspace.open(place, SETTINGS).targets()
    for words in (
        ("adapt", "--subject", ",".join(targets[:2]), *bundle, *SMALL),
        ("evaluate", *METHODS, "--jobs", "1", "--no-plots", *held),
        ("export", "--subject", targets[0], *bundle, "--out", "person.safetensors", *SMALL),
    ):
        well(run(words, place))
    return place


def artefacts(place: Path) -> list[Artefact]:
    """Return the files of a workspace, by what reads them."""
    workspace = Workspace.open(place, SETTINGS)
    source, targets = workspace.source(workspace.targets()), workspace.targets()
    (bundle,), (results,) = place.glob("bundles/*"), place.glob("results/evaluate-*")
    adapted = sorted(bundle.glob(f"subjects/{targets[0]}/*"))
    head, pairs = (next(place.glob(f"stages/{name}-*")) for name in ("train", "pair"))
    read, other = split(results, ("results.jsonl", ".json", "SHA256SUMS"))

    def runs() -> object:
        tasks = plan(workspace)
        done = run_tasks(tasks, collect=True)
        if sum(map(len, done)) < sum(len(task.runs) for task in tasks):
            raise InputError("a run is missing: it is made again")
        return done

    def evaluation() -> object:
        page = read_page(results)
        return page, [read_table(results, name) for name in page.tables], open_results(place, results)

    def export() -> object:
        verified(place / "person.safetensors")
        run, text = load_safetensors(place / "person.safetensors")
        return run(torch.from_numpy(workspace.table.embeddings))["logits"], text

    def adaptation() -> object:
        return load_adaptation(adapted[0].parent, load_bundle(bundle))

    def one() -> object:
        with open_cache(place / "cache.h5") as cache:
            return cache.read([targets[0]])

    held, by = ("--targets", "3", *SMALL), ("--bundle", str(bundle.relative_to(place)), "--subject", targets[0], *SMALL)
    cache, out = [place / "cache.h5"], place / "person.safetensors"
    used, written = ("bundle.json", ".safetensors", "SUMS"), (".csv", ".json", ".md")
    predict, check = ("predict", *by), lambda path: ("verify", str(path.relative_to(place)))
    again = ("evaluate", *METHODS, "--jobs", "1", "--no-plots", *held)
    return [
        Artefact("cache", cache, partial(whole, cache[0]), 440, ("verify",)),
        Artefact("cache, one person read", cache, one, 200, ("train", "--seed", "1", *held)),
        Artefact("bundle", split(bundle, used)[0], partial(load_bundle, bundle), 480, predict),
        Artefact("card of a bundle", [bundle / "card.md"], partial(verified, bundle), 40, check(bundle)),
        Artefact("head", split(head, used)[0], partial(first, train_stage, source), 240, ("train", *held)),
        Artefact("pairs", split(pairs, used)[0], partial(first, pair_stage, source), 240, ("pair", "--targets", "3")),
        Artefact("lists of pairs", split(pairs, written)[0], partial(verified, pairs), 40, check(pairs)),
        Artefact("adaptation", adapted, adaptation, 240, predict),
        Artefact("finished runs", sorted(place.glob("results/runs/*/*.jsonl")), runs, 200, again),
        Artefact("results that are read", read, evaluation, 200, ("report", str(results.relative_to(place)))),
        Artefact("tables that are not", other, partial(verified, results), 40, check(results)),
        Artefact("export", sorted(place.glob("person.*")), export, 160, check(out)),
    ]


def split(folder: Path, endings: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder whose names end so, and the others."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for path in files if path.name.endswith(endings)], [
        path for path in files if not path.name.endswith(endings)
    ]


def whole(path: Path) -> object:
    with open_cache(path) as cache:
        return cache.read()


def first(stage: Callable[[Any], tuple[object, object]], source: object) -> object:
    return stage(source)[0]


def verified(path: Path) -> None:
    """Raise what `featlab verify` says of a file or folder."""
    damages, _ = check_files(path)
    if damages:
        raise InputError(damages[0])


def marks(value: Any) -> bytes:
    """Return a digest of all that an object holds, arrays bit for bit."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        parts = [f"{value.dtype}{value.shape}".encode(), value.tobytes()]
    elif isinstance(value, torch.nn.Module):
        parts = [marks(value.state_dict())]
    elif is_dataclass(value):
        parts = [marks({field.name: getattr(value, field.name) for field in fields(value)})]
    elif isinstance(value, Mapping):
        parts = [marks((str(key), item)) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))]
    elif isinstance(value, list | tuple):
        parts = [marks(item) for item in value]
    else:
        parts = [repr(value).encode()]
    return hashlib.sha256(b"\0".join([type(value).__name__.encode(), *parts])).digest()

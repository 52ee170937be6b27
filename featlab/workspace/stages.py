"""Stages of a workspace: each output lives in a folder named by a hash of what went into it.

    stages/train-<key>/      head.safetensors (projection, B, C)
    stages/pair-<key>/       pairs.safetensors, pairs.csv, summary.json
    bundles/<key>/           the model bundle (see `featlab.bundle.bundle`)

A folder is written under a temporary name and renamed, so one that exists is complete. Deleting any of them is safe:
the next command that needs it makes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featlab.bundle.bundle import BUNDLE_FORMAT, Bundle, load_bundle, read_tensors, save_bundle, write_tensors
from featlab.cache import FeatureTable
from featlab.cache.atomic import atomic_folder, atomic_write_bytes, atomic_write_text
from featlab.errors import BundleError
from featlab.methods.reads import reads_pairs
from featlab.methods.registry import get_method
from featlab.model.networks import Projection, head_from_state
from featlab.pairing.pairs import (
    Pairs,
    make_pairs,
    pairs_from_arrays,
    pairs_summary,
    pairs_to_arrays,
    resolve_strategy,
    write_pairs_csv,
)
from featlab.workspace.source import TrainedHead, pretrain_bundle, train_source_head
from featlab.workspace.workspace import Source

__all__ = [
    "Source",
    "StageOutput",
    "bundle_folder",
    "bundle_stage",
    "pair_folder",
    "pair_stage",
    "source_stages",
    "train_folder",
    "train_stage",
]


@dataclass(frozen=True, eq=False)
class StageOutput:
    """Where a stage's output is, and whether it was there already."""

    folder: Path
    reused: bool


def train_folder(source: Source) -> Path:
    """Return where `train_stage` keeps its output."""
    config = source.config
    return source.workspace.root / "stages" / f"train-{source.key('train', config.features, config.head)}"


def pair_folder(source: Source) -> Path:
    """Return where `pair_stage` keeps its output.

    Raises:
        InputError: Strategy landmark for a table without landmarks.
    """
    config = source.config.pair
    strategy = resolve_strategy(config, source.workspace.table)
    return source.workspace.root / "stages" / f"pair-{source.key('pair', config, strategy)}"


def bundle_folder(source: Source, methods: Sequence[str]) -> Path:
    """Return where `bundle_stage` keeps its output for these methods."""
    config = source.config
    prepared = _prepared(methods)
    paired: tuple[object, ...] = ()
    if reads_pairs(config, prepared):
        paired = (config.pair, resolve_strategy(config.pair, source.workspace.table))
    inputs = (config.features, config.head, *paired, config.pretrain, prepared, BUNDLE_FORMAT)
    return source.workspace.root / "bundles" / source.key("bundle", *inputs)


def train_stage(source: Source) -> tuple[TrainedHead, StageOutput]:
    """Return projection, B and C: from an earlier run with the same inputs, or trained now."""
    folder = train_folder(source)
    path = folder / "head.safetensors"
    if path.exists():
        return _load_head(path), StageOutput(folder, True)
    workspace, table = source.workspace, source.table
    workspace.notify(f"train: {len(table):,} rows of {len(source.subjects)} source subjects")
    trained = train_source_head(
        table, source.config, seed=source.seed, device=workspace.device, on_epoch=workspace.on_epoch
    )
    tensors = {f"projection.{name}": tensor for name, tensor in trained.projection.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in trained.head.state_dict().items()}
    with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
        write_tensors(draft / path.name, tensors)
    return _load_head(path), StageOutput(folder, False)


def pair_stage(source: Source) -> tuple[Pairs, StageOutput]:
    """Return the pairs of the source rows, likewise."""
    config = source.config.pair
    folder, table = pair_folder(source), source.table
    path = folder / "pairs.safetensors"
    if path.exists():
        return _load_pairs(path, len(table)), StageOutput(folder, True)
    strategy = resolve_strategy(config, table)
    source.workspace.notify(f"pair: {strategy}, {config.label_rule} label, {len(table):,} rows")
    pairs = make_pairs(table, config, seed=source.seed)
    with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
        _write_pairs(draft, pairs, table)
    return pairs, StageOutput(folder, False)


def bundle_stage(source: Source, methods: Sequence[str]) -> tuple[Bundle, StageOutput]:
    """Return the model bundle, likewise; runs `train_stage` first, and `pair_stage` where training is on pairs.

    Args:
        source: What to work on.
        methods: Methods that will be run on the bundle; those that carry something prepare it.
    """
    folder = bundle_folder(source, methods)
    if (folder / "bundle.json").exists():
        return _load_bundle(folder), StageOutput(folder, True)
    trained, _ = train_stage(source)
    pairs = pair_stage(source)[0] if reads_pairs(source.config, _prepared(methods)) else None
    workspace, how, table = source.workspace, source.config.pretrain, source.table
    if pairs is None or how.linear:
        workspace.notify(f"pretrain: anchored, a linear T, {len(table):,} rows in {how.episodes} episodes each")
    else:
        workspace.notify(f"pretrain: {how.objective}, {len(pairs):,} pairs, {how.epochs} epochs")
    bundle = pretrain_bundle(
        table,
        trained,
        pairs,
        source.config,
        seed=source.seed,
        extractor=workspace.extractor,
        cache_digest=workspace.cache_digest,
        methods=_prepared(methods),
        on_epoch=workspace.on_epoch,
    )
    with atomic_folder(folder, keep="bundle.json", error=BundleError) as draft:
        save_bundle(draft, bundle)
    return _load_bundle(folder), StageOutput(folder, False)


Make = Callable[[], object]
"""Makes the output of a stage."""


def source_stages(source: Source, methods: Sequence[str]) -> list[dict[Path, Make]]:
    """Return for train, pair and bundle the folder and what makes it; pairs that nothing reads are not made."""
    paired = reads_pairs(source.config, _prepared(methods))
    return [
        {train_folder(source): partial(train_stage, source)},
        {pair_folder(source): partial(pair_stage, source)} if paired else {},
        {bundle_folder(source, methods): partial(bundle_stage, source, methods)},
    ]


def _prepared(methods: Sequence[str]) -> list[str]:
    return sorted(name for name in set(methods) if get_method(name).carries)


def _load_bundle(folder: Path) -> Bundle:
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise BundleError(f"{error}; to have it made again, delete {folder}") from error


def _write_pairs(folder: Path, pairs: Pairs, table: FeatureTable) -> None:
    from safetensors.numpy import save

    atomic_write_bytes(folder / "pairs.safetensors", save(pairs_to_arrays(pairs)))
    write_pairs_csv(folder / "pairs.csv", pairs, table)
    atomic_write_text(folder / "summary.json", json.dumps(pairs_summary(pairs, table), indent=2) + "\n")


def _load_pairs(path: Path, rows: int) -> Pairs:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return pairs_from_arrays(load_file(path), rows=rows)
    except (OSError, SafetensorError, BundleError) as error:
        raise BundleError(f"{path}: can't be read ({error}); delete {path.parent} and run featlab pair") from error


def _load_head(path: Path) -> TrainedHead:
    try:
        tensors = read_tensors(path)
        weights = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("head.")}
        head = head_from_state(weights)
        projection = Projection(tensors["projection.mean"], tensors["projection.components"])
    except (BundleError, KeyError, RuntimeError, ValueError) as error:
        raise BundleError(f"{path}: damaged; delete {path.parent} and run featlab train") from error
    return TrainedHead(projection, head)

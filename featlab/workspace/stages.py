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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featlab import __version__
from featlab.bundle.bundle import BUNDLE_FORMAT, Bundle, load_bundle, read_tensors, save_bundle, write_tensors
from featlab.cache import ExtractorInfo, FeatureTable
from featlab.cache.atomic import atomic_folder, atomic_write_bytes, atomic_write_text
from featlab.config.load import Config
from featlab.errors import BundleError
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
from featlab.seeding import stable_hash
from featlab.workspace.source import OnEpoch, TrainedHead, pretrain_bundle, train_source_head

__all__ = [
    "Source",
    "StageOutput",
    "bundle_folder",
    "bundle_stage",
    "pair_folder",
    "pair_stage",
    "train_folder",
    "train_stage",
]

STAGE_FORMAT = 1
Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Source:
    """What the source stages work on.

    Attributes:
        root: The workspace folder.
        table: Rows of the source subjects.
        extractor: What made the embeddings.
        cache_digest: Of the cache they come from.
        config: The resolved configuration.
        seed: Root seed.
        device: Where to train.
        notify: Called with one line when a stage runs.
        on_epoch: Progress of training.
    """

    root: Path
    table: FeatureTable
    extractor: ExtractorInfo
    cache_digest: str
    config: Config
    seed: int
    device: str = "cpu"
    notify: Notify = print
    on_epoch: OnEpoch | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the source subjects."""
        return self.table.subject_names_present()

    def key(self, stage: str, *inputs: Any) -> str:
        """Return the stage's key: a hash of the version, the rows, the seed and the settings that it reads."""
        text = json.dumps([asdict(item) if hasattr(item, "__dataclass_fields__") else item for item in inputs])
        parts = (__version__, STAGE_FORMAT, stage, self.cache_digest, ",".join(self.subjects), self.seed, text)
        return stable_hash(*parts)[:12]


@dataclass(frozen=True, eq=False)
class StageOutput:
    """Where a stage's output is, and whether it was there already."""

    folder: Path
    reused: bool


def train_folder(source: Source) -> Path:
    """Return where `train_stage` keeps its output."""
    config = source.config
    return source.root / "stages" / f"train-{source.key('train', config.features, config.head)}"


def pair_folder(source: Source) -> Path:
    """Return where `pair_stage` keeps its output.

    Raises:
        InputError: Strategy landmark for a table without landmarks.
    """
    config = source.config.pair
    return source.root / "stages" / f"pair-{source.key('pair', config, resolve_strategy(config, source.table))}"


def bundle_folder(source: Source, methods: Sequence[str]) -> Path:
    """Return where `bundle_stage` keeps its output for these methods."""
    config = source.config
    strategy = resolve_strategy(config.pair, source.table)
    prepared = _prepared(methods)
    inputs = (config.features, config.head, config.pair, strategy, config.pretrain, prepared, BUNDLE_FORMAT)
    return source.root / "bundles" / source.key("bundle", *inputs)


def train_stage(source: Source) -> tuple[TrainedHead, StageOutput]:
    """Return projection, B and C: from an earlier run with the same inputs, or trained now."""
    config = source.config
    folder = train_folder(source)
    path = folder / "head.safetensors"
    if path.exists():
        return _load_head(path), StageOutput(folder, True)
    source.notify(f"train: {len(source.table):,} rows of {len(source.subjects)} source subjects")
    trained = train_source_head(source.table, config, seed=source.seed, device=source.device, on_epoch=source.on_epoch)
    tensors = {f"projection.{name}": tensor for name, tensor in trained.projection.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in trained.head.state_dict().items()}
    with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
        write_tensors(draft / path.name, tensors)
    return _load_head(path), StageOutput(folder, False)


def pair_stage(source: Source) -> tuple[Pairs, StageOutput]:
    """Return the pairs of the source rows, likewise."""
    config = source.config.pair
    folder = pair_folder(source)
    path = folder / "pairs.safetensors"
    if path.exists():
        return _load_pairs(path, len(source.table)), StageOutput(folder, True)
    strategy = resolve_strategy(config, source.table)
    source.notify(f"pair: {strategy}, {config.label_rule} label, {len(source.table):,} rows")
    pairs = make_pairs(source.table, config, seed=source.seed)
    with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
        _write_pairs(draft, pairs, source.table)
    return pairs, StageOutput(folder, False)


def bundle_stage(source: Source, methods: Sequence[str]) -> tuple[Bundle, StageOutput]:
    """Return the model bundle, likewise; runs `train_stage` and `pair_stage` first where their output is missing.

    Args:
        source: What to work on.
        methods: Methods that will be run on the bundle; those that carry something prepare it.
    """
    config = source.config
    folder = bundle_folder(source, methods)
    if (folder / "bundle.json").exists():
        return _load_bundle(folder), StageOutput(folder, True)
    trained, _ = train_stage(source)
    pairs, _ = pair_stage(source)
    how = config.pretrain
    if how.linear:
        source.notify(f"pretrain: anchored, a linear T, {len(source.table):,} rows in {how.episodes} episodes each")
    else:
        source.notify(f"pretrain: {how.objective}, {len(pairs):,} pairs, {how.epochs} epochs")
    bundle = pretrain_bundle(
        source.table,
        trained,
        pairs,
        config,
        seed=source.seed,
        extractor=source.extractor,
        cache_digest=source.cache_digest,
        methods=_prepared(methods),
        on_epoch=source.on_epoch,
    )
    with atomic_folder(folder, keep="bundle.json", error=BundleError) as draft:
        save_bundle(draft, bundle)
    return _load_bundle(folder), StageOutput(folder, False)


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

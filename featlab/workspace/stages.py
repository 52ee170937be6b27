"""Stages of a workspace: each output lives in a folder named by a hash of what went into it.

    stages/train-<key>/      head.safetensors (projection, B, C)
    stages/pair-<key>/       pairs.safetensors, pairs.csv, summary.json
    bundles/<key>/           the model bundle (see `featlab.bundle.bundle`)

A folder that exists is complete. Deleting any of them is safe: the next command that needs it makes it again. Of
several processes that need one, on whichever machines, one makes it and the others wait.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from featlab.bundle.bundle import Bundle, write_bundle
from featlab.bundle.files import read_tensors, write_tensors
from featlab.cache.atomic import atomic_folder, atomic_write_text, check_sum
from featlab.cache.table import FeatureTable
from featlab.compute import choose_device
from featlab.errors import BundleError
from featlab.methods.registry import preparers, reads_pairs
from featlab.model.networks import Projection, head_from_state
from featlab.model.style_bank import CarriedShare
from featlab.pairing.pairs import (
    Pairs,
    make_pairs,
    pairs_from_arrays,
    pairs_summary,
    pairs_to_arrays,
    write_pairs_csv,
)
from featlab.workspace.build import TrainedHead, pretrain_bundle, train_source_head
from featlab.workspace.workspace import Source, bundle_folder, load_made_bundle


@dataclass(frozen=True, eq=False)
class StageOutput:
    """Where a stage's output is, and whether it was there already."""

    folder: Path
    reused: bool


def train_folder(source: Source) -> Path:
    """Return where `train_stage` keeps its output."""
    config = source.config
    how = config.pretrain
    inputs = (config.features, config.head, how.learn_share, how.share, how.penalty)
    return source.workspace.root / "stages" / f"train-{source.key('train', *inputs)}"


def pair_folder(source: Source) -> Path:
    """Return where `pair_stage` keeps its output."""
    config = source.config.pair
    strategy = config.resolved(source.workspace.table.landmarks is not None)
    return source.workspace.root / "stages" / f"pair-{source.key('pair', config, strategy)}"


LEASE = 60.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""


@contextmanager
def _to_be_made(kept: Path, source: Source) -> Iterator[bool]:
    """Yield whether a stage's file has to be made here; where another process is making it, wait until it is there."""
    if kept.exists():
        yield False
        return
    from filelock import SoftFileLease, Timeout

    folder, workspace = kept.parent, source.workspace
    # In the workspace itself, which is there: nothing is left of a stage that is refused.
    lease = SoftFileLease(workspace.root / f".{folder.name}.lock", lease_duration=LEASE, poll_interval=0.2)
    try:
        for tries in count():
            try:
                lease.acquire(timeout=1)
                break
            except Timeout:
                if tries == 0:
                    workspace.notify(f"waiting for another process, which makes {folder}")
                # Its owner was killed before it wrote its name, and nobody would ever break it.
                with suppress(FileNotFoundError):
                    if os.path.getsize(lease.lock_file) == 0:
                        os.unlink(lease.lock_file)
    except OSError as error:
        raise BundleError(f"{folder}: can't be written ({error.strerror}); check its place and permissions") from error
    try:
        yield not kept.exists()
    finally:
        lease.release()


def train_stage(source: Source) -> tuple[TrainedHead, StageOutput]:
    """Return projection, B and C: from an earlier run with the same inputs, or trained now."""
    folder = train_folder(source)
    path = folder / "head.safetensors"
    with _to_be_made(path, source) as missing:
        if missing:
            workspace, table = source.workspace, source.table
            workspace.notify(f"train: {len(table):,} rows of {len(source.subjects)} source subjects")
            trained = train_source_head(
                table,
                source.config,
                seed=source.seed,
                device=choose_device(workspace.device).type,
                on_epoch=workspace.on_epoch,
            )
            with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
                write_tensors(draft / path.name, _head_tensors(trained))
    return _load_head(path), StageOutput(folder, not missing)


def pair_stage(source: Source) -> tuple[Pairs, StageOutput]:
    """Return the pairs of the source rows, likewise."""
    config = source.config.pair
    folder, table = pair_folder(source), source.table
    path = folder / "pairs.safetensors"
    with _to_be_made(path, source) as missing:
        if missing:
            strategy = config.resolved(table.landmarks is not None)
            source.workspace.notify(f"pair: {strategy}, {config.label_rule} label, {len(table):,} rows")
            pairs = make_pairs(table, config, seed=source.seed)
            with atomic_folder(folder, keep=path.name, error=BundleError) as draft:
                _write_pairs(draft, pairs, table)
    return _load_pairs(path, len(table)), StageOutput(folder, not missing)


def bundle_stage(source: Source, methods: Sequence[str]) -> tuple[Bundle, StageOutput]:
    """Return the model bundle, likewise; of ``methods`` those that carry something prepare it in the bundle."""
    folder = bundle_folder(source, methods)
    with _to_be_made(folder / "bundle.json", source) as missing:
        if missing:
            bundle = _make_bundle(source, methods)
            with atomic_folder(folder, keep="bundle.json", error=BundleError) as draft:
                write_bundle(draft, bundle)
    return load_made_bundle(folder, source.workspace.adapt_on), StageOutput(folder, not missing)


def _make_bundle(source: Source, methods: Sequence[str]) -> Bundle:
    trained, _ = train_stage(source)
    pairs = pair_stage(source)[0] if reads_pairs(source.config, preparers(methods)) else None
    workspace, how, table = source.workspace, source.config.pretrain, source.table
    steps = f", {len(pairs):,} pairs, {how.epochs} epochs" if pairs is not None and how.paired else ""
    workspace.notify(f"pretrain: {how.form} T, {len(table):,} rows{steps}")
    return pretrain_bundle(
        table,
        trained,
        pairs,
        source.config,
        seed=source.seed,
        extractor=workspace.extractor,
        cache_digest=workspace.cache_digest,
        methods=preparers(methods),
        on_epoch=workspace.on_epoch,
    )


def _head_tensors(trained: TrainedHead) -> dict[str, torch.Tensor]:
    """Return what `_load_head` reads."""
    tensors = {f"projection.{name}": tensor for name, tensor in trained.projection.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in trained.head.state_dict().items()}
    # In float64: what is read back is what was chosen.
    return tensors | {
        f"share.{name}": torch.tensor(value, dtype=torch.float64) for name, value in vars(trained.share).items()
    }


def _write_pairs(folder: Path, pairs: Pairs, table: FeatureTable) -> None:
    arrays = {name: torch.tensor(array) for name, array in pairs_to_arrays(pairs).items()}
    write_tensors(folder / "pairs.safetensors", arrays)
    write_pairs_csv(folder / "pairs.csv", pairs, table)
    atomic_write_text(folder / "summary.json", json.dumps(pairs_summary(pairs, table), indent=2) + "\n")


def _load_pairs(path: Path, rows: int) -> Pairs:
    try:
        check_sum(path, BundleError)
        # Random pairs have no score: NaN.
        arrays = {name: tensor.numpy() for name, tensor in read_tensors(path, finite=False).items()}
        return pairs_from_arrays(arrays, rows=rows)
    except BundleError as error:
        raise BundleError(f"{path}: can't be read ({error}); delete {path.parent} and run featlab pair") from error


def _load_head(path: Path) -> TrainedHead:
    try:
        check_sum(path, BundleError)
        tensors = read_tensors(path)
        weights = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("head.")}
        head = head_from_state(weights)
        projection = Projection(tensors["projection.mean"], tensors["projection.components"])
        people, losses = int(tensors["share.people"]), tuple(tensors["share.losses"].tolist())
        share = CarriedShare(float(tensors["share.value"]), people, losses)
    except (BundleError, KeyError, RuntimeError, ValueError) as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise BundleError(f"{path}: damaged; delete {path.parent} and run featlab train") from error
    return TrainedHead(projection, head, share)

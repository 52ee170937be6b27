"""Stages of a workspace: each output lives in a folder named by a hash of what went into it.

    stages/train-<key>/      head.safetensors (projection, B, C)
    stages/pair-<key>/       pairs.safetensors, pairs.csv, summary.json
    bundles/<key>/           the model bundle (see `featlab.bundle.bundle`)

A folder that exists is complete. Deleting any of them is safe: the next command that needs it makes it again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from featlab.bundle.bundle import BUNDLE_FORMAT, Bundle, load_bundle, read_tensors, save_bundle, write_tensors
from featlab.cache.atomic import atomic_folder, atomic_write_bytes, atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.config.load import Config
from featlab.errors import BundleError, InputError
from featlab.methods.registry import get_method, prepare_extras, reads_pairs, refuse_unread
from featlab.model.head import fit_projection, train_head
from featlab.model.networks import Projection, SourceHead, as_tensor, head_from_state
from featlab.model.pretrain import SourceRows, make_style_bank, new_translator, pretrain_translator
from featlab.pairing.pairs import (
    Pairs,
    make_pairs,
    pairs_from_arrays,
    pairs_summary,
    pairs_to_arrays,
    resolve_strategy,
    write_pairs_csv,
)
from featlab.workspace.workspace import OnEpoch, Source, Workspace


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
    """Return where `pair_stage` keeps its output."""
    config = source.config.pair
    strategy = resolve_strategy(config, source.workspace.table)
    return source.workspace.root / "stages" / f"pair-{source.key('pair', config, strategy)}"


def bundle_folder(source: Source, methods: Sequence[str]) -> Path:
    """Return where `bundle_stage` keeps its output for these methods."""
    config = source.config
    prepared = _prepared(methods)
    paired = reads_pairs(config, prepared)
    pair = (config.pair, resolve_strategy(config.pair, source.workspace.table)) if paired else ()
    inputs = (config.features, config.head, *pair, config.pretrain, prepared, BUNDLE_FORMAT)
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
    """Return the model bundle, likewise; of ``methods`` those that carry something prepare it in the bundle."""
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


def open_bundle(workspace: Workspace, folder: Path | None, kept_out: Sequence[str]) -> tuple[Bundle, Path]:
    """Return the bundle that was named, or the workspace's own for its method, made now if need be; and its folder.

    ``kept_out`` are people whom the workspace's own bundle must not have seen.
    """
    if folder is not None:
        bundle = load_bundle(folder)
        bundle.check_extractor(workspace.extractor, str(workspace.config.cache))
        return bundle, folder
    method = workspace.config.adapt.method
    refuse_unread(workspace.config, [method])
    bundle, made = bundle_stage(workspace.source(kept_out), [method])
    if made.reused:
        workspace.notify(f"bundle: {made.folder}, of {len(bundle.source_subjects)} source subjects")
    return bundle, made.folder


Make = Callable[[], object]


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


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The first half of a bundle: projection, B and C."""

    projection: Projection
    head: SourceHead


def train_source_head(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    device: str = "cpu",
    alone: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TrainedHead:
    """Fit the projection and train B and C on the labelled rows of two source subjects or more; ``alone``: of one."""
    people = len(table.subject_names_present())
    if people < 2 and not alone:
        raise InputError(
            f"training needs at least 2 source subjects, got {people}; choose fewer targets, or extract more people"
        )
    projection = fit_projection(table.embeddings, table.subject, config.features, seed=seed).to(device)
    with torch.no_grad():
        features = projection(as_tensor(table.embeddings, device))
    report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("train", epoch, epochs, loss))
    head = train_head(features, table.label, len(table.classes), config.head, seed=seed, on_epoch=report)
    return TrainedHead(projection, head)


def pretrain_bundle(
    table: FeatureTable,
    trained: TrainedHead,
    pairs: Pairs | None,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str = "",
    methods: Sequence[str],
    on_epoch: OnEpoch | None = None,
) -> Bundle:
    """Pretrain T, make the style bank, let ``methods`` prepare what they carry, and put it all into a bundle."""
    device = trained.projection.mean.device
    with torch.no_grad():
        features = trained.projection(as_tensor(table.embeddings, device)).cpu()
    head, projection = copy.deepcopy(trained.head).cpu(), copy.deepcopy(trained.projection).cpu()
    source = SourceRows.of(table, features, pairs)
    history: tuple[Mapping[str, float], ...] = ()
    if len(table.subject_names_present()) > 1:
        report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("pretrain", epoch, epochs, loss))
        pretrained = pretrain_translator(source, head, config.pretrain, seed=seed, on_epoch=report)
        translator, history = pretrained.translator, pretrained.history
    else:
        # Only the residual form starts as the identity.
        untrained = new_translator(features.shape[1], replace(config.pretrain, residual=True), seed)
        translator = untrained.eval().requires_grad_(False)
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=translator,
        classes=table.classes,
        neutral=table.neutral,
        extractor=extractor,
        source_subjects=table.subject_names_present(),
        config=config,
        seed=seed,
        bank=make_style_bank(source, translator, head) if config.pretrain.style_bank else None,
        cache_digest=cache_digest,
        history=history,
    )
    return prepare_extras(bundle, source, methods)


def build_bundle(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str = "",
    methods: Sequence[str] = ("pft",),
    device: str = "cpu",
    alone: bool = False,
) -> Bundle:
    """Run the whole source stage: train B and C, pair, pretrain T, bank, extras. See the parts for what they raise.

    ``alone`` lets one subject's rows pass: there are no pairs then, and T stays the identity.
    """
    trained = train_source_head(table, config, seed=seed, device=device, alone=alone)
    paired = reads_pairs(config, methods) and len(table.subject_names_present()) > 1
    pairs = make_pairs(table, config.pair, seed=seed) if paired else None
    return pretrain_bundle(
        table, trained, pairs, config, seed=seed, extractor=extractor, cache_digest=cache_digest, methods=methods
    )

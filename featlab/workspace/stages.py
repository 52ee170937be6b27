"""Stages of a workspace: each output lives in a folder named by a hash of what went into it.

    stages/train-<key>/      head.safetensors (projection, B, C)
    stages/pair-<key>/       pairs.safetensors, pairs.csv, summary.json
    bundles/<key>/           the model bundle (see `featlab.bundle.bundle`)

A folder that exists is complete. Deleting any of them is safe: the next command that needs it makes it again. Of
several processes that need one, on whichever machines, one makes it and the others wait.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle, KeyedNames, write_bundle
from featlab.bundle.files import read_tensors, write_tensors
from featlab.cache.atomic import atomic_folder, atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.compute import choose_device
from featlab.config.load import Config
from featlab.errors import BundleError, InputError, one_line
from featlab.methods.registry import prepare_extras, preparers, reads_pairs
from featlab.model.head import fit_projection, prompt_head, train_heads
from featlab.model.linear import learn_share
from featlab.model.networks import Projection, SourceHead, head_from_state
from featlab.model.pretrain import make_style_bank, pretrain_translators
from featlab.model.style_bank import CarriedShare, SourceRows, membership_test
from featlab.pairing.pairs import Pairs, make_pairs, pairs_summary, write_pairs_csv
from featlab.workspace.workspace import OnEpoch, Source, bundle_folder, load_made_bundle

LEASE = 60.0  # Seconds without a sign of life after which a process on another machine counts as dead.


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The first half of a bundle: projection, B and C, and the carried share."""

    projection: Projection
    head: SourceHead
    share: CarriedShare


def train_source_head(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    device: str = "cpu",
    alone: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TrainedHead:
    """Fit the projection, train B and C, and learn the carried share; of one source subject only if ``alone``."""
    people = len(table.subject_names_present())
    if people < 2 and not alone:
        raise InputError(
            f"training needs at least 2 source subjects, got {people}: others are needed to learn from; extract more "
            "people, or hold fewer out"
        )
    projection = fit_projection(table.embeddings, table.subject, config.features, seed=seed).to(device)
    features = projection.of_rows(table.embeddings)
    report = partial(on_epoch, "train") if on_epoch else None
    if config.head.classifier == "prompts":
        head = prompt_head(projection, features, table.prompts)
    else:
        (head,) = train_heads(features, [table.label], len(table.classes), config.head, seed=seed, on_epoch=report)
    how, share = config.pretrain, CarriedShare(config.pretrain.share)
    if how.learn_share:
        share = learn_share(SourceRows.of(table, features.cpu()), len(table.classes), how.penalty, seed=seed)
    return TrainedHead(projection, head, share)


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
    head, projection = copy.deepcopy(trained.head).cpu(), copy.deepcopy(trained.projection).cpu()
    source = SourceRows.of(table, projection.of_rows(table.embeddings), pairs)
    how, share, people = config.pretrain, trained.share.value, table.subject_names_present()
    report = partial(on_epoch, "pretrain") if on_epoch else None
    # Of one person alone T learns nothing.
    learnt = how if len(people) > 1 else replace(how, epochs=0)
    (translator,), history = pretrain_translators([source], [head], learnt, share=share, seed=seed, on_epoch=report)
    bank = None
    if how.style_bank != "none":
        bank = make_style_bank(source, translator, head, share)
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=translator,
        classes=table.classes,
        neutral=table.neutral,
        extractor=extractor,
        source_subjects=KeyedNames.of(people, cache_digest, seed),
        config=config,
        seed=seed,
        share=trained.share,
        bank=bank,
        cache_digest=cache_digest,
        history=tuple(history),
    )
    bundle = prepare_extras(bundle, source, methods)
    if how.validation:
        tried = membership_test(source, bundle.bank, config.head, classes=len(table.classes), seed=seed)
        bundle = replace(bundle, membership=tried)
    return bundle


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
    # As a cache has them: the order in which the rows come makes no other model.
    table = table.take(np.lexsort((table.embeddings[:, 0], table.frame, table.video, table.subject)))
    trained = train_source_head(table, config, seed=seed, device=device, alone=alone)
    paired = reads_pairs(config, methods) and len(table.subject_names_present()) > 1
    pairs = make_pairs(table, config.pair, seed=seed) if paired else None
    return pretrain_bundle(
        table, trained, pairs, config, seed=seed, extractor=extractor, cache_digest=cache_digest, methods=methods
    )


@dataclass(frozen=True, eq=False)
class StageOutput:
    """Where a stage's output is, and whether it was there already."""

    folder: Path
    reused: bool


def train_folder(source: Source) -> Path:
    """Return where `train_stage` keeps its output."""
    config, how = source.config, source.config.pretrain
    inputs = (config.features, config.head, how.learn_share, how.share, how.penalty)
    return source.workspace.root / "stages" / f"train-{source.key('head', *inputs)}"


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
            device, report = choose_device(workspace.device).type, workspace.on_epoch
            trained = train_source_head(table, source.config, seed=source.seed, device=device, on_epoch=report)
            with atomic_folder(folder, keep=path.name) as draft:
                write_tensors(draft / path.name, _head_tensors(trained), {"share": asdict(trained.share)})
    return _load_head(path), StageOutput(folder, not missing)


def pair_stage(source: Source) -> tuple[Pairs, StageOutput]:
    """Return the pairs of the source rows, likewise."""
    config, table = source.config.pair, source.table
    strategy = config.resolved(source.workspace.table.landmarks is not None)
    folder = source.workspace.root / "stages" / f"pair-{source.key('pairs', config, strategy)}"
    path = folder / "pairs.safetensors"
    with _to_be_made(path, source) as missing:
        if missing:
            source.workspace.notify(f"pair: {strategy}, {config.label_rule} label, {len(table):,} rows")
            pairs = make_pairs(table, config, seed=source.seed)
            with atomic_folder(folder, keep=path.name) as draft:
                _write_pairs(draft, pairs, table)
    return _load_pairs(path), StageOutput(folder, not missing)


def bundle_stage(source: Source, methods: Sequence[str]) -> tuple[Bundle, StageOutput]:
    """Return the model bundle, likewise; of ``methods`` those that carry something prepare it in the bundle."""
    folder = bundle_folder(source, methods)
    with _to_be_made(folder / "bundle.json", source) as missing:
        if missing:
            bundle = _make_bundle(source, preparers(methods))
            with atomic_folder(folder, keep="bundle.json") as draft:
                write_bundle(draft, bundle)
    return load_made_bundle(folder, source.workspace.adapt_on), StageOutput(folder, not missing)


def _make_bundle(source: Source, methods: Sequence[str]) -> Bundle:
    trained, _ = train_stage(source)
    pairs = pair_stage(source)[0] if reads_pairs(source.config, methods) else None
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
        methods=methods,
        on_epoch=workspace.on_epoch,
    )


def _head_tensors(trained: TrainedHead) -> dict[str, Tensor]:
    parts = {"projection": trained.projection, "head": trained.head}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def _load_head(path: Path) -> TrainedHead:
    about, tensors = _read(path, "train")
    weights = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    projection = Projection(tensors["projection.mean"], tensors["projection.components"])
    share = about["share"] | {"losses": tuple(about["share"]["losses"])}
    return TrainedHead(projection, head_from_state(weights), CarriedShare(**share))


def _write_pairs(folder: Path, pairs: Pairs, table: FeatureTable) -> None:
    arrays = {name: torch.from_numpy(getattr(pairs, name)) for name in ("row", "reference", "score")}
    # JSON has no NaN: nothing is said of an exact search.
    about = {name: value for name, value in vars(pairs).items() if name not in arrays and value == value}
    write_tensors(folder / "pairs.safetensors", arrays, about)
    write_pairs_csv(folder / "pairs.csv", pairs, table)
    atomic_write_text(folder / "summary.json", json.dumps(pairs_summary(pairs, table), indent=2) + "\n")


def _load_pairs(path: Path) -> Pairs:
    # Random pairs have no score: NaN.
    about, tensors = _read(path, "pair", finite=False)
    return Pairs(**about | {name: tensor.numpy() for name, tensor in tensors.items()})


def _read(path: Path, run: str, *, finite: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what was said about a stage's tensors, and the tensors; the command to ``run`` makes them again."""
    try:
        about, tensors = read_tensors(path, finite=finite)
    except ValueError as error:
        raise BundleError(f"{path}: damaged; delete {path.parent} and run featlab {run}") from error
    except OSError as error:
        raise BundleError(f"{path}: can't be read ({one_line(error)})") from error
    return {name: value for name, value in about.items() if not name.startswith("tensors")}, tensors

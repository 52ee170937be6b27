"""Images to a cache: decode, embed, write, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.reader import open_cache
from featlab.cache.schema import ExtractorInfo
from featlab.cache.verify import check_cache
from featlab.cache.writer import CacheBuilder
from featlab.config.options import Options, option
from featlab.engine import worker_count
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone
from featlab.extraction.embed import Elsewhere, OnProgress, Progress, embed_shards
from featlab.extraction.items import Failure, IfExists, Item, Pseudonyms, class_names, item_order, stays
from featlab.extraction.shards import difference, plan_shards, read_failures, write_list


@dataclass(frozen=True)
class ExtractConfig(Options):
    """How to extract. Nothing here but ``dtype`` changes what the cache holds."""

    jobs: int = option(0, "Worker processes; 0 takes all cores, 1 works in this process.", minimum=0)
    shard_rows: int = option(512, "Items written at once; a killed run loses at most the shard it was in.", minimum=1)
    batch: int = option(64, "Items handed over, and given to a main-process backbone, at once.", minimum=1)
    dtype: str = option("float32", "Of the stored embeddings.", choices=("float32", "float16"))


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did."""

    path: Path  # The cache.
    rows: int  # Rows in it.
    dim: int  # Length of an embedding.
    # What has no row: what failed before the start, then the rest in the cache's order; also listed in
    # ``<stem>.failures.jsonl`` beside the cache.
    failures: tuple[Failure, ...]
    digest: str  # Of the cache's content.
    seconds: float  # Wall time.
    resumed_rows: int  # Rows that an earlier run had embedded.
    extractor: ExtractorInfo  # Who embedded.
    equal_rows: tuple[str, ...]  # A line for each way in which pictures are there twice, or under two people or labels.
    # The largest distance of a row of this run from its float32, relative to the row's length; None with float32.
    storage_error: float | None = None


DEFAULTS = ExtractConfig()


def extract(
    items: Sequence[Item],
    backbone: Backbone,
    out: Path,
    *,
    neutral: str,
    landmarks: NDArray[np.float32] | None = None,
    faces: NDArray[np.uint8] | None = None,
    failures: Sequence[Failure] = (),
    config: ExtractConfig = DEFAULTS,
    if_exists: IfExists = "resume",
    on_progress: OnProgress | None = None,
    elsewhere: Elsewhere | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> ExtractionReport:
    """Embed every item and write the cache; a killed run's finished shards are taken up by the same call.

    ``landmarks`` (NaN without a face) and ``faces`` (counts) are indexed by ``Item.row``; ``failures`` are listed
    before what can't be embedded. Neither ``jobs`` nor ``batch`` nor an interruption changes the cache's digest, but
    for the last bits of a network. ``pseudonyms`` are for those who trained the backbone; ``items`` have theirs.
    """
    start = time.monotonic()
    if pseudonyms and elsewhere:
        raise ConfigError("--pseudonymise: jobs on a cluster hold the places of the pictures; take --engine local")
    ordered = _checked(items, backbone, landmarks, failures)
    classes = class_names((item.label for item in ordered), neutral)
    extractor = pseudonyms.extractor(backbone.info()) if pseudonyms else backbone.info()
    # Pictures of one person come without labels, and nothing reads texts then.
    prompts = class_prompts(backbone, classes) if len(classes) > 1 else None
    how: dict[str, Any] = {"dtype": config.dtype, "with_files": backbone.needs_images}
    if stays(out, if_exists):
        kept = read_failures(out)
        why = difference(out, ordered, landmarks, kept, extractor, classes, prompts, failed_before=failures, **how)
        if why is not None:
            raise InputError(f"{out} exists and isn't what this would make: {why}; --if-exists overwrite replaces it")
        return _report(out, kept, start)

    shards = plan_shards(ordered, landmarks, faces, extractor, shard_rows=config.shard_rows, **how)
    keys = [shard.key for shard in shards]
    with CacheBuilder(
        out,
        extractor=extractor,
        classes=classes,
        neutral=neutral,
        dtype=config.dtype,
        prompts=prompts,
    ) as builder:
        there = {key for key in keys if builder.has_shard(key)}
        todo = [shard for shard in shards if shard.key not in there]
        done = len(ordered) - sum(len(shard.items) for shard in todo)
        failed = len(builder.failures([key for key in keys if key in there]))
        # Landmarks alone: starting processes would take longer than the work.
        jobs = worker_count(config.jobs, -(-(len(ordered) - done) // config.batch)) if backbone.needs_images else 1
        processes = {"read": jobs, "embed": jobs if backbone.in_worker else 1, "write": 1}
        worst = embed_shards(
            todo,
            backbone,
            builder,
            batch_size=config.batch,
            jobs=jobs,
            progress=Progress(len(ordered), done, failed, processes),
            on_progress=on_progress,
            elsewhere=elsewhere,
        )
        not_embedded = tuple(Failure(**entry) for entry in builder.failures(keys))
        if len(not_embedded) == len(ordered):
            raise InputError(f"none of the {len(ordered)} items could be embedded ({_reasons(not_embedded)})")
        listed = (*failures, *not_embedded)
        # The list goes first: a cache without its list would look like one made from other inputs.
        write_list(out, listed)
        builder.assemble(keys)
    lost = worst if config.dtype == "float16" else None
    return replace(_report(out, listed, start, done - failed), storage_error=lost)


def class_prompts(backbone: Backbone, classes: Sequence[str]) -> NDArray[np.float32] | None:
    """Return what texts of the classes are to a network of pictures and texts, (K, D); None for another backbone."""
    while hasattr(backbone, "inner"):  # An alignment, a mirror image.
        backbone = backbone.inner
    texts: Callable[[Sequence[str]], NDArray[np.float32]] | None = getattr(backbone, "texts", None)
    return None if texts is None else texts(classes)


def _checked(
    items: Sequence[Item], backbone: Backbone, landmarks: NDArray[np.float32] | None, failures: Sequence[Failure]
) -> list[Item]:
    """Return the items in the cache's order, after a look at what would only be noticed at the end."""
    if not items:
        why = f"all of it failed ({_reasons(failures)})" if failures else "the source has no items"
        raise InputError(f"there is nothing to extract: {why}")
    ordered = sorted(items, key=item_order)
    for before, after in pairwise(ordered):
        if item_order(before) == item_order(after):
            raise InputError(
                f"{before.name} and {after.name} are both subject {after.subject!r}, video {after.video!r}, "
                f"frame {after.frame}; a frame can be there only once"
            )
    if landmarks is None and backbone.needs_landmarks:
        raise InputError(
            f"the backbone {backbone.name!r} needs landmarks: put a landmarks.npy or landmarks.csv beside the source, "
            "or name a file with --landmarks"
        )
    return ordered


def _reasons(failures: Sequence[Failure]) -> str:
    return "; ".join(f"{failure.path}: {failure.reason}" for failure in failures[:3])


def _report(
    out: Path,
    failures: tuple[Failure, ...],
    start: float,
    resumed_rows: int | None = None,
) -> ExtractionReport:
    """Describe the cache at ``out``; without ``resumed_rows`` all of it was there before."""
    problems, warnings = check_cache(out)
    with open_cache(out) as cache:
        rows = len(cache)
        return ExtractionReport(
            path=out,
            rows=rows,
            dim=cache.dim,
            failures=failures,
            digest=cache.digest,
            seconds=time.monotonic() - start,
            resumed_rows=rows if resumed_rows is None else resumed_rows,
            extractor=cache.extractor,
            equal_rows=(*problems, *warnings),
        )

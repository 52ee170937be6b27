"""Shard by shard: batches through the workers, processes of this machine or of a cluster; rows to the builder."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.table import LARGEST, FeatureTable, usable_rows
from featlab.cache.writer import CacheBuilder
from featlab.config.analysis import EngineConfig
from featlab.engine import run_all, run_in_order
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import Backbone, Image, Preparation, make_backbone
from featlab.extraction.decode import Pixels, read_pixels
from featlab.extraction.faces import lies_outside
from featlab.extraction.faces.align import AlignConfig, with_alignment
from featlab.extraction.items import Failure
from featlab.extraction.shards import Shard, float16_error


@dataclass(frozen=True, eq=False)
class BatchResult:
    """What became of a batch, which is a part of a shard."""

    kept: list[int]  # Places in the batch that didn't fail, ascending
    failed: dict[int, str]  # Places of the others, each with the reason
    images: list[Image]  # The kept images, when the main process embeds them
    embeddings: NDArray[np.float32] | None  # float32 (kept, D), when the worker embedded them
    read_seconds: float  # Spent in decoding and preparing
    embed_seconds: float  # Spent in the backbone


Elsewhere = Callable[[Iterable[Shard]], Generator[tuple[Shard, BatchResult], None, None]]
"""Embeds batches, and gives those of a shard after each other."""


def embed_shards(
    shards: Sequence[Shard],
    backbone: Backbone,
    builder: CacheBuilder,
    *,
    batch_size: int,
    jobs: int,
    progress: Progress,
    on_progress: OnProgress | None,
    elsewhere: Elsewhere | None = None,
) -> float:
    """Embed (``elsewhere``, or in processes of this machine) and write the shards, one after the other.

    Returns the largest relative error of a stored row.
    """
    tell = on_progress or (lambda now: None)
    dim: int | None = None
    worst = 0.0
    header, by_key = builder.header, {shard.key: shard for shard in shards}
    embed = elsewhere or partial(run_in_order, _task(backbone), jobs=jobs, name=lambda batch: batch.items[0].name)
    with closing(embed(_batches(shards, batch_size))) as results:
        for key, group in groupby(results, key=lambda pair: pair[0].key):
            shard, size = by_key[key], 0
            kept: list[int] = []
            parts: list[NDArray[np.float32]] = []
            failed: dict[int, str] = {}
            for batch, result in group:
                result = _embedded(backbone, batch, result)
                progress.busy("read", len(batch.items), result.read_seconds)
                progress.busy("embed", len(result.kept), result.embed_seconds)
                bad = result.failed
                if result.embeddings is not None:
                    embeddings, unusable = _usable(result.embeddings, result.kept, backbone, header.dtype, dim)
                    dim = embeddings.shape[1]
                    bad |= unusable
                    parts.append(embeddings)
                    if header.dtype == "float16":
                        worst = max(worst, float16_error(embeddings))
                kept += [size + place for place in result.kept if place not in bad]
                failed |= {size + place: reason for place, reason in sorted(bad.items())}
                size += len(batch.items)
                progress.done += len(batch.items)
                progress.failed += len(bad)
                tell(progress)
            start = time.perf_counter()
            items = [shard.items[place] for place in kept]
            rows = FeatureTable.named(
                embeddings=np.concatenate([*parts, np.empty((0, dim or 0))], dtype=np.float32),
                labels=[item.label for item in items],
                subjects=[item.subject for item in items],
                videos=[item.video for item in items],
                frames=[item.frame for item in items],
                classes=header.classes,
                neutral=header.neutral,
                landmarks=None if shard.landmarks is None else shard.landmarks[kept],
                paths=tuple(item.name for item in items),
                faces=None if shard.faces is None else shard.faces[kept],
            )
            failures = [Failure(shard.items[place].name, why)._asdict() for place, why in failed.items()]
            builder.write_shard(shard.key, rows, failures)
            progress.busy("write", size, time.perf_counter() - start)
            tell(progress)
    return worst


def _batches(shards: Sequence[Shard], size: int) -> Iterator[Shard]:
    for shard in shards:
        for start in range(0, len(shard.items), size):
            part = slice(start, start + size)
            points = None if shard.landmarks is None else shard.landmarks[part]
            yield Shard(shard.key, shard.items[part], points)


def _task(backbone: Backbone) -> Callable[[Shard], BatchResult]:
    """Return what a worker does with every batch; a backbone of the main process stays there."""
    inside = backbone if backbone.in_worker and backbone.needs_images else None
    return partial(_read, backbone.needs_images, backbone.needs_landmarks, backbone.prepare, inside)


def _read(
    decode: bool, need_landmarks: bool, prepare: Preparation | None, backbone: Backbone | None, batch: Shard
) -> BatchResult:
    """Decode and prepare the images of a batch; with a backbone embed them, and have one in memory at a time."""
    start = time.perf_counter()
    places = range(len(batch.items))
    missing = np.ones(len(places), dtype=np.bool_)
    if batch.landmarks is not None:
        missing = np.asarray(np.isnan(batch.landmarks).any(axis=(1, 2)))
    failed = {place: "no landmarks" for place in places if need_landmarks and missing[place]}
    images: list[Image] = []
    rows: list[NDArray[np.float32]] = []
    embed_seconds = 0.0
    usable = [place for place in places if place not in failed] if decode else []
    for place, pixels in zip(usable, read_pixels([batch.items[place] for place in usable]), strict=True):
        points = None if batch.landmarks is None else batch.landmarks[place]
        try:
            image = _prepared(pixels, points, prepare)
        except InputError as error:
            failed[place] = str(error)
            continue
        if backbone is None:
            images.append(image)
        else:
            begin = time.perf_counter()
            rows.append(backbone.embed([image], None if points is None else points[None]))
            embed_seconds += time.perf_counter() - begin
    kept = [place for place in places if place not in failed]
    read_seconds = time.perf_counter() - start - embed_seconds
    return BatchResult(kept, failed, images, np.concatenate(rows) if rows else None, read_seconds, embed_seconds)


def _prepared(pixels: Pixels, points: NDArray[np.float32] | None, prepare: Preparation | None) -> Image:
    if isinstance(pixels, InputError):
        raise pixels
    if points is not None and lies_outside(points, pixels.shape[1::-1]):
        raise InputError("its landmarks lie outside of the picture")
    return pixels if prepare is None else prepare(pixels, points)


def _embedded(backbone: Backbone, batch: Shard, result: BatchResult) -> BatchResult:
    """Return the result of a batch with its embeddings, made now if they weren't, and without its images."""
    if result.embeddings is not None or not result.kept:
        return result
    start = time.perf_counter()
    points = None if batch.landmarks is None else batch.landmarks[result.kept]
    embeddings = backbone.embed(result.images, points)
    return replace(result, images=[], embeddings=embeddings, embed_seconds=time.perf_counter() - start)


def _usable(
    embeddings: NDArray[np.float32], kept: Sequence[int], backbone: Backbone, dtype: str, dim: int | None
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Check what the backbone returned; cut out the rows that can't be stored and say which and why."""
    if embeddings.ndim != 2 or len(embeddings) != len(kept) or dim not in (None, embeddings.shape[1]):
        wanted = f"({len(kept)}, {'D' if dim is None else dim})"
        raise ConfigError(f"the backbone {backbone.name!r} returned shape {embeddings.shape}, expected {wanted}")
    with np.errstate(over="ignore"):
        stored = embeddings.astype(dtype)
    fits = usable_rows(stored)
    bad = {}
    for row in np.flatnonzero(~fits).tolist():
        finite = np.isfinite(stored[row]).all()
        bad[kept[row]] = "the embedding " + (f"has values above {LARGEST:g}" if finite else f"isn't finite as {dtype}")
    return (embeddings[fits] if bad else embeddings), bad


@dataclass
class Progress:
    """Where an extraction stands: its items, and the seconds that the stages were busy with them."""

    total: int  # All items.
    done: int  # Items finished, with those of an earlier run and the failed ones.
    failed: int  # Items that have no row.
    processes: Mapping[str, int]  # Of each stage: "read", "embed" and "write".
    items: Counter[str] = field(default_factory=Counter)  # Of each stage.
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # Likewise, of all processes.

    def busy(self, stage: str, items: int, seconds: float) -> None:
        """Add the time of one process."""
        self.items[stage] += items
        self.seconds[stage] += seconds

    def rate(self, stage: str) -> float:
        """Return the items a second that a stage alone would reach with its processes; 0 before the first."""
        seconds = self.seconds[stage]
        return self.items[stage] * self.processes[stage] / seconds if seconds > 0 else 0.0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Recipe:
    """How a backbone is made: what goes to another process, where a network itself can't go."""

    name: str  # As in `make_backbone`.
    options: tuple[tuple[str, Any], ...] = ()  # Of the backbone.
    mirror: bool = False  # Whether the embedding of the mirror image is averaged with it.
    align: AlignConfig | None = None  # How faces are cropped for it; None: not at all.

    def make(self) -> Backbone:
        """Return the backbone."""
        from featlab.extraction.backbones.builtin import with_mirror

        made = make_backbone(self.name, **dict(self.options))
        made = with_mirror(made) if self.mirror else made
        return made if self.align is None else with_alignment(made, self.align)


@dataclass(frozen=True)
class Cluster:
    """Where shards are embedded."""

    recipe: Recipe
    fingerprint: str  # Of the backbone that the command made: a worker that lives on may have made one of older files.
    engine: EngineConfig
    jobs: int  # Processes, where the engine starts them on this machine.
    logs: Path  # Folder for the logs of jobs.

    def embed(self, batches: Iterable[Shard]) -> Generator[tuple[Shard, BatchResult], None, None]:
        """Yield batches with their embeddings, those of a shard after each other, shards as they finish."""
        shards = [list(group) for _, group in groupby(batches, key=lambda batch: batch.key)]
        # Names of files may be relative: all machines see the same folders.
        work = partial(_embed_shard, self.recipe, self.fingerprint, Path.cwd())
        for shard in run_all(work, shards, jobs=self.jobs, engine=self.engine, folder=self.logs):
            yield from shard


@lru_cache(maxsize=1)
def _made(recipe: Recipe, fingerprint: str) -> Backbone:
    """Return the backbone, kept for the next shard; refuse another one than the command's."""
    made = recipe.make()
    if made.info().fingerprint != fingerprint:
        raise FeatlabError(
            f"the backbone {recipe.name!r} is another one on the cluster than here; use the same files and the same "
            "versions of libraries in both places"
        )
    return made


def _embed_shard(
    recipe: Recipe, fingerprint: str, folder: Path, batches: list[Shard]
) -> list[tuple[Shard, BatchResult]]:
    """Decode, prepare and embed the batches of a shard."""
    with chdir(folder):
        backbone = _made(recipe, fingerprint)
        read = _task(backbone)
        return [(batch, _embedded(backbone, batch, read(batch))) for batch in batches]

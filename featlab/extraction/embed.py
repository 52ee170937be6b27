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
from featlab.engine import died_near, run_all, run_in_order
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import Backbone, Image, Preparation, make_backbone
from featlab.extraction.decode import read_pixels
from featlab.extraction.faces import lies_outside
from featlab.extraction.faces.align import AlignConfig, with_alignment
from featlab.extraction.items import Failure, Item
from featlab.extraction.shards import Shard, StorageError, of_items, storage_error


@dataclass(frozen=True)
class Batch:
    """Items of one shard that are handled together, with their landmarks float32 (n, P, 2) if there are any."""

    shard: int
    items: tuple[Item, ...]
    landmarks: NDArray[np.float32] | None


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch."""

    kept: list[int]  # Places in the batch that didn't fail, ascending
    failed: dict[int, str]  # Places of the others, each with the reason
    images: list[Image]  # The kept images, when the main process embeds them
    embeddings: NDArray[np.float32] | None  # float32 (kept, D), when the worker embedded them
    read_seconds: float  # Spent in decoding and preparing
    embed_seconds: float  # Spent in the backbone


Elsewhere = Callable[[Iterable[Batch]], Generator[tuple[Batch, BatchResult], None, None]]
"""Embeds batches, and gives those of a shard after each other."""


def embed_shards(
    shards: Sequence[Shard],
    backbone: Backbone,
    builder: CacheBuilder,
    *,
    landmarks: NDArray[np.float32] | None,
    faces: NDArray[np.uint8] | None,
    batch_size: int,
    dtype: str,
    jobs: int,
    progress: Progress,
    on_progress: OnProgress | None,
    elsewhere: Elsewhere | None = None,
) -> StorageError:
    """Embed (``elsewhere``, or in processes of this machine) and write the shards, one after the other."""
    tell = on_progress or (lambda now: None)
    dim: int | None = None
    lost: list[NDArray[np.float64]] = []
    batches = _batches(shards, landmarks, batch_size)
    embed = elsewhere or partial(
        run_in_order, task_of(backbone), jobs=jobs, died=lambda batch: died_near(batch.items[0].name)
    )
    with closing(embed(batches)) as results:
        for index, group in groupby(results, key=lambda pair: pair[0].shard):
            kept: list[Item] = []
            parts: list[NDArray[np.float32]] = []
            failed: list[Failure] = []
            for batch, result in group:
                result = with_embeddings(batch, result, backbone)
                progress.busy("read", len(batch.items), result.read_seconds)
                progress.busy("embed", len(result.kept), result.embed_seconds)
                bad = result.failed
                if result.embeddings is not None:
                    embeddings, unusable = _usable(result.embeddings, result.kept, backbone, dtype, dim)
                    dim = embeddings.shape[1]
                    bad |= unusable
                    parts.append(embeddings)
                    if dtype != "float32":
                        lost.append(storage_error(embeddings, dtype))
                kept += [item for place, item in enumerate(batch.items) if place not in bad]
                failed += [Failure(batch.items[place].name, bad[place]) for place in sorted(bad)]
                progress.done += len(batch.items)
                progress.failed += len(bad)
                tell(progress)
            start = time.perf_counter()
            rows = FeatureTable.named(
                embeddings=np.concatenate([*parts, np.empty((0, dim or 0))], dtype=np.float32),
                labels=[item.label for item in kept],
                subjects=[item.subject for item in kept],
                videos=[item.video for item in kept],
                frames=[item.frame for item in kept],
                classes=builder.header.classes,
                neutral=builder.header.neutral,
                landmarks=of_items(kept, landmarks),
                paths=tuple(item.name for item in kept),
                faces=of_items(kept, faces),
            )
            builder.write_shard(shards[index].key, rows, [failure._asdict() for failure in failed])
            progress.busy("write", len(shards[index].items), time.perf_counter() - start)
            tell(progress)
    return StorageError.of(lost)


def task_of(backbone: Backbone) -> Callable[[Batch], BatchResult]:
    """Return what a worker does with every batch; a backbone of the main process stays there."""
    inside = backbone if backbone.in_worker else None
    return partial(process_batch, backbone.needs_images, backbone.needs_landmarks, backbone.prepare, inside)


def with_embeddings(batch: Batch, result: BatchResult, backbone: Backbone) -> BatchResult:
    """Return the result of a batch with its embeddings, made now if no worker made them, and without its images."""
    if result.embeddings is not None or not result.kept:
        return result
    start = time.perf_counter()
    points = None if batch.landmarks is None else batch.landmarks[result.kept]
    embeddings = backbone.embed(result.images, points)
    seconds = result.embed_seconds + time.perf_counter() - start
    return replace(result, images=[], embeddings=embeddings, embed_seconds=seconds)


def _batches(shards: Sequence[Shard], landmarks: NDArray[np.float32] | None, size: int) -> Iterator[Batch]:
    for index, shard in enumerate(shards):
        for start in range(0, len(shard.items), size):
            items = shard.items[start : start + size]
            yield Batch(index, items, of_items(items, landmarks))


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


def process_batch(
    decode: bool, need_landmarks: bool, prepare: Preparation | None, backbone: Backbone | None, batch: Batch
) -> BatchResult:
    """Decode, prepare and, with a backbone, embed the items of a batch."""
    places = range(len(batch.items))
    missing = np.ones(len(batch.items), dtype=np.bool_)
    if batch.landmarks is not None:
        missing = np.asarray(np.isnan(batch.landmarks).any(axis=(1, 2)))
    failed = {place: "no landmarks" for place in places if need_landmarks and missing[place]}
    usable = [place for place in places if place not in failed]
    if not decode:
        start = time.perf_counter()
        points = None if batch.landmarks is None else batch.landmarks[usable]
        embeddings = backbone.embed([], points) if backbone is not None and usable else None
        return BatchResult(usable, failed, [], embeddings, 0.0, time.perf_counter() - start)
    kept: list[int] = []
    images: list[Image] = []
    rows: list[NDArray[np.float32]] = []
    read_seconds = embed_seconds = 0.0
    pixels = read_pixels([batch.items[place] for place in usable])
    for place in usable:
        points = None if batch.landmarks is None else batch.landmarks[place]
        start = time.perf_counter()
        image = next(pixels)
        if points is not None and not isinstance(image, InputError) and lies_outside(points, image.shape[1::-1]):
            image = InputError("its landmarks lie outside of the picture")
        if prepare is not None and not isinstance(image, InputError):
            try:
                image = prepare(image, points)
            except InputError as error:
                image = error
        read_seconds += time.perf_counter() - start
        if isinstance(image, InputError):
            failed[place] = str(image)
            continue
        kept.append(place)
        if backbone is None:
            images.append(image)
        else:
            start = time.perf_counter()
            rows.append(backbone.embed([image], None if points is None else points[None]))
            embed_seconds += time.perf_counter() - start
    embeddings = np.concatenate(rows) if rows else None
    return BatchResult(kept, failed, images, embeddings, read_seconds, embed_seconds)


@dataclass(frozen=True)
class Recipe:
    """How a backbone is made: what goes to another process, where a network itself can't go."""

    name: str  # As in `make_backbone`.
    options: tuple[tuple[str, Any], ...] = ()  # Of the backbone.
    mirror: bool = False  # Whether the embedding of the mirror image is averaged with it.
    align: AlignConfig | None = None  # How faces are cropped for it; None: not at all.
    points: int | None = None  # Landmarks of a face, for the crop.

    def make(self) -> Backbone:
        """Return the backbone."""
        from featlab.extraction.backbones.builtin import with_mirror

        made = make_backbone(self.name, **dict(self.options))
        made = with_mirror(made) if self.mirror else made
        return made if self.align is None else with_alignment(made, self.align, points=self.points)


@dataclass(frozen=True)
class Cluster:
    """Where shards are embedded."""

    recipe: Recipe
    fingerprint: str  # Of the backbone that the command made: a worker that lives on may have made one of older files.
    engine: EngineConfig
    jobs: int  # Processes, where the engine starts them on this machine.
    logs: Path  # Folder for the logs of jobs.

    def embed(self, batches: Iterable[Batch]) -> Generator[tuple[Batch, BatchResult], None, None]:
        """Yield batches with their embeddings, those of a shard after each other, shards as they finish."""
        shards = [list(group) for _, group in groupby(batches, key=lambda batch: batch.shard)]
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
    recipe: Recipe, fingerprint: str, folder: Path, batches: list[Batch]
) -> list[tuple[Batch, BatchResult]]:
    """Decode, prepare and embed the batches of a shard."""
    with chdir(folder):
        backbone = _made(recipe, fingerprint)
        work = task_of(backbone)
        return [(batch, with_embeddings(batch, work(batch), backbone)) for batch in batches]

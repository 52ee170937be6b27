"""Shard by shard: batches through the workers, rows to the builder; what float16 costs, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from featlab.cache.table import LARGEST, Rows, usable_rows
from featlab.cache.writer import CacheBuilder
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone, Image, Preparation
from featlab.extraction.decode import read_pixels
from featlab.extraction.faces import lies_outside
from featlab.extraction.items import Failure, Item
from featlab.extraction.shards import Shard, StorageError, of_items, storage_error
from featlab.extraction.worker import died_near, run_in_order


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
    meter: ProgressMeter,
    on_progress: OnProgress | None,
    elsewhere: Elsewhere | None = None,
) -> StorageError:
    """Embed and write the shards, one after the other; the workers read ahead across their borders.

    ``elsewhere`` embeds the batches in place of this machine's processes.
    """
    tell = on_progress or (lambda progress: None)
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
                embeddings = _embedded(batch, result, backbone, meter)
                bad = result.failed
                if embeddings is not None:
                    embeddings, unusable = _usable(embeddings, result.kept, backbone, dtype, dim)
                    dim = embeddings.shape[1]
                    bad |= unusable
                    parts.append(embeddings)
                    if dtype != "float32":
                        lost.append(storage_error(embeddings, dtype))
                kept += [item for place, item in enumerate(batch.items) if place not in bad]
                failed += [Failure(batch.items[place].name, bad[place]) for place in sorted(bad)]
                meter.finished(len(batch.items), len(bad))
                tell(meter.snapshot())
            start = time.perf_counter()
            rows = Rows(
                embeddings=np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32),
                labels=[item.label for item in kept],
                subjects=[item.subject for item in kept],
                videos=[item.video for item in kept],
                frames=[item.frame for item in kept],
                landmarks=of_items(kept, landmarks),
                paths=[item.name for item in kept],
                faces=of_items(kept, faces),
            )
            builder.write_shard(shards[index].key, rows, [failure._asdict() for failure in failed])
            meter.busy("write", len(shards[index].items), time.perf_counter() - start)
            tell(meter.snapshot())
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


def _embedded(
    batch: Batch, result: BatchResult, backbone: Backbone, meter: ProgressMeter
) -> NDArray[np.float32] | None:
    """Return the rows of the kept items, embedding them here if no worker did; None if none was kept."""
    result = with_embeddings(batch, result, backbone)
    meter.busy("read", len(batch.items), result.read_seconds)
    meter.busy("embed", len(result.kept), result.embed_seconds)
    return result.embeddings


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


@dataclass(frozen=True)
class Progress:
    """A moment of an extraction."""

    done: int  # Items finished, with those of an earlier run and the failed ones
    total: int  # All items
    failed: int  # Items that have no row
    read_rate: float  # Items a second that the decoding alone would reach with its workers; 0 before the first
    embed_rate: float  # The same for the backbone
    write_rate: float  # The same for writing shards
    seconds_left: float | None  # From the rate since the start; None before the first item of this run


OnProgress = Callable[[Progress], None]


class ProgressMeter:
    """Counts items and the seconds that the stages were busy with them."""

    def __init__(self, total: int, done: int, failed: int, readers: int, embedders: int) -> None:
        self._total = total
        self._earlier = done
        self._done = done
        self._failed = failed
        self._parallel = {"read": readers, "embed": embedders, "write": 1}
        self._items = dict.fromkeys(self._parallel, 0)
        self._seconds = dict.fromkeys(self._parallel, 0.0)
        self._start = time.monotonic()

    def busy(self, stage: str, items: int, seconds: float) -> None:
        """Add the time of one process: ``stage`` is "read", "embed" or "write"."""
        self._items[stage] += items
        self._seconds[stage] += seconds

    def finished(self, items: int, failed: int) -> None:
        """Count items as done."""
        self._done += items
        self._failed += failed

    def snapshot(self) -> Progress:
        """Return where things stand now."""
        own = self._done - self._earlier
        elapsed = time.monotonic() - self._start
        return Progress(
            done=self._done,
            total=self._total,
            failed=self._failed,
            read_rate=self._rate("read"),
            embed_rate=self._rate("embed"),
            write_rate=self._rate("write"),
            seconds_left=elapsed / own * (self._total - self._done) if own else None,
        )

    def _rate(self, stage: str) -> float:
        seconds = self._seconds[stage]
        return self._items[stage] * self._parallel[stage] / seconds if seconds > 0 else 0.0


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

"""Shard by shard: batches through the workers, rows to the builder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from featlab.cache import CacheBuilder, Rows
from featlab.errors import ConfigError
from featlab.extraction.backbones.base import Backbone
from featlab.extraction.items import Item
from featlab.extraction.precision import StorageError, storage_error
from featlab.extraction.progress import Progress, ProgressMeter
from featlab.extraction.shards import Shard, landmarks_of
from featlab.extraction.worker import Batch, BatchResult, Task, run_batches

OnProgress = Callable[[Progress], None]


def embed_shards(
    shards: Sequence[Shard],
    backbone: Backbone,
    builder: CacheBuilder,
    *,
    landmarks: NDArray[np.float32] | None,
    batch_size: int,
    dtype: str,
    jobs: int,
    meter: ProgressMeter,
    on_progress: OnProgress | None,
) -> StorageError:
    """Embed and write the shards, one after the other; the workers read ahead across their borders.

    Args:
        shards: What is still to be done.
        backbone: Who embeds.
        builder: Takes the finished shards.
        landmarks: float32 (rows of the source, P, 2), or None.
        batch_size: Items handed over at once.
        dtype: Of the stored embeddings; a row that overflows it is a failure.
        jobs: Worker processes.
        meter: Told what was done.
        on_progress: Called after every batch and every shard.

    Returns:
        What storing these rows as ``dtype`` costs.

    Raises:
        ConfigError: The backbone returned something else than it announces.
        FeatlabError: A worker process died.
    """
    task = Task(
        decode=backbone.needs_images,
        need_landmarks=backbone.needs_landmarks,
        prepare=backbone.prepare,
        backbone=backbone if backbone.in_worker else None,
    )
    tell = on_progress or (lambda progress: None)
    dim: int | None = None
    lost: list[NDArray[np.float64]] = []
    with closing(run_batches(_batches(shards, landmarks, batch_size), task, jobs)) as results:
        for index, group in groupby(results, key=lambda pair: pair[0].shard):
            kept: list[Item] = []
            parts: list[NDArray[np.float32]] = []
            failed: list[tuple[Item, str]] = []
            for batch, result in group:
                embeddings = _embedded(batch, result, backbone, meter)
                bad = dict(result.failed)
                if embeddings is not None:
                    embeddings, unusable = _usable(embeddings, result.kept, backbone, dtype, dim)
                    dim = embeddings.shape[1]
                    bad |= unusable
                    parts.append(embeddings)
                    if dtype != "float32":
                        lost.append(storage_error(embeddings, dtype))
                kept += [item for place, item in enumerate(batch.items) if place not in bad]
                failed += [(batch.items[place], bad[place]) for place in sorted(bad)]
                meter.finished(len(batch.items), len(bad))
                tell(meter.snapshot())
            start = time.perf_counter()
            rows = _rows(kept, parts, landmarks_of(kept, landmarks))
            builder.write_shard(
                shards[index].key, rows, [{"path": item.name, "reason": reason} for item, reason in failed]
            )
            meter.busy("write", len(shards[index].items), time.perf_counter() - start)
            tell(meter.snapshot())
    return StorageError.of(lost)


def _batches(shards: Sequence[Shard], landmarks: NDArray[np.float32] | None, size: int) -> Iterator[Batch]:
    for index, shard in enumerate(shards):
        for start in range(0, len(shard.items), size):
            items = shard.items[start : start + size]
            yield Batch(index, items, landmarks_of(items, landmarks))


def _embedded(
    batch: Batch, result: BatchResult, backbone: Backbone, meter: ProgressMeter
) -> NDArray[np.float32] | None:
    """Return the rows of the kept items, embedding them here if no worker did; None if none was kept."""
    embeddings = result.embeddings
    embed_seconds = result.embed_seconds
    if embeddings is None and result.kept:
        start = time.perf_counter()
        points = None if batch.landmarks is None else batch.landmarks[result.kept]
        embeddings = backbone.embed(result.images, points)
        embed_seconds += time.perf_counter() - start
    meter.busy("read", len(batch.items), result.read_seconds)
    meter.busy("embed", len(result.kept), embed_seconds)
    return embeddings


def _usable(
    embeddings: NDArray[np.float32], kept: Sequence[int], backbone: Backbone, dtype: str, dim: int | None
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Check what the backbone returned; cut out the rows that can't be stored and say which and why."""
    if embeddings.ndim != 2 or len(embeddings) != len(kept) or dim not in (None, embeddings.shape[1]):
        wanted = f"({len(kept)}, {'D' if dim is None else dim})"
        raise ConfigError(f"the backbone {backbone.name!r} returned shape {embeddings.shape}, expected {wanted}")
    with np.errstate(over="ignore"):
        fits = np.isfinite(embeddings.astype(dtype)).all(axis=1)
    bad = {
        place: f"the embedding isn't finite as {dtype}"
        for place, fit in zip(kept, fits.tolist(), strict=True)
        if not fit
    }
    return (embeddings[fits] if bad else embeddings), bad


def _rows(items: Sequence[Item], parts: Sequence[NDArray[np.float32]], landmarks: NDArray[np.float32] | None) -> Rows:
    return Rows(
        embeddings=np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32),
        labels=[item.label for item in items],
        subjects=[item.subject for item in items],
        videos=[item.video for item in items],
        frames=[item.frame for item in items],
        landmarks=landmarks,
        paths=[item.name for item in items],
    )

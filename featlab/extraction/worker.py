"""Work spread over processes: spawned, quiet, on one thread each, never outliving their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from featlab.errors import FeatlabError, InputError
from featlab.extraction.backbones.base import Backbone, Image, Preparation
from featlab.extraction.decode import read_pixels
from featlab.extraction.items import Item

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Windows can't wait for more processes than this.
_MAX_JOBS = 61


def worker_count(jobs: int, pieces: int) -> int:
    """Return how many processes to start for so many pieces of work."""
    return max(1, min(jobs or usable_cores(), pieces, _MAX_JOBS))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_in_order(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], *, jobs: int, died: Callable[[Piece], str]
) -> Generator[tuple[Piece, Result], None, None]:
    """Do the work on each piece, and yield pieces and results in their order."""
    if jobs == 1:
        for piece in pieces:
            yield piece, work(piece)
        return
    # "spawn": the parent may have started threads (torch, faiss, HDF5), and a fork of those can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(work,))
    under_way: deque[tuple[Piece, Future[Any]]] = deque()

    def finish_next() -> tuple[Piece, Result]:
        piece, future = under_way.popleft()
        try:
            return piece, future.result()
        except BrokenProcessPool:
            raise FeatlabError(died(piece)) from None

    try:
        for piece in pieces:
            try:
                under_way.append((piece, pool.submit(_run_in_worker, piece)))
            except BrokenProcessPool:
                raise FeatlabError(died(piece)) from None
            if len(under_way) >= jobs + 2:
                yield finish_next()
        while under_way:
            yield finish_next()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def settle_worker() -> None:
    """Prepare this worker process; to be called once, by the initialiser of a pool."""
    # The parent handles Ctrl-C; a worker that did as well would only print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As many workers as cores, so one thread each.
    threadpool_limits(limits=1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


_work: Callable[[Any], Any] | None = None


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    settle_worker()


def _run_in_worker(piece: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker was not started by run_in_order")
    return _work(piece)


def _end_with_parent() -> None:
    """End this process when the parent is killed: nobody else would tell it, and it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class Task:
    """What a worker does with every batch."""

    decode: bool  # Whether images are read
    need_landmarks: bool  # Whether a row without landmarks fails
    prepare: Preparation | None  # Run on every decoded image
    backbone: Backbone | None  # Embeds in the worker; None when the main process does


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
    failed: list[tuple[int, str]]  # Place and reason of the others
    images: list[Image]  # The kept images, when the main process embeds them
    embeddings: NDArray[np.float32] | None  # float32 (kept, D), when the worker embedded them
    read_seconds: float  # Spent in decoding and preparing
    embed_seconds: float  # Spent in the backbone


def process_batch(task: Task, batch: Batch) -> BatchResult:
    """Decode, prepare and perhaps embed the items of a batch."""
    usable = [place for place in range(len(batch.items)) if not task.need_landmarks or _has_landmarks(batch, place)]
    failed = [(place, "no landmarks") for place in range(len(batch.items)) if place not in usable]
    if not task.decode:
        return _process_landmarks(task.backbone, batch, usable, failed)
    kept: list[int] = []
    images: list[Image] = []
    rows: list[NDArray[np.float32]] = []
    read_seconds = embed_seconds = 0.0
    pixels = read_pixels([batch.items[place] for place in usable])
    for place in usable:
        points = None if batch.landmarks is None else batch.landmarks[place]
        start = time.perf_counter()
        image = _prepared(next(pixels), task.prepare, points)
        read_seconds += time.perf_counter() - start
        if isinstance(image, InputError):
            failed.append((place, str(image)))
            continue
        kept.append(place)
        if task.backbone is None:
            images.append(image)
        else:
            start = time.perf_counter()
            rows.append(task.backbone.embed([image], None if points is None else points[None]))
            embed_seconds += time.perf_counter() - start
    embeddings = np.concatenate(rows) if rows else None
    return BatchResult(kept, failed, images, embeddings, read_seconds, embed_seconds)


def _has_landmarks(batch: Batch, place: int) -> bool:
    return batch.landmarks is not None and not np.isnan(batch.landmarks[place]).any()


def _prepared(
    image: Image | InputError, prepare: Preparation | None, points: NDArray[np.float32] | None
) -> Image | InputError:
    if prepare is None or isinstance(image, InputError):
        return image
    try:
        return prepare(image, points)
    except InputError as error:
        return error


def _process_landmarks(
    backbone: Backbone | None, batch: Batch, usable: list[int], failed: list[tuple[int, str]]
) -> BatchResult:
    """Embed the landmarks of a batch whose images nobody needs."""
    embeddings = None
    start = time.perf_counter()
    if backbone is not None and usable:
        embeddings = backbone.embed([], None if batch.landmarks is None else batch.landmarks[usable])
    return BatchResult(usable, failed, [], embeddings, 0.0, time.perf_counter() - start)


def run_batches(batches: Iterable[Batch], task: Task, jobs: int) -> Generator[tuple[Batch, BatchResult], None, None]:
    """Process batches, in their order; see `run_in_order`."""
    return run_in_order(partial(process_batch, task), batches, jobs=jobs, died=_worker_died)


def _worker_died(batch: Batch) -> str:
    return (
        f"a worker process died near {batch.items[0].name} (out of memory?); finished shards are kept: run the same "
        "command again, with fewer jobs if memory is short"
    )

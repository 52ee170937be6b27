"""Work spread over processes: spawned, quiet, on one thread each, never outliving their parent."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from featlab.engine.run import be_worker, without_interrupts
from featlab.errors import FeatlabError

Piece = TypeVar("Piece")
Result = TypeVar("Result")
OnProgress = Callable[[int, int], None]
"""Called with how many are done, and how many there are, as far as that is known."""

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
                with without_interrupts():
                    under_way.append((piece, pool.submit(_run_in_worker, piece)))
            except BrokenProcessPool:
                raise FeatlabError(died(piece)) from None
            if len(under_way) >= jobs + 2:
                yield finish_next()
        while under_way:
            yield finish_next()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def died_near(name: str, doing: str = "") -> str:
    """Say that a worker process died at an item, in work of which finished parts are kept."""
    return (
        f"a worker process died{doing} near {name} (out of memory?); what is finished is kept: run the same command "
        "again, with fewer jobs if memory is short"
    )


_work: Callable[[Any], Any] | None = None


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # As many workers as cores, so one thread each.
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it was spawned
    be_worker(parent.join)


def _run_in_worker(piece: Any) -> Any:
    assert _work is not None
    return _work(piece)

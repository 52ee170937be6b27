"""Do the same work on many items: runs on the engine that ``[engine]`` names, pieces of an extraction in their order.

The only place that starts processes for it. What the work gives goes from process to process: it must be picklable,
and small. What it keeps on disk is there for the next call, whatever happens to this one.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from featlab.config.analysis import EngineConfig
from featlab.engine.cluster import Item, Result, Work, died, on_dask, on_slurm

OnProgress = Callable[[int, int], None]
"""Called with how many are done, and how many there are, as far as that is known."""

# Windows can't wait for more processes than this.
_MAX_JOBS = 61

LOCAL = EngineConfig()
WORTH = 10.0
"""Seconds that more processes must save: each takes about three to import torch and read a cache, before all else."""

_ALONE = threading.Lock()


def run_all(
    work: Work[Item, Result],
    items: Sequence[Item],
    *,
    jobs: int = 1,  # Processes of ``local``, and of a dask cluster that is started here; 1 works in this process.
    engine: EngineConfig = LOCAL,  # Which, and how it is reached. A caller's `joblib.parallel_config` beats ``local``.
    folder: Path = Path("engine"),  # Where SLURM's jobs leave their logs.
    light: bool = False,  # Items may be shorter than a worker's start: ``local`` starts some when the rest is worth it.
) -> Iterator[Result]:
    """Yield what the work gave on each item, as they finish.

    The work is a function of a module, or a `functools.partial` of one. In a process it is called by one thread at a
    time, with one thread: torch's random state is the process's.

    Raises:
        FeatlabError: What the work raised; a worker that died; a cluster that can't be reached.
        ConfigError: The engine's extra is not installed.
    """
    items = list(items)
    if not items:
        return
    alone = partial(_alone, work)
    if engine.name == "dask":
        yield from on_dask(alone, items, jobs, engine)
    elif engine.name == "submitit":
        yield from on_slurm(alone, items, jobs, engine, folder)
    elif "joblib" in sys.modules and (found := _callers_backend()) is not None:
        yield from _on_joblib(alone, items, *found)
    else:
        yield from _here(work, items, jobs, light)


def _here(work: Work[Item, Result], items: list[Item], jobs: int, light: bool) -> Iterator[Result]:
    """Work in this process, then in others from where the rest is worth their start."""
    start, done, first = time.monotonic(), 0, 0
    while done < len(items) and (jobs == 1 or done == len(items) - 1 or light):
        yield work(items[done])
        done += 1
        taken = time.monotonic() - start
        if done == 1 and taken < WORTH:
            # It may have loaded what all of them need, and says nothing about the others.
            start, first = time.monotonic(), 1
        elif taken / (done - first) * (len(items) - done) * (1 - 1 / jobs) > WORTH:
            break
    if done < len(items):
        jobs = min(jobs, len(items) - done)
        yield from _on_joblib(partial(_alone, work), items[done:], "loky", jobs)


def _on_joblib(
    work: Work[Item, Result], items: Sequence[Item], backend: str | None, jobs: int | None
) -> Iterator[Result]:
    """Hand the items to joblib's backend; ``None`` is the one that the caller has configured."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError
    from joblib.parallel import get_active_backend

    how: dict[str, Any] = {}
    if backend:
        how = {"backend": "loky", "inner_max_num_threads": 1, "initializer": _be_worker, "initargs": (os.getpid(),)}
    # Joblib's dask backend gives its results at the end alone.
    streams = backend is not None or get_active_backend()[0].supports_return_generator
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered" if streams else "list", **how)
        # Where it gives a list, all is done by then.
        with without_interrupts() if streams else nullcontext():
            results = parallel(delayed(_unpacked)(pickle.dumps((work, item))) for item in items)
        yield from results
    except TerminatedWorkerError:
        raise died("a worker process") from None


def _unpacked(packed: bytes) -> Any:
    """Do work that was packed here, not by joblib: an error of unpacking (a cache was replaced) comes back as it is."""
    work, item = pickle.loads(packed)
    return work(item)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C doesn't reach: their parent ends them, they would only print a traceback each."""
    mask = getattr(signal, "pthread_sigmask", None)  # Windows has none.
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else set()
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def _be_worker(parent: int) -> None:
    """Make this process a worker: Ctrl-C is its parent's, and it ends with its parent, which nobody else would tell it.

    As many workers as cores, so one thread each.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _callers_backend() -> tuple[str | None, int | None] | None:
    """Return the backend and the jobs of the caller's `joblib.parallel_config`, ``None`` where there is none."""
    from joblib.parallel import get_active_backend

    backend, jobs = get_active_backend()
    if type(backend).__name__ == "LokyBackend":
        return None if jobs is None else ("loky", jobs)
    return None, None


def _alone(work: Work[Item, Result], item: Item) -> Result:
    # Here: landmarks are embedded without torch.
    from featlab.compute import one_thread

    with _ALONE, one_thread():
        return work(item)


def worker_count(jobs: int, pieces: int) -> int:
    """Return how many processes to start for so many pieces of work."""
    return max(1, min(jobs or usable_cores(), pieces, _MAX_JOBS))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_in_order(
    work: Work[Item, Result], pieces: Iterable[Item], *, jobs: int, name: Callable[[Item], object]
) -> Generator[tuple[Item, Result], None, None]:
    """Do the work on each piece, and yield pieces and results in their order; ``name`` says where a worker died."""
    if jobs == 1:
        yield from ((piece, work(piece)) for piece in pieces)
        return
    # "spawn": the parent may have started threads (torch, faiss, HDF5), and a fork of those can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(os.getpid(), work))
    under_way: deque[tuple[Item, Future[Any]]] = deque()
    piece: Item | None = None
    try:
        for piece in pieces:
            with without_interrupts():
                under_way.append((piece, pool.submit(_run_in_worker, piece)))
            if len(under_way) >= jobs + 2:
                piece, future = under_way.popleft()
                yield piece, future.result()
        while under_way:
            piece, future = under_way.popleft()
            yield piece, future.result()
    except BrokenProcessPool:
        assert piece is not None  # nothing else starts a process
        raise died(f"a worker process near {name(piece)}") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any] | None = None


def _start(parent: int, work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    _be_worker(parent)


def _run_in_worker(piece: Any) -> Any:
    assert _work is not None
    return _work(piece)

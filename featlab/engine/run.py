"""Do the same work on many items, on the engine that ``[engine]`` names. The only place that starts processes for it.

What the work gives goes from process to process: it must be picklable, and small. What it keeps on disk is there for
the next call, whatever happens to this one. The machines of a cluster (dask.distributed, or SLURM through submitit) see
the workspace's folder under the same path, and have the same featlab.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from logging import ERROR
from pathlib import Path
from typing import Any, TypeVar

from featlab import __version__
from featlab.config.analysis import EngineConfig
from featlab.errors import ConfigError, FeatlabError, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result]

LOCAL = EngineConfig()
WORTH = 10.0
"""Seconds that more processes must save: each takes about three to import torch and read a cache, before all else."""

_ALONE = threading.Lock()


def run_all(
    work: Work[Item, Result],
    items: Sequence[Item],
    *,
    jobs: int = 1,
    engine: EngineConfig = LOCAL,
    folder: Path = Path("engine"),
    light: bool = False,
) -> Iterator[Result]:
    """Yield what the work gave on each item, as they finish.

    Args:
        work: A function of a module, or a `functools.partial` of one. In a process it is called by one thread at a
            time, with one thread: torch's random state is the process's.
        items: What to work on.
        jobs: Processes of the engine ``local``, and of a dask cluster that is started here; 1 works in this process.
        engine: Which engine, and how it is reached. A `joblib.parallel_config` of the caller beats ``local``.
        folder: Where SLURM's jobs leave their logs.
        light: Items may be shorter than starting a worker: those of ``local`` are started when the rest is worth it.

    Raises:
        FeatlabError: What the work raised; a worker that died; a cluster that can't be reached.
        ConfigError: The engine's extra is not installed.
    """
    items = list(items)
    if not items:
        return
    alone = partial(_alone, work)
    if engine.name == "dask":
        yield from _on_dask(alone, items, jobs, engine)
    elif engine.name == "submitit":
        yield from _on_slurm(alone, items, jobs, engine, folder)
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
        how = {"backend": "loky", "inner_max_num_threads": 1, "initializer": _start, "initargs": (os.getpid(),)}
    # Joblib's dask backend gives its results at the end alone.
    streams = backend is not None or get_active_backend()[0].supports_return_generator
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered" if streams else "list", **how)
        # Where it gives a list, all is done by then.
        with without_interrupts() if streams else nullcontext():
            results = parallel(delayed(_unpacked)(pickle.dumps((work, item))) for item in items)
        yield from results
    except TerminatedWorkerError:
        raise _died("a worker process") from None


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


def be_worker(until_alone: Callable[[], object]) -> None:
    """Make this process a worker: Ctrl-C is its parent's, and it ends with its parent, which nobody else would tell it.

    ``until_alone`` returns when the parent is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        until_alone()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _start(parent: int) -> None:
    def until_alone() -> None:
        while os.getppid() == parent:
            time.sleep(1)

    be_worker(until_alone)


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


def _on_dask(work: Work[Item, Result], items: Sequence[Item], jobs: int, engine: EngineConfig) -> Iterator[Result]:
    """Yield results from a cluster's workers; without an address a cluster of ``jobs`` processes is started here.

    An item whose worker dies is given to another; after the scheduler's own number of deaths it is an error.
    """
    try:
        from distributed import Client, LocalCluster, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise ConfigError("engine.name = dask needs dask.distributed: pip install 'featlab[dask]'") from error
    with ExitStack() as opened:
        if engine.address:
            try:
                client = opened.enter_context(Client(engine.address, timeout=10, set_as_default=False))
            except (OSError, ValueError) as error:
                raise FeatlabError(
                    f"engine.address = {engine.address}: no dask scheduler answers there; start one with "
                    "`dask scheduler`, and workers with `dask worker ADDRESS`"
                ) from error
        else:
            cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=ERROR)
            client = opened.enter_context(Client(opened.enter_context(cluster), set_as_default=False))
        _check_workers(client)
        futures = client.map(work, items, pure=False)
        opened.callback(client.cancel, futures)
        try:
            for _, result in as_completed(futures, with_results=True, loop=client.loop):
                yield result
        except KilledWorker as error:
            raise _died(f"the dask worker {error.last_worker.address}") from None


def _check_workers(client: Any) -> None:
    """Raise a FeatlabError where no worker comes within a minute, or one has another featlab."""
    try:
        client.wait_for_workers(1, timeout=60)
    except TimeoutError:
        raise FeatlabError("the dask scheduler has no workers; start some with `dask worker ADDRESS`") from None
    others = {who: found for who, found in client.run(_version).items() if found != __version__}
    for who, found in others.items():
        raise FeatlabError(
            f"the dask worker {who} has featlab {found}, this is {__version__}: install the same in both places"
        )


def _version() -> str:
    return __version__


def _on_slurm(
    work: Work[Item, Result], items: Sequence[Item], jobs: int, engine: EngineConfig, folder: Path
) -> Iterator[Result]:
    """Yield results from the jobs of a SLURM array, the items dealt among them.

    Without SLURM, ``jobs`` processes of this machine stand for it. Logs are left in ``folder``.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("engine.name = submitit needs submitit: pip install 'featlab[slurm]'") from error
    executor = submitit.AutoExecutor(folder=folder.resolve())
    partition = {"slurm_partition": engine.partition} if engine.partition else {}
    executor.update_parameters(
        name="featlab", timeout_min=engine.minutes, mem_gb=engine.memory, cpus_per_task=1, **partition
    )
    size = -(-len(items) // (engine.array if executor.cluster == "slurm" else jobs))
    # Neighbours together: they share a source model.
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    left = {job.job_id: job for job in executor.map_array(partial(_each, work), parts)}
    try:
        for job in submitit.helpers.as_completed(list(left.values()), poll_frequency=1):
            del left[job.job_id]
            try:
                results = job.result()
            except submitit.core.utils.UncompletedJobError as error:
                # A job that failed has a traceback; of one that is gone, the last lines of its log are all there is.
                raise FeatlabError(
                    f"job {job.job_id} did not finish ({one_line(error)}); its log is {job.paths.stderr}; what is "
                    "finished is kept: run the same command again, with more of engine.minutes or engine.memory if it "
                    "was cut off"
                ) from None
            for result in results:
                if isinstance(result, FeatlabError):
                    raise result
                yield result
    finally:
        for job in left.values():
            job.cancel(check=False)


def _each(work: Work[Item, Result], items: Sequence[Item]) -> list[Result | FeatlabError]:
    """Do a job's part; an error of ours comes back as it is, with its one line, not as a traceback."""
    results: list[Result | FeatlabError] = []
    for item in items:
        try:
            results.append(work(item))
        except FeatlabError as error:
            return [*results, error]
    return results


def _died(who: str) -> FeatlabError:
    """Return the error for a worker that is gone."""
    return FeatlabError(
        f"{who} died (out of memory?); what is finished is kept: run the same command again, with fewer jobs if memory "
        "is short"
    )

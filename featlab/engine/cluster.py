"""Two engines for more than one machine: dask.distributed, and SLURM through submitit.

All machines see the workspace's folder under the same path, and have the same featlab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
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


def on_dask(work: Work[Item, Result], items: Sequence[Item], jobs: int, engine: EngineConfig) -> Iterator[Result]:
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
            raise died(f"the dask worker {error.last_worker.address}") from None


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


def on_slurm(
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


def died(who: str) -> FeatlabError:
    """Return the error for a worker that is gone."""
    return FeatlabError(
        f"{who} died (out of memory?); what is finished is kept: run the same command again, with fewer jobs if memory "
        "is short"
    )

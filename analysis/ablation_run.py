"""Run tasks of many variants of a workspace: in one process, or dealt to several, source models first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from featlab.campaign import Task, run_campaign, task_source
from featlab.config import flat_values
from featlab.results import EvaluationRow
from featlab.stages import bundle_folder, bundle_stage, pair_folder, pair_stage, train_folder, train_stage
from featlab.workspace import Workspace

__all__ = ["Call", "OnStep", "run_calls"]

OnStep = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps."""
Call = tuple[Workspace, Task]
"""A variant of a workspace, and one of its tasks."""


def run_calls(calls: Sequence[Call], jobs: int = 1, on_step: OnStep | None = None) -> list[list[EvaluationRow]]:
    """Return the rows of each call, in order; what an earlier run finished is read, not run.

    Args:
        calls: Variants of one or several workspaces.
        jobs: Processes, each with one thread; 1 works in this one.
        on_step: Progress over source models and calls.
    """
    jobs = min(jobs, len(calls))
    stages = [(_first_of_each(calls, folder), make) for folder, make in _STAGES] if jobs > 1 else []
    steps = sum(len(stage) for stage, _ in stages) + len(calls)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, steps)

    for stage, make in stages:
        for _ in _run(stage, make, jobs):
            step()
    results: dict[int, list[EvaluationRow]] = {}
    for place, rows in _run(calls, _run_task, jobs):
        results[place] = rows
        step()
    return [results[place] for place in range(len(calls))]


def _first_of_each(calls: Sequence[Call], folder: Callable[[Workspace, Task], Path]) -> list[Call]:
    """Return one call a folder that isn't there: two processes that need the same would both make it."""
    first: dict[Path, Call] = {}
    for call in calls:
        first.setdefault(folder(*call), call)
    return [call for path, call in first.items() if not path.exists()]


def _run(calls: Sequence[Call], work: Callable[[Workspace, Task], Any], jobs: int) -> Iterator[tuple[int, Any]]:
    """Yield the number of each call with what the work on it gave, as they finish."""
    if jobs <= 1:
        for place, call in enumerate(calls):
            yield place, work(*call)
        return
    if not calls:
        return
    from joblib import Parallel, delayed

    options = {"n_jobs": min(jobs, len(calls)), "return_as": "generator_unordered", "inner_max_num_threads": 1}
    # Largest caches first, so that no process is left alone with a large one at the end.
    order = sorted(range(len(calls)), key=lambda place: -calls[place][0].table.embeddings.size)
    sent = (delayed(_in_worker)(place, work, *_sent(*calls[place])) for place in order)
    yield from Parallel(**options, backend="loky")(sent)


def _sent(workspace: Workspace, task: Task) -> tuple[str, Mapping[str, Any], str, Task]:
    """Return what another process needs to have the same variant: not its rows, which it reads itself."""
    return str(workspace.root.resolve()), flat_values(workspace.config.to_dict()), workspace.device, task


def _in_worker(
    place: int,
    work: Callable[[Workspace, Task], Any],
    root: str,
    values: Mapping[str, Any],
    device: str,
    task: Task,
) -> tuple[int, Any]:
    import torch

    torch.set_num_threads(1)
    base = _opened(root, values["cache"], device)
    return place, work(replace(base, config=base.config.with_values(values, "ablation")), task)


@lru_cache(maxsize=2)
def _opened(root: str, cache: str, device: str) -> Workspace:
    """Read a cache once a process: it can be large."""
    return Workspace.open(Path(root), {"cache": cache}, device=device)


def _head_folder(workspace: Workspace, task: Task) -> Path:
    return train_folder(task_source(workspace, task))


def _pairs_folder(workspace: Workspace, task: Task) -> Path:
    return pair_folder(task_source(workspace, task))


def _bundle_folder(workspace: Workspace, task: Task) -> Path:
    return bundle_folder(task_source(workspace, task), workspace.config.protocol.methods)


def _make_head(workspace: Workspace, task: Task) -> None:
    train_stage(task_source(workspace, task))


def _make_pairs(workspace: Workspace, task: Task) -> None:
    pair_stage(task_source(workspace, task))


def _make_bundle(workspace: Workspace, task: Task) -> None:
    bundle_stage(task_source(workspace, task), workspace.config.protocol.methods)


def _run_task(workspace: Workspace, task: Task) -> list[EvaluationRow]:
    return run_campaign(workspace, [task])


_STAGES: tuple[tuple[Callable[[Workspace, Task], Path], Callable[[Workspace, Task], None]], ...] = (
    (_head_folder, _make_head),
    (_pairs_folder, _make_pairs),
    (_bundle_folder, _make_bundle),
)
"""Where each source stage keeps its output, and what makes it; in the order in which they need each other."""

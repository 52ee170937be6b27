"""Evaluate methods over draws of targets and seeds, in parallel, keeping every finished cell for the next run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featlab.config import Config, flat_values
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.evaluation import evaluate_subject
from featlab.methods import make_method
from featlab.protocol import split_target
from featlab.results import EvaluationRow, read_results, write_results
from featlab.seeding import stable_hash
from featlab.stages import STAGE_FORMAT, Source, bundle_stage
from featlab.workspace import Workspace

__all__ = ["Task", "finished_cells", "plan", "run_campaign", "task_source", "versions"]

OnTask = Callable[[int, int], None]
"""Called with the number of finished tasks and of all tasks."""


@dataclass(frozen=True)
class Task:
    """One source model and the targets that are adapted from it.

    Attributes:
        draw: Number of the draw.
        seed: Number of the seed within it.
        targets: The target subjects.
    """

    draw: int
    seed: int
    targets: tuple[str, ...]


def plan(workspace: Workspace) -> list[Task]:
    """Return the tasks that the protocol asks for, draw by draw.

    Raises:
        ConfigError: An unknown method, or an option that a method doesn't have.
        InputError: An unknown target, or one that was asked for by name and can't be split into adapt and test rows;
            one that is only drawn is a failed cell.
    """
    protocol = workspace.config.protocol
    for name in protocol.methods:
        make_method(name, workspace.config.adapt.options)
    if not protocol.targets.strip().isdecimal():
        if protocol.draws > 1:
            raise ConfigError(
                f"protocol.draws = {protocol.draws}, but the targets are named: every draw would be the same; "
                "give --targets a number, or leave out --draws"
            )
        for subject in workspace.targets():
            split_target(workspace.table.rows_of(subject), protocol.gap)
    return [
        Task(draw, seed, workspace.targets(draw)) for draw in range(protocol.draws) for seed in range(protocol.seeds)
    ]


def task_source(workspace: Workspace, task: Task) -> Source:
    """Return the source of a task: everyone who is no target in it, with the task's own root seed."""
    return workspace.source(task.targets, seed=workspace.config.protocol.seed + task.seed)


def finished_cells(workspace: Workspace, tasks: Sequence[Task]) -> int:
    """Return how many of the tasks' (target, method) cells an earlier run finished."""
    return sum(
        path.exists() for task in tasks for path in _cells(workspace, task, task_source(workspace, task)).values()
    )


def run_campaign(
    workspace: Workspace, tasks: Sequence[Task], *, jobs: int = 1, on_task: OnTask | None = None
) -> list[EvaluationRow]:
    """Run every task; cells that an earlier run finished are read, not run.

    Args:
        workspace: Where; results go to ``results/cells/``.
        tasks: What.
        jobs: Processes, each with one thread; 1 works in this one.
        on_task: Progress.

    Returns:
        Rows ordered by task, then method, then subject. A failed run is a row with its error, and is tried again the
        next time.
    """
    finished: dict[Task, list[EvaluationRow]] = {}
    for task, rows in _results(workspace, tasks, jobs):
        finished[task] = rows
        if on_task is not None:
            on_task(len(finished), len(tasks))
    order = {name: place for place, name in enumerate(workspace.config.protocol.methods)}
    return [row for task in tasks for row in sorted(finished[task], key=lambda row: order[row.method])]


def versions() -> dict[str, str]:
    """Return the versions that a result depends on; what is not installed under its usual name is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("featlab", "torch", "numpy", "scikit-learn", "faiss-cpu", "h5py"):
        # conda, for one, calls faiss something else.
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _results(workspace: Workspace, tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, list[EvaluationRow]]]:
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        for task in tasks:
            yield task, _run_task(workspace, task)
        return
    from joblib import Parallel, delayed

    calls = (
        delayed(_run_in_worker)(workspace.root.resolve(), workspace.config, task, workspace.device) for task in tasks
    )
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered", inner_max_num_threads=1, backend="loky")(calls)


def _run_in_worker(root: Path, config: Config, task: Task, device: str) -> tuple[Task, list[EvaluationRow]]:
    import torch

    torch.set_num_threads(1)
    overrides = flat_values(config.to_dict())
    return task, _run_task(Workspace.open(root, overrides, device=device), task)


def _run_task(workspace: Workspace, task: Task) -> list[EvaluationRow]:
    config = workspace.config
    names = config.protocol.methods
    source = task_source(workspace, task)
    cells = _cells(workspace, task, source)
    done = {cell: row for cell, path in cells.items() if (row := _finished(path)) is not None}
    missing = [subject for subject in task.targets if any((subject, name) not in done for name in names)]
    if missing:
        bundle, _ = bundle_stage(source, names)
    for subject in missing:
        wanted = [make_method(name, config.adapt.options) for name in names if (subject, name) not in done]
        table = workspace.table.rows_of(subject)
        try:
            fresh = evaluate_subject(bundle, table, wanted, draw=task.draw, seed=task.seed, gap=config.protocol.gap)
        except FeatlabError as error:
            fresh = [
                EvaluationRow.failure(
                    method.name,
                    subject,
                    task.draw,
                    task.seed,
                    selection=method.selection,
                    error=str(error),
                )
                for method in wanted
            ]
        for row in fresh:
            if not row.error:
                path = cells[subject, row.method]
                path.parent.mkdir(parents=True, exist_ok=True)
                write_results(path, [row])
            done[subject, row.method] = row
    return [done[cell] for cell in cells]


def _finished(path: Path) -> EvaluationRow | None:
    """Return the row of a finished cell; ``None`` where there is none or it is damaged: then it is run again."""
    try:
        rows = read_results(path)
    except InputError:
        return None
    return rows[0] if len(rows) == 1 else None


def _cells(workspace: Workspace, task: Task, source: Source) -> dict[tuple[str, str], Path]:
    """Return where each (target, method) of a task is kept."""
    protocol, key = workspace.config.protocol, source.key("source")
    return {
        (subject, name): _cell_path(workspace, key, task, subject, name)
        for subject in task.targets
        for name in protocol.methods
    }


def _cell_path(workspace: Workspace, source_key: str, task: Task, subject: str, method: str) -> Path:
    config = workspace.config
    parts = (STAGE_FORMAT, source_key, config.features, config.head, config.pair, config.pretrain, config.protocol.gap)
    settings = make_method(method, config.adapt.options).config
    key = stable_hash(*parts, task.draw, task.seed, subject, method, settings)[:16]
    return workspace.root / "results" / "cells" / method / f"{key}.jsonl"

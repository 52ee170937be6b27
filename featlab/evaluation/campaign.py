"""Evaluate methods over draws of targets and seeds, in parallel, keeping every finished cell for the next run.

A task is one source model and its targets. Work is dealt in portions: some targets of a task with the methods that they
lack (scope ``person``), or a method with all targets of a task (scope ``dataset``).
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from featlab.bundle.bundle import Bundle
from featlab.config.load import ProtocolConfig, flat_values
from featlab.errors import ConfigError, FeatlabError
from featlab.evaluation.cells import Cell, Task, cell_paths, read_cell, task_source, write_cell
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.run import RunNumbers, evaluate_dataset, evaluate_subject, failed_rows
from featlab.methods import get_method, make_method
from featlab.methods.base import SourceFeatures
from featlab.protocol.clips import ClipConditions, reduced_split
from featlab.protocol.splits import split_target
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace

__all__ = ["Task", "finished_cells", "plan", "run_campaign", "run_facts", "task_source", "versions"]

OnCells = Callable[[int, int], None]
"""Called with the number of finished cells and of all cells."""


def plan(workspace: Workspace) -> list[Task]:
    """Return the tasks that the protocol asks for, draw by draw.

    Raises:
        ConfigError: An unknown method, an option that a method doesn't have, or settings that exclude each other.
        InputError: An unknown target, or one that was asked for by name and can't be split into adapt and test rows;
            one that is only drawn is a failed cell.
    """
    protocol = workspace.config.protocol
    for name in protocol.methods:
        make_method(name, workspace.config.adapt.options)
    for name in ("frames", "contamination"):
        if protocol.scope == "dataset" and getattr(protocol, name):
            raise ConfigError(
                f"protocol.{name} changes one person's neutral clip, and the scope dataset has none; leave out --{name}"
            )
    if not protocol.targets.strip().isdecimal():
        if protocol.draws > 1:
            raise ConfigError(
                f"protocol.draws = {protocol.draws}, but the targets are named: every draw would be the same; "
                "give --targets a number, or leave out --draws"
            )
        for subject in workspace.targets() if protocol.scope == "person" else ():
            rows = workspace.table.rows_of(subject)
            reduced_split(rows, split_target(rows, protocol.gap), _conditions(protocol), protocol.seed)
    return [
        Task(draw, seed, workspace.targets(draw)) for draw in range(protocol.draws) for seed in range(protocol.seeds)
    ]


def finished_cells(workspace: Workspace, tasks: Sequence[Task]) -> int:
    """Return how many of the tasks' (target, method) cells an earlier run finished."""
    return sum(path.exists() for task in tasks for path in cell_paths(workspace, task).values())


def run_campaign(
    workspace: Workspace,
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    share: tuple[int, int] = (1, 1),
    collect: bool = False,
    on_cells: OnCells | None = None,
) -> list[EvaluationRow]:
    """Run every task; cells that an earlier run finished are read, not run.

    Args:
        workspace: Where; results go to ``results/cells/``.
        tasks: What.
        jobs: Processes, each with one thread; 1 works in this one.
        share: (i, n): run the i-th of n shares of the work, for n machines that share the folder; other cells are read
            where they are there.
        collect: Read what is there and run nothing.
        on_cells: Progress.

    Returns:
        Rows ordered by task, then method, then subject. A failed run is a row with its error, and is tried again the
        next time; a cell that another share or a later run will fill has no row.
    """
    done: dict[tuple[Task, Cell], EvaluationRow] = {}
    portions: list[_Portion] = []
    count = 0
    for task in tasks:
        paths = cell_paths(workspace, task)
        count += len(paths)
        done |= {(task, cell): row for cell, path in paths.items() if (row := read_cell(path)) is not None}
        portions += _portions(workspace, task, paths, {cell for cell in paths if (task, cell) not in done}, share)
    if on_cells is not None:
        on_cells(len(done), count)
    for portion, rows in _results(workspace, [] if collect else portions, jobs):
        done |= {(portion.task, (row.subject, row.method)): row for row in rows}
        if on_cells is not None:
            on_cells(len(done), count)
    names = workspace.config.protocol.methods
    cells = [(task, (subject, name)) for task in tasks for name in names for subject in task.targets]
    return [done[cell] for cell in cells if cell in done]


def run_facts(workspace: Workspace) -> dict[str, Any]:
    """Return what made the results of a run: configuration, digest and extractor of the cache, versions."""
    extractor = workspace.extractor
    return {
        "config": workspace.config.to_dict(),
        "cache_digest": workspace.cache_digest,
        "extractor": {"id": extractor.id, "fingerprint": extractor.fingerprint},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on; what is not installed under its usual name is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("featlab", "torch", "numpy", "scikit-learn", "faiss-cpu", "h5py"):
        # conda, for one, calls faiss something else.
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class _Portion:
    """Work for one process at a time.

    Attributes:
        task: Whose source model it takes.
        targets: Whom it is about.
        methods: What is run on all of them, in the order of the table.
        paths: Where each of its cells is kept.
        flops: Whether operations are counted.
    """

    task: Task
    targets: tuple[str, ...]
    methods: tuple[str, ...]
    paths: Mapping[Cell, Path]
    flops: bool


def _portions(
    workspace: Workspace, task: Task, paths: Mapping[Cell, Path], missing: set[Cell], share: tuple[int, int]
) -> list[_Portion]:
    """Return this share of what a task lacks: a portion a target, or in a data set a portion a method."""

    def portion(targets: tuple[str, ...], methods: tuple[str, ...], flops: bool) -> _Portion:
        mine = {(subject, name): paths[subject, name] for subject in targets for name in methods}
        return _Portion(task, targets, methods, mine, flops)

    names = workspace.config.protocol.methods
    first = task.draw == 0 and task.seed == 0
    mine, of = share
    portions = []
    if workspace.config.protocol.scope == "dataset":
        for place, name in enumerate(names):
            # One subject without a row means that the method is run again, for all of them.
            if place % of == mine - 1 and any((subject, name) in missing for subject in task.targets):
                portions.append(portion(task.targets, (name,), first))
        return portions
    for place, subject in enumerate(task.targets):
        lacking = tuple(name for name in names if (subject, name) in missing)
        if (place + task.draw + task.seed) % of == mine - 1 and lacking:
            # Operations are counted for one target: they depend on its number of frames and little else.
            portions.append(portion((subject,), lacking, first and place == 0))
    return portions


def _results(
    workspace: Workspace, portions: Sequence[_Portion], jobs: int
) -> Iterator[tuple[_Portion, list[EvaluationRow]]]:
    jobs = min(jobs, len(portions))
    if jobs <= 1:
        ready: dict[Task, _Ready] = {}
        for portion in portions:
            if portion.task not in ready:
                ready = {portion.task: _ready(workspace, portion.task)}
            yield portion, _run(workspace, ready[portion.task], portion)
        return
    from joblib import Parallel, delayed

    settings = json.dumps(flat_values(workspace.config.to_dict()))
    where = (str(workspace.root.resolve()), settings, workspace.device)
    options = {"n_jobs": jobs, "return_as": "generator_unordered", "inner_max_num_threads": 1, "backend": "loky"}
    # Source models first, each once: two processes that need the same one would both train it.
    tasks = list(dict.fromkeys(portion.task for portion in portions))
    for _ in Parallel(**options)(delayed(_train_in_worker)(*where, task) for task in tasks):
        pass
    yield from Parallel(**options)(delayed(_run_in_worker)(*where, portion) for portion in portions)


@lru_cache(maxsize=1)
def _worker_workspace(root: str, settings: str, device: str) -> Workspace:
    """Open the workspace once a process: a cache can be large."""
    import torch

    torch.set_num_threads(1)
    return Workspace.open(Path(root), json.loads(settings), device=device)


@lru_cache(maxsize=1)
def _worker_ready(root: str, settings: str, device: str, task: Task) -> _Ready:
    return _ready(_worker_workspace(root, settings, device), task)


def _train_in_worker(root: str, settings: str, device: str, task: Task) -> None:
    _worker_ready(root, settings, device, task)


def _run_in_worker(root: str, settings: str, device: str, portion: _Portion) -> tuple[_Portion, list[EvaluationRow]]:
    workspace = _worker_workspace(root, settings, device)
    return portion, _run(workspace, _worker_ready(root, settings, device, portion.task), portion)


@dataclass(frozen=True, eq=False)
class _Ready:
    """What all targets of a task are adapted from: the source model, and source rows where a method needs them."""

    bundle: Bundle
    source: SourceFeatures | None


def _ready(workspace: Workspace, task: Task) -> _Ready:
    source, names = task_source(workspace, task), workspace.config.protocol.methods
    bundle, _ = bundle_stage(source, names)
    needed = any(get_method(name).needs_source for name in names)
    return _Ready(bundle, SourceFeatures.of(bundle, source.table) if needed else None)


def _conditions(protocol: ProtocolConfig) -> ClipConditions:
    return ClipConditions(protocol.frames, protocol.contamination)


def _run(workspace: Workspace, ready: _Ready, portion: _Portion) -> list[EvaluationRow]:
    config, task = workspace.config, portion.task
    protocol = config.protocol
    methods = [make_method(name, config.adapt.options) for name in portion.methods]
    numbers = RunNumbers(task.draw, task.seed, protocol.scope, portion.flops, protocol.smoothing)
    table = workspace.table.rows_of(*portion.targets)
    bundle, source, gap = ready.bundle, ready.source, protocol.gap
    try:
        if protocol.scope == "dataset":
            rows = evaluate_dataset(bundle, table, methods, source=source, numbers=numbers, gap=gap)
        else:
            conditions = _conditions(protocol)
            rows = evaluate_subject(
                bundle, table, methods, source=source, numbers=numbers, gap=gap, conditions=conditions
            )
    except FeatlabError as error:
        rows = [row for method in methods for row in failed_rows(method, portion.targets, numbers, error)]
    for row in rows:
        write_cell(portion.paths[row.subject, row.method], row)
    return rows

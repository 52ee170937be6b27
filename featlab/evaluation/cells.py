"""Cells of a campaign: one method on one target in one task, each kept in a file of its own once it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow, read_results, write_results
from featlab.methods import make_method
from featlab.seeding import stable_hash
from featlab.workspace.stages import STAGE_FORMAT, Source
from featlab.workspace.workspace import Workspace

__all__ = ["Cell", "Task", "cell_paths", "read_cell", "task_source", "write_cell"]

CELL_FORMAT = 4
"""Raised when rows of before lack what tables now show."""

Cell = tuple[str, str]
"""Target subject and method."""


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


def task_source(workspace: Workspace, task: Task) -> Source:
    """Return the source of a task: everyone who is no target in it, with the task's own root seed."""
    return workspace.source(task.targets, seed=workspace.config.protocol.seed + task.seed)


def cell_paths(workspace: Workspace, task: Task) -> dict[Cell, Path]:
    """Return where each cell of a task is kept, target by target, named by a hash of all that its numbers hang on."""
    config = workspace.config
    protocol = config.protocol
    source_key = task_source(workspace, task).key("source")
    shared = (STAGE_FORMAT, CELL_FORMAT, source_key, config.features, config.head, config.pair, config.pretrain)
    # In a data set every subject's rows are adapted on: all of them are part of each cell.
    scope = (protocol.scope, *(task.targets if protocol.scope == "dataset" else ()))
    split = (protocol.gap, protocol.frames, protocol.contamination)
    # Not relative: a worker process may have been started in another folder.
    folder = workspace.root.resolve() / "results" / "cells"
    paths = {}
    for subject in task.targets:
        for name in protocol.methods:
            settings = make_method(name, config.adapt.options).config
            run = (*scope, *split, protocol.smoothing, task.draw, task.seed, subject, name, settings)
            paths[subject, name] = folder / name / f"{stable_hash(*shared, *run)[:16]}.jsonl"
    return paths


def read_cell(path: Path) -> EvaluationRow | None:
    """Return the row of a finished cell; ``None`` where there is none or it is damaged: then it is run again."""
    try:
        rows = read_results(path)
    except InputError:
        return None
    return rows[0] if len(rows) == 1 else None


def write_cell(path: Path, row: EvaluationRow) -> None:
    """Keep a finished cell; one that failed is not kept, so that the next run tries it again."""
    if not row.error:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_results(path, [row])

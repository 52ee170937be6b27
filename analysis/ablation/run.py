"""Run an ablation: the protocol again and again with one setting changed, on one data set or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from featlab.analysis.ablation.grids import make_grid
from featlab.analysis.ablation.results import AblationReport, Grid, Point, Values
from featlab.config.load import flat_values
from featlab.errors import ConfigError
from featlab.evaluation.results import run_facts
from featlab.evaluation.runner import OnStep, Task, plan, run_tasks
from featlab.evaluation.summary import summarise
from featlab.methods.registry import refuse_unread
from featlab.workspace.stages import train_stage
from featlab.workspace.workspace import Workspace


def open_data_sets(workspace: Workspace) -> dict[str, Workspace]:
    """Return name to workspace: one a cache that ``ablate.caches`` names, or the workspace itself."""
    caches = workspace.config.ablate.caches or (workspace.config.cache,)
    names = [Path(cache).stem for cache in caches]
    # Workspaces all call their cache cache.h5: then the folder tells them apart.
    names = [
        name if names.count(name) == 1 else Path(cache).parent.name or name
        for name, cache in zip(names, caches, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ConfigError(f"ablate.caches: two of {', '.join(caches)} have the same name; rename one of the files")
    opened = {}
    for name, cache in zip(names, caches, strict=True):
        if cache == workspace.config.cache:
            opened[name] = workspace
        else:
            values = flat_values(workspace.config.to_dict()) | {"cache": cache}
            opened[name] = Workspace.open(
                workspace.root,
                values,
                device=workspace.device,
                notify=workspace.notify,
                on_epoch=workspace.on_epoch,
            )
    return opened


def ablate(name: str, workspace: Workspace, *, jobs: int = 1, on_step: OnStep | None = None) -> AblationReport:
    """Run an ablation on every data set; what an earlier run finished is read, not run."""
    data_sets = open_data_sets(workspace)
    grids = {data: make_grid(name, opened) for data, opened in data_sets.items()}
    variants = [
        (data, setting, with_values(data_sets[data], setting.values))
        for data, grid in grids.items()
        for setting in grid.settings
    ]
    methods = {name for grid in grids.values() for name in grid.methods}
    refuse_unread(workspace.config, sorted(methods), [variant.config for _, _, variant in variants])
    tasks = [plan(variant) for _, _, variant in variants]
    results = iter(run_tasks([task for theirs in tasks for task in theirs], jobs=jobs, on_step=on_step))
    points = []
    for (data, setting, _), theirs in zip(variants, tasks, strict=True):
        rows = [row for part in islice(results, len(theirs)) for row in part.values()]
        features = _features(theirs[0]) if grids[data].name == "dims" else 0
        points.append(Point(data, setting, features, tuple(rows), tuple(summarise(rows))))
    first = next(iter(grids.values()))
    return AblationReport(
        grid=first,
        references={data: grid.reference for data, grid in grids.items()},
        points=tuple(points),
        notes=_notes(grids, points),
        metadata={data: run_facts(opened) for data, opened in data_sets.items()},
    )


def with_values(workspace: Workspace, values: Values) -> Workspace:
    """Return the workspace with other settings."""
    return replace(workspace, config=workspace.config.with_values(values, "ablation"))


def _features(task: Task) -> int:
    trained, _ = train_stage(task.source)
    return int(trained.projection.components.shape[1])


def _notes(grids: Mapping[str, Grid], points: Sequence[Point]) -> tuple[str, ...]:
    several = len(grids) > 1
    lines = []
    for data, grid in grids.items():
        lines += [f"{data}: {note}" if several and note.startswith("left out") else note for note in grid.notes]
    for point in points:
        asked = point.setting.values.get("features.dim", 0)
        if grids[point.data].name == "dims" and asked > point.features:
            where = f"{point.data}, " if several else ""
            lines.append(f"{where}{asked}: the source rows span {point.features:,} directions, so that many were kept")
    return tuple(dict.fromkeys(lines))

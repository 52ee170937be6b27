"""What an ablation is and what it gave: settings with their results, each compared with the reference setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from featlab.analysis.ablation import ABLATIONS, Grid, Setting, Values
from featlab.config.load import flat_values
from featlab.errors import ConfigError, closest
from featlab.evaluation.results import EvaluationRow, common_subject_means, run_facts
from featlab.evaluation.runner import Task, Where, plan, refuse_unfinished, run_tasks
from featlab.evaluation.statistics import Comparison, compare_scores, holm
from featlab.evaluation.summary import MethodSummary, summarise
from featlab.methods.registry import refuse_unread
from featlab.workspace.stages import train_stage
from featlab.workspace.workspace import Workspace

CACHE_METADATA = ("cache_digest", "extractor")  # Metadata of a run that differ from data set to data set.


@dataclass(frozen=True, eq=False)
class Point:
    """One setting on one data set, with its results."""

    data: str
    setting: Setting
    features: int  # That the projection kept, fewer than asked for when source rows span fewer; 0 beside dims.
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]  # One a method.


@dataclass(frozen=True, eq=False)
class AblationReport:
    """What an ablation gave."""

    grid: Grid  # That of the first data set: names, title, methods.
    references: Mapping[str, str]  # Data set to the label of the setting that its others are compared with.
    points: tuple[Point, ...]  # Data set by data set, in the order of its grid.
    notes: tuple[str, ...]
    metadata: Mapping[str, Mapping[str, Any]]  # Of the run on each data set.

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(self.metadata)

    def groups(self, data: str) -> dict[str, list[Point]]:
        """Return the points of one data set, group by group."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.data == data:
                found.setdefault(point.setting.group, []).append(point)
        return found

    @cached_property
    def differences(self) -> dict[tuple[str, str, str, str], Comparison]:
        """(data set, group, setting, method) to the difference from the group's reference; a group without has none."""
        return {
            (data, group, label, method): difference
            for data in self.data_sets
            for group, points in self.groups(data).items()
            for method in self.grid.methods
            for label, difference in _differences(points, self.references[data], method).items()
        }

    def difference(self, point: Point, method: str) -> Comparison | None:
        """Return that of one setting; ``None`` for a reference."""
        return self.differences.get((point.data, point.setting.group, point.setting.label, method))

    def by_data_set(self) -> dict[str, dict[str, Any]]:
        """Return data set to the metadata in which they differ."""
        return {name: {key: part[key] for key in CACHE_METADATA} for name, part in self.metadata.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: as `featlab evaluate`, each entry with its data set and setting."""
        return {
            "ablation": self.grid.name,
            **next(iter(self.metadata.values())),
            "data_sets": self.by_data_set(),
            "notes": list(self.notes),
            "results": [_placed(point, row.to_dict()) for point in self.points for row in point.rows],
            "summary": [_placed(point, item.to_dict()) for point in self.points for item in point.summaries],
        }


def _differences(points: Sequence[Point], label: str, method: str) -> dict[str, Comparison]:
    """Return label to difference, for one method and every setting of a group but its reference."""
    reference = next((point for point in points if point.setting.label == label), None)
    others = [point for point in points if point is not reference]
    if reference is None or not others:
        return {}
    found = {
        point.setting.label: compare_scores(common_subject_means(_of(point, method), _of(reference, method)).values())
        for point in others
    }
    adjusted = holm([difference.p for difference in found.values()])
    return {label: replace(found[label], p=p) for label, p in zip(found, adjusted, strict=True)}


def _of(point: Point, method: str) -> list[EvaluationRow]:
    return [row for row in point.rows if row.method == method]


def _placed(point: Point, entry: Mapping[str, Any]) -> dict[str, Any]:
    place = {"data": point.data, "group": point.setting.group, "setting": point.setting.label}
    return {**place, "features": point.features, **entry}


def make_grid(name: str, workspace: Workspace) -> Grid:
    """Return the settings of an ablation on a workspace's data, as ``[ablate]`` states them."""
    if name not in ABLATIONS:
        raise ConfigError(f"unknown ablation {name!r}{closest(name, ABLATIONS)}; there are {', '.join(ABLATIONS)}")
    grid, config = ABLATIONS[name](workspace), workspace.config
    methods = config.ablate.methods or grid.methods
    base, notes = {**grid.base, "protocol.methods": methods}, grid.notes
    if grid.retrains:
        base["pretrain.validation"] = config.ablate.validation and config.pretrain.validation
        if not config.ablate.validation and "pft" in methods:
            notes += (
                "Bundles are not validated on source people here, so that numbers of pft differ a little from those of "
                "featlab evaluate (ablate.validation = true: as it does, in about five times the time).",
            )
    settings = tuple(replace(item, values={**base, **item.values}) for item in grid.settings)
    return replace(grid, name=name, methods=methods, settings=settings, notes=notes)


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
                workspace.root, values, device=workspace.device, notify=workspace.notify, on_epoch=workspace.on_epoch
            )
    return opened


def ablate(name: str, workspace: Workspace, **where: Unpack[Where]) -> AblationReport:
    """Run an ablation on every data set; ``where`` as `run_tasks` takes it. What an earlier run finished is read."""
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
    every = [task for theirs in tasks for task in theirs]
    done = run_tasks(every, **where)
    refuse_unfinished(every, done)
    results = iter(done)
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

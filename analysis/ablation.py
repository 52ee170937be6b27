"""Run an ablation: the protocol again and again with one setting changed, on one data set or several, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from featlab.analysis.ablation_grid import Grid, Setting, make_grid, with_values
from featlab.campaign import Task, plan, run_campaign, run_facts, task_source
from featlab.config import flat_values
from featlab.errors import ConfigError
from featlab.results import EvaluationRow
from featlab.stages import bundle_folder, bundle_stage, pair_folder, pair_stage, train_folder, train_stage
from featlab.summary import MethodSummary, summarise
from featlab.workspace import Workspace

__all__ = ["AblationReport", "Point", "ablate", "open_data_sets"]

OnStep = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps."""


@dataclass(frozen=True, eq=False)
class Point:
    """One setting on one data set.

    Attributes:
        data: Name of the data set.
        setting: What was set.
        features: Features that the projection kept, fewer than asked for when source rows span fewer directions; 0
            where the ablation is not about them.
        rows: Results.
        summaries: One a method.
    """

    data: str
    setting: Setting
    features: int
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]


@dataclass(frozen=True, eq=False)
class AblationReport:
    """What an ablation gave.

    Attributes:
        grid: That of the first data set: names, title, methods.
        references: Data set to the label of the setting that its others are compared with.
        points: Data set by data set, in the order of its grid.
        notes: What was left out, and what else differs from the workspace's settings.
        facts: Of each data set, as `featlab.campaign.run_facts` gives them.
    """

    grid: Grid
    references: Mapping[str, str]
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(self.facts)

    def groups(self, data: str) -> dict[str, list[Point]]:
        """Return the points of one data set, group by group."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.data == data:
                found.setdefault(point.setting.group, []).append(point)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: as `featlab evaluate`, each entry with its data set and setting."""
        first = next(iter(self.facts.values()))
        return {
            "ablation": self.grid.name,
            **first,
            "data_sets": {name: {key: facts[key] for key in _CACHE_FACTS} for name, facts in self.facts.items()},
            "notes": list(self.notes),
            "results": [_placed(point, row.to_dict()) for point in self.points for row in point.rows],
            "summary": [_placed(point, item.to_dict()) for point in self.points for item in point.summaries],
        }


_CACHE_FACTS = ("cache_digest", "extractor")


def open_data_sets(workspace: Workspace) -> dict[str, Workspace]:
    """Return name to workspace: one a cache that ``ablate.caches`` names, or the workspace itself.

    A data set is called as its file, or as its folder where two files have the same name.

    Raises:
        ConfigError: Two caches of the same name.
        CacheError: A cache that can't be trusted.
    """
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
    """Run an ablation on every data set; what an earlier run finished is read, not run.

    Args:
        name: One of `featlab.analysis.ablation_grid.ABLATIONS`.
        workspace: Caches, protocol (targets, draws, seeds) and everything but what the ablation changes.
        jobs: Processes, each with one thread; 1 works in this one.
        on_step: Progress over source models and tasks.

    Raises:
        ConfigError: An unknown ablation or method, or a grid of which nothing can be had.
        InputError: An unknown target, or a draw that can't be made.
    """
    data_sets = open_data_sets(workspace)
    grids = {data: make_grid(name, opened) for data, opened in data_sets.items()}
    calls = [
        _Call(data, setting, task, with_values(data_sets[data], setting.values))
        for data, grid in grids.items()
        for setting in grid.settings
        for task in plan(with_values(data_sets[data], setting.values))
    ]
    results = _run(calls, jobs, on_step)
    points = []
    for data, grid in grids.items():
        for setting in grid.settings:
            variant = with_values(data_sets[data], setting.values)
            rows = [row for task in plan(variant) for row in results[data, setting.group, setting.label, task]]
            points.append(
                Point(data, setting, _features(variant, grid.name), tuple(rows), tuple(summarise(rows)) if rows else ())
            )
    first = next(iter(grids.values()))
    return AblationReport(
        grid=first,
        references={data: grid.reference for data, grid in grids.items()},
        points=tuple(points),
        notes=_notes(grids, points),
        facts={data: run_facts(opened) for data, opened in data_sets.items()},
    )


@dataclass(frozen=True, eq=False)
class _Call:
    """One task of one setting on one data set."""

    data: str
    setting: Setting
    task: Task
    workspace: Workspace

    @property
    def key(self) -> tuple[str, str, str, Task]:
        return self.data, self.setting.group, self.setting.label, self.task


_Key = tuple[str, str, str, Task]


def _run(calls: Sequence[_Call], jobs: int, on_step: OnStep | None) -> dict[_Key, list[EvaluationRow]]:
    stages = _stages(calls) if min(jobs, len(calls)) > 1 else []
    steps = sum(len(stage) for stage in stages) + len(calls)
    done, results = 0, {}

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, steps)

    if min(jobs, len(calls)) <= 1:
        for call in calls:
            results[call.key] = run_campaign(call.workspace, [call.task])
            step()
        return results
    for number, stage in enumerate(stages):
        for _ in _in_processes(stage, _STAGES[number][1], jobs):
            step()
    for call, rows in _in_processes(calls, _run_task, jobs):
        results[call.key] = rows
        step()
    return results


def _stages(calls: Sequence[_Call]) -> list[list[_Call]]:
    """Return for each kind of source stage one call a folder: two processes that need the same would both make it."""
    found = []
    for folder, _ in _STAGES:
        first: dict[Hashable, _Call] = {}
        for call in calls:
            first.setdefault(folder(call), call)
        found.append([call for path, call in first.items() if not Path(str(path)).exists()])
    return found


def _in_processes(
    calls: Sequence[_Call], work: Callable[[Workspace, Task], Any], jobs: int
) -> Iterator[tuple[_Call, Any]]:
    if not calls:
        return
    from joblib import Parallel, delayed

    options = {"n_jobs": min(jobs, len(calls)), "return_as": "generator_unordered", "inner_max_num_threads": 1}
    # Largest caches first, so that no process is left alone with a large one at the end.
    order = sorted(range(len(calls)), key=lambda place: -calls[place].workspace.table.embeddings.size)
    sent = (
        delayed(_in_worker)(
            place,
            work,
            str(calls[place].workspace.root.resolve()),
            flat_values(calls[place].workspace.config.to_dict()),
            calls[place].workspace.device,
            calls[place].task,
        )
        for place in order
    )
    for place, result in Parallel(**options, backend="loky")(sent):
        yield calls[place], result


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


def _make_head(workspace: Workspace, task: Task) -> None:
    train_stage(task_source(workspace, task))


def _make_pairs(workspace: Workspace, task: Task) -> None:
    pair_stage(task_source(workspace, task))


def _make_bundle(workspace: Workspace, task: Task) -> None:
    bundle_stage(task_source(workspace, task), workspace.config.protocol.methods)


def _run_task(workspace: Workspace, task: Task) -> list[EvaluationRow]:
    return run_campaign(workspace, [task])


def _bundle_folder(call: _Call) -> Path:
    return bundle_folder(task_source(call.workspace, call.task), call.workspace.config.protocol.methods)


_STAGES: tuple[tuple[Callable[[_Call], Path], Callable[[Workspace, Task], None]], ...] = (
    (lambda call: train_folder(task_source(call.workspace, call.task)), _make_head),
    (lambda call: pair_folder(task_source(call.workspace, call.task)), _make_pairs),
    (_bundle_folder, _make_bundle),
)
"""Where each source stage keeps its output, and what makes it; in the order in which they need each other."""


def _features(variant: Workspace, name: str) -> int:
    if name != "dims":
        return 0
    trained, _ = train_stage(task_source(variant, plan(variant)[0]))
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


def _placed(point: Point, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": point.data,
        "group": point.setting.group,
        "setting": point.setting.label,
        "features": point.features,
        **entry,
    }

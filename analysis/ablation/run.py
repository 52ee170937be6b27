"""What an ablation gave: its settings with their results, and each setting against the reference setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from featlab.analysis.ablation.grids import Grid, Setting, make_grid, with_values
from featlab.config.load import flat_values
from featlab.errors import ConfigError
from featlab.evaluation.campaign import Task, plan, run_campaign, run_facts, task_source
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import common_subject_means
from featlab.evaluation.statistics import bootstrap_interval, holm, mean, paired_wilcoxon
from featlab.evaluation.summary import MethodSummary, summarise
from featlab.workspace.stages import bundle_folder, bundle_stage, pair_folder, pair_stage, train_folder, train_stage
from featlab.workspace.workspace import Workspace

CACHE_FACTS = ("cache_digest", "extractor")
"""Facts of a run that differ from data set to data set."""


@dataclass(frozen=True)
class Difference:
    """A setting against the reference setting of its group, one method, over the subjects that both have."""

    value: float
    ci95: tuple[float, float]
    p: float
    subjects: int


@dataclass(frozen=True, eq=False)
class Point:
    """One setting on one data set."""

    data: str
    setting: Setting
    features: int
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]


@dataclass(frozen=True, eq=False)
class AblationReport:
    """What an ablation gave."""

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

    @cached_property
    def differences(self) -> dict[tuple[str, str, str, str], Difference]:
        """(data set, group, setting, method) to the difference from the group's reference; a group without has none."""
        return {
            (data, group, label, method): difference
            for data in self.data_sets
            for group, points in self.groups(data).items()
            for method in self.grid.methods
            for label, difference in _differences(points, self.references[data], method).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: as `featlab evaluate`, each entry with its data set and setting."""
        first = next(iter(self.facts.values()))
        return {
            "ablation": self.grid.name,
            **first,
            "data_sets": {name: {key: facts[key] for key in CACHE_FACTS} for name, facts in self.facts.items()},
            "notes": list(self.notes),
            "results": [_placed(point, row.to_dict()) for point in self.points for row in point.rows],
            "summary": [_placed(point, item.to_dict()) for point in self.points for item in point.summaries],
        }


def _differences(points: Sequence[Point], label: str, method: str) -> dict[str, Difference]:
    """Return label to difference, for one method and every setting of a group but its reference."""
    reference = next((point for point in points if point.setting.label == label), None)
    others = [point for point in points if point is not reference]
    if reference is None or not others:
        return {}
    pairs = [list(common_subject_means(_of(point, method), _of(reference, method)).values()) for point in others]
    adjusted = holm([paired_wilcoxon([a for a, _ in both], [b for _, b in both]) for both in pairs])
    found = {}
    for point, both, p in zip(others, pairs, adjusted, strict=True):
        change = [a - b for a, b in both]
        found[point.setting.label] = Difference(mean(change), bootstrap_interval(change), p, len(change))
    return found


def _of(point: Point, method: str) -> list[EvaluationRow]:
    return [row for row in point.rows if row.method == method]


def _placed(point: Point, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": point.data,
        "group": point.setting.group,
        "setting": point.setting.label,
        "features": point.features,
        **entry,
    }


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
    tasks = [plan(variant) for _, _, variant in variants]
    calls = [(variant, task) for (_, _, variant), theirs in zip(variants, tasks, strict=True) for task in theirs]
    results = iter(run_calls(calls, jobs, on_step))
    points = []
    for (data, setting, variant), theirs in zip(variants, tasks, strict=True):
        rows = [row for part in islice(results, len(theirs)) for row in part]
        points.append(Point(data, setting, _features(variant, grids[data].name), tuple(rows), tuple(summarise(rows))))
    first = next(iter(grids.values()))
    return AblationReport(
        grid=first,
        references={data: grid.reference for data, grid in grids.items()},
        points=tuple(points),
        notes=_notes(grids, points),
        facts={data: run_facts(opened) for data, opened in data_sets.items()},
    )


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


OnStep = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps."""
Call = tuple[Workspace, Task]
"""A variant of a workspace, and one of its tasks."""


def run_calls(calls: Sequence[Call], jobs: int = 1, on_step: OnStep | None = None) -> list[list[EvaluationRow]]:
    """Return the rows of each call, in order; what an earlier run finished is read, not run."""
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

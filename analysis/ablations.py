"""Ablations: the same protocol again and again with one setting changed, and what it does to the score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featlab.analysis.render import write_table
from featlab.analysis.tables import MISSING, Table
from featlab.cache import atomic_write_text
from featlab.campaign import Task, plan, run_campaign, task_source, versions
from featlab.config import Config, flat_values
from featlab.errors import ConfigError
from featlab.methods import get_method
from featlab.results import EvaluationRow
from featlab.stages import pair_stage, train_stage
from featlab.summary import MethodSummary, summarise
from featlab.workspace import Workspace

__all__ = ["DIMS", "METHODS", "DimPoint", "DimsReport", "ablate_dims", "dims_data", "dims_table", "write_dims"]

DIMS = (64, 128, 256, 512, 0)
"""Dimensions of the poster's figure; 0 is the full size."""
METHODS = ("source-only", "neutral-shift", "referenced", "pft")

OnTask = Callable[[int, int], None]
"""Called with the number of finished tasks and of all tasks."""


@dataclass(frozen=True, eq=False)
class DimPoint:
    """One dimension.

    Attributes:
        dim: As asked for; 0 is the full size.
        kept: Features there were: fewer than asked for when the source rows span fewer directions.
        rows: Results.
        summaries: One a method.
    """

    dim: int
    kept: int
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]


@dataclass(frozen=True, eq=False)
class DimsReport:
    """Macro F1 against the dimension of the features.

    Attributes:
        points: In the order that was asked for.
        left_out: Dimensions that are larger than the embedding.
        embedding: D0, the embedding's length.
        config: The workspace's configuration; ``features.dim`` differs from point to point.
        cache_digest: Of the cache.
    """

    points: tuple[DimPoint, ...]
    left_out: tuple[int, ...]
    embedding: int
    config: Config
    cache_digest: str

    def notes(self) -> list[str]:
        """Return what should be said beside the numbers."""
        lines = []
        if self.left_out:
            dims = ", ".join(map(str, self.left_out))
            lines.append(f"left out: {dims}; the embedding has {self.embedding:,} values")
        lines += [
            f"{point.dim}: the source rows span {point.kept:,} directions, so that many were kept"
            for point in self.points
            if point.dim > point.kept
        ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: as `featlab evaluate`, each entry with its dimension."""
        return {
            "config": self.config.to_dict(),
            "cache_digest": self.cache_digest,
            "versions": versions(),
            "embedding": self.embedding,
            "left_out": list(self.left_out),
            "notes": self.notes(),
            "results": [_with_dim(point, row.to_dict()) for point in self.points for row in point.rows],
            "summary": [_with_dim(point, item.to_dict()) for point in self.points for item in point.summaries],
        }


def ablate_dims(
    workspace: Workspace,
    dims: Sequence[int] = DIMS,
    *,
    methods: Sequence[str] = METHODS,
    jobs: int = 1,
    on_task: OnTask | None = None,
) -> DimsReport:
    """Run the protocol once a dimension; cells that an earlier run finished are read, not run.

    The projection is fitted on source rows only, by ``features.reduce``.

    Args:
        workspace: Cache, protocol (targets, draws, seeds) and everything but ``features.dim``.
        dims: 0 is the full size; doubles and dimensions above the embedding's are left out.
        methods: Registry names.
        jobs: Processes, each with one thread; 1 works in this one.
        on_task: Progress over dimensions, draws and seeds.

    Raises:
        ConfigError: No dimension that can be had, an unknown method, or a dimension that reduces nothing.
    """
    embedding = workspace.table.dim
    kept = [dim for dim in dict.fromkeys(dims) if dim < embedding or (dim == embedding and 0 not in dims)]
    left_out = tuple(dim for dim in dict.fromkeys(dims) if dim > embedding)
    if not kept:
        raise ConfigError(
            f"no dimension of {', '.join(map(str, dims))} is there: the embedding has {embedding:,} values; "
            "0 stands for the full size"
        )
    if workspace.config.features.reduce == "none" and kept != [0]:
        raise ConfigError(
            'features.reduce = "none" keeps every value, whatever the dimension; choose another, e.g. pca'
        )
    variants = {dim: _variant(workspace, {"features.dim": dim, "protocol.methods": tuple(methods)}) for dim in kept}
    results = _run(variants, jobs, on_task)
    points = []
    for dim, variant in variants.items():
        first = plan(variant)[0]
        trained, _ = train_stage(task_source(variant, first))
        width = int(trained.projection.components.shape[1])
        points.append(DimPoint(dim, width, tuple(results[dim]), tuple(summarise(results[dim]))))
    base = _variant(workspace, {"protocol.methods": tuple(methods)}).config
    return DimsReport(tuple(points), left_out, embedding, base, workspace.cache_digest)


def dims_data(report: DimsReport) -> dict[str, list[Any]]:
    """Return the numbers of the figure: columns dim, kept, method, macro_f1, low, high (fractions), subjects."""
    entries = [(point, item) for point in report.points for item in point.summaries]
    return {
        "dim": [point.dim for point, _ in entries],
        "kept": [point.kept for point, _ in entries],
        "method": [item.method for _, item in entries],
        "macro_f1": [item.macro_f1 for _, item in entries],
        "low": [item.ci95[0] for _, item in entries],
        "high": [item.ci95[1] for _, item in entries],
        "subjects": [item.subjects for _, item in entries],
    }


def dims_table(report: DimsReport) -> Table:
    """Return one line a dimension: macro F1 (%) of each method with its interval; the best of a line is bold."""
    cells, bold = [], []
    for point in report.points:
        # Compared as they are shown, so that what looks equal is equal. Oracles don't compete.
        means = [
            float("nan") if item.selection == "oracle" else round(100 * item.macro_f1, 2) for item in point.summaries
        ]
        best = max((mean for mean in means if not math.isnan(mean)), default=None)
        cells.append((_dim_name(point), *(_score(item) for item in point.summaries)))
        bold.append((False, *(mean == best for mean in means)))
    names = [get_method(item.method).title for item in report.points[0].summaries]
    return Table(
        title=f"Macro F1 against the dimension of the features ({report.config.features.reduce})",
        columns=("Dimension", *names),
        rows=tuple(cells),
        bold=tuple(bold),
        notes=("Mean over target subjects and its 95 % bootstrap interval.", *report.notes()),
    )


def write_dims(folder: Path, report: DimsReport) -> list[Path]:
    """Write ``dims.svg``, ``dims.png``, their numbers as ``dims.csv``, ``table.md``, ``table.tex`` and ``run.json``.

    Returns:
        The files, those to look at first.
    """
    from featlab.analysis.plot_ablation import plot_dims
    from featlab.analysis.style import save_data, save_figure

    data = dims_data(report)
    drawn = plot_dims(data, names={name: get_method(name).title for name in dict.fromkeys(data["method"])})
    written = [folder / name for name in ("dims.svg", "dims.png")]
    for path in written:
        save_figure(drawn, path)
    written.append(save_data(folder / "dims.svg", data))
    for ending in ("md", "tex"):
        written.append(folder / f"table.{ending}")
        write_table(written[-1], dims_table(report))
    written.append(folder / "run.json")
    atomic_write_text(written[-1], json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return written


def _run(variants: Mapping[int, Workspace], jobs: int, on_task: OnTask | None) -> dict[int, list[EvaluationRow]]:
    calls = [(dim, task) for dim, variant in variants.items() for task in plan(variant)]
    results: dict[int, dict[Task, list[EvaluationRow]]] = {dim: {} for dim in variants}
    for done, (dim, task, rows) in enumerate(_results(variants, calls, min(jobs, len(calls))), start=1):
        results[dim][task] = rows
        if on_task is not None:
            on_task(done, len(calls))
    return {dim: [row for task in plan(variants[dim]) for row in results[dim][task]] for dim in variants}


def _results(
    variants: Mapping[int, Workspace], calls: Sequence[tuple[int, Task]], jobs: int
) -> Iterator[tuple[int, Task, list[EvaluationRow]]]:
    if jobs <= 1:
        for dim, task in calls:
            yield dim, task, run_campaign(variants[dim], [task])
        return
    from joblib import Parallel, delayed

    # Pairs don't depend on the dimension. Made once here, no two processes write the same ones.
    first = next(iter(variants.values()))
    for task in plan(first):
        pair_stage(task_source(first, task))
    work = (
        delayed(_run_in_worker)(
            variants[dim].root.resolve(), flat_values(variants[dim].config.to_dict()), variants[dim].device, dim, task
        )
        for dim, task in calls
    )
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered", inner_max_num_threads=1, backend="loky")(work)


def _run_in_worker(
    root: Path, values: Mapping[str, Any], device: str, dim: int, task: Task
) -> tuple[int, Task, list[EvaluationRow]]:
    import torch

    torch.set_num_threads(1)
    return dim, task, run_campaign(Workspace.open(root, values, device=device), [task])


def _variant(workspace: Workspace, values: Mapping[str, Any]) -> Workspace:
    return replace(workspace, config=workspace.config.with_values(values, "ablation"))


def _with_dim(point: DimPoint, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"dim": point.dim, "features": point.kept, **entry}


def _dim_name(point: DimPoint) -> str:
    return f"{point.dim}" if point.dim else f"full ({point.kept:,})"


def _score(item: MethodSummary) -> str:
    if math.isnan(item.macro_f1):
        return MISSING
    low, high = item.ci95
    interval = "" if math.isnan(low) else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * item.macro_f1:.2f}{interval}"

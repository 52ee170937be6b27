"""Choose a method's options on source subjects: in each fold some of them play targets, the others are the source.

Every candidate of a fold starts from the same source model. Work is dealt in portions of a fold and some candidates; a
finished (fold, candidate, subject) cell is a file of its own, and the next run reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from featlab.bundle.bundle import Bundle
from featlab.config.load import flat_values
from featlab.errors import ConfigError, FeatlabError
from featlab.evaluation.cells import read_cell, write_cell
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.run import RunNumbers, evaluate_dataset, evaluate_subject, failed_rows
from featlab.evaluation.tuning_people import Fold, SourceSide, cannot_play, deal_folds, fold_source, read_subjects
from featlab.evaluation.tuning_space import Candidate, SearchSpace, choose_candidates
from featlab.methods import get_method
from featlab.methods.base import SourceFeatures
from featlab.seeding import stable_hash
from featlab.workspace.stages import STAGE_FORMAT, bundle_stage
from featlab.workspace.workspace import Workspace

__all__ = ["Cell", "TuningPlan", "cell_paths", "finished_cells", "plan_tuning", "run_tuning"]

CELL_FORMAT = 1
"""Raised when rows of before lack what tables now show."""

_CHUNK = 4
"""Candidates in a portion: few enough to keep all processes busy to the end, and each reads its bundle once."""

Cell = tuple[int, str]
"""Number of a candidate, and a subject; the subject says which fold."""

OnCells = Callable[[int, int], None]
"""Called with the number of finished cells and of all cells."""


@dataclass(frozen=True, eq=False)
class TuningPlan:
    """What is run.

    Attributes:
        side: The source subjects.
        space: What is searched.
        candidates: The configurations that are tried, the default first.
        folds: Who plays a target when.
        bystanders: Source subjects who can't play a target, each with the reason; they are trained on in every fold.
    """

    side: SourceSide
    space: SearchSpace
    candidates: tuple[Candidate, ...]
    folds: tuple[Fold, ...]
    bystanders: Mapping[str, str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Validation subjects, fold by fold."""
        return tuple(name for fold in self.folds for name in fold.subjects)


def plan_tuning(side: SourceSide, space: SearchSpace, *, trials: int = 24, folds: int = 4) -> TuningPlan:
    """Deal the folds and choose the candidates.

    Args:
        side: The source subjects; its configuration's ``protocol`` has scope, gap and seed.
        space: What is searched.
        trials: Most candidates.
        folds: How many.

    Raises:
        ConfigError: Nothing to choose from, or a method that can't be given a data set.
        InputError: Too few source subjects.
    """
    protocol = side.workspace.config.protocol
    if protocol.scope == "dataset" and get_method(space.method).needs_neutral:
        raise ConfigError(
            f"{space.method} takes one person's neutral clip, and a data set of people and classes is none; "
            "leave out --scope dataset"
        )
    bystanders = cannot_play(side.workspace.table, protocol.scope, protocol.gap)
    players = [name for name in side.subjects if name not in bystanders]
    dealt = deal_folds(side.subjects, players, folds, protocol.seed)
    return TuningPlan(side, space, choose_candidates(space, trials, protocol.seed), dealt, bystanders)


def cell_paths(plan: TuningPlan, fold: Fold) -> dict[Cell, Path]:
    """Return where each cell of a fold is kept, named by a hash of all that its numbers hang on."""
    workspace = plan.side.workspace
    config, protocol = workspace.config, workspace.config.protocol
    source_key = fold_source(workspace, fold).key("source")
    # In a data set every player's rows are adapted on: all of them are part of each cell.
    scope = (protocol.scope, *(fold.subjects if protocol.scope == "dataset" else ()))
    shared = (STAGE_FORMAT, CELL_FORMAT, source_key, config.features, config.head, config.pair, config.pretrain)
    # Not relative: a worker process may have been started in another folder.
    folder = workspace.root.resolve() / "results" / "tune-cells" / plan.space.method
    paths = {}
    for candidate in plan.candidates:
        settings = plan.space.make(candidate.values).config
        for subject in fold.subjects:
            key = stable_hash(*shared, protocol.gap, *scope, subject, plan.space.method, settings)[:16]
            paths[candidate.number, subject] = folder / f"{key}.jsonl"
    return paths


def finished_cells(plan: TuningPlan) -> int:
    """Return how many of the plan's cells an earlier run finished."""
    return sum(path.exists() for fold in plan.folds for path in cell_paths(plan, fold).values())


def run_tuning(plan: TuningPlan, *, jobs: int = 1, on_cells: OnCells | None = None) -> dict[Cell, EvaluationRow]:
    """Run every cell; those that an earlier run finished are read, not run.

    Args:
        plan: What.
        jobs: Processes, each with one thread; 1 works in this one.
        on_cells: Progress; called first with the cells that were there.

    Returns:
        A row for each candidate and validation subject, in the order of the plan. A failed run is a row with its error,
        and is tried again the next time.
    """
    done: dict[Cell, EvaluationRow] = {}
    portions: list[_Portion] = []
    for fold in plan.folds:
        paths = cell_paths(plan, fold)
        done |= {cell: row for cell, path in paths.items() if (row := read_cell(path)) is not None}
        portions += _portions(plan, fold, {cell: path for cell, path in paths.items() if cell not in done})
    count = len(plan.candidates) * len(plan.subjects)
    if on_cells is not None:
        on_cells(len(done), count)
    for rows in _results(plan, portions, jobs):
        done |= rows
        if on_cells is not None:
            on_cells(len(done), count)
    return {(item.number, name): done[item.number, name] for item in plan.candidates for name in plan.subjects}


@dataclass(frozen=True)
class _Portion:
    """Work for one process at a time.

    Attributes:
        fold: Whose source model it takes.
        space: Makes the candidates' methods.
        candidates: Some of them.
        missing: Their cells that are to be run, and where each is kept.
    """

    fold: Fold
    space: SearchSpace
    candidates: tuple[Candidate, ...]
    missing: Mapping[Cell, Path]


def _portions(plan: TuningPlan, fold: Fold, missing: Mapping[Cell, Path]) -> list[_Portion]:
    numbers = {number for number, _ in missing}
    lacking = [candidate for candidate in plan.candidates if candidate.number in numbers]
    portions = []
    for start in range(0, len(lacking), _CHUNK):
        part = tuple(lacking[start : start + _CHUNK])
        mine = {item.number for item in part}
        portions.append(
            _Portion(fold, plan.space, part, {cell: path for cell, path in missing.items() if cell[0] in mine})
        )
    return portions


def _results(plan: TuningPlan, portions: Sequence[_Portion], jobs: int) -> Iterator[dict[Cell, EvaluationRow]]:
    workspace = plan.side.workspace
    jobs = min(jobs, len(portions))
    if jobs <= 1:
        bundles: dict[Fold, Bundle] = {}
        for portion in portions:
            if portion.fold not in bundles:
                bundles = {portion.fold: _bundle(workspace, portion)}
            yield from _run(workspace, bundles[portion.fold], portion)
        return
    from joblib import Parallel, delayed

    settings = json.dumps(flat_values(workspace.config.to_dict()))
    where = (str(workspace.root.resolve()), settings, workspace.device, plan.side.subjects)
    options = {"n_jobs": jobs, "return_as": "generator_unordered", "inner_max_num_threads": 1, "backend": "loky"}
    # Source models first, each once: two processes that need the same one would both train it.
    firsts = {portion.fold: portion for portion in reversed(portions)}
    for _ in Parallel(**options)(delayed(_train_in_worker)(*where, portion) for portion in firsts.values()):
        pass
    for rows in Parallel(**options)(delayed(_run_in_worker)(*where, portion) for portion in portions):
        yield from rows


@lru_cache(maxsize=1)
def _worker_workspace(root: str, settings: str, device: str, subjects: tuple[str, ...]) -> Workspace:
    """Open the workspace once a process: a cache can be large."""
    import torch

    torch.set_num_threads(1)
    return read_subjects(Path(root), json.loads(settings), subjects, device=device)


def _train_in_worker(root: str, settings: str, device: str, subjects: tuple[str, ...], portion: _Portion) -> None:
    _bundle(_worker_workspace(root, settings, device, subjects), portion)


def _run_in_worker(
    root: str, settings: str, device: str, subjects: tuple[str, ...], portion: _Portion
) -> list[dict[Cell, EvaluationRow]]:
    workspace = _worker_workspace(root, settings, device, subjects)
    return list(_run(workspace, _bundle(workspace, portion), portion))


def _bundle(workspace: Workspace, portion: _Portion) -> Bundle:
    bundle, _ = bundle_stage(fold_source(workspace, portion.fold), (portion.space.method,))
    return bundle


def _run(workspace: Workspace, bundle: Bundle, portion: _Portion) -> Iterator[dict[Cell, EvaluationRow]]:
    """Run what a portion lacks, and keep each row as soon as it is there."""
    protocol = workspace.config.protocol
    source = None
    if get_method(portion.space.method).needs_source:
        source = SourceFeatures.of(bundle, fold_source(workspace, portion.fold).table)
    numbers = RunNumbers(scope=protocol.scope)
    for called, subjects in _calls(portion, protocol.scope):
        methods = [portion.space.make(candidate.values) for candidate in called]
        table = workspace.table.rows_of(*subjects)
        evaluate = evaluate_dataset if protocol.scope == "dataset" else evaluate_subject
        try:
            rows = evaluate(bundle, table, methods, source=source, numbers=numbers, gap=protocol.gap)
        except FeatlabError as error:
            rows = [row for method in methods for row in failed_rows(method, subjects, numbers, error)]
        # A row a method and subject, method by method: what tells candidates apart is their place alone.
        cells = {(called[place // len(subjects)].number, row.subject): row for place, row in enumerate(rows)}
        lacking = {cell: row for cell, row in cells.items() if cell in portion.missing}
        for cell, row in lacking.items():
            write_cell(portion.missing[cell], row)
        yield lacking


def _calls(portion: _Portion, scope: str) -> list[tuple[list[Candidate], tuple[str, ...]]]:
    """Return which candidates to run on which players at once."""
    if scope == "dataset":
        # One subject without a row means that the candidate is run again, for all of them.
        return [([candidate], portion.fold.subjects) for candidate in portion.candidates]
    calls: list[tuple[list[Candidate], tuple[str, ...]]] = []
    for name in portion.fold.subjects:
        lacking = [candidate for candidate in portion.candidates if (candidate.number, name) in portion.missing]
        if lacking:
            calls.append((lacking, (name,)))
    return calls

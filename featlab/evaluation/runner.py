"""Evaluate methods on targets, in parallel, keeping every finished run for the next time.

A run is one method on one target subject. A task is one source model and the runs that start from it. Source models are
made first, each once; then workers take one method on one target (scope ``person``) or on all (``dataset``) at a time.
Every finished run is a file of its own, named by a hash of all that its numbers depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

from featlab.bundle.bundle import Bundle
from featlab.bundle.files import read_json, write_json
from featlab.cache.atomic import folders_synced_last
from featlab.compute import stable_hash
from featlab.config.analysis import EngineConfig
from featlab.engine import LOCAL, run_all
from featlab.errors import ConfigError, FeatlabError, UnfinishedError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.run import RunNumbers, evaluate_subject, failed_rows
from featlab.methods.base import Method, SourceFeatures
from featlab.methods.registry import make_method
from featlab.protocol.splits import reduced_split, split_target
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Notify, Source, Workspace, bundle_folder

RUN_FORMAT = 6  # raised when older files lack what tables now show
OnStep = Callable[[int, int], None]
"""Called with the number of finished steps and of all steps: a step is a run, or a source model."""


class Run(NamedTuple):
    """One method on one target subject, in one draw of targets, with one seed."""

    subject: str
    draw: int
    seed: int
    method: str


@dataclass(frozen=True, eq=False)
class Task:
    """One source model and the runs that start from it; equal to another task that starts from the same model.

    ``methods`` are in the order of the table; of one method, several candidates have a name each. ``folder`` is that
    under ``results/`` which keeps the runs. ``count_flops`` counts the operations of every method on one target.
    """

    source: Source
    targets: tuple[str, ...]
    methods: Mapping[str, Method]
    draw: int = 0
    seed: int = 0
    folder: str = "runs"
    count_flops: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)

    @cached_property
    def model(self) -> Path:
        """Folder of the source model."""
        return bundle_folder(self.source, self.prepares)

    @property
    def workspace(self) -> Workspace:
        """Whose source and targets they are."""
        return self.source.workspace

    @property
    def prepares(self) -> tuple[str, ...]:
        """Registry names of the methods, each once."""
        return tuple(dict.fromkeys(method.name for method in self.methods.values()))

    @cached_property
    def _made_from(self) -> dict[str, str]:
        """What each method's runs start from, as if the source model were made for it alone: others change no run."""
        return {name: bundle_folder(self.source, (name,)).name for name in self.prepares}

    @property
    def runs(self) -> list[Run]:
        """The runs, by method and then by subject."""
        return [Run(subject, self.draw, self.seed, name) for name in self.methods for subject in self.targets]

    def path(self, run: Run) -> Path:
        """Return where a finished run is kept."""
        method, protocol = self.methods[run.method], self.workspace.config.protocol
        # In a data set every subject's rows are adapted on: all of them are part of each run.
        scope = (protocol.scope, *(self.targets if protocol.scope == "dataset" else ()))
        clip = (protocol.gap, protocol.frames, protocol.contamination, protocol.smoothing)
        what = (run.draw, run.seed, run.subject, method.name, method.config)
        name = f"{stable_hash(RUN_FORMAT, self._made_from[method.name], *scope, *clip, *what)[:16]}.jsonl"
        # Not relative: a worker process may have been started in another folder.
        return self.workspace.root.resolve() / "results" / self.folder / method.name / name


class Where(TypedDict, total=False):
    """How tasks are run: the options of `run_tasks`."""

    jobs: int
    engine: EngineConfig
    share: tuple[int, int]
    collect: bool
    on_step: OnStep | None


def plan(workspace: Workspace) -> list[Task]:
    """Return the tasks that the protocol asks for, draw by draw; refuse settings that can't be run together.

    A target that was asked for by name must have adapt and test rows; one that is only drawn is a failed run.
    """
    config, protocol = workspace.config, workspace.config.protocol
    methods = {name: make_method(name, config.adapt.options) for name in protocol.methods}
    for name in ("frames", "contamination"):
        if protocol.scope == "dataset" and getattr(protocol, name):
            raise ConfigError(f"protocol.{name} is for one person's clip, which the scope dataset hasn't; leave it out")
    if not protocol.targets.strip().isdecimal():
        if protocol.draws > 1:
            raise ConfigError(
                f"protocol.draws = {protocol.draws}, but the targets are named: every draw would be the same; "
                "give --targets a number, or leave out --draws"
            )
        for subject in workspace.targets() if protocol.scope == "person" else ():
            rows = workspace.table.rows_of(subject)
            clip = split_target(rows, protocol.gap)
            reduced_split(rows, clip, protocol.seed, frames=protocol.frames, contamination=protocol.contamination)
    tasks = []
    for draw in range(protocol.draws):
        targets = workspace.targets(draw)
        source = workspace.source(targets)
        for seed in range(protocol.seeds):
            seeded = replace(source, seed=protocol.seed + seed)
            tasks.append(Task(seeded, targets, methods, draw, seed, count_flops=draw == seed == 0))
    return tasks


def count_finished(tasks: Sequence[Task]) -> int:
    """Return how many of the tasks' runs an earlier call finished."""
    return sum(task.path(run).exists() for task in tasks for run in task.runs)


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    engine: EngineConfig = LOCAL,
    share: tuple[int, int] = (1, 1),
    collect: bool = False,
    on_step: OnStep | None = None,
) -> list[dict[Run, EvaluationRow]]:
    """Run every task, and return run to row for each; what an earlier call finished is read, not run.

    ``jobs`` and ``engine`` say where, see `featlab.engine.run_all`. ``share`` = (i, n) does the i-th of n parts of
    the work, for n machines that share the folder; ``collect`` runs nothing. Both read other runs where they are there.
    A failed run is a row with its error, and is tried again; one that another share or a later call fills has no row.
    """
    done = [_finished({run: task.path(run) for run in task.runs}, task.workspace.notify) for task in tasks]
    work = () if collect else enumerate(tasks)
    pieces = [piece for place, task in work for piece in _pieces(place, task, done[place], share)]
    # The largest caches first: no worker is left alone with one at the end.
    pieces.sort(key=lambda piece: -piece.task.workspace.table.embeddings.size)
    models = [task for task in dict.fromkeys(piece.task for piece in pieces) if not task.model.exists()]
    steps = sum(len(task.runs) for task in tasks) + len(models)
    finished = sum(map(len, done))

    def step(count: int) -> None:
        nonlocal finished
        finished += count
        if on_step is not None:
            on_step(finished, steps)

    step(0)
    folder = tasks[0].workspace.root / "engine" if tasks else Path()
    try:
        for _ in run_all(_make_model, models, jobs=jobs, engine=engine, folder=folder):
            step(1)
        with folders_synced_last():
            for place, rows in run_all(_run, pieces, jobs=jobs, engine=engine, folder=folder, light=True):
                done[place] |= rows
                step(len(rows))
    finally:
        _bundle.cache_clear()
        _source_rows.cache_clear()
    return [{run: rows[run] for run in task.runs if run in rows} for task, rows in zip(tasks, done, strict=True)]


def refuse_unfinished(tasks: Sequence[Task], done: Sequence[Mapping[Run, EvaluationRow]]) -> None:
    """Raise an UnfinishedError where tasks lack runs: what is made of all of them can't be made yet."""
    runs, there = sum(len(task.runs) for task in tasks), sum(map(len, done))
    if there < runs:
        raise UnfinishedError(
            f"{there} of {runs} runs are there; when all shares have run, the same command with --collect goes on"
        )


@dataclass(frozen=True)
class _Piece:
    """Work for one process at a time: a method on these subjects, of the task at one place of the list."""

    place: int
    task: Task
    subjects: tuple[str, ...]
    method: str
    count_flops: bool


def _pieces(place: int, task: Task, done: Mapping[Run, EvaluationRow], share: tuple[int, int]) -> Iterator[_Piece]:
    """Yield this share of what a task lacks: the methods of a target, or in a data set a method for all targets."""
    missing = {(run.subject, run.method) for run in task.runs if run not in done}
    mine, of = share
    if task.workspace.config.protocol.scope == "dataset":
        for number, name in enumerate(task.methods):
            # One subject without a row means that the method is run again, for all of them.
            if number % of == mine - 1 and any((subject, name) in missing for subject in task.targets):
                yield _Piece(place, task, task.targets, name, task.count_flops)
        return
    for number, subject in enumerate(task.targets):
        if (number + task.draw + task.seed) % of == mine - 1:
            for name in task.methods:
                if (subject, name) in missing:
                    # Operations depend on the number of frames and little else: one target is enough.
                    yield _Piece(place, task, (subject,), name, task.count_flops and number == 0)


def _make_model(task: Task) -> None:
    """Make a source model; it stays on disk, since it can't be sent to another process."""
    bundle_stage(task.source, task.prepares)


@lru_cache(maxsize=1)
def _bundle(task: Task) -> Bundle:
    """Return the source model, kept for the next piece of the same task."""
    return bundle_stage(task.source, task.prepares)[0]


@lru_cache(maxsize=1)
def _source_rows(task: Task) -> SourceFeatures:
    return SourceFeatures.of(_bundle(task), task.source.table)


def _run(piece: _Piece) -> tuple[int, dict[Run, EvaluationRow]]:
    """Run a piece, and keep its rows as soon as they are there."""
    task, protocol = piece.task, piece.task.workspace.config.protocol
    runs = [Run(subject, task.draw, task.seed, piece.method) for subject in piece.subjects]
    paths = {run: task.path(run) for run in runs}
    done = _finished(paths)  # Settings that change nothing here share their runs, and so do machines.
    if len(done) == len(paths):
        return piece.place, done
    bundle, table = _bundle(task), task.workspace.table.rows_of(*piece.subjects)
    clip = (protocol.smoothing, protocol.gap, protocol.frames, protocol.contamination)
    numbers = RunNumbers(task.draw, task.seed, protocol.scope, piece.count_flops, *clip)
    method = task.methods[piece.method]
    source = _source_rows(task) if method.needs_source else None
    try:
        rows = evaluate_subject(bundle, table, [method], source=source, numbers=numbers)
    except FeatlabError as error:
        rows = failed_rows(method, piece.subjects, numbers, error)
    done = {Run(row.subject, task.draw, task.seed, piece.method): row for row in rows}
    for run, row in done.items():
        # One that failed is not kept, so that the next call tries it again.
        if not row.error:
            write_json(paths[run], {**row.to_dict(), "key": paths[run].stem}, indent=None)
    return piece.place, done


def _finished(paths: Mapping[Run, Path], notify: Notify = lambda line: None) -> dict[Run, EvaluationRow]:
    """Read the runs that are finished; one whose file is damaged, or another run's, is not, which is told."""
    rows = {}
    for run, path in paths.items():
        try:
            stored = read_json(path)
            # An older featlab wrote neither a key nor a digest.
            if stored.pop("key", path.stem) != path.stem:
                raise ValueError("of another run")
            rows[run] = EvaluationRow.from_dict(stored)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            notify(f"{path}: damaged, or another run's; it counts as missing")
    return rows

"""Choose a method's options on source subjects: in each fold some of them play targets, the others are the source.

Every candidate of a fold starts from the same source model; what is finished is kept by `featlab.evaluation.runner`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from featlab.cache.table import FeatureTable
from featlab.errors import ConfigError, InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.runner import Run, Task, Where, refuse_unfinished, run_tasks
from featlab.evaluation.tuning_space import Candidate, SearchSpace, choose_candidates
from featlab.methods.registry import get_method
from featlab.protocol.splits import check_disjoint, check_known, split_target
from featlab.seeding import run_seed
from featlab.workspace.workspace import Notify, Workspace

Rows = Mapping[int, Mapping[str, EvaluationRow]]
"""Number of a candidate to subject to row."""


@dataclass(frozen=True, eq=False)
class TuningPlan:
    """What is run."""

    side: SourceSide  # The source subjects.
    space: SearchSpace  # What is searched.
    candidates: tuple[Candidate, ...]  # The configurations that are tried, the default first.
    folds: tuple[Fold, ...]  # Who plays a target when.
    # Source subjects who can't play a target, each with the reason; they are trained on in every fold.
    bystanders: Mapping[str, str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Validation subjects, fold by fold."""
        return tuple(name for fold in self.folds for name in fold.subjects)

    @property
    def tasks(self) -> list[Task]:
        """A task for each fold; in its runs a candidate goes by its number."""
        config = self.side.workspace.config
        # Options are chosen on whole clips: how a table of results is made is nothing to the choice.
        whole = replace(config.protocol, frames=0, contamination=0.0, smoothing=0)
        workspace = replace(self.side.workspace, config=replace(config, protocol=whole))
        source = workspace.source(())
        methods = {str(candidate.number): self.space.make(candidate.values) for candidate in self.candidates}
        return [
            Task(
                workspace,
                tuple(name for name in source.subjects if name not in fold.subjects),
                source.seed,
                fold.subjects,
                methods,
                folder="tune-runs",
            )
            for fold in self.folds
        ]


def plan_tuning(side: SourceSide, space: SearchSpace, *, trials: int = 24, folds: int = 4) -> TuningPlan:
    """Deal the folds and choose the candidates; the configuration's ``protocol`` has scope, gap and seed."""
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


def run_tuning(plan: TuningPlan, **where: Unpack[Where]) -> Rows:
    """Run every candidate on every validation subject; what an earlier call finished is read, not run.

    A failed run is a row with its error, and is tried again the next time. ``where`` are the options of `run_tasks`; an
    UnfinishedError says that other shares have not run yet.
    """
    done = run_tasks(plan.tasks, **where)
    refuse_unfinished(plan.tasks, done)
    rows = {run: row for part in done for run, row in part.items()}
    return {
        candidate.number: {name: rows[Run(name, 0, 0, str(candidate.number))] for name in plan.subjects}
        for candidate in plan.candidates
    }


@dataclass(frozen=True, eq=False)
class SourceSide:
    """A workspace that holds source subjects and nobody else."""

    workspace: Workspace  # Its table has the rows of the source subjects alone; names are those of the whole cache.
    # Names of everyone who is a target in one of the draws, or in the pool that they are drawn from; their rows were
    # not read.
    reported: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the source subjects."""
        names: tuple[str, ...] = self.workspace.table.subject_names_present()
        return names


@dataclass(frozen=True)
class Fold:
    """Source subjects who play targets for the others."""

    number: int  # From 0; numbers of folds that nobody fell into are missing.
    subjects: tuple[str, ...]  # Names, ascending.


def open_sources(
    root: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    sources: Sequence[str] = (),
    device: str = "cpu",
    notify: Notify | None = None,
) -> SourceSide:
    """Read the configuration, and from the cache the rows of everyone who is a target in no draw.

    ``protocol.targets``, ``draws`` and ``pool`` say who is reported; ``sources`` narrows who is left.
    """
    # Names alone: targets are chosen by name.
    names = read_subjects(root, overrides, (), device=device, notify=notify)
    protocol = names.config.protocol
    drawn = {name for draw in range(protocol.draws) for name in names.targets(draw)}
    # The pool is kept for reporting, drawn or not.
    reported = tuple(sorted(drawn | set(names.pool())))
    asked = tuple(sources) or protocol.sources
    everyone = names.table.subjects
    check_known(asked, everyone)
    check_disjoint(asked, reported)
    left = [name for name in asked or everyone if name not in set(reported)]
    if not left:
        raise InputError(
            f"all {len(everyone)} subjects are targets in one of the {protocol.draws} draws, and nobody is left to "
            "tune on; choose fewer --targets or --draws"
        )
    return SourceSide(read_subjects(root, overrides, left, device=device, notify=notify), reported)


def read_subjects(
    root: Path,
    overrides: Mapping[str, Any] | None,
    subjects: Sequence[str],
    *,
    device: str = "cpu",
    notify: Notify | None = None,
) -> Workspace:
    """Open a workspace with the rows of some subjects; of the others, names and codes are all that is read."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; make a workspace there with `featlab init {root}`")
    return Workspace.open(root, overrides, subjects=subjects, device=device, notify=notify)


def cannot_play(table: FeatureTable, scope: str, gap: int) -> dict[str, str]:
    """Return the subjects who can't play a target, each with the reason; they stay sources in every fold."""
    reasons = {}
    for name in table.subject_names_present():
        rows = table.rows_of(name)
        try:
            tested = rows.label[split_target(rows, gap).test] if scope == "person" else rows.label
        except InputError as error:
            reasons[name] = str(error)
            continue
        if (tested < 0).all():
            reasons[name] = f"subject {name!r} has no labelled rows to test on"
    return reasons


def deal_folds(subjects: Sequence[str], players: Collection[str], count: int, seed: int) -> tuple[Fold, ...]:
    """Deal those who play targets into folds, each by a hash of the seed and the own name; empty folds are left out.

    A subject who comes or goes moves nobody else; that is why the folds are not all of one size.
    """
    if count < 2:
        raise InputError(f"--folds {count}: the one fold would leave nobody to train on; choose 2 or more")
    if len(players) < 2:
        raise InputError(
            f"{len(players)} of the {len(subjects)} source subjects can play a target, and tuning needs 2 or more; "
            "choose fewer --targets or --draws, or extract more people"
        )
    dealt: dict[int, list[str]] = {}
    for name in sorted(players):
        dealt.setdefault(run_seed("tuning fold", seed, name) % count, []).append(name)
    folds = tuple(Fold(number, tuple(dealt[number])) for number in sorted(dealt))
    for fold in folds:
        left = len(subjects) - len(fold.subjects)
        if left < 2:
            raise InputError(
                f"{len(fold.subjects)} of the {len(subjects)} source subjects fall into one fold, which leaves {left} "
                "to train on; give more --folds or another --seed"
            )
    return folds

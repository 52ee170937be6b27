"""Choose a method's options on source subjects: in each fold some of them play targets, the others are the source.

Every candidate of a fold starts from the same source model; what is finished is kept by `featlab.evaluation.runner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from featlab.errors import ConfigError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.runner import OnStep, Run, Task, run_tasks
from featlab.evaluation.tuning_people import Fold, SourceSide, cannot_play, deal_folds
from featlab.evaluation.tuning_space import Candidate, SearchSpace, choose_candidates
from featlab.methods import get_method

__all__ = ["Rows", "TuningPlan", "plan_tuning", "run_tuning"]

Rows = Mapping[int, Mapping[str, EvaluationRow]]
"""Number of a candidate to subject to row."""


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
                folder="tune-cells",
            )
            for fold in self.folds
        ]


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


def run_tuning(plan: TuningPlan, *, jobs: int = 1, on_step: OnStep | None = None) -> Rows:
    """Run every candidate on every validation subject; what an earlier call finished is read, not run.

    Args:
        plan: What.
        jobs: Processes, each with one thread; 1 works in this one.
        on_step: Progress; called first with the runs that are there.

    Returns:
        The rows, in the order of the plan. A failed run is a row with its error, and is tried again the next time.
    """
    rows = {run: row for done in run_tasks(plan.tasks, jobs=jobs, on_step=on_step) for run, row in done.items()}
    return {
        candidate.number: {name: rows[Run(name, 0, 0, str(candidate.number))] for name in plan.subjects}
        for candidate in plan.candidates
    }

"""What a tuning found, and all that is needed to find it again: what ``run.json`` and ``--json`` hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featlab.evaluation.results import versions
from featlab.evaluation.tuning import Rows, TuningPlan
from featlab.evaluation.tuning_space import value_text
from featlab.evaluation.tuning_trials import Trial, beats_default, choose, score_trials, unscored_subjects, verdict

__all__ = ["TuningReport", "report_tuning"]


@dataclass(frozen=True, eq=False)
class TuningReport:
    """A finished tuning.

    Attributes:
        plan: What was run.
        trials: A line a candidate, in the order of the plan.
        unscored: Validation subjects on whom every candidate failed, each with a reason; they are in nobody's mean.
        failed: Runs that ended in an error.
        command: What was typed.
    """

    plan: TuningPlan
    trials: tuple[Trial, ...]
    unscored: Mapping[str, str]
    failed: int
    command: str

    @property
    def method(self) -> str:
        """Registry name."""
        return self.plan.space.method

    @property
    def default(self) -> Trial:
        """The method as it comes."""
        return self.trials[0]

    @property
    def chosen(self) -> Trial | None:
        """The choice; ``None`` when every candidate failed somewhere."""
        return choose(self.trials)

    @property
    def options(self) -> dict[str, Any]:
        """Return the chosen options in their own types, those that the command line fixed first; empty without any."""
        if self.chosen is None:
            return {}
        config = self.plan.space.make(self.chosen.options).config
        return {name: getattr(config, name) for name in (*self.plan.space.fixed, *self.chosen.options)}

    @property
    def flags(self) -> list[str]:
        """Words that set the chosen options on a command line."""
        settings = (f"adapt.{self.method}.{name}={value_text(value)}" for name, value in self.options.items())
        return [word for setting in settings for word in ("--set", setting)]

    @property
    def verdict(self) -> str:
        """What may be said of the choice against the default."""
        if self.chosen is None:
            return "Nothing was chosen: every candidate failed on a validation subject."
        return verdict(self.chosen, self.trials)

    def facts(self) -> dict[str, Any]:
        """Return what made the numbers, JSON-ready."""
        plan, space, workspace = self.plan, self.plan.space, self.plan.side.workspace
        return {
            "command": self.command,
            "method": self.method,
            "config": workspace.config.to_dict(),
            "cache_digest": workspace.cache_digest,
            "versions": versions(),
            "space": {name: list(values) for name, values in space.options},
            "grid": space.size,
            "fixed": dict(space.fixed),
            "folds": [{"number": fold.number, "subjects": list(fold.subjects)} for fold in plan.folds],
            "sources": list(plan.side.subjects),
            "never_targets": dict(plan.bystanders),
            "not_scored": dict(self.unscored),
            "reported_targets": list(plan.side.reported),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the facts, the trials and the choice, JSON-ready."""
        choice = None
        if self.chosen is not None:
            choice = {
                "number": self.chosen.number,
                "options": self.options,
                "flags": self.flags,
                "macro_f1": self.chosen.macro_f1,
                "better_than_default": beats_default(self.chosen),
            }
        trials = [trial.to_dict() for trial in self.trials]
        return self.facts() | {"trials": trials, "chosen": choice, "verdict": self.verdict}


def report_tuning(plan: TuningPlan, rows: Rows, command: str = "") -> TuningReport:
    """Score what `featlab.evaluation.tuning.run_tuning` gave.

    Args:
        plan: What was run.
        rows: What it gave.
        command: What was typed.
    """
    failed = sum(bool(row.error) for group in rows.values() for row in group.values())
    return TuningReport(plan, tuple(score_trials(plan, rows)), unscored_subjects(rows), failed, command)

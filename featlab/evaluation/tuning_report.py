"""What a tuning found, and all that is needed to find it again: what ``run.json`` and ``--json`` hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featlab.config.options import value_text
from featlab.evaluation.results import failure_reasons, jsonable, run_facts
from featlab.evaluation.statistics import TOLERANCE, bootstrap_interval, compare_scores, deviation, holm, mean
from featlab.evaluation.tuning import Rows, TuningPlan

_LEVEL = 0.05
_FEWEST = 6
"""Subjects below which no difference can reach p < .05 in a Wilcoxon test."""


@dataclass(frozen=True)
class Trial:
    """One candidate over the validation subjects, each of them a target once.

    A value that can't be had is NaN. A candidate that failed on a subject on whom another did not is never chosen, and
    its mean is over fewer subjects than the others'.
    """

    number: int  # Of the candidate; 1 is the default.
    options: Mapping[str, Any]  # Searched option to value.
    changed: int  # Options that differ from the default.
    subjects: int  # Validation subjects with a score.
    macro_f1: float  # Mean over them.
    sd: float  # Standard deviation (n - 1).
    ci95: tuple[float, float]  # Bootstrap interval of the mean.
    difference: float  # Mean difference to the default over common subjects.
    wins: int  # Common subjects above the default.
    ties: int  # Common subjects equal to it.
    losses: int  # Common subjects below it.
    p_holm: float  # Wilcoxon against the default, Holm-adjusted over all candidates; NaN for the default.
    failed: int  # Runs that ended in an error, on subjects on whom not every candidate failed.
    reasons: tuple[str, ...]  # Why, each reason once.

    @property
    def complete(self) -> bool:
        """Whether it may be chosen."""
        return self.subjects > 0 and not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; NaN becomes ``None``."""
        return {name: jsonable(value) for name, value in vars(self).items()} | {"default": self.number == 1}


@dataclass(frozen=True, eq=False)
class TuningReport:
    """A finished tuning."""

    plan: TuningPlan  # What was run.
    trials: tuple[Trial, ...]  # A line a candidate, in the order of `best_first`.
    # Validation subjects on whom every candidate failed, each with a reason; they are in nobody's mean.
    unscored: Mapping[str, str]
    failed: int  # Runs that ended in an error.
    command: str  # What was typed.

    @property
    def method(self) -> str:
        """Registry name."""
        return self.plan.space.method

    @property
    def default(self) -> Trial:
        """The method as it comes."""
        return next(trial for trial in self.trials if trial.number == 1)

    @property
    def chosen(self) -> Trial | None:
        """The choice; ``None`` when every candidate failed somewhere."""
        return self.trials[0] if self.trials[0].complete else None

    @property
    def options(self) -> dict[str, Any]:
        """The chosen options in their own types, those that the command line fixed first; empty without any."""
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
    def better(self) -> bool:
        """Whether the choice is shown to be better than the default on the validation subjects."""
        best = self.chosen
        if best is None or best.number == 1 or best.subjects < _FEWEST or not best.p_holm < _LEVEL:
            return False
        return best.difference > 0 and best.wins > best.losses

    @property
    def verdict(self) -> str:
        """What may be said of the choice against the default, in one or two sentences."""
        best = self.chosen
        if best is None:
            return "Nothing was chosen: every candidate failed on a validation subject."
        if best.number == 1:
            return f"No candidate scored higher than the default on {best.subjects} validation subjects."
        if not self.default.complete:
            return f"The default failed on {self.default.failed} runs, so the choice can't be compared with it."
        found = f"difference {100 * best.difference:+.2f}, {best.wins} wins, {best.losses} losses"
        if best.subjects < _FEWEST:
            return (
                f"Within noise: not shown to be better than the default ({found}); with {best.subjects} validation "
                f"subjects no difference could be, it takes {_FEWEST} or more."
            )
        # Three digits, not three decimals: 0.0503 must not read as 0.05.
        p = f"p {'< 0.001' if best.p_holm < 0.001 else f'= {best.p_holm:.3g}'}"
        found += f"; {p}, Holm over {len(self.trials) - 1} comparisons"
        if not self.better:
            return f"Within noise: not shown to be better than the default ({found})."
        return (
            f"Better than the default on {best.subjects} validation subjects ({found}). Its score is the highest of "
            f"{len(self.trials)}: on new people it will tend to be lower."
        )

    def facts(self) -> dict[str, Any]:
        """Return what made the numbers, JSON-ready."""
        plan, space = self.plan, self.plan.space
        return {
            "command": self.command,
            "method": self.method,
            **run_facts(plan.workspace),
            "space": {name: list(values) for name, values in space.options},
            "grid": space.size,
            "fixed": dict(space.fixed),
            "folds": [{"number": number, "subjects": list(names)} for number, names in plan.folds.items()],
            "sources": list(plan.workspace.table.subject_names_present()),
            "never_targets": dict(plan.bystanders),
            "not_scored": dict(self.unscored),
            "reported_targets": list(plan.reported),
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
                "better_than_default": self.better,
            }
        trials = [trial.to_dict() for trial in self.trials]
        return self.facts() | {"trials": trials, "chosen": choice, "verdict": self.verdict}


def report_tuning(plan: TuningPlan, rows: Rows, command: str = "") -> TuningReport:
    """Score what `featlab.evaluation.tuning.run_tuning` gave; ``command`` is what was typed."""
    tried = list(rows.values())
    unscored = {name: tried[0][name].error for name in plan.subjects if all(group[name].error for group in tried)}
    # Where nobody was scored there is nothing to leave out for: every run has failed, and is counted.
    subjects = [name for name in plan.subjects if name not in unscored] or plan.subjects
    scores = {
        number: {name: group[name].macro_f1 for name in subjects if not group[name].error}
        for number, group in rows.items()
    }
    trials, default = [], scores[1]
    for number, options in enumerate(map(dict, plan.candidates), start=1):
        mine, values = scores[number], list(scores[number].values())
        against = compare_scores((score, default[name]) for name, score in mine.items() if name in default)
        failed = [rows[number][name] for name in subjects if name not in mine]
        trials.append(
            Trial(
                number=number,
                options=options,
                changed=sum(value != dict(plan.candidates[0])[name] for name, value in options.items()),
                subjects=len(values),
                macro_f1=mean(values),
                sd=deviation(values),
                ci95=bootstrap_interval(values),
                difference=against.difference,
                wins=against.wins,
                ties=against.ties,
                losses=against.losses,
                p_holm=math.nan if number == 1 else against.p,
                failed=len(failed),
                reasons=tuple(failure_reasons(failed)),
            )
        )
    adjusted = holm([trial.p_holm for trial in trials])
    trials = [replace(trial, p_holm=p) for trial, p in zip(trials, adjusted, strict=True)]
    lost = sum(bool(row.error) for group in tried for row in group.values())
    return TuningReport(plan, best_first(trials), unscored, lost, command)


def best_first(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials in order of preference: those that failed last, and whoever is as good as the best first.

    The best is the highest mean; of those that equal it the one with the fewest changed options, then the first.
    """
    best = max((trial.macro_f1 for trial in trials if trial.complete), default=0.0)

    def place(trial: Trial) -> tuple[bool, float, int, int]:
        score = best if trial.complete and trial.macro_f1 >= best - TOLERANCE else trial.macro_f1
        return not trial.complete, -score if trial.subjects else 0.0, trial.changed, trial.number

    return tuple(sorted(trials, key=place))

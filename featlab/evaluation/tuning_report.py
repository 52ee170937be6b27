"""What a tuning found, and all that is needed to find it again: what ``run.json`` and ``--json`` hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from featlab.config.options import value_text
from featlab.evaluation.results import failure_reasons, jsonable, run_facts
from featlab.evaluation.statistics import (
    TOLERANCE,
    bootstrap_interval,
    deviation,
    holm,
    mean,
    paired_wilcoxon,
    win_tie_loss,
)
from featlab.evaluation.tuning import Candidate, Rows, TuningPlan


@dataclass(frozen=True, eq=False)
class TuningReport:
    """A finished tuning."""

    plan: TuningPlan  # What was run.
    trials: tuple[Trial, ...]  # A line a candidate, in the order of the plan.
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
        return self.trials[0]

    @property
    def chosen(self) -> Trial | None:
        """The choice; ``None`` when every candidate failed somewhere."""
        return choose(self.trials)

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
    def verdict(self) -> str:
        """What may be said of the choice against the default."""
        if self.chosen is None:
            return "Nothing was chosen: every candidate failed on a validation subject."
        return verdict(self.chosen, self.trials)

    def facts(self) -> dict[str, Any]:
        """Return what made the numbers, JSON-ready."""
        plan, space = self.plan, self.plan.space
        return {
            "command": self.command,
            "method": self.method,
            **run_facts(plan.side.workspace),
            "space": {name: list(values) for name, values in space.options},
            "grid": space.size,
            "fixed": dict(space.fixed),
            "folds": [{"number": number, "subjects": list(names)} for number, names in plan.folds.items()],
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
    """Score what `featlab.evaluation.tuning.run_tuning` gave; ``command`` is what was typed."""
    failed = sum(bool(row.error) for group in rows.values() for row in group.values())
    return TuningReport(plan, tuple(score_trials(plan, rows)), unscored_subjects(rows), failed, command)


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
    folds: tuple[float, ...]  # Mean of each fold.
    seconds: float  # Mean wall time of an adaptation.
    difference: float  # Mean difference to the default over common subjects.
    wins: int  # Common subjects above the default.
    ties: int  # Common subjects equal to it.
    losses: int  # Common subjects below it.
    p: float  # Wilcoxon against the default over common subjects; NaN for the default.
    p_holm: float  # The same, Holm-adjusted over all candidates.
    failed: int  # Runs that ended in an error, on subjects on whom not every candidate failed.
    reasons: tuple[str, ...]  # Why, each reason once.

    @property
    def complete(self) -> bool:
        """Whether it may be chosen."""
        return self.subjects > 0 and not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; NaN becomes ``None``."""
        return {name: jsonable(value) for name, value in asdict(self).items()} | {"default": self.number == 1}


def unscored_subjects(rows: Rows) -> dict[str, str]:
    """Return the subjects on whom every candidate failed, each with the first reason: they are in nobody's mean."""
    first = next(iter(rows.values()))
    failed = (name for name in first if all(group[name].error for group in rows.values()))
    return {name: first[name].error for name in failed}


def score_trials(plan: TuningPlan, rows: Rows) -> list[Trial]:
    """Return a trial for each candidate, in the order of the plan."""
    unscored = unscored_subjects(rows)
    # Where nobody was scored there is nothing to leave out for: every run has failed, and is counted.
    subjects = [name for name in plan.subjects if name not in unscored] or list(plan.subjects)
    default = _scores(rows, 1, subjects)
    trials = [_trial(plan, rows, candidate, subjects, default) for candidate in plan.candidates]
    adjusted = holm([trial.p for trial in trials])
    return [replace(trial, p_holm=p) for trial, p in zip(trials, adjusted, strict=True)]


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials in order of preference: those that failed last, and whoever is as good as the best first.

    The best is the highest mean; of those that equal it the one with the fewest changed options, then the first.
    """
    complete = [trial for trial in trials if trial.complete]
    best = max((trial.macro_f1 for trial in complete), default=0.0)

    def place(trial: Trial) -> tuple[bool, float, int, int]:
        score = best if trial.complete and trial.macro_f1 >= best - TOLERANCE else trial.macro_f1
        return not trial.complete, -score if trial.subjects else 0.0, trial.changed, trial.number

    return sorted(trials, key=place)


def choose(trials: Sequence[Trial]) -> Trial | None:
    """Return the first of `best_first`; ``None`` when every candidate failed somewhere."""
    first = best_first(trials)[0]
    return first if first.complete else None


def beats_default(chosen: Trial) -> bool:
    """Return whether the chosen candidate is shown to be better than the default on the validation subjects."""
    enough = chosen.subjects >= _FEWEST and chosen.p_holm < _LEVEL
    return chosen.number != 1 and enough and chosen.difference > 0 and chosen.wins > chosen.losses


def verdict(chosen: Trial, trials: Sequence[Trial]) -> str:
    """Return what may be said of the choice, in one or two sentences."""
    default = trials[0]
    if chosen.number == 1:
        return f"No candidate scored higher than the default on {chosen.subjects} validation subjects."
    if not default.complete:
        return f"The default failed on {default.failed} runs, so the choice can't be compared with it."
    found = f"difference {100 * chosen.difference:+.2f}, {chosen.wins} wins, {chosen.losses} losses"
    if chosen.subjects < _FEWEST:
        return (
            f"Within noise: not shown to be better than the default ({found}); with {chosen.subjects} validation "
            f"subjects no difference could be, it takes {_FEWEST} or more."
        )
    # Three digits, not three decimals: 0.0503 must not read as 0.05.
    p = f"p {'< 0.001' if chosen.p_holm < 0.001 else f'= {chosen.p_holm:.3g}'}, Holm over {len(trials) - 1} comparisons"
    if not beats_default(chosen):
        return f"Within noise: not shown to be better than the default ({found}; {p})."
    return (
        f"Better than the default on {chosen.subjects} validation subjects ({found}; {p}). Its score is the highest of "
        f"{len(trials)}: on new people it will tend to be lower."
    )


def _trial(
    plan: TuningPlan, rows: Rows, candidate: Candidate, subjects: Sequence[str], default: Mapping[str, float]
) -> Trial:
    own = [rows[candidate.number][name] for name in subjects]
    scores = _scores(rows, candidate.number, subjects)
    common = [name for name in scores if name in default]
    ours, theirs = [scores[name] for name in common], [default[name] for name in common]
    wins, ties, losses = win_tie_loss(ours, theirs)
    values = list(scores.values())
    return Trial(
        number=candidate.number,
        options=dict(candidate.values),
        changed=candidate.changed,
        subjects=len(scores),
        macro_f1=mean(values),
        sd=deviation(values),
        ci95=bootstrap_interval(values),
        folds=tuple(mean([scores[name] for name in names if name in scores]) for names in plan.folds.values()),
        seconds=mean([row.seconds for row in own if not row.error]),
        difference=mean([a - b for a, b in zip(ours, theirs, strict=True)]),
        wins=wins,
        ties=ties,
        losses=losses,
        p=float("nan") if candidate.number == 1 else paired_wilcoxon(ours, theirs),
        p_holm=float("nan"),
        failed=sum(bool(row.error) for row in own),
        reasons=tuple(failure_reasons(own)),
    )


def _scores(rows: Rows, number: int, subjects: Sequence[str]) -> dict[str, float]:
    return {name: rows[number][name].macro_f1 for name in subjects if not rows[number][name].error}

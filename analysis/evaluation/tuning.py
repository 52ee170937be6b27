"""A tuning as a `Result`: the table of candidates, and the choice, the trials and what made them as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from featlab.analysis.page import Result, json_lines
from featlab.analysis.table import (
    FAILED,
    MISSING,
    Column,
    Table,
    interval_text,
    make_table,
    number_text,
    p_text,
    score_text,
)
from featlab.config.toml import section_text
from featlab.evaluation.tuning_report import Trial, TuningReport, best_first, choose
from featlab.evaluation.tuning_space import value_text


def tuning_result(report: TuningReport) -> Result:
    """Return the table ``trials``; the files ``chosen.toml`` (if one was chosen), ``trials.jsonl`` and ``run.json``."""
    title = f"Tuning of {report.method} on source subjects"
    metadata = report.facts()
    return Result(
        kind="tune",
        title=title,
        summary=[report.verdict],
        tables={"trials": trials_table(report.trials, title=title)},
        metadata=metadata,
        files={
            "chosen.toml": chosen_text(report) if report.chosen is not None else None,
            "trials.jsonl": json_lines(trial.to_dict() for trial in report.trials),
            "run.json": json.dumps(metadata, indent=2, ensure_ascii=False) + "\n",
        },
    )


def chosen_text(report: TuningReport) -> str:
    """Return a section for ``featlab.toml``, with comments that say where it comes from and what it is worth."""
    comments = [report.command, f"Cache {report.plan.side.workspace.cache_digest}", report.verdict]
    if report.chosen is not None:
        score, default = 100 * report.chosen.macro_f1, 100 * report.default.macro_f1
        subjects = f"{report.chosen.subjects} source subjects"
        comments.insert(2, f"Macro F1 {score:.2f} on {subjects}, each a target once; the default {default:.2f}")
    # A line break in what was typed must not end the comment.
    lines = [f"# {' '.join(comment.split())}\n" for comment in comments]
    return "".join(lines) + section_text(("adapt", report.method), report.options)


def trials_table(
    trials: Sequence[Trial], *, title: str = "Candidates on source subjects", top: int | None = None
) -> Table:
    """Return one line a candidate, the best first and those that failed last."""
    shown = [trial for place, trial in enumerate(best_first(trials)) if top is None or place < top or trial.number == 1]
    subjects = max(trial.subjects for trial in trials)
    notes = [
        f"Macro F1: mean over {subjects} source subjects, each a target once, with its bootstrap interval. p: Wilcoxon "
        "against the default, Holm-adjusted."
    ]
    if len(shown) < len(trials):
        notes.append(f"{len(trials) - len(shown)} more candidates are in the files.")
    notes += [
        f"Candidate {trial.number}: {trial.failed} runs failed: {'; '.join(trial.reasons)}"
        for trial in trials
        if trial.failed
    ]
    return make_table(title, _columns(trials), shown, notes=notes, competes=lambda trial: trial.complete)


def _columns(trials: Sequence[Trial]) -> list[Column[Trial]]:
    chosen = choose(trials)

    def name(trial: Trial) -> str:
        marks = ["default"] if trial.number == 1 else []
        marks += ["chosen"] if chosen is not None and trial.number == chosen.number else []
        return f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number)

    def option(key: str) -> Column[Trial]:
        return Column(key, lambda trial: value_text(trial.options[key]))

    def fold(place: int) -> Column[Trial]:
        return Column(f"Fold {place + 1}", lambda trial: score_text(trial.folds[place]), wide=True)

    def compared(show: Callable[[Trial], str]) -> Callable[[Trial], str]:
        return lambda trial: MISSING if trial.number == 1 or not trial.subjects else show(trial)

    return [
        Column("Candidate", name, text=True),
        *map(option, trials[0].options),
        Column("Macro F1", lambda trial: score_text(trial.macro_f1) if trial.subjects else FAILED, best=True),
        Column("95 % interval", lambda trial: interval_text(trial.ci95)),
        Column("SD", lambda trial: score_text(trial.sd), wide=True),
        Column("Difference to default", compared(lambda trial: score_text(trial.difference))),
        Column("Win/tie/loss", compared(lambda trial: f"{trial.wins}/{trial.ties}/{trial.losses}")),
        Column("p vs default", lambda trial: p_text(trial.p_holm)),
        *map(fold, range(len(trials[0].folds))),
        Column("Seconds", lambda trial: number_text(trial.seconds, 2)),
        Column("Failed", lambda trial: str(trial.failed), wide=not any(trial.failed for trial in trials)),
    ]

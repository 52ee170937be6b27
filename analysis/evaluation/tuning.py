"""What a tuning leaves in its folder: the chosen values, the table that chose them, the trials, what made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featlab.analysis.render import write_table
from featlab.analysis.table import FAILED, MISSING, Table, bold_largest, interval_text, number_text, p_text, score_text
from featlab.cache import atomic_write_text
from featlab.config.toml import section_text
from featlab.evaluation.tuning_report import Trial, TuningReport, best_first, choose
from featlab.evaluation.tuning_space import value_text

__all__ = [
    "chosen_text",
    "trials_table",
    "write_tuning",
]

_ENDINGS = ("md", "csv", "tex")


def write_tuning(folder: Path, report: TuningReport) -> list[Path]:
    """Write a tuning.

    ``chosen.toml`` the choice (removed where there is none), ``table_trials`` as .md, .csv and .tex, ``trials.jsonl``
    a line a candidate, ``run.json`` what made them.

    Args:
        folder: Where; made when it isn't there.
        report: The tuning.

    Returns:
        The files, those to look at first.

    Raises:
        FeatlabError: A file can't be written.
    """
    written = []
    chosen = folder / "chosen.toml"
    if report.chosen is None:
        # One of an earlier run would pass for the choice of this one.
        chosen.unlink(missing_ok=True)
    else:
        atomic_write_text(chosen, chosen_text(report))
        written.append(chosen)
    table = trials_table(report.trials, title=f"Tuning of {report.method} on source subjects")
    for ending in _ENDINGS:
        written.append(folder / f"table_trials.{ending}")
        write_table(written[-1], table)
    lines = [json.dumps(trial.to_dict(), ensure_ascii=False, allow_nan=False) for trial in report.trials]
    written.append(folder / "trials.jsonl")
    atomic_write_text(written[-1], "".join(line + "\n" for line in lines))
    written.append(folder / "run.json")
    atomic_write_text(written[-1], json.dumps(report.facts(), indent=2, ensure_ascii=False) + "\n")
    return written


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


@dataclass(frozen=True)
class _Column:
    name: str
    show: Callable[[Trial], str]
    narrow: bool = True


def trials_table(
    trials: Sequence[Trial], *, title: str = "Candidates on source subjects", full: bool = True, top: int | None = None
) -> Table:
    """Return one line a candidate, the best first and those that failed last.

    Args:
        trials: From `featlab.evaluation.tuning_report.score_trials`.
        title: Above the table.
        full: Every column, those of the folds among them.
        top: Only so many lines, and the default wherever it stands.
    """
    order = best_first(trials)
    shown = [trial for place, trial in enumerate(order) if top is None or place < top or trial.number == 1]
    options = list(trials[0].options)
    columns = [column for column in _columns(trials) if full or column.narrow]
    chosen = choose(trials)
    cells = [
        (
            _name(trial, chosen),
            *(value_text(trial.options[name]) for name in options),
            *(column.show(trial) for column in columns),
        )
        for trial in shown
    ]
    competing = [tuple(column.name == "Macro F1" and trial.complete for column in columns) for trial in shown]
    return Table(
        title=title,
        columns=("Candidate", *options, *(column.name for column in columns)),
        rows=tuple(cells),
        bold=bold_largest(cells, competing, first=1 + len(options)),
        notes=tuple(_notes(trials, len(shown))),
    )


def _columns(trials: Sequence[Trial]) -> list[_Column]:
    def score(read: Callable[[Trial], float]) -> Callable[[Trial], str]:
        return lambda trial: score_text(read(trial), False)

    def compared(show: Callable[[Trial], str]) -> Callable[[Trial], str]:
        return lambda trial: MISSING if trial.number == 1 or not trial.subjects else show(trial)

    def fold(place: int) -> _Column:
        return _Column(f"Fold {place + 1}", score(lambda trial: trial.folds[place]), narrow=False)

    return [
        _Column("Macro F1", lambda trial: score_text(trial.macro_f1, False) if trial.subjects else FAILED),
        _Column("95 % interval", lambda trial: interval_text(trial.ci95, False)),
        _Column("SD", score(lambda trial: trial.sd), narrow=False),
        _Column("Difference to default", compared(score(lambda trial: trial.difference))),
        _Column("Win/tie/loss", compared(lambda trial: f"{trial.wins}/{trial.ties}/{trial.losses}")),
        _Column("p vs default", lambda trial: p_text(trial.p_holm)),
        *(fold(place) for place in range(len(trials[0].folds))),
        _Column("Seconds", lambda trial: number_text(trial.seconds, 2)),
        _Column("Failed", lambda trial: str(trial.failed), narrow=any(trial.failed for trial in trials)),
    ]


def _name(trial: Trial, chosen: Trial | None) -> str:
    marks = [
        mark
        for mark, holds in (
            ("default", trial.number == 1),
            ("chosen", chosen is not None and trial.number == chosen.number),
        )
        if holds
    ]
    return f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number)


def _notes(trials: Sequence[Trial], shown: int) -> list[str]:
    subjects = max(trial.subjects for trial in trials)
    notes = [
        f"Macro F1: mean over {subjects} source subjects, each a target once, with its bootstrap interval. p: Wilcoxon "
        "against the default, Holm-adjusted."
    ]
    if shown < len(trials):
        notes.append(f"{len(trials) - shown} more candidates are in the files.")
    notes += [
        f"Candidate {trial.number}: {trial.failed} runs failed: {'; '.join(trial.reasons)}"
        for trial in trials
        if trial.failed
    ]
    return notes

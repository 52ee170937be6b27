"""An evaluation or a tuning as a `Result` to write."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from featlab.analysis.evaluation.stored import RESULTS, evaluation_data, printed_tables
from featlab.analysis.evaluation.summary import evaluation_summary
from featlab.analysis.evaluation.tables import class_table, cost_table, per_subject_table, rank_table, summary_table
from featlab.analysis.page import DrawnFigure, Result, json_lines
from featlab.analysis.table import (
    FAILED,
    MISSING,
    Column,
    Table,
    count_text,
    interval_text,
    make_table,
    p_text,
    score_text,
)
from featlab.config.load import section_text
from featlab.config.options import value_text
from featlab.evaluation.results import EvaluationRow, shared_scores
from featlab.evaluation.statistics import RankComparison, compare_ranks
from featlab.evaluation.summary import MethodSummary, summarise
from featlab.evaluation.tuning_report import Trial, TuningReport

_COLUMN_METHODS = 12  # Methods up to which a figure of the means stands in one column of a page.


def evaluation_result(
    rows: Sequence[EvaluationRow],
    *,
    metadata: Mapping[str, Any],
    kind: str = "evaluate",
    plots: bool = True,
    classes: Sequence[str] = (),
    smoothing: int = 0,
    runs: Mapping[str, int] | None = None,
) -> Result:
    """Return the tables, figures and files that the rows have the numbers for."""
    summaries, scores = summarise(rows), shared_scores(rows)
    ranks = compare_ranks(scores) if len(scores) > 1 and all(scores.values()) else None
    tables = {
        "subjects": per_subject_table(rows),
        "summary": summary_table(summaries, smoothing=smoothing),
        "costs": cost_table(summaries),
    }
    if any(row.class_recall for row in rows):
        tables["classes"] = class_table(rows, classes=classes)
    if ranks:
        tables["ranks"] = rank_table(ranks, {row.method: row.selection for row in rows})
    failed = [row for row in rows if row.error]
    methods, subjects = ({getattr(row, name) for row in rows} for name in ("method", "subject"))
    what = "Benchmark" if kind == "benchmark" else "Evaluation"
    return Result(
        kind=kind,
        title=f"{what}: {count_text(len(methods), 'method')} on {count_text(len(subjects), 'target subject')}",
        summary=evaluation_summary(rows, summaries),
        tables=tables,
        figures=list(_figures(rows, summaries, ranks)) if plots else [],
        metadata=metadata,
        data=evaluation_data(rows, summaries) | ({"runs": runs} if runs else {}),
        files={
            RESULTS: json_lines(row.to_dict() for row in rows),
            "run.json": json.dumps(metadata, indent=2, ensure_ascii=False) + "\n",
            "failures.jsonl": json_lines(row.to_dict() for row in failed) if failed else None,
        },
        printed=printed_tables(rows, kind, tables),
    )


def _figures(
    rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary], ranks: RankComparison | None
) -> Iterator[DrawnFigure]:
    """Draw what these results have the numbers for."""
    from featlab.analysis import style
    from featlab.analysis.evaluation import plots

    finished = [item for item in summaries if item.subjects]
    if finished:
        width = style.COLUMN if len(finished) <= _COLUMN_METHODS else style.FULL
        yield DrawnFigure(
            "summary",
            "Mean of each method",
            "Mean macro F1 over target subjects with its bootstrap interval. Dashed lines: source-only and the oracle.",
            plots.plot_summary(finished, width=width),
            plots.summary_data(finished),
        )
    if len(finished) > 1 and any(item.method == "source-only" for item in finished):
        yield DrawnFigure(
            "subjects",
            "Every subject before and after",
            "A line is one target subject: macro F1 of source-only on the left, of the method on the right. Blue "
            "gained, vermilion lost, grey is as before. Black dots are the means with their intervals. Above: the mean "
            "difference in points, and how many subjects lost.",
            plots.plot_subjects(rows),
            plots.subjects_data(rows),
        )
    if ranks:
        yield DrawnFigure(
            "ranks",
            "Average ranks",
            "Average rank of the macro F1 over the subjects that all methods finished, 1 is the best; oracles left "
            "out. A bar joins methods that differ by less than the critical difference.",
            plots.plot_ranks(ranks, selections={item.method: item.selection for item in summaries}),
            plots.ranks_data(ranks),
        )


def tuning_result(report: TuningReport) -> Result:
    """Return the table ``trials``; the files ``chosen.toml`` (if one was chosen), ``trials.jsonl`` and ``run.json``."""
    metadata, table, chosen = report.facts(), trials_table(report), report.chosen
    words = [report.verdict]
    if chosen is not None:
        against = "" if chosen.number == 1 else f", the default {100 * report.default.macro_f1:.2f}"
        choice = f"Chosen: candidate {chosen.number}, macro F1 {100 * chosen.macro_f1:.2f}{against}"
        words = [choice, *words, shlex.join(report.flags)]
    return Result(
        kind="tune",
        title=table.title,
        summary=words,
        tables={"trials": table},
        metadata=metadata,
        data=report.to_dict(),
        files={
            "chosen.toml": chosen_text(report) if chosen is not None else None,
            "trials.jsonl": json_lines(trial.to_dict() for trial in report.trials),
            "run.json": json.dumps(metadata, indent=2, ensure_ascii=False) + "\n",
        },
    )


def chosen_text(report: TuningReport) -> str:
    """Return a section for ``featlab.toml``, with comments that say where it comes from and what it is worth."""
    comments = [report.command, f"Cache {report.plan.workspace.cache_digest}", report.verdict]
    if report.chosen is not None:
        score, default = 100 * report.chosen.macro_f1, 100 * report.default.macro_f1
        subjects = f"{report.chosen.subjects} source subjects"
        comments.insert(2, f"Macro F1 {score:.2f} on {subjects}, each a target once; the default {default:.2f}")
    # A line break in what was typed must not end the comment.
    lines = [f"# {' '.join(comment.split())}\n" for comment in comments]
    return "".join(lines) + section_text(("adapt", report.method), report.options)


def trials_table(report: TuningReport) -> Table:
    """Return one line a candidate, the best first and those that failed last."""
    trials = report.trials
    subjects = max(trial.subjects for trial in trials)
    notes = [
        f"Macro F1: mean over {subjects} source subjects, each a target once, with its bootstrap interval. p: Wilcoxon "
        "against the default, Holm-adjusted."
    ]
    failed = [trial for trial in trials if trial.failed]
    notes += [f"Candidate {item.number}: {item.failed} runs failed: {'; '.join(item.reasons)}" for item in failed]
    title = f"Tuning of {report.method} on source subjects"
    return make_table(title, _columns(report), trials, notes=notes, competes=lambda trial: trial.complete)


def _columns(report: TuningReport) -> list[Column[Trial]]:
    trials, chosen = report.trials, report.chosen

    def name(trial: Trial) -> str:
        marks = ["default"] if trial.number == 1 else []
        marks += ["chosen"] if chosen is not None and trial.number == chosen.number else []
        return f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number)

    def option(key: str) -> Column[Trial]:
        return Column(key, lambda trial: value_text(trial.options[key]))

    def compared(show: Callable[[Trial], str]) -> Callable[[Trial], str]:
        return lambda trial: MISSING if trial.number == 1 or not trial.subjects else show(trial)

    return [
        Column("Candidate", name, text=True),
        *map(option, trials[0].options),
        Column("Macro F1", lambda trial: score_text(trial.macro_f1) if trial.subjects else FAILED, best=True),
        Column("95 % interval", lambda trial: interval_text(trial.ci95)),
        Column("SD", lambda trial: score_text(trial.sd), wide=True),
        Column("Difference to default", compared(lambda trial: score_text(trial.difference))),
        Column("Win/tie/loss", compared(lambda trial: f"{trial.wins}/{trial.ties}/{trial.losses}"), wide=True),
        Column("p vs default", lambda trial: p_text(trial.p_holm)),
        Column("Failed", lambda trial: str(trial.failed), wide=not any(trial.failed for trial in trials)),
    ]

"""An evaluation as a `Result`: its rows and what made them as files, the tables, the figures, the sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featlab.analysis.evaluation.summary import evaluation_summary
from featlab.analysis.evaluation.tables import class_table, cost_table, per_subject_table, rank_table, summary_table
from featlab.analysis.page import DrawnFigure, Result, json_lines
from featlab.analysis.table import count_text
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import shared_scores
from featlab.evaluation.statistics import RankComparison, compare_ranks
from featlab.evaluation.summary import MethodSummary

_WIDEST = 12
"""Target subjects up to which the per-subject table is printed; the file has it always."""
_COLUMN_METHODS = 12
"""Methods up to which a figure of the means stands in one column of a page."""


def evaluation_result(
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    *,
    metadata: Mapping[str, Any],
    kind: str = "evaluate",
    plots: bool = True,
    classes: Sequence[str] = (),
    smoothing: int = 0,
    data: Mapping[str, Any] | None = None,
) -> Result:
    """Return the tables ``subjects``, ``summary``, ``costs``, ``classes`` (if the rows have recalls) and ``ranks`` (if
    two methods have a subject in common), and the figures ``summary``, ``subjects``, ``reliability`` (if the rows have
    confidences) and ``ranks``. Its files: ``results.jsonl``, ``run.json``, and ``failures.jsonl`` if a run failed.
    """
    scores = shared_scores(rows)
    ranks = compare_ranks(scores) if len(scores) > 1 and all(scores.values()) else None
    selections = {row.method: row.selection for row in rows}
    tables = {
        "subjects": per_subject_table(rows),
        "summary": summary_table(summaries, smoothing=smoothing),
        "costs": cost_table(summaries),
    }
    if any(row.class_recall for row in rows):
        tables["classes"] = class_table(rows, classes=classes)
    if ranks:
        tables["ranks"] = rank_table(ranks, selections)
    failed = [row for row in rows if row.error]
    methods, subjects = ({getattr(row, name) for row in rows} for name in ("method", "subject"))
    printed = ["subjects"] if len({row.draw for row in rows}) == 1 and len(subjects) <= _WIDEST else []
    printed += ["classes", "costs"] if kind == "benchmark" else []
    what = "Benchmark" if kind == "benchmark" else "Evaluation"
    return Result(
        kind=kind,
        title=f"{what}: {count_text(len(methods), 'method')} on {count_text(len(subjects), 'target subject')}",
        summary=evaluation_summary(rows, summaries),
        tables=tables,
        figures=list(_figures(rows, summaries, ranks)) if plots else [],
        metadata=metadata,
        data=data or {},
        files={
            "results.jsonl": json_lines(row.to_dict() for row in rows),
            "run.json": json.dumps(metadata, indent=2, ensure_ascii=False) + "\n",
            "failures.jsonl": json_lines(row.to_dict() for row in failed) if failed else None,
        },
        printed=[name for name in (*printed, "summary") if name in tables],
    )


def _figures(
    rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary], ranks: RankComparison | None
) -> Iterator[DrawnFigure]:
    """Draw what these results have the numbers for."""
    from featlab.analysis import style
    from featlab.analysis.evaluation.plot_ranks import plot_ranks, ranks_data
    from featlab.analysis.evaluation.plot_reliability import plot_reliability, reliability_data, reliability_methods
    from featlab.analysis.evaluation.plots import plot_subjects, plot_summary, subjects_data, summary_data

    finished = [item for item in summaries if item.subjects]
    if finished:
        width = style.COLUMN if len(finished) <= _COLUMN_METHODS else style.FULL
        yield DrawnFigure(
            "summary",
            "Mean of each method",
            "Mean macro F1 over target subjects with its bootstrap interval. Dashed lines: source-only and the oracle.",
            plot_summary(finished, width=width),
            summary_data(finished),
        )
    if len(finished) > 1 and any(item.method == "source-only" for item in finished):
        yield DrawnFigure(
            "subjects",
            "Every subject before and after",
            "A line is one target subject: macro F1 of source-only on the left, of the method on the right. Blue "
            "gained, vermilion lost. Black dots are the means with their intervals. Above: the mean difference in "
            "points, and how many subjects lost.",
            plot_subjects(rows),
            subjects_data(rows),
        )
    confident = reliability_methods(summaries)
    if confident:
        yield DrawnFigure(
            "reliability",
            "Confidence and accuracy",
            "Accuracy against confidence, and below how many frames are how sure, every subject weighing the same. On "
            "the dashed diagonal a method is right as often as it is sure; below it, less often.",
            plot_reliability(rows, confident),
            reliability_data(rows, confident),
        )
    if ranks:
        yield DrawnFigure(
            "ranks",
            "Average ranks",
            "Average rank of the macro F1 over the subjects that all methods finished, 1 is the best; oracles left "
            "out. A bar joins methods that differ by less than the critical difference.",
            plot_ranks(ranks, selections={item.method: item.selection for item in summaries}),
            ranks_data(ranks),
        )

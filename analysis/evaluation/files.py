"""What an evaluation leaves in its folder: the rows, what made them, and a page of words, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.evaluation.subject_tables import class_table, cost_table, per_subject_table
from featlab.analysis.evaluation.tables import rank_table, summary_table
from featlab.analysis.evaluation.words import count_text, evaluation_words
from featlab.analysis.page import TABLE_ENDINGS, DrawnFigure, PageFigure, write_page
from featlab.analysis.table import Settings, Table
from featlab.cache import atomic_write_text
from featlab.evaluation.results import EvaluationRow, write_results
from featlab.evaluation.scores import shared_scores
from featlab.evaluation.statistics import RankComparison, compare_ranks
from featlab.evaluation.summary import MethodSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluation_tables", "write_evaluation"]

_FIGURE_ENDINGS = ("svg", "pdf", "png", "csv")
_COLUMN_METHODS = 12
"""Methods up to which a figure of the means stands in one column of a page."""
_CAPTIONS = {
    "summary": (
        "Mean of each method",
        "Mean macro F1 over target subjects with its bootstrap interval. Dashed lines: source-only and the oracle.",
    ),
    "subjects": (
        "Every subject before and after",
        "A line is one target subject: macro F1 of source-only on the left, of the method on the right. Blue gained, "
        "vermilion lost. Black dots are the means with their intervals. Above: the mean difference in points, and how "
        "many subjects lost.",
    ),
    "reliability": (
        "Confidence and accuracy",
        "Accuracy against confidence, and below how many frames are how sure, every subject weighing the same. On the "
        "dashed diagonal a method is right as often as it is sure; below it, less often.",
    ),
    "ranks": (
        "Average ranks",
        "Average rank of the macro F1 over the subjects that all methods finished, 1 is the best; oracles left out. A "
        "bar joins methods that differ by less than the critical difference.",
    ),
}
"""Figure to its title and caption."""


def evaluation_tables(
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    settings: Settings,
    *,
    full: bool = True,
    smoothing: int = 0,
) -> tuple[Table, Table]:
    """Return the per-subject table and the summary table.

    Args:
        rows: Results.
        summaries: Of them.
        settings: Method to (setting, display name).
        full: Every column in the summary, too wide for a terminal.
        smoothing: Frames that the smoothed macro F1 averages over, for the note; 0 where nobody knows.
    """
    summary = summary_table(summaries, settings=settings, full=full, smoothing=smoothing)
    return per_subject_table(rows, settings=settings), summary


def write_evaluation(
    folder: Path,
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings,
    facts: Mapping[str, Any],
    kind: str = "evaluate",
    command: str = "",
    plots: bool = True,
    classes: Sequence[str] = (),
    smoothing: int = 0,
) -> list[Path]:
    """Write an evaluation.

    ``results.jsonl`` the rows, ``run.json`` the facts, ``failures.jsonl`` the failed rows (only if there are any), and
    a page (see `featlab.analysis.page`): the tables ``subjects``, ``summary``, ``costs``, ``classes`` (if the
    rows have recalls) and ``ranks`` (if two methods have a subject in common), the figures ``summary``, ``subjects``,
    ``reliability`` (if the rows have confidences) and ``ranks``.

    Args:
        folder: Where; made when it isn't there.
        rows: Results.
        summaries: Of them.
        settings: Method to (setting, display name).
        facts: JSON-ready: configuration, digest of the cache, versions.
        kind: ``evaluate`` or ``benchmark``.
        command: What was typed; empty where it was called from Python.
        plots: Draw the figures; without them the page has none, and those of an earlier run stay where they are.
        classes: The K class names, for the table of classes.
        smoothing: Frames that the smoothed macro F1 averages over, for a note; 0 where nobody knows.

    Returns:
        The files, those to look at first.

    Raises:
        FeatlabError: A file can't be written.
    """
    results, run, failures = folder / "results.jsonl", folder / "run.json", folder / "failures.jsonl"
    write_results(results, rows)
    atomic_write_text(run, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    failed = [row for row in rows if row.error]
    if failed:
        write_results(failures, failed)
    else:
        failures.unlink(missing_ok=True)
    compared = _compared(rows)
    per_subject, summary = evaluation_tables(rows, summaries, settings, smoothing=smoothing)
    selections = {row.method: row.selection for row in rows}
    tables: dict[str, Table | None] = {
        "subjects": per_subject,
        "summary": summary,
        "costs": cost_table(summaries, settings=settings),
        "classes": class_table(rows, classes=classes, settings=settings) if _have_recalls(rows) else None,
        "ranks": rank_table(compared, selections=selections, settings=settings) if compared else None,
    }
    figures = _figures(rows, summaries, settings, compared) if plots else {}
    _remove(folder, tables, "table_", TABLE_ENDINGS)
    _remove(folder, figures, "", _FIGURE_ENDINGS)
    page = write_page(
        folder,
        kind=kind,
        title=_title(kind, rows),
        words=evaluation_words(rows, summaries, settings=settings),
        command=command,
        tables={name: table for name, table in tables.items() if table is not None},
        figures=[figure for figure in figures.values() if figure is not None],
        facts=facts,
    )
    return [results, run, *([failures] if failed else []), *page]


def _title(kind: str, rows: Sequence[EvaluationRow]) -> str:
    methods, subjects = ({getattr(row, name) for row in rows} for name in ("method", "subject"))
    what = "Benchmark" if kind == "benchmark" else "Evaluation"
    return f"{what}: {count_text(len(methods), 'method')} on {count_text(len(subjects), 'target subject')}"


def _remove(folder: Path, made: Mapping[str, object], prefix: str, endings: Sequence[str]) -> None:
    """Remove the files of an earlier run of what there is none of now."""
    for name, there in made.items():
        for ending in endings if there is None else ():
            (folder / f"{prefix}{name}.{ending}").unlink(missing_ok=True)


def _have_recalls(rows: Sequence[EvaluationRow]) -> bool:
    return any(row.class_recall for row in rows)


def _compared(rows: Sequence[EvaluationRow]) -> RankComparison | None:
    """Return the ranks, unless there is only one method or no subject that all have finished."""
    scores = shared_scores(rows)
    return compare_ranks(scores) if len(scores) > 1 and all(scores.values()) else None


def _figures(
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    settings: Settings,
    compared: RankComparison | None,
) -> dict[str, DrawnFigure | None]:
    """Return each figure by its name; ``None`` for one that these results do not have."""
    from featlab.analysis import style
    from featlab.analysis.evaluation.plot_reliability import plot_reliability, reliability_data, reliability_methods
    from featlab.analysis.figures import (
        plot_ranks,
        plot_subjects,
        plot_summary,
        ranks_data,
        subjects_data,
        summary_data,
    )

    names = {method: title for method, (_, title) in settings.items()}
    finished = [item for item in summaries if item.subjects]
    figures: dict[str, DrawnFigure | None] = dict.fromkeys(_CAPTIONS)

    def add(name: str, drawn: Figure, data: Mapping[str, Sequence[Any]]) -> None:
        figures[name] = DrawnFigure(PageFigure(name, *_CAPTIONS[name]), drawn, data)

    if finished:
        width = style.COLUMN if len(finished) <= _COLUMN_METHODS else style.FULL
        add("summary", plot_summary(finished, names=names, width=width), summary_data(finished))
    # The second figure compares with source-only.
    if len(finished) > 1 and any(item.method == "source-only" for item in finished):
        add("subjects", plot_subjects(rows, names=names), subjects_data(rows))
    confident = reliability_methods(summaries)
    if confident:
        add("reliability", plot_reliability(rows, confident, names=names), reliability_data(rows, confident))
    if compared:
        selections = {item.method: item.selection for item in summaries}
        add("ranks", plot_ranks(compared, names=names, selections=selections), ranks_data(compared))
    return figures

"""What an evaluation leaves in its folder: the rows, what made them, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.class_table import class_table
from featlab.analysis.cost_table import cost_table
from featlab.analysis.rank_table import rank_table
from featlab.analysis.render import write_table
from featlab.analysis.subject_table import per_subject_table
from featlab.analysis.summary_table import summary_table
from featlab.analysis.tables import Settings, Table
from featlab.cache import atomic_write_text
from featlab.ranks import RankComparison, compare_ranks
from featlab.results import EvaluationRow, write_results
from featlab.subject_scores import shared_scores
from featlab.summary import MethodSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["evaluation_tables", "write_evaluation"]

_ENDINGS = ("md", "csv", "tex", "jsonl")
_COLUMN_METHODS = 12
"""Methods up to which a figure of the means stands in one column of a page."""


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
    plots: bool = True,
    classes: Sequence[str] = (),
    smoothing: int = 0,
) -> list[Path]:
    """Write an evaluation.

    ``results.jsonl`` the rows, ``run.json`` the facts, ``failures.jsonl`` the failed rows (only if there are any),
    ``table_subjects``, ``table_summary``, ``table_costs``, ``table_classes`` (if the rows have recalls) and
    ``table_ranks`` (if two methods have a subject in common) as .md, .csv, .tex and .jsonl, ``subjects.svg``,
    ``summary.svg``, ``reliability.svg`` (if the rows have confidences) and ``ranks.svg`` with their numbers as .csv.

    Args:
        folder: Where; made when it isn't there.
        rows: Results.
        summaries: Of them.
        settings: Method to (setting, display name).
        facts: JSON-ready: configuration, digest of the cache, versions.
        plots: Draw the figures.
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
    written = _write_tables(folder, tables)
    figures = _draw(folder, rows, summaries, settings, compared) if plots else []
    return [results, run, *([failures] if failed else []), *written, *figures]


def _write_tables(folder: Path, tables: Mapping[str, Table | None]) -> list[Path]:
    """Write what there is; a table of an earlier run that isn't there any more is removed."""
    written = []
    for name, table in tables.items():
        for ending in _ENDINGS:
            path = folder / f"table_{name}.{ending}"
            if table is None:
                path.unlink(missing_ok=True)
            else:
                write_table(path, table)
                written.append(path)
    return written


def _have_recalls(rows: Sequence[EvaluationRow]) -> bool:
    return any(row.class_recall for row in rows)


def _compared(rows: Sequence[EvaluationRow]) -> RankComparison | None:
    """Return the ranks, unless there is only one method or no subject that all have finished."""
    scores = shared_scores(rows)
    return compare_ranks(scores) if len(scores) > 1 and all(scores.values()) else None


def _draw(
    folder: Path,
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    settings: Settings,
    compared: RankComparison | None,
) -> list[Path]:
    from featlab.analysis import style
    from featlab.analysis.plot_reliability import plot_reliability, reliability_data, reliability_methods
    from featlab.analysis.plots import (
        plot_ranks,
        plot_subjects,
        plot_summary,
        ranks_data,
        subjects_data,
        summary_data,
    )

    names = {method: title for method, (_, title) in settings.items()}
    finished = [item for item in summaries if item.subjects]
    written = []

    def save(name: str, drawn: Figure, data: Mapping[str, Sequence[Any]]) -> None:
        path = folder / f"{name}.svg"
        style.save_figure(drawn, path)
        written.extend([path, style.save_data(path, data)])

    if finished:
        width = style.COLUMN if len(finished) <= _COLUMN_METHODS else style.FULL
        save("summary", plot_summary(finished, names=names, width=width), summary_data(finished))
    # The second figure compares with source-only.
    if len(finished) > 1 and any(item.method == "source-only" for item in finished):
        save("subjects", plot_subjects(rows, names=names), subjects_data(rows))
    confident = reliability_methods(summaries)
    if confident:
        save("reliability", plot_reliability(rows, confident, names=names), reliability_data(rows, confident))
    if compared:
        selections = {item.method: item.selection for item in summaries}
        save("ranks", plot_ranks(compared, names=names, selections=selections), ranks_data(compared))
    return written

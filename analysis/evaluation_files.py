"""What an evaluation leaves in its folder: the rows, what made them, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featlab.analysis.render import write_table
from featlab.analysis.tables import Settings, Table, per_subject_table, summary_table
from featlab.cache import atomic_write_text
from featlab.results import EvaluationRow, write_results
from featlab.summary import MethodSummary

__all__ = ["evaluation_tables", "write_evaluation"]


def evaluation_tables(
    rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary], settings: Settings, *, full: bool = True
) -> tuple[Table, Table]:
    """Return the per-subject table and the summary table.

    Args:
        rows: Results.
        summaries: Of them.
        settings: Method to (setting, display name).
        full: Every column in the summary, too wide for a terminal.
    """
    return per_subject_table(rows, settings=settings), summary_table(summaries, settings=settings, full=full)


def write_evaluation(
    folder: Path,
    rows: Sequence[EvaluationRow],
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings,
    facts: Mapping[str, Any],
    plots: bool = True,
) -> list[Path]:
    """Write an evaluation.

    ``results.jsonl`` the rows, ``run.json`` the facts, ``failures.jsonl`` the failed rows (only if there are any),
    ``table_subjects`` and ``table_summary`` as .csv, .md and .tex, ``subjects.svg`` and ``summary.svg`` with their
    numbers as .csv.

    Args:
        folder: Where; made when it isn't there.
        rows: Results.
        summaries: Of them.
        settings: Method to (setting, display name).
        facts: JSON-ready: configuration, digest of the cache, versions.
        plots: Draw the figures.

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
    written = []
    for name, table in zip(("subjects", "summary"), evaluation_tables(rows, summaries, settings), strict=True):
        for ending in ("md", "csv", "tex"):
            path = folder / f"table_{name}.{ending}"
            write_table(path, table)
            written.append(path)
    figures = _draw(folder, rows, summaries, settings) if plots else []
    return [results, run, *([failures] if failed else []), *written, *figures]


def _draw(
    folder: Path, rows: Sequence[EvaluationRow], summaries: Sequence[MethodSummary], settings: Settings
) -> list[Path]:
    from featlab.analysis.plots import plot_subjects, plot_summary, subjects_data, summary_data
    from featlab.analysis.style import save_data, save_figure

    names = {method: title for method, (_, title) in settings.items()}
    finished = [item for item in summaries if item.subjects]
    written = []
    if finished:
        path = folder / "summary.svg"
        save_figure(plot_summary(finished, names=names), path)
        written += [path, save_data(path, summary_data(finished))]
    # The second figure compares with source-only.
    if len(finished) > 1 and any(item.method == "source-only" for item in finished):
        path = folder / "subjects.svg"
        save_figure(plot_subjects(rows, names=names), path)
        written += [path, save_data(path, subjects_data(rows))]
    return written

"""One line a method: scores, comparisons with source-only and with pft, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from featlab.analysis.table_parts import (
    FAILED,
    best_notes,
    bold_largest,
    calibration_notes,
    competes,
    flops_text,
    interval_text,
    marked_name,
    number_text,
    p_text,
    scope_notes,
    score_text,
    smoothing_notes,
)
from featlab.analysis.tables import MISSING, Settings, Table
from featlab.summary import MethodSummary

__all__ = ["summary_table"]


@dataclass(frozen=True)
class _Column:
    name: str
    show: Callable[[MethodSummary], str]
    narrow: bool = False
    best: bool = False


def summary_table(
    summaries: Sequence[MethodSummary],
    *,
    settings: Settings | None = None,
    title: str = "Mean over target subjects",
    fractions: bool = False,
    full: bool = False,
    smoothing: int = 0,
) -> Table:
    """Return one line a method: scores, comparison with source-only and pft, cost.

    Args:
        summaries: From `featlab.summary.summarise`; their order is kept.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
        fractions: Show scores as 0.7831 instead of 78.31.
        full: Every column; by default the ones that decide, as far as any method has a number there.
        smoothing: Frames that were averaged over for the smoothed macro F1, for the note; 0 where nobody knows.
    """
    columns = _columns(fractions)
    if not full:
        columns = [
            column
            for column in columns
            if column.narrow
            if not summaries or any(column.show(item) != MISSING for item in summaries)
        ]
    cells, competing = [], []
    for item in summaries:
        shown = marked_name(item.method, item.selection, settings)
        cells.append((shown, *(column.show(item) for column in columns)))
        competing.append(tuple(column.best and competes(item.selection) for column in columns))
    return Table(
        title=title,
        columns=("Method", *(column.name for column in columns)),
        rows=tuple(cells),
        bold=bold_largest(cells, competing, first=1),
        notes=tuple(_notes(summaries, settings, smoothing)),
    )


def _columns(fractions: bool) -> list[_Column]:
    def score(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: score_text(getattr(item, name), fractions)

    def interval(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: interval_text(getattr(item, name), fractions)

    def compared(show: Callable[[MethodSummary], str]) -> Callable[[MethodSummary], str]:
        return lambda item: MISSING if item.negative_transfer is None else show(item)

    main = score("macro_f1")
    return [
        _Column("Subjects", lambda item: str(item.subjects)),
        _Column("Macro F1", lambda item: main(item) if item.runs else FAILED, narrow=True, best=True),
        _Column("95 % interval", interval("ci95"), narrow=True),
        _Column("Smoothed", score("macro_f1_smoothed"), narrow=True, best=True),
        _Column("95 % interval, smoothed", interval("ci95_smoothed")),
        _Column("SD", score("sd")),
        _Column("SD over seeds", score("seed_sd")),
        _Column("Macro F1, all classes", score("macro_f1_all"), best=True),
        _Column("Accuracy", score("accuracy"), best=True),
        _Column("Balanced accuracy", score("balanced_accuracy"), best=True),
        _Column("Neutral recall", score("neutral_recall")),
        _Column("Non-neutral recall", score("non_neutral_recall")),
        _Column("ECE", score("ece"), narrow=True),
        _Column("Difference to source-only", score("difference_vs_source")),
        _Column("95 % interval of the difference", interval("difference_ci95")),
        _Column("Gap closed", lambda item: number_text(item.gap_closed, 2), narrow=True),
        _Column("Win/tie/loss", compared(lambda item: f"{item.wins}/{item.ties}/{item.losses}")),
        _Column("Negative transfer", compared(lambda item: str(item.negative_transfer)), narrow=True),
        _Column("p vs source", lambda item: p_text(item.p_vs_source), narrow=True),
        _Column("Difference to pft", score("difference_vs_pft")),
        _Column("p vs pft", lambda item: p_text(item.p_vs_pft), narrow=True),
        _Column("Rank", lambda item: number_text(item.rank, 2), narrow=True),
        _Column("Collapsed", lambda item: f"{item.collapsed}/{item.runs}"),
        _Column("Seconds", lambda item: number_text(item.seconds, 2), narrow=True),
        _Column("Iterations", lambda item: number_text(item.iterations, 0)),
        _Column("Trainable", lambda item: number_text(item.trainable, 0)),
        _Column("MFLOPs", lambda item: flops_text(item.flops)),
        _Column("Failed", lambda item: str(item.failed)),
    ]


def _notes(summaries: Sequence[MethodSummary], settings: Settings | None, smoothing: int) -> list[str]:
    if not summaries:
        return []
    notes = [
        "Macro F1: mean over subjects with its bootstrap interval. p: Wilcoxon over subjects against source-only and "
        "against pft, Holm-adjusted."
    ]
    notes += smoothing_notes((item.macro_f1_smoothed for item in summaries), smoothing)
    notes += calibration_notes(item.ece for item in summaries)
    shared = max(item.rank_subjects for item in summaries)
    if shared:
        notes.append(f"Rank: average over the {shared} subjects that all methods but oracles finished; 1 is the best.")
    for item in summaries:
        if item.failed:
            name, runs = marked_name(item.method, item.selection, settings), item.failed + item.runs
            many = "every run failed" if not item.runs else f"{item.failed} of {runs} runs failed"
            notes.append(f"{name}: {many}: {'; '.join(item.reasons)}")
    notes += best_notes(item.selection for item in summaries)
    notes += scope_notes(item.scope for item in summaries)
    return notes

"""One line a method: scores, comparisons with source-only and with pft, cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from featlab.analysis.table import (
    FAILED,
    MISSING,
    Settings,
    Table,
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
from featlab.evaluation.statistics import RankComparison
from featlab.evaluation.summary import MethodSummary

__all__ = [
    "friedman_text",
    "rank_notes",
    "rank_table",
    "summary_table",
]


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
        summaries: From `featlab.evaluation.summary.summarise`; their order is kept.
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


def rank_table(
    compared: RankComparison,
    *,
    selections: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    title: str = "Average rank of the macro F1",
) -> Table:
    """Return one line a method, the best first: its average rank and the groups that it belongs to.

    Args:
        compared: From `featlab.evaluation.statistics.compare_ranks`.
        selections: Method to what it was allowed to see, for the marks; source-free by default.
        settings: Method to (setting, display name); a method it does not name keeps its registry name.
        title: Above the table.
    """
    rows = tuple(
        (
            marked_name(method, (selections or {}).get(method, "source-free"), settings),
            number_text(rank, 2),
            _shown(group),
        )
        for method, rank, group in zip(compared.methods, compared.ranks, compared.groups(), strict=True)
    )
    return Table(
        title=title,
        columns=("Method", "Rank", "Groups"),
        rows=rows,
        bold=tuple((False,) * 3 for _ in rows),
        notes=rank_notes(compared),
    )


def _shown(group: range) -> str:
    """Return ``2–4`` for the groups 2, 3 and 4."""
    if not group:
        return MISSING
    return f"{group[0]}–{group[-1]}" if len(group) > 1 else str(group[0])


def rank_notes(compared: RankComparison) -> tuple[str, ...]:
    """Return what the ranks are over, what differs, and whether the test of all methods lets one ask."""
    subjects = "1 subject" if compared.subjects == 1 else f"{compared.subjects} subjects"
    notes = [
        f"1 is the best. Over the {subjects} that all methods finished; oracles left out.",
        "Methods with a group in common differ by less than the critical difference of "
        f"{compared.critical_difference:.2f} (Nemenyi, {compared.level:g}).",
    ]
    if not math.isnan(compared.friedman_p):
        notes.append(f"Friedman: {friedman_text(compared)}.")
    return tuple(notes)


def friedman_text(compared: RankComparison) -> str:
    """Return the p value of Friedman's test, and that it does not speak for any difference where it does not."""
    p = compared.friedman_p
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return shown if p < compared.level else f"{shown}, no evidence that any two methods differ"

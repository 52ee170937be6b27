"""The tables of an evaluation: each subject, the means, each class, the costs, the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from featlab.analysis.evaluation import (
    best_notes,
    by_setting,
    competes,
    failure_notes,
    method_name,
    method_setting,
    method_title,
    rows_by_method,
    scope_notes,
)
from featlab.analysis.table import (
    FAILED,
    MISSING,
    Column,
    Table,
    count_text,
    flops_text,
    interval_text,
    make_table,
    number_text,
    p_text,
    p_words,
    score_text,
)
from featlab.errors import InputError
from featlab.evaluation.metrics import BINS
from featlab.evaluation.results import EvaluationRow, subject_means
from featlab.evaluation.statistics import RankComparison, mean
from featlab.evaluation.summary import MethodSummary


class _Line(NamedTuple):
    """A method's line in a table of subjects or of classes."""

    method: str
    selection: str
    cells: list[str]


def per_subject_table(rows: Sequence[EvaluationRow]) -> Table:
    """Return the poster's table: Setting, Method, one column a subject, Average (with a star over fewer subjects)."""
    groups = rows_by_method(rows)
    subjects = list(dict.fromkeys(row.subject for row in rows))
    lines = []
    for method in _ordered(groups):
        means = subject_means(groups[method], "macro_f1")
        failed = {row.subject for row in groups[method] if row.error} - set(means)
        cells = [FAILED if name in failed else score_text(means.get(name, math.nan)) for name in subjects]
        star = "*" if 0 < len(means) < len(subjects) else ""
        cells.append(score_text(mean(list(means.values()))) + star)
        lines.append(_Line(method, groups[method][0].selection, cells))
    notes = _failures(groups)
    if any(line.cells[-1].endswith("*") for line in lines):
        notes.append("* average over fewer subjects than the table has")
    heads = [*subjects, "Average"]
    return _line_table("Macro F1 of each target subject", heads, lines, rows, notes, grouped=True)


def class_means(rows: Sequence[EvaluationRow], classes: int) -> list[dict[str, float]]:
    """Return for each class subject to recall, of the subjects who have test rows of it."""

    def recall(code: int) -> Callable[[EvaluationRow], float]:
        return lambda row: row.class_recall[code] if row.class_recall else math.nan

    return [subject_means(rows, recall(code)) for code in range(classes)]


def class_table(rows: Sequence[EvaluationRow], *, classes: Sequence[str] = ()) -> Table:
    """Return the mean recall of each class over subjects, and their average; a star marks fewer subjects."""
    names = _class_names(rows, classes)
    groups = rows_by_method(rows)
    means = {method: class_means(groups[method], len(names)) for method in _ordered(groups)}
    most = [max((len(found[code]) for found in means.values()), default=0) for code in range(len(names))]
    lines = []
    for method, found in means.items():
        whole = [len(subjects) == wanted for subjects, wanted in zip(found, most, strict=True)]
        whole.append(all(whole))
        scores = [mean(list(subjects.values())) for subjects in found]
        scores.append(mean([score for score in scores if not math.isnan(score)]))
        cells = [
            score_text(score) + ("" if full or math.isnan(score) else "*")
            for score, full in zip(scores, whole, strict=True)
        ]
        if all(row.error for row in groups[method]):
            cells[0] = FAILED
        lines.append(_Line(method, groups[method][0].selection, cells))
    notes = _failures(groups)
    if any(cell.endswith("*") for line in lines for cell in line.cells):
        notes.append("* over fewer subjects than other methods have")
    return _line_table("Recall of each class, mean over target subjects", [*names, "Average"], lines, rows, notes)


def _line_table(
    title: str,
    heads: Sequence[str],
    lines: Sequence[_Line],
    rows: Sequence[EvaluationRow],
    notes: Sequence[str],
    *,
    grouped: bool = False,
) -> Table:
    """Return lines as a table; a number with a star is no number, and never the best."""

    def cell(place: int) -> Callable[[_Line], str]:
        return lambda line: line.cells[place]

    columns = [Column[_Line]("Method", lambda line: method_name(line.method, line.selection), text=True)]
    if grouped:
        columns.insert(0, Column("Setting", lambda line: method_setting(line.method, line.selection), text=True))
    columns += [Column(head, cell(place), best=True) for place, head in enumerate(heads)]
    return make_table(
        title,
        columns,
        lines,
        notes=[*notes, *best_notes(row.selection for row in rows), *scope_notes(row.scope for row in rows)],
        competes=lambda line: competes(line.selection),
        grouped=grouped,
    )


def _ordered(groups: Mapping[str, Sequence[EvaluationRow]]) -> list[str]:
    return by_setting({method: method_setting(method, rows[0].selection) for method, rows in groups.items()})


def _failures(groups: Mapping[str, Sequence[EvaluationRow]]) -> list[str]:
    return failure_notes({name: groups[name] for name in _ordered(groups)})


def _class_names(rows: Sequence[EvaluationRow], classes: Sequence[str]) -> list[str]:
    counts = {len(row.class_recall) for row in rows if row.class_recall}
    if classes:
        counts.add(len(classes))
    if len(counts) > 1:
        found = " and ".join(map(str, sorted(counts)))
        raise InputError(f"recalls of {found} classes do not go into one table; give results of one data set")
    return list(classes) or [f"Class {number}" for number in range(1, max(counts, default=0) + 1)]


def summary_table(summaries: Sequence[MethodSummary], *, smoothing: int = 0) -> Table:
    """Return one line a method: scores, comparison with source-only and pft, cost."""
    notes = []
    if summaries:
        notes.append(
            "Macro F1: mean over subjects with its bootstrap interval. p: Wilcoxon over subjects against source-only "
            "and against pft, Holm-adjusted."
        )
    over = f"{smoothing} frames" if smoothing else "neighbouring frames"
    said = {
        "macro_f1_smoothed": f"Smoothed: macro F1 after averaging the predicted probabilities over {over} of a video, "
        "for every method alike; all else is frame by frame.",
        "video_macro_f1": "Video: the mean probability of a video's frames against the label that most of them have; "
        "UAR is the mean recall over classes, WAR the accuracy, each within a subject.",
        "ece": f"ECE: expected calibration error, how far confidence and accuracy are apart in the mean over {BINS} "
        "bins, every subject weighing the same; 0 is the best.",
    }
    notes += [text for name, text in said.items() if not all(math.isnan(getattr(item, name)) for item in summaries)]
    ranked = max((item.rank_subjects for item in summaries), default=0)
    if ranked:
        notes.append(f"Rank: average over the {ranked} subjects that all methods but oracles finished; 1 is the best.")
    notes += _failed_notes(summaries)
    notes += best_notes(item.selection for item in summaries)
    return make_table(
        "Mean over target subjects",
        _summary_columns(),
        summaries,
        notes=[*notes, *scope_notes(item.scope for item in summaries)],
        competes=lambda item: competes(item.selection),
    )


def _failed_notes(summaries: Sequence[MethodSummary]) -> list[str]:
    notes = []
    for item in summaries:
        if item.failed:
            many = "every run failed" if not item.runs else f"{item.failed} of {item.failed + item.runs} runs failed"
            notes.append(f"{_name(item)}: {many}: {'; '.join(item.reasons)}")
    return notes


def _name(item: MethodSummary) -> str:
    return method_name(item.method, item.selection)


def _summary_columns() -> list[Column[MethodSummary]]:
    def score(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: score_text(getattr(item, name))

    def interval(name: str) -> Callable[[MethodSummary], str]:
        return lambda item: interval_text(getattr(item, name))

    def compared(show: Callable[[MethodSummary], str]) -> Callable[[MethodSummary], str]:
        return lambda item: MISSING if item.negative_transfer is None else show(item)

    main = score("macro_f1")
    return [
        Column("Method", _name, text=True),
        Column("Published as", lambda item: method_title(item.method), text=True, wide=True),
        Column("Subjects", lambda item: str(item.subjects), wide=True),
        Column("Macro F1", lambda item: main(item) if item.runs else FAILED, best=True),
        Column("95 % interval", interval("ci95")),
        Column("Smoothed", score("macro_f1_smoothed"), best=True, wide=True),
        Column("95 % interval, smoothed", interval("ci95_smoothed"), wide=True),
        Column("SD", score("sd"), wide=True),
        Column("Macro F1, all classes", score("macro_f1_all"), best=True, wide=True),
        Column("Accuracy", score("accuracy"), best=True, wide=True),
        Column("Balanced accuracy", score("balanced_accuracy"), best=True, wide=True),
        Column("Neutral recall", score("neutral_recall"), wide=True),
        Column("Non-neutral recall", score("non_neutral_recall"), wide=True),
        Column("Video macro F1", score("video_macro_f1"), best=True),
        Column("Video UAR", score("video_balanced_accuracy"), best=True, wide=True),
        Column("Video WAR", score("video_accuracy"), best=True, wide=True),
        Column("ECE", score("ece"), wide=True),
        Column("Difference to source-only", score("difference_vs_source"), wide=True),
        Column("95 % interval of the difference", interval("difference_ci95"), wide=True),
        Column("Gap closed", lambda item: number_text(item.gap_closed, 2)),
        Column("Win/tie/loss", compared(lambda item: f"{item.wins}/{item.ties}/{item.losses}"), wide=True),
        Column("Negative transfer", compared(lambda item: str(item.negative_transfer))),
        Column("p vs source", lambda item: p_text(item.p_vs_source)),
        Column("Difference to pft", score("difference_vs_pft"), wide=True),
        Column("p vs pft", lambda item: p_text(item.p_vs_pft), wide=True),
        Column("Rank", lambda item: number_text(item.rank, 2), wide=True),
        Column("Collapsed", lambda item: f"{item.collapsed}/{item.runs}", wide=True),
        Column("Failed", lambda item: str(item.failed), wide=True),
    ]


def cost_table(summaries: Sequence[MethodSummary]) -> Table:
    """Return one line a method: iterations, seconds, trainable parameters, MFLOPs; nothing is bold."""
    columns = [
        Column("Method", _name, text=True),
        Column[MethodSummary]("Iterations", lambda item: number_text(item.iterations, 0) if item.runs else FAILED),
        Column("Seconds", lambda item: number_text(item.seconds, 3)),
        Column("Trainable", lambda item: number_text(item.trainable, 0)),
        Column("MFLOPs", lambda item: flops_text(item.flops)),
    ]
    notes = ["Means over target subjects. MFLOPs: millions of floating-point operations in matrix products."]
    notes += [*_failed_notes(summaries), *scope_notes(item.scope for item in summaries)]
    return make_table("Cost of one adaptation", columns, summaries, notes=notes)


def rank_table(compared: RankComparison, selections: Mapping[str, str]) -> Table:
    """Return one line a method, the best first: its average rank and the groups that it belongs to."""
    columns = [
        Column[tuple[str, float, list[int]]](
            "Method", lambda line: method_name(line[0], selections[line[0]]), text=True
        ),
        Column("Rank", lambda line: number_text(line[1], 2)),
        Column("Groups", lambda line: _group_text(line[2])),
    ]
    lines = list(zip(compared.methods, compared.ranks, compared.groups(), strict=True))
    notes = [
        f"1 is the best. Over {count_text(compared.subjects, 'subject')} that all methods finished; oracles left out.",
        "Methods with a group in common differ by less than the critical difference of "
        f"{compared.critical_difference:.2f} (Nemenyi, {compared.level:g}).",
    ]
    if not math.isnan(compared.friedman_p):
        alike = "" if compared.friedman_p < compared.level else ", no evidence that any two methods differ"
        notes.append(f"Friedman: {p_words(compared.friedman_p)}{alike}.")
    return make_table("Average rank of the macro F1", columns, lines, notes=notes)


def _group_text(group: list[int]) -> str:
    """Return ``2–4`` for the groups 2, 3 and 4."""
    if not group:
        return MISSING
    return f"{group[0]}–{group[-1]}" if len(group) > 1 else str(group[0])

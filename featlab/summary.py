"""From evaluation rows to one line per method. The unit is the target subject: first within a subject, then over them.

Pooling frames or runs instead would let a subject with a long video, or with more seeds, speak for the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from featlab.errors import InputError
from featlab.results import EvaluationRow, jsonable
from featlab.statistics import bootstrap_interval, gap_closed, holm, negative_transfer, paired_wilcoxon, win_tie_loss

__all__ = ["MethodSummary", "common_subject_means", "subject_means", "summarise"]

Cell = tuple[str, int]
"""One (subject, draw): what is compared between methods, since another draw has another source model."""


@dataclass(frozen=True)
class MethodSummary:
    """One method over its target subjects.

    A value that can not be had (an interval of one subject, a comparison without source-only) is NaN.

    Attributes:
        method: Registry name.
        selection: What it was allowed to see; see `featlab.results.SELECTIONS`.
        subjects: Subjects with at least one finished run.
        macro_f1: Mean over subjects of the subject's mean.
        sd: Standard deviation (n - 1) of the subjects' means.
        ci95: Bootstrap interval of ``macro_f1`` over subjects.
        macro_f1_all: As ``macro_f1``, over all K classes.
        accuracy: Mean over subjects.
        balanced_accuracy: Mean over subjects.
        neutral_recall: Mean over the subjects that have it.
        non_neutral_recall: Mean over the subjects that have it.
        gap_closed: (method - source) / (oracle - source) of the means over the subjects that all three have.
        negative_transfer: Subjects below source-only; ``None`` without source-only.
        difference_vs_source: Mean difference over common subjects.
        difference_ci95: Its bootstrap interval.
        p_vs_source: Wilcoxon over common subjects, Holm-adjusted over all methods but source-only and oracles.
        wins: Common subjects above source-only.
        ties: Common subjects equal to it.
        losses: Common subjects below it.
        seconds: Mean wall time of an adaptation.
        iterations: Mean optimiser steps.
        trainable: Parameters updated, mean over subjects.
        seed_sd: Standard deviation over seeds within a subject and draw, averaged; NaN with one seed.
        runs: Finished runs (subject x draw x seed).
        collapsed: Finished runs that predicted one single class.
        failed: Runs that ended in an error; they are in no mean.
    """

    method: str
    selection: str
    subjects: int
    macro_f1: float
    sd: float
    ci95: tuple[float, float]
    macro_f1_all: float
    accuracy: float
    balanced_accuracy: float
    neutral_recall: float
    non_neutral_recall: float
    gap_closed: float
    negative_transfer: int | None
    difference_vs_source: float
    difference_ci95: tuple[float, float]
    p_vs_source: float
    wins: int
    ties: int
    losses: int
    seconds: float
    iterations: float
    trainable: float
    seed_sd: float
    runs: int
    collapsed: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; NaN becomes ``None``."""
        return {name: jsonable(value) for name, value in asdict(self).items()}


def summarise(
    rows: Sequence[EvaluationRow], *, source: str = "source-only", oracle: str = "oracle"
) -> list[MethodSummary]:
    """Summarise every method, in the order in which the methods first appear.

    Args:
        rows: Results of any number of methods, subjects, draws and seeds. Methods may have different subjects: means
            are over each method's own, every comparison over the (subject, draw) cells that both have.
        source: Name of the method to compare with.
        oracle: Name of the method that marks the top of the gap.

    Returns:
        One summary a method; a method of which every run failed has zero subjects and NaN scores.

    Raises:
        InputError: The same (method, subject, draw, seed) finished twice, or a method with two selections.
    """
    by_method: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)
    finished = {method: [row for row in group if not row.error] for method, group in by_method.items()}
    for method, group in by_method.items():
        _check(method, group)
    summaries = [_summary(group, finished, source, oracle) for group in by_method.values()]
    family = [item.method != source and item.selection != "oracle" for item in summaries]
    adjusted = holm(
        [item.p_vs_source if tested else float("nan") for item, tested in zip(summaries, family, strict=True)]
    )
    return [replace(item, p_vs_source=p) for item, p in zip(summaries, adjusted, strict=True)]


def subject_means(
    rows: Sequence[EvaluationRow], field: str = "macro_f1", cells: Collection[Cell] | None = None
) -> dict[str, float]:
    """Return each subject's mean of one field: over seeds within a draw, then over draws.

    Args:
        rows: Rows of one method; those with an error and those where the field is NaN are left out.
        field: Name of a numeric field of `EvaluationRow`.
        cells: Only these (subject, draw); all by default.

    Returns:
        Subject to mean, in the order in which the subjects first appear.
    """
    per_subject: dict[str, list[float]] = defaultdict(list)
    for (subject, draw), values in _by_cell(rows, field).items():
        if cells is None or (subject, draw) in cells:
            per_subject[subject].append(float(np.mean(values)))
    return {subject: float(np.mean(values)) for subject, values in per_subject.items()}


def common_subject_means(*methods: Sequence[EvaluationRow]) -> dict[str, tuple[float, ...]]:
    """Return each subject's macro F1 in every method, over the (subject, draw) cells that all of them finished.

    Args:
        *methods: The rows of one method each.

    Returns:
        Subject to one mean a method, in the order given; subjects in the order of the first method.
    """
    cells = set.intersection(*[set(_by_cell(rows, "macro_f1")) for rows in methods])
    means = [subject_means(rows, cells=cells) for rows in methods]
    return {subject: tuple(scores[subject] for scores in means) for subject in means[0]}


def _summary(
    group: Sequence[EvaluationRow], finished: Mapping[str, Sequence[EvaluationRow]], source: str, oracle: str
) -> MethodSummary:
    method = group[0].method
    rows = finished[method]
    scores = list(subject_means(rows).values())
    baseline, top = finished.get(source, ()), finished.get(oracle, ())
    pairs = common_subject_means(rows, baseline).values()
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    triples = common_subject_means(rows, baseline, top).values()
    difference = [a - b for a, b in zip(ours, theirs, strict=True)]
    wins, ties, losses = win_tie_loss(ours, theirs)
    return MethodSummary(
        method=method,
        selection=group[0].selection,
        subjects=len(scores),
        macro_f1=_mean(scores),
        sd=_sd(scores),
        ci95=bootstrap_interval(scores),
        macro_f1_all=_field_mean(rows, "macro_f1_all"),
        accuracy=_field_mean(rows, "accuracy"),
        balanced_accuracy=_field_mean(rows, "balanced_accuracy"),
        neutral_recall=_field_mean(rows, "neutral_recall"),
        non_neutral_recall=_field_mean(rows, "non_neutral_recall"),
        gap_closed=gap_closed(*(_mean([triple[place] for triple in triples]) for place in range(3))),
        negative_transfer=negative_transfer(ours, theirs) if theirs else None,
        difference_vs_source=_mean(difference),
        difference_ci95=bootstrap_interval(difference),
        p_vs_source=paired_wilcoxon(ours, theirs),
        wins=wins,
        ties=ties,
        losses=losses,
        seconds=_field_mean(rows, "seconds"),
        iterations=_field_mean(rows, "iterations"),
        trainable=_field_mean(rows, "trainable"),
        seed_sd=_mean([_sd(values) for values in _by_cell(rows, "macro_f1").values() if len(values) > 1]),
        runs=len(rows),
        collapsed=sum(row.collapsed for row in rows),
        failed=len(group) - len(rows),
    )


def _by_cell(rows: Sequence[EvaluationRow], field: str) -> dict[Cell, list[float]]:
    cells: dict[Cell, list[float]] = defaultdict(list)
    for row in rows:
        value = float(getattr(row, field))
        if not row.error and not np.isnan(value):
            cells[row.subject, row.draw].append(value)
    return dict(cells)


def _check(method: str, rows: Sequence[EvaluationRow]) -> None:
    """Refuse rows that would be counted twice; a failed run that was tried again is no such row."""
    selections = sorted({row.selection for row in rows})
    if len(selections) > 1:
        raise InputError(f"{method} has rows selected as {' and '.join(selections)}; give each its own method name")
    seen: set[tuple[str, int, int]] = set()
    for row in rows:
        key = (row.subject, row.draw, row.seed)
        if key in seen and not row.error:
            raise InputError(
                f"{method} finished twice on subject {row.subject}, draw {row.draw}, seed {row.seed}; "
                "the same results were probably given twice"
            )
        if not row.error:
            seen.add(key)


def _field_mean(rows: Sequence[EvaluationRow], field: str) -> float:
    return _mean(list(subject_means(rows, field).values()))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

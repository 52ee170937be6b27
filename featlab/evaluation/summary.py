"""From evaluation rows to one line per method. The unit is the target subject: first within a subject, then over them.

Pooling frames or runs instead would let a subject with a long video, or with more seeds, speak for the others.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featlab.errors import InputError
from featlab.evaluation.metrics import calibration_error
from featlab.evaluation.results import (
    EvaluationRow,
    common_subject_means,
    failure_reasons,
    jsonable,
    pooled_reliability,
    shared_scores,
    subject_means,
)
from featlab.evaluation.statistics import (
    bootstrap_interval,
    compare_ranks,
    compare_scores,
    deviation,
    gap_closed,
    holm,
    mean,
)


@dataclass(frozen=True)
class MethodSummary:
    """One method over its target subjects.

    A value that can not be had (an interval of one subject, a comparison without source-only) is NaN.
    """

    method: str  # Registry name.
    selection: str  # What it was allowed to see; see `featlab.evaluation.results.SELECTIONS`.
    scope: str  # What it adapted to; see `featlab.config.sections.SCOPES`.
    subjects: int  # Subjects with at least one finished run.
    macro_f1: float  # Mean over subjects of the subject's mean.
    sd: float  # Standard deviation (n - 1) of the subjects' means.
    ci95: tuple[float, float]  # Bootstrap interval of ``macro_f1`` over subjects.
    macro_f1_smoothed: float  # As ``macro_f1``, of smoothed probabilities; NaN when smoothing is off.
    ci95_smoothed: tuple[float, float]  # Its bootstrap interval.
    macro_f1_all: float  # As ``macro_f1``, over all K classes.
    accuracy: float  # Mean over subjects.
    balanced_accuracy: float  # Mean over subjects.
    neutral_recall: float  # Mean over the subjects that have it.
    non_neutral_recall: float  # Mean over the subjects that have it.
    # As ``macro_f1``, ``accuracy`` and ``balanced_accuracy`` with a video as the unit: the last two are the
    # literature's WAR and UAR.
    video_macro_f1: float
    video_accuracy: float
    video_balanced_accuracy: float
    ece: float  # Expected calibration error of the frames of all subjects, every subject weighing the same.
    gap_closed: float  # (method - source) / (oracle - source) of the means over the subjects that all three have.
    negative_transfer: int | None  # Subjects below source-only; ``None`` without source-only.
    difference_vs_source: float  # Mean difference over common subjects.
    difference_ci95: tuple[float, float]  # Its bootstrap interval.
    p_vs_source: float  # Wilcoxon over common subjects, Holm-adjusted over all methods but source-only and oracles.
    wins: int  # Common subjects above source-only.
    ties: int  # Common subjects equal to it.
    losses: int  # Common subjects below it.
    difference_vs_pft: float  # Mean difference to pft over common subjects.
    # Wilcoxon over common subjects, Holm-adjusted over all methods but pft and oracles; NaN without pft.
    p_vs_pft: float
    rank: float  # Average rank of the macro F1 over the subjects that all methods but oracles finished, 1 is the best.
    rank_subjects: int  # How many these are.
    seconds: float  # Mean wall time of an adaptation.
    iterations: float  # Mean optimiser steps.
    trainable: float  # Parameters updated, mean over subjects.
    flops: float  # Mean floating-point operations of an adaptation, over the runs where they were counted.
    runs: int  # Finished runs (subject x draw x seed).
    collapsed: int  # Finished runs that predicted one single class.
    failed: int  # Runs that ended in an error; they are in no mean.
    reasons: tuple[str, ...]  # Why they failed, each reason once.

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; NaN becomes ``None``."""
        return {name: jsonable(value) for name, value in vars(self).items()}


_SOURCE, _PFT, _ORACLE = "source-only", "pft", "oracle"  # Two that are compared with, and what ends the gap.
_MEANS = (
    *("macro_f1_all", "accuracy", "balanced_accuracy", "neutral_recall", "non_neutral_recall"),
    *("video_macro_f1", "video_accuracy", "video_balanced_accuracy", "seconds", "iterations", "trainable", "flops"),
)


def summarise(rows: Sequence[EvaluationRow]) -> list[MethodSummary]:
    """Summarise every method, in the order in which the methods first appear.

    Args:
        rows: Results of any number of methods, subjects, draws and seeds. Methods may have different subjects: means
            are over each method's own, every comparison over the (subject, draw) that both have.

    Returns:
        One summary a method; a method of which every run failed has zero subjects and NaN scores.

    Raises:
        InputError: The same (method, subject, draw, seed) finished twice, or a method with two selections or scopes.
    """
    by_method: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in rows:
        by_method[row.method].append(row)
    finished = {method: [row for row in group if not row.error] for method, group in by_method.items()}
    for method, group in by_method.items():
        _check(method, group)
    summaries = [_summary(group, finished) for group in by_method.values()]
    scores = shared_scores(rows)
    shared = min(map(len, scores.values()), default=0)
    ranks: dict[str, float] = {}
    if len(scores) > 1 and shared:
        compared = compare_ranks(scores)
        ranks = dict(zip(compared.methods, compared.ranks, strict=True))
    adjusted = zip(
        summaries, _family(summaries, "p_vs_source", _SOURCE), _family(summaries, "p_vs_pft", _PFT), strict=True
    )
    return [
        replace(
            item,
            p_vs_source=p_source,
            p_vs_pft=p_reference,
            rank=ranks.get(item.method, math.nan),
            rank_subjects=shared if item.method in ranks else 0,
        )
        for item, p_source, p_reference in adjusted
    ]


def _summary(group: Sequence[EvaluationRow], finished: Mapping[str, Sequence[EvaluationRow]]) -> MethodSummary:
    rows = finished[group[0].method]
    scores, smoothed = (list(subject_means(rows, name).values()) for name in ("macro_f1", "macro_f1_smoothed"))
    reliability = pooled_reliability(rows)
    baseline, top, second = (finished.get(name, ()) for name in (_SOURCE, _ORACLE, _PFT))
    triples = common_subject_means(rows, baseline, top).values()
    against, again = (compare_scores(common_subject_means(rows, other).values()) for other in (baseline, second))
    means: dict[str, Any] = {name: mean(list(subject_means(rows, name).values())) for name in _MEANS}
    return MethodSummary(
        method=group[0].method,
        selection=group[0].selection,
        scope=group[0].scope,
        subjects=len(scores),
        macro_f1=mean(scores),
        sd=deviation(scores),
        ci95=bootstrap_interval(scores),
        macro_f1_smoothed=mean(smoothed),
        ci95_smoothed=bootstrap_interval(smoothed),
        **means,
        ece=math.nan if reliability is None else calibration_error(reliability),
        gap_closed=gap_closed(*(mean([triple[place] for triple in triples]) for place in range(3))),
        negative_transfer=against.losses if against.subjects else None,
        difference_vs_source=against.difference,
        difference_ci95=against.ci95,
        p_vs_source=against.p,
        wins=against.wins,
        ties=against.ties,
        losses=against.losses,
        difference_vs_pft=again.difference,
        p_vs_pft=again.p,
        rank=math.nan,
        rank_subjects=0,
        runs=len(rows),
        collapsed=sum(row.collapsed for row in rows),
        failed=len(group) - len(rows),
        reasons=tuple(failure_reasons(group)),
    )


def _family(summaries: Sequence[MethodSummary], field: str, reference: str) -> list[float]:
    """Return the p values of one field adjusted over all methods but the reference and oracles; NaN for those."""
    return holm(
        [
            math.nan if item.method == reference or item.selection == "oracle" else float(getattr(item, field))
            for item in summaries
        ]
    )


def _check(method: str, rows: Sequence[EvaluationRow]) -> None:
    """Refuse rows that would be counted twice; a failed run that was tried again is no such row."""
    for what in ("selection", "scope"):
        kinds = sorted({getattr(row, what) for row in rows})
        if len(kinds) > 1:
            raise InputError(f"{method} has rows of {what} {' and '.join(kinds)}; give each its own method name")
    runs = Counter((row.subject, row.draw, row.seed) for row in rows if not row.error)
    for (subject, draw, seed), times in runs.items():
        if times > 1:
            raise InputError(
                f"{method} finished twice on subject {subject}, draw {draw}, seed {seed}; "
                "the same results were probably given twice"
            )

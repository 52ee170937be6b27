"""How near a target's rows are to the source rows of their own class, before and after: numbers, table and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.inside.feature_views import EXTRACTED, UNADAPTED, View
from featlab.analysis.table import Table, number_text, share_text
from featlab.pairing.search import search

__all__ = ["NEAREST", "ViewScore", "score_views", "scores_table", "scores_words"]

NEAREST = 10
"""Source rows that a target row is compared with."""


@dataclass(frozen=True)
class ViewScore:
    """How a target's test rows lie among the source rows in one view.

    Attributes:
        view: A method's registry name, or that of the features as extracted or by T before it is adapted.
        reference: What was done to the source rows.
        rows: Test rows with a known label.
        own_class: Mean share of a test row's nearest source rows that show its class; by Euclidean distance at the
            view's layer, among all source rows of known label, not in the plane. NaN without either.
        by_chance: The same share, were source rows drawn at random.
        silhouette: Mean silhouette of the classes among the test rows, in [-1, 1]; NaN with fewer than two classes.
    """

    view: str
    reference: str
    rows: int
    own_class: float
    by_chance: float
    silhouette: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def score_views(
    views: Sequence[View],
    source_label: NDArray[np.integer[Any]],
    target_label: NDArray[np.integer[Any]],
    test: NDArray[np.intp],
    *,
    nearest: int = NEAREST,
) -> tuple[ViewScore, ...]:
    """Score each view.

    Args:
        views: From `featlab.analysis.inside.feature_views.person_views`.
        source_label: (N,) class codes of the source rows, -1 unknown.
        target_label: (n,) those of the target's rows.
        test: Which of the target's rows are scored.
        nearest: Source rows a test row is compared with, at most all.
    """
    known = np.flatnonzero(source_label >= 0)
    rows = test[target_label[test] >= 0]
    labels = target_label[rows]
    scores = []
    for view in views:
        own, chance = math.nan, math.nan
        if len(known) and len(rows):
            index = search(view.target[rows], view.source[known], min(nearest, len(known)), metric="l2").rows
            own = float((source_label[known][index] == labels[:, None]).mean())
            share = np.bincount(source_label[known], minlength=int(labels.max()) + 1) / len(known)
            chance = float(share[labels].mean())
        silhouette = _silhouette(view.target[rows], labels)
        scores.append(ViewScore(view.name, view.reference, len(rows), own, chance, silhouette))
    return tuple(scores)


def scores_table(scores: Sequence[tuple[str, Sequence[ViewScore]]], names: Mapping[str, str]) -> Table:
    """Return one line a subject and view: share of near source rows of the own class, and the silhouette.

    Args:
        scores: (subject, its scores).
        names: Method to display name.
    """
    columns = ("Target", "Features", "Source rows", "Own class (%)", "Silhouette")
    rows = tuple(
        (
            subject,
            names.get(score.view, score.view),
            score.reference,
            number_text(100 * score.own_class, 1),
            number_text(score.silhouette, 3),
        )
        for subject, views in scores
        for score in views
    )
    notes = (
        f"Own class: of the {NEAREST} source rows nearest to a test row of the target, by Euclidean distance between "
        "features, how many show its class; mean over test rows.",
        "Silhouette: of the classes among the target's test rows; 1 is far apart, 0 is mixed.",
    )
    return Table(
        title="How near the target is to the source rows of its own class",
        columns=columns,
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=notes,
        text_columns=3,
        grouped=True,
    )


def scores_words(subject: str, scores: Sequence[ViewScore], names: Mapping[str, str]) -> list[str]:
    """Return what the scores of one target say, a sentence each."""
    by_view = {score.view: score for score in scores}
    before = by_view[EXTRACTED]
    if math.isnan(before.own_class):
        return [f"{subject}: no test row with a known label, so that nothing is scored."]
    words = [
        f"{subject}, as extracted: of the {NEAREST} source rows nearest to a test row {share_text(before.own_class)} "
        f"show its class (mean over {before.rows} test rows; by chance {share_text(before.by_chance)})."
    ]
    for score in scores:
        if score.view == EXTRACTED:
            continue
        name = names.get(score.view, score.view)
        if score.view == UNADAPTED:
            words.append(
                f"T as pretrained, not adapted to {subject}, gives {share_text(score.own_class)} (source rows "
                f"{score.reference}): the rest is the adaptation's."
            )
            continue
        change = 100 * (score.own_class - before.own_class)
        verdict = "no nearer to its own class" if abs(change) < 0.05 else "nearer" if change > 0 else "farther away"
        verdict = verdict if verdict.startswith("no") else f"{verdict} by {abs(change):.1f} points"
        words.append(
            f"{name} brings {subject} {verdict}: {share_text(score.own_class)}"
            + (f" (source rows {score.reference})" if score.reference != EXTRACTED else "")
            + f"; the silhouette of its classes goes from {before.silhouette:.2f} to {score.silhouette:.2f}."
        )
    return words


def _silhouette(rows: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> float:
    classes = len(np.unique(labels))
    if not 2 <= classes < len(rows):
        return math.nan
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(rows, labels))

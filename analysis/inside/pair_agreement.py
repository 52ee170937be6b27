"""What rows and their references have in common under each pairing strategy, over all source rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.table import Table, number_text
from featlab.cache import FeatureTable
from featlab.pairing.pairs import Pairs
from featlab.pairing.procrustes import disparity, normalise_shapes
from featlab.pairing.search import SHORTEST, lengths

__all__ = ["Agreement", "agreement", "agreement_table", "agreement_words", "pair_cosine", "pair_disparity"]

_BLOCK = 4096
"""Pairs whose embeddings are copied at a time."""
_RULES = {
    "any": "the labels are not looked at, so the share of pairs with the same label is the strategy's own doing.",
    "same": "a reference has the label of its row.",
    "different": "a reference has another label than its row.",
}


@dataclass(frozen=True)
class Agreement:
    """How much rows and their references have in common under one strategy, over all source rows.

    Attributes:
        strategy: One of `featlab.config.sections.STRATEGIES`.
        pairs: How many there are.
        skipped: Source rows without a reference.
        same_label: Share of the pairs of known labels whose labels are the same; NaN without one.
        cosine: Mean cosine similarity of the embeddings; NaN where all are zero.
        disparity: Mean Procrustes disparity of the landmarks, 0 for the same shape; NaN without landmarks.
        used: Share of the source rows that are anyone's reference.
    """

    strategy: str
    pairs: int
    skipped: int
    same_label: float
    cosine: float
    disparity: float
    used: float


def pair_cosine(
    table: FeatureTable, row: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return the cosine similarity of rows and their references, float64 (m,); NaN with a zero embedding."""
    similarity = np.empty(len(row))
    norms = lengths(table.embeddings)
    for start in range(0, len(row), _BLOCK):
        left, right = row[start : start + _BLOCK], reference[start : start + _BLOCK]
        product = np.einsum("nd,nd->n", table.embeddings[left], table.embeddings[right], dtype=np.float64)
        directed = (norms[left] >= SHORTEST) & (norms[right] >= SHORTEST)
        similarity[start : start + _BLOCK] = np.where(
            directed, product / np.where(directed, norms[left] * norms[right], 1.0), np.nan
        )
    return similarity


def pair_disparity(
    table: FeatureTable, row: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return the Procrustes disparity of rows and their references, float64 (m,); NaN without landmarks."""
    if table.landmarks is None:
        return np.full(len(row), np.nan)
    shapes, valid = normalise_shapes(table.landmarks)
    return np.where(valid[row] & valid[reference], disparity(shapes[row], shapes[reference]), np.nan)


def agreement(pairs: Pairs, table: FeatureTable) -> Agreement:
    """Measure what rows and their references have in common.

    Args:
        pairs: Of ``table``.
        table: The source rows.
    """
    left, right = table.label[pairs.row], table.label[pairs.reference]
    known = (left >= 0) & (right >= 0)
    return Agreement(
        strategy=pairs.strategy,
        pairs=len(pairs),
        skipped=pairs.skipped,
        same_label=_mean((left == right)[known]),
        cosine=_mean(pair_cosine(table, pairs.row, pairs.reference)),
        disparity=_mean(pair_disparity(table, pairs.row, pairs.reference)),
        used=len(np.unique(pairs.reference)) / len(table),
    )


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """Return one line a strategy: what pairs have in common, over all source rows."""
    cells = tuple(
        (
            item.strategy,
            number_text(item.pairs, 0),
            number_text(item.skipped, 0),
            number_text(100 * item.same_label, 1),
            number_text(item.cosine, 4),
            number_text(item.disparity, 4),
            number_text(100 * item.used, 1),
        )
        for item in agreements
    )
    return Table(
        title="What rows and their references have in common, over all source rows",
        columns=("Strategy", "Pairs", "Without", "Same label (%)", "Cosine", "Disparity", "Rows used (%)"),
        rows=cells,
        bold=tuple((False,) * len(line) for line in cells),
        notes=(
            "Without: rows that have no reference. Cosine: mean similarity of the embeddings. Disparity: mean "
            "Procrustes disparity of the landmarks, 0 for the same face shape and pose. Rows used: source rows that "
            "are anyone's reference.",
        ),
    )


def agreement_words(agreements: Sequence[Agreement], label_rule: str) -> tuple[str, ...]:
    """Return what the numbers say, a sentence each.

    Args:
        agreements: One a strategy.
        label_rule: The rule that all of them were paired under.
    """
    words = [f"Label rule {label_rule}: {_RULES[label_rule]}"]
    by_name = {item.strategy: item for item in agreements}
    chance = by_name.get("random")
    for item in agreements:
        parts = []
        if not math.isnan(item.same_label):
            parts.append(f"{100 * item.same_label:.1f} % of the pairs show the same label")
        if not math.isnan(item.cosine):
            parts.append(f"the mean cosine similarity is {item.cosine:.3f}")
        if not math.isnan(item.disparity):
            parts.append(f"the mean disparity of the landmarks {item.disparity:.4f}")
        if parts:
            words.append(f"{item.strategy}: {', '.join(parts)}.")
    shape = by_name.get("landmark")
    if shape and chance and shape.disparity > 0:
        words.append(
            f"The disparity of random pairs is {chance.disparity / shape.disparity:.1f} times that of landmark pairs."
        )
    words += [
        f"{item.strategy}: {item.skipped:,} source rows have no reference." for item in agreements if item.skipped
    ]
    return tuple(words)


def _mean(values: NDArray[Any]) -> float:
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan

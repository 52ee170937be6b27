"""What rows and their references have in common under each pairing strategy, over all source rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.table import Table, number_text
from featlab.cache import FeatureTable
from featlab.config.sections import STRATEGIES, PairConfig
from featlab.errors import ConfigError, closest
from featlab.pairing.pairs import Pairs
from featlab.pairing.procrustes import disparity, normalise_shapes
from featlab.pairing.search import SHORTEST, lengths
from featlab.workspace.stages import Source, pair_stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Agreement",
    "ExamplePairs",
    "agreement",
    "agreement_table",
    "agreement_words",
    "draw_pairs",
    "example_columns",
    "example_pairs",
    "example_rows",
    "first_references",
    "known_strategies",
    "pair_cosine",
    "pair_disparity",
    "rows_among",
]

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


Picture = Callable[[int], "NDArray[np.uint8] | None"]
"""Gives the picture of one row of the source table."""


@dataclass(frozen=True, eq=False)
class ExamplePairs:
    """A few source rows, whom each strategy gave them, and what the strategies do to all rows.

    Attributes:
        source: The source rows.
        rows: (k,) intp, the examples, indices into ``source``.
        references: Strategy to (k,) intp, the best reference of each example, -1 where it has none.
        agreements: One a strategy, in the same order.
    """

    source: FeatureTable
    rows: NDArray[np.intp]
    references: Mapping[str, NDArray[np.intp]]
    agreements: tuple[Agreement, ...]


def known_strategies(names: Sequence[str], table: FeatureTable) -> tuple[tuple[str, ...], str]:
    """Return the strategies that can be shown of those asked for, and a note on the one that can't, or nothing.

    Raises:
        ConfigError: An unknown strategy, none, or only landmark for a table without landmarks.
    """
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(f"unknown strategy {name!r}, known: {', '.join(STRATEGIES)}{closest(name, STRATEGIES)}")
    shown = tuple(dict.fromkeys(name for name in names if name != "landmark" or table.landmarks is not None))
    if not shown:
        why = "the cache holds no landmarks for the only one, landmark" if names else "none was named"
        raise ConfigError(f"no pairing strategy to show: {why}; give --strategies random,cosine")
    lacking = "landmark" in names and table.landmarks is None
    return shown, "strategy landmark is left out: the cache holds no landmarks" if lacking else ""


def example_pairs(
    source: Source,
    strategies: Sequence[str],
    count: int = 8,
    *,
    on_strategy: Callable[[int, int], None] = lambda done, total: None,
) -> ExamplePairs:
    """Pair all source rows by each strategy, as `featlab pair` does with the same settings, and pick examples.

    Pairs of an earlier run are reused.

    Args:
        source: Its ``pair`` settings are taken, but for the strategy.
        strategies: Some of `featlab.config.sections.STRATEGIES`.
        count: Example rows, at most.
        on_strategy: Called with the number of finished strategies and of all.

    Raises:
        InputError: Fewer than two source subjects, landmark without landmarks, or no admissible pair.
    """
    table, workspace = source.table, source.workspace
    rows = np.array(example_rows(table, count), dtype=np.intp)
    references, agreements = {}, []
    on_strategy(0, len(strategies))
    for done, strategy in enumerate(strategies, start=1):
        settings: PairConfig = replace(source.config.pair, strategy=strategy)
        variant = replace(workspace, config=replace(source.config, pair=settings))
        pairs, _ = pair_stage(replace(source, workspace=variant))
        references[strategy] = first_references(pairs, rows)
        agreements.append(agreement(pairs, table))
        on_strategy(done, len(strategies))
    return ExamplePairs(table, rows, references, tuple(agreements))


def example_rows(source: FeatureTable, count: int) -> list[int]:
    """Return the middle row of a clip for a few subjects spread over the table, classes in turn.

    Args:
        source: Source rows.
        count: At most that many; no subject comes twice.
    """
    subjects = np.unique(source.subject)
    rows = []
    for place, code in enumerate(subjects[np.linspace(0, len(subjects) - 1, min(count, len(subjects))).astype(int)]):
        mine = np.flatnonzero(source.subject == code)
        present = np.unique(source.label[mine])
        clip = mine[source.label[mine] == present[place % len(present)]]
        clip = clip[source.video[clip] == source.video[clip[0]]]
        rows.append(int(clip[len(clip) // 2]))
    return rows


def rows_among(table: FeatureTable, source: FeatureTable) -> NDArray[np.intp]:
    """Return where the rows of some subjects are in the table of everybody: both have them in the cache's order."""
    return np.flatnonzero(np.isin(table.subject, np.unique(source.subject)))


def first_references(pairs: Pairs, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return each row's best reference, intp, -1 for a row that has none."""
    rows = np.asarray(rows, dtype=np.int64)
    place = np.searchsorted(pairs.row, rows)
    # A row beyond the last pair has none; it is looked up at the last, whose row is another.
    there = np.minimum(place, len(pairs) - 1)
    return np.where(pairs.row[there] == rows, pairs.reference[there], -1).astype(np.intp)


def example_columns(examples: ExamplePairs) -> dict[str, list[Any]]:
    """Return the numbers of `draw_pairs`: one line a strategy and example that has a reference.

    Columns: strategy; subject, video, frame and label of the row and of its reference (an unknown label is empty);
    cosine and disparity.
    """
    table = examples.source
    sides = ("row", "reference")
    names = [f"{side}_{name}" for side in sides for name in ("subject", "video", "frame", "label")]
    columns: dict[str, list[Any]] = {name: [] for name in ("strategy", *names, "cosine", "disparity")}
    for strategy, references in examples.references.items():
        row, reference = examples.rows[references >= 0], references[references >= 0]
        columns["strategy"] += [strategy] * len(row)
        for side, at in zip(sides, (row, reference), strict=True):
            columns[f"{side}_subject"] += [table.subjects[code] for code in table.subject[at]]
            columns[f"{side}_video"] += [table.videos[code] for code in table.video[at]]
            columns[f"{side}_frame"] += table.frame[at].tolist()
            columns[f"{side}_label"] += [_label(table, code) for code in table.label[at].tolist()]
        columns["cosine"] += pair_cosine(table, row, reference).tolist()
        columns["disparity"] += pair_disparity(table, row, reference).tolist()
    return columns


def draw_pairs(examples: ExamplePairs, picture: Picture) -> Figure:
    """Draw the examples on top, and beneath them the reference that each strategy chose, with its similarity.

    The number is what the strategy goes by: for landmark the disparity, else the cosine similarity.
    """
    from featlab.analysis.inside.strips import plot_pairs

    table, data = examples.source, example_columns(examples)
    strips, captions, titles = [], [], []
    start = 0
    for strategy, references in examples.references.items():
        shape = strategy == "landmark"
        numbers = data["disparity" if shape else "cosine"]
        titles.append(f"{strategy}\n({'disparity' if shape else 'cosine'})" if strategy != "cosine" else "cosine")
        texts = []
        for reference in references.tolist():
            texts.append("" if reference < 0 else f"{_who(table, reference)}\n{_number(numbers[start], shape)}")
            start += reference >= 0
        captions.append(texts)
        strips.append([None if reference < 0 else picture(reference) for reference in references.tolist()])
    rows = examples.rows.tolist()
    return plot_pairs(
        [picture(row) for row in rows],
        strips,
        titles,
        captions=captions,
        row_captions=[_who(table, row) for row in rows],
    )


def _who(table: FeatureTable, row: int) -> str:
    """Return subject and label, a line each; an unknown label has no line."""
    label = _label(table, int(table.label[row]))
    subject = table.subjects[table.subject[row]]
    return f"{subject}\n{label}" if label else subject


def _label(table: FeatureTable, code: int) -> str:
    return table.classes[code] if code >= 0 else ""


def _number(value: float, shape: bool) -> str:
    return number_text(value, 4 if shape else 3)

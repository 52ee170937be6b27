"""What the pairing strategies do: example rows with the reference of each strategy, and numbers over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis.inside.faces import Faces, Image, plot_pairs
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import Column, Table, columns_of, make_table, number_text, share_text
from featlab.cache.table import FeatureTable
from featlab.config.sections import STRATEGIES
from featlab.errors import ConfigError, closest
from featlab.pairing.pairs import Pairs
from featlab.pairing.procrustes import Shapes, disparity
from featlab.pairing.search import SHORTEST, lengths
from featlab.workspace.stages import pair_stage
from featlab.workspace.workspace import Source

Codes = NDArray[np.integer[Any]]

_BLOCK = 4096  # Pairs whose embeddings are copied at a time.


@dataclass(frozen=True)
class Agreement:
    """How much rows and their references have in common under one strategy, over all source rows."""

    strategy: str
    pairs: int
    skipped: int  # Source rows without a reference.
    same_label: float  # Fraction of the pairs of known labels whose labels are the same; NaN without one.
    cosine: float  # Mean cosine similarity of the embeddings; NaN where all are zero.
    disparity: float  # Mean Procrustes disparity of the landmarks, 0 for the same shape; NaN without landmarks.
    used: float  # Fraction of the source rows that are anyone's reference.


@dataclass(frozen=True, eq=False)
class ExamplePairs:
    """A few source rows, whom each strategy gave them, and what the strategies do to all rows."""

    source: FeatureTable
    rows: NDArray[np.intp]  # (k,) the examples, indices into source.
    references: Mapping[str, NDArray[np.intp]]  # Strategy to (k,), the best reference of each, -1 where it has none.
    agreements: tuple[Agreement, ...]  # One a strategy, in the same order.


def known_strategies(names: Sequence[str], table: FeatureTable) -> tuple[tuple[str, ...], str]:
    """Return the strategies that can be shown of those asked for, and a note on the one that can't, or nothing."""
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
    """Pair all source rows by each strategy, as `featlab pair` does with the same settings, and pick examples."""
    rows = np.array(example_rows(source.table, count), dtype=np.intp)
    workspace, references, agreements = source.workspace, {}, []
    on_strategy(0, len(strategies))
    for done, strategy in enumerate(strategies, start=1):
        config = replace(workspace.config, pair=replace(workspace.config.pair, strategy=strategy))
        pairs, _ = pair_stage(replace(source, workspace=replace(workspace, config=config)))
        references[strategy] = first_references(pairs, rows)
        agreements.append(agreement(pairs, source.table))
        on_strategy(done, len(strategies))
    return ExamplePairs(source.table, rows, references, tuple(agreements))


def example_rows(source: FeatureTable, count: int) -> list[int]:
    """Return the middle row of a clip for at most so many subjects spread over the table, classes in turn."""
    subjects = np.unique(source.subject)
    rows = []
    for place, code in enumerate(subjects[np.linspace(0, len(subjects) - 1, min(count, len(subjects))).astype(int)]):
        mine = np.flatnonzero(source.subject == code)
        present = np.unique(source.label[mine])
        clip = mine[source.label[mine] == present[place % len(present)]]
        clip = clip[source.video[clip] == source.video[clip[0]]]
        rows.append(int(clip[len(clip) // 2]))
    return rows


def first_references(pairs: Pairs, rows: Sequence[int] | Codes) -> NDArray[np.intp]:
    """Return each row's best reference, -1 for a row that has none."""
    rows = np.asarray(rows, dtype=np.int64)
    place = np.searchsorted(pairs.row, rows)
    # A row beyond the last pair has none; it is looked up at the last, whose row is another.
    there = np.minimum(place, len(pairs) - 1)
    return np.where(pairs.row[there] == rows, pairs.reference[there], -1).astype(np.intp)


def agreement(pairs: Pairs, table: FeatureTable) -> Agreement:
    """Measure what source rows and their references have in common."""
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


def pair_cosine(table: FeatureTable, row: Codes, reference: Codes) -> NDArray[np.float64]:
    """Return (m,) the cosine similarity of rows and their references; NaN with a zero embedding."""
    similarity = np.empty(len(row))
    norms = lengths(table.embeddings)
    norms = np.where(norms < SHORTEST, np.nan, norms)
    for start in range(0, len(row), _BLOCK):
        left, right = row[start : start + _BLOCK], reference[start : start + _BLOCK]
        product = np.einsum("nd,nd->n", table.embeddings[left], table.embeddings[right], dtype=np.float64)
        similarity[start : start + _BLOCK] = product / (norms[left] * norms[right])
    return similarity


def pair_disparity(table: FeatureTable, row: Codes, reference: Codes) -> NDArray[np.float64]:
    """Return (m,) the Procrustes disparity of rows and their references; NaN without landmarks."""
    if table.landmarks is None:
        return np.full(len(row), np.nan)
    shapes = Shapes.of(table.landmarks)
    both = shapes.valid[row] & shapes.valid[reference]
    return np.where(both, disparity(shapes[row], shapes[reference]), np.nan)


def pairs_result(examples: ExamplePairs, faces: Faces, label_rule: str) -> Result:
    """Return the examples as strips of faces, and the numbers over all rows as a table."""
    caption = (
        "Source rows on top, and beneath each the reference that every strategy chose, always another subject: the "
        "nearest embedding (cosine), the nearest face shape (landmark), or any row (random)."
    )
    figure = pairs_figure("pairs", "Who is paired with whom", caption, examples, faces)
    return Result(
        kind="plot",
        title=figure.title,
        summary=[agreement_sentence(examples.agreements, label_rule)],
        tables={"pairs": agreement_table(examples.agreements)},
        figures=[figure],
        data={"strategies": [asdict(item) for item in examples.agreements], "examples": figure.data},
        notes=[faces.note] if faces.note else [],
    )


def pairs_figure(name: str, title: str, caption: str, examples: ExamplePairs, faces: Faces) -> DrawnFigure:
    """Return the figure of examples, with the faces of the workspace's rows."""
    # Where their rows are in the table of everybody: both have them in the cache's order.
    at = np.flatnonzero(np.isin(faces.table.subject, np.unique(examples.source.subject)))
    drawn = draw_pairs(examples, lambda row: faces.image(int(at[row])))
    return DrawnFigure(name, title, caption, drawn, example_columns(examples))


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """Return one line a strategy: what pairs have in common, over all source rows."""
    columns: list[Column[Agreement]] = [
        Column("Strategy", lambda item: item.strategy, text=True),
        Column("Pairs", lambda item: number_text(item.pairs, 0)),
        Column("Without", lambda item: number_text(item.skipped, 0)),
        Column("Same label (%)", lambda item: number_text(100 * item.same_label, 1)),
        Column("Cosine", lambda item: number_text(item.cosine, 4)),
        Column("Disparity", lambda item: number_text(item.disparity, 4)),
        Column("Rows used (%)", lambda item: number_text(100 * item.used, 1)),
    ]
    return make_table(
        "What rows and their references have in common, over all source rows",
        columns,
        agreements,
        notes=(
            "Without: rows that have no reference. Cosine: mean similarity of the embeddings. Disparity: mean "
            "Procrustes disparity of the landmarks, 0 for the same face shape and pose. Rows used: source rows that "
            "are anyone's reference.",
        ),
    )


def agreement_sentence(agreements: Sequence[Agreement], label_rule: str) -> str:
    """Return how many pairs of each strategy show the same label, under the rule that all were made by."""
    parts = [f"{share_text(item.same_label)} of {item.strategy}" for item in agreements]
    return f"Label rule {label_rule}: the same label in {', '.join(parts)} pairs."


def example_columns(examples: ExamplePairs) -> dict[str, list[Any]]:
    """Return the numbers of `draw_pairs`: one line a strategy and example that has a reference."""
    table = examples.source
    names = [f"{side}_{name}" for side in ("row", "reference") for name in ("subject", "video", "frame", "label")]
    lines: list[tuple[Any, ...]] = []

    def said(row: int) -> tuple[Any, ...]:
        video, frame = table.videos[table.video[row]], int(table.frame[row])
        return table.subjects[table.subject[row]], video, frame, _label(table, int(table.label[row]))

    for strategy, references in examples.references.items():
        row, reference = examples.rows[references >= 0], references[references >= 0]
        numbers = (pair_cosine(table, row, reference), pair_disparity(table, row, reference))
        for left, right, *likeness in zip(row, reference, *(values.tolist() for values in numbers), strict=True):
            lines.append((strategy, *said(left), *said(right), *likeness))
    return columns_of(("strategy", *names, "cosine", "disparity"), lines)


def draw_pairs(examples: ExamplePairs, picture: Callable[[int], Image | None]) -> Figure:
    """Draw the examples on top, and beneath them the reference that each strategy chose, with its similarity."""
    table, data, rows = examples.source, example_columns(examples), examples.rows.tolist()
    strips, titles = [[picture(row) for row in rows]], ["row"]
    captions = [[_who(table, row) for row in rows]]
    for strategy, references in examples.references.items():
        measure = "disparity" if strategy == "landmark" else "cosine"
        numbers = iter(v for name, v in zip(data["strategy"], data[measure], strict=True) if name == strategy)
        titles.append(strategy if strategy == measure else f"{strategy}\n({measure})")
        strips.append([None if row < 0 else picture(row) for row in references.tolist()])
        captions.append(
            ["" if row < 0 else f"{_who(table, row)}\n{number_text(next(numbers), 4)}" for row in references.tolist()]
        )
    return plot_pairs(strips, titles, captions)


def _who(table: FeatureTable, row: int) -> str:
    """Return subject and label, a line each; an unknown label has no line."""
    label = _label(table, int(table.label[row]))
    subject = table.subjects[table.subject[row]]
    return f"{subject}\n{label}" if label else subject


def _label(table: FeatureTable, code: int) -> str:
    return table.classes[code] if code >= 0 else ""


def _mean(values: NDArray[Any]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan

"""Pairs of rows from different source subjects: one row gives the expression, its reference gives the identity.

Three ways to choose a row's references among the admissible rows: the nearest by cosine similarity of the embeddings,
the nearest by face shape (least Procrustes disparity of the landmarks), or any at random. Both searches are exact,
unless an index is asked for.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.atomic import atomic_write_text
from featlab.cache.schema import as_cell
from featlab.cache.table import FeatureTable
from featlab.config.sections import PairConfig
from featlab.errors import ConfigError, InputError
from featlab.pairing.nearest import Neighbours
from featlab.pairing.procrustes import Shapes, search_shapes
from featlab.pairing.search import SHORTEST, lengths, search


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (row, reference), ordered by row and then by rank, the best reference first."""

    row: NDArray[np.int64]  # int64 (M,), indices into the table that was paired.
    reference: NDArray[np.int64]  # int64 (M,), indices into the same table, never of the row's own subject.
    score: NDArray[np.float32]  # float32 (M,), cosine similarity, 1 - disparity, or NaN for random.
    strategy: str  # One of `STRATEGIES`.
    label_rule: str  # One of `LABEL_RULES`.
    skipped: int  # Rows of the table that have no reference.
    searched_in_full: int = 0  # Rows that got too few candidates from an index.
    # Share of their true references that rows of a sample have; NaN: all, the search is exact.
    recall: float = math.nan

    def __len__(self) -> int:
        return len(self.row)


def make_pairs(table: FeatureTable, config: PairConfig, *, seed: int) -> Pairs:
    """Give every row of the table references from other subjects.

    Ties go to the reference that comes first by subject, video and frame, so neither the order of the table's rows nor
    the machine changes a pair. Rows without a face (landmark) or with a zero embedding (cosine) take no part. Random
    draws are uniform and without repeats within a row.

    Args:
        table: Source rows of two subjects or more.
        config: Strategy, label rule, references a row.
        seed: Of the random strategy, 0 or more; the others ignore it.

    Returns:
        At most N · neighbours pairs.

    Raises:
        InputError: Fewer than two subjects, landmark without landmarks, or not one admissible pair.
        ConfigError: A negative seed.
    """
    if seed < 0:
        raise ConfigError(f"a seed is 0 or more, not {seed}")
    strategy = config.resolved(table.landmarks is not None)
    if len(np.unique(table.subject)) < 2:
        names = ", ".join(table.subject_names_present()) or "none"
        raise InputError(f"pairs join two source subjects and the rows hold fewer ({names}); add source subjects")
    shapes = Shapes.of(table.landmarks) if strategy == "landmark" and table.landmarks is not None else None
    if strategy == "cosine":
        usable = lengths(table.embeddings) >= SHORTEST
    else:
        usable = np.ones(len(table), dtype=np.bool_) if shapes is None else shapes.valid
    order = np.lexsort((table.frame, table.video, table.subject))
    order = order[usable[order]]
    parts, in_full, hits, checked = [], 0, 0, 0
    for code, is_query, is_base in _label_groups(table.label[order], config.label_rule):
        rows, base = order[is_query], order[is_base]
        others = table.subject[base]
        own = table.subject[rows]
        skip = np.stack([np.searchsorted(others, own, "left"), np.searchsorted(others, own, "right")], axis=1)
        k = min(config.neighbours, len(base))
        if strategy == "random":
            found = _draw(table, rows, skip, len(base), k, (seed, code + 1))
        elif shapes is None:
            vectors = table.embeddings
            found = search(vectors, vectors, k, skip=skip, chosen=(rows, base), index=config.index)
        else:
            found = search_shapes(shapes, shapes, k, skip=skip, chosen=(rows, base), index=config.index)
            found = found._replace(score=1.0 - found.score)
        in_full += found.searched_in_full
        hits, checked = hits + found.checked[0], checked + found.checked[1]
        query, rank = np.nonzero(found.rows >= 0)
        parts.append((rows[query], base[found.rows[query, rank]], found.score[query, rank].astype(np.float32)))
    if not any(len(part[0]) for part in parts):
        hints = {"landmark": "check the landmarks, or use --strategy cosine", "cosine": "look for zero embeddings"}
        remedies = [hints[strategy]] if strategy in hints else []
        remedies += ["use label rule 'any'"] if config.label_rule != "any" else []
        rule = f"strategy {strategy} with label rule {config.label_rule!r}"
        raise InputError(f"no two source subjects have rows that {rule} may pair; {', or '.join(remedies)}")
    row = np.concatenate([part[0] for part in parts]).astype(np.int64)
    by_row = np.argsort(row, kind="stable")
    return Pairs(
        row=row[by_row],
        reference=np.concatenate([part[1] for part in parts]).astype(np.int64)[by_row],
        score=np.concatenate([part[2] for part in parts])[by_row],
        strategy=strategy,
        label_rule=config.label_rule,
        skipped=len(table) - len(np.unique(row)),
        searched_in_full=in_full if checked else 0,
        recall=hits / checked if checked else math.nan,
    )


def pairs_summary(pairs: Pairs, table: FeatureTable) -> dict[str, Any]:
    """Count what the pairs of a table look like, JSON-ready.

    Beside what `Pairs` says (recall is None for an exact search): median_score (None for random), same_label_share (of
    the pairs whose two labels are known; None if there are none), reference_rows (different rows that serve as a
    reference), most_used_row (how often the most used one does: hubs pull all identities towards a few) and references
    (by subject name: how often a row of that subject is the reference).
    """
    row_label, reference_label = table.label[pairs.row], table.label[pairs.reference]
    known = (row_label >= 0) & (reference_label >= 0)
    used = np.bincount(pairs.reference, minlength=len(table))
    by_subject = np.bincount(table.subject[pairs.reference], minlength=len(table.subjects))
    scored = pairs.score[~np.isnan(pairs.score)]
    return {
        "strategy": pairs.strategy,
        "label_rule": pairs.label_rule,
        "pairs": len(pairs),
        "skipped": pairs.skipped,
        "searched_in_full": pairs.searched_in_full,
        "recall": None if math.isnan(pairs.recall) else pairs.recall,
        "median_score": float(np.median(scored)) if len(scored) else None,
        "same_label_share": float((row_label == reference_label)[known].mean()) if known.any() else None,
        "reference_rows": int((used > 0).sum()),
        "most_used_row": int(used.max(initial=0)),
        "references": {table.subjects[code]: int(by_subject[code]) for code in np.unique(table.subject)},
    }


def write_pairs_csv(path: str | os.PathLike[str], pairs: Pairs, table: FeatureTable) -> None:
    """Write the pairs by name, one a line: subject, video, frame and label of row and reference, and the score.

    Unknown labels and the scores of random pairs are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sides, classes = ("row", "reference"), (*table.classes, "")  # The last is the name of label -1.
    writer.writerow([f"{side}_{name}" for side in sides for name in ("subject", "video", "frame", "label")] + ["score"])
    for *pair, score in zip(pairs.row, pairs.reference, pairs.score, strict=True):
        cells: list[object] = []
        for at in pair:
            cells += [table.subjects[table.subject[at]], table.videos[table.video[at]]]
            cells += [table.frame[at], classes[table.label[at]]]
        writer.writerow([*map(as_cell, cells), "" if np.isnan(score) else f"{score:.6f}"])
    atomic_write_text(path, text.getvalue())


def _label_groups(label: NDArray[np.int16], rule: str) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield (label or -1 for any, rows that search together, rows they may find, of whatever subject)."""
    if rule == "any" and len(label):
        everyone = np.ones(len(label), dtype=np.bool_)
        yield -1, everyone, everyone
        return
    known = label >= 0
    for code in np.unique(label[known]).tolist():
        mine = label == code
        base = mine if rule == "same" else known & ~mine
        if base.any():
            yield code, mine, base


def _draw(
    table: FeatureTable, rows: NDArray[np.intp], skip: NDArray[np.intp], base: int, k: int, seeds: tuple[int, int]
) -> Neighbours:
    """Draw k different base rows outside `skip` for each row, uniformly; -1 where there are fewer."""
    found = Neighbours(np.full((len(rows), k), np.nan), np.full((len(rows), k), -1, dtype=np.intp))
    subject = table.subject[rows]
    for code in np.unique(subject):
        mine = np.flatnonzero(subject == code)
        start, stop = (int(bound) for bound in skip[mine[0]])
        # Seeded by the name: another subject more or less doesn't shift the stream of this one.
        rng = np.random.default_rng([*seeds, *table.subjects[code].encode()])
        chosen = _subsets(rng, len(mine), base - (stop - start), k)
        chosen[chosen >= start] += stop - start
        found.rows[mine, : chosen.shape[1]] = chosen
    return found


def _subsets(rng: np.random.Generator, n: int, size: int, k: int) -> NDArray[np.intp]:
    """Draw n subsets of k (or of all, if fewer) of range(size), each subset as likely: Floyd's algorithm, row-wise."""
    k = min(k, size)
    chosen = np.full((n, k), -1, dtype=np.intp)
    for column, last in enumerate(range(size - k, size)):
        drawn = rng.integers(0, last + 1, size=n)
        taken = (chosen == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, last, drawn)
    return chosen

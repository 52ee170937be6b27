"""Pairs of rows from different source subjects: one row gives the expression, its reference gives the identity.

Three ways to choose a row's references among the admissible rows: the nearest by cosine similarity of the embeddings,
the nearest by face shape (least Procrustes disparity of the landmarks), or any at random. Both searches are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.cache import FeatureTable
from featlab.config.sections import LABEL_RULES, STRATEGIES, PairConfig
from featlab.errors import ConfigError, InputError
from featlab.pairing.procrustes import normalise_shapes, search_shapes
from featlab.pairing.search import SHORTEST, lengths, search

__all__ = [
    "LABEL_RULES",
    "STRATEGIES",
    "PairConfig",
    "Pairs",
    "make_pairs",
    "resolve_strategy",
]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (row, reference), ordered by row and then by rank, the best reference first.

    Attributes:
        row: int64 (M,), indices into the table that was paired.
        reference: int64 (M,), indices into the same table, never of the row's own subject.
        score: float32 (M,), cosine similarity, 1 - disparity, or NaN for random.
        strategy: One of `STRATEGIES`.
        label_rule: One of `LABEL_RULES`.
        skipped: Rows of the table that have no reference.
    """

    row: NDArray[np.int64]
    reference: NDArray[np.int64]
    score: NDArray[np.float32]
    strategy: str
    label_rule: str
    skipped: int

    def __len__(self) -> int:
        return len(self.row)


def resolve_strategy(config: PairConfig, table: FeatureTable) -> str:
    """Return the strategy that `config` means for this table, one of `STRATEGIES`.

    Raises:
        InputError: Strategy landmark for a table without landmarks.
    """
    if config.strategy == "auto":
        return "cosine" if table.landmarks is None else "landmark"
    if config.strategy == "landmark" and table.landmarks is None:
        raise InputError(
            "strategy landmark needs landmarks and the cache holds none; "
            "extract again with --landmarks FILE, or use --strategy cosine"
        )
    return config.strategy


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
    strategy = resolve_strategy(config, table)
    if len(np.unique(table.subject)) < 2:
        names = ", ".join(table.subject_names_present()) or "none"
        raise InputError(f"pairs join two source subjects and the rows hold fewer ({names}); add source subjects")
    shapes, usable = _usable_rows(table, strategy)
    order = np.lexsort((table.frame, table.video, table.subject))
    order = order[usable[order]]
    parts = []
    for code, is_query, is_base in _label_groups(table.label[order], config.label_rule):
        rows, base = order[is_query], order[is_base]
        others = table.subject[base]
        own = table.subject[rows]
        skip = np.stack([np.searchsorted(others, own, "left"), np.searchsorted(others, own, "right")], axis=1)
        k = min(config.neighbours, len(base))
        if strategy == "random":
            score, place = _draw(table, rows, skip, len(base), k, (seed, code + 1))
        elif strategy == "cosine":
            score, place = search(table.embeddings[rows], table.embeddings[base], k, skip=skip)
        else:
            score, place = search_shapes(shapes[rows], shapes[base], k, skip=skip)
            score = 1.0 - score
        query, rank = np.nonzero(place >= 0)
        parts.append((rows[query], base[place[query, rank]], score[query, rank].astype(np.float32)))
    if not any(len(part[0]) for part in parts):
        raise InputError(_nothing_admissible(strategy, config.label_rule))
    row = np.concatenate([part[0] for part in parts]).astype(np.int64)
    by_row = np.argsort(row, kind="stable")
    return Pairs(
        row=row[by_row],
        reference=np.concatenate([part[1] for part in parts]).astype(np.int64)[by_row],
        score=np.concatenate([part[2] for part in parts])[by_row],
        strategy=strategy,
        label_rule=config.label_rule,
        skipped=len(table) - len(np.unique(row)),
    )


def _usable_rows(table: FeatureTable, strategy: str) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """Return the normalised shapes (of no points unless they are needed) and which rows can take part."""
    no_shapes = np.empty((len(table), 0), dtype=np.complex128)
    if strategy == "cosine":
        return no_shapes, lengths(table.embeddings) >= SHORTEST
    if strategy == "landmark" and table.landmarks is not None:
        return normalise_shapes(table.landmarks)
    return no_shapes, np.ones(len(table), dtype=np.bool_)


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
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Draw k different base rows outside `skip` for each row, uniformly; -1 where there are fewer."""
    place = np.full((len(rows), k), -1, dtype=np.intp)
    subject = table.subject[rows]
    for code in np.unique(subject):
        mine = np.flatnonzero(subject == code)
        start, stop = (int(bound) for bound in skip[mine[0]])
        # Seeded by the name: another subject more or less doesn't shift the stream of this one.
        rng = np.random.default_rng([*seeds, *table.subjects[code].encode()])
        chosen = _subsets(rng, len(mine), base - (stop - start), k)
        chosen[chosen >= start] += stop - start
        place[mine, : chosen.shape[1]] = chosen
    return np.full(place.shape, np.nan), place


def _subsets(rng: np.random.Generator, n: int, size: int, k: int) -> NDArray[np.intp]:
    """Draw n subsets of k (or of all, if fewer) of range(size), each subset as likely: Floyd's algorithm, row-wise."""
    k = min(k, size)
    chosen = np.full((n, k), -1, dtype=np.intp)
    for column, last in enumerate(range(size - k, size)):
        drawn = rng.integers(0, last + 1, size=n)
        taken = (chosen == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, last, drawn)
    return chosen


def _nothing_admissible(strategy: str, label_rule: str) -> str:
    remedies = {"landmark": ["check the landmarks, or use --strategy cosine"], "cosine": ["look for zero embeddings"]}
    hints = remedies.get(strategy, []) + (["use label rule 'any'"] if label_rule != "any" else [])
    return f"no two source subjects have rows that strategy {strategy} with label rule {label_rule!r} may pair; " + (
        ", or ".join(hints)
    )

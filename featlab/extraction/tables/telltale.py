"""Features that are none: columns that give away the label, the person, the row or the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.cache.table import FeatureTable
from featlab.extraction.tables.rows import few

_LEAST = 10
"""Rows below which it may be chance."""
_LOOKED_AT = 64
"""Rows that rule out nearly every column, so that only the others are looked at in full."""


def telltales(table: FeatureTable, columns: Sequence[str], source_rows: NDArray[np.intp]) -> list[str]:
    """Return a line for each thing that some features give away.

    ``columns`` are the features' names, if they have any; ``source_rows`` (N,) are the rows' places in the source.
    """

    def constant(codes: NDArray[Any]) -> Callable[[NDArray[Any], NDArray[np.intp]], Any]:
        def check(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
            starts = np.flatnonzero(np.diff(codes[rows], prepend=-2))
            return (np.minimum.reduceat(values, starts) == np.maximum.reduceat(values, starts)).all(axis=0)

        return check

    def counts(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
        return (np.diff(source_rows[rows]) == np.diff(values, axis=0).T).all(axis=1)

    def rises(values: NDArray[Any], rows: NDArray[np.intp]) -> Any:
        pairs = (np.diff(table.subject[rows]) == 0) & (np.diff(table.video[rows]) == 0)
        steps = np.diff(values, axis=0)[pairs] / np.diff(table.frame[rows])[pairs, None]
        step = np.median(steps, axis=0) if len(steps) else np.ones(values.shape[1])
        return (step > 0) & (np.abs(steps - step) <= step / 2).all(axis=0)

    def found(rows: NDArray[np.intp], check: Callable[[NDArray[Any], NDArray[np.intp]], Any]) -> list[int]:
        few_rows = rows[:_LOOKED_AT]
        likely = np.flatnonzero(check(table.embeddings[few_rows], few_rows)).tolist()
        return [place for place in likely if check(table.embeddings[rows, place][:, None], rows).all()]

    def by_class(codes: NDArray[Any]) -> list[int]:
        rows = np.argsort(codes, kind="stable")[int((codes < 0).sum()) :]
        firsts = np.flatnonzero(np.diff(codes[rows], prepend=-2))
        if len(firsts) < 2 or len(rows) < max(_LEAST, 3 * len(firsts)):
            return []
        values = table.embeddings[rows[firsts]]
        return [place for place in found(rows, constant(codes)) if (values[:, place] != values[0, place]).any()]

    order = np.lexsort((table.frame, table.video, table.subject))
    steps_in_time = int(((np.diff(table.subject[order]) == 0) & (np.diff(table.video[order]) == 0)).sum())
    told = {
        "the label (one value a class)": by_class(table.label),
        "the subject (one value a person)": by_class(table.subject),
        "the recording (one value a video)": by_class(table.subject.astype(np.int64) * len(table.videos) + table.video),
        "the row number": found(np.arange(len(table)), counts) if len(table) >= _LEAST else [],
        "the time": found(order, rises) if steps_in_time >= _LEAST else [],
    }
    lines, named = [], set[int]()
    for what, places in told.items():
        which = [columns[place] if columns else f"value {place}" for place in places if place not in named]
        named.update(places)
        if which:
            give = "gives" if len(which) == 1 else "give"
            lines.append(f"{few(which)} {give} away {what}; --columns chooses the columns of features")
    return lines

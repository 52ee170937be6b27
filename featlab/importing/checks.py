"""Rows that a cache can't hold, and what storing the others costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.extraction.precision import StorageError, storage_error
from featlab.importing.rows import ReadRows

__all__ = ["bad_rows", "float16_error"]

_BLOCK_BYTES = 16 << 20


def bad_rows(rows: ReadRows, kept: NDArray[np.intp], dtype: str) -> dict[int, str]:
    """Return the rows that can't be stored, in their order, and why.

    Args:
        rows: Features and layers.
        kept: Places that are looked at, ascending.
        dtype: As the embeddings would be stored.
    """
    bad: dict[int, str] = {}
    for part in _blocks(kept, rows.features.shape[1]):
        block = rows.features[part]
        with np.errstate(over="ignore"):
            fits = np.isfinite(block.astype(dtype))
        for place in np.flatnonzero(~fits.all(axis=1)).tolist():
            column = int(np.argmin(fits[place]))
            bad[int(part[place])] = _why(rows, column, float(block[place, column]), dtype)
    for name, stats in rows.layers.items():
        finite = _finite_rows(stats.mean) & _finite_rows(stats.std)
        for row in kept[~finite[kept]].tolist():
            bad.setdefault(row, f"its statistics of the layer {name!r} aren't finite")
    return dict(sorted(bad.items()))


def float16_error(features: NDArray[np.float32]) -> float:
    """Return the largest relative error of a row (see `featlab.extraction.precision`) that float16 makes."""
    rows = np.arange(len(features))
    return StorageError.of(storage_error(features[part]) for part in _blocks(rows, features.shape[1])).max


def _blocks(rows: NDArray[np.intp], width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    finite: NDArray[np.bool_] = np.isfinite(values).all(axis=1)
    return finite


def _why(rows: ReadRows, column: int, value: float, dtype: str) -> str:
    name = rows.columns[column] if rows.columns else f"value {column}"
    if np.isnan(value):
        return f"{name} is missing or NaN"
    return f"{name} is infinite" if np.isinf(value) else f"{name} is {value:g}, too large for {dtype}"

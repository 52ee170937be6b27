"""What storing embeddings as float16 costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["StorageError", "storage_error"]


@dataclass(frozen=True)
class StorageError:
    """Relative error of stored rows: the length of what rounding changed, as a share of the row's length.

    Attributes:
        rows: How many were looked at.
        median: Over rows; 0 without any.
        max: Likewise.
    """

    rows: int
    median: float
    max: float

    @classmethod
    def of(cls, errors: Iterable[NDArray[np.float64]]) -> StorageError:
        """Summarise the errors of some blocks of rows, each as `storage_error` returns them."""
        parts = list(errors)
        every = np.concatenate(parts) if parts else np.empty(0)
        if every.size == 0:
            return cls(0, 0.0, 0.0)
        return cls(int(every.size), float(np.median(every)), float(every.max()))


def storage_error(embeddings: NDArray[np.float32], dtype: str = "float16") -> NDArray[np.float64]:
    """Return ‖stored − row‖ / ‖row‖ of each row.

    Args:
        embeddings: float32 (n, D), finite.
        dtype: As stored. float32 costs nothing; float16 keeps 11 bits, so a row of normal numbers has an error of at
            most 2^-11 = 4.9e-4, and one of numbers below 6e-5 a larger one.

    Returns:
        float64 (n,): 0 for a row of zeros, infinite for a row that overflows.
    """
    rows = embeddings.astype(np.float64)
    with np.errstate(over="ignore"):
        stored = embeddings.astype(dtype).astype(np.float64)
    # Scaled by the largest value, so that squares neither overflow nor vanish.
    scale = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    scale[scale == 0] = 1.0
    with np.errstate(invalid="ignore"):
        lost = np.linalg.norm((stored - rows) / scale, axis=1)
    length = np.linalg.norm(rows / scale, axis=1)
    errors: NDArray[np.float64] = np.where(length > 0, lost / np.where(length > 0, length, 1.0), 0.0)
    return errors

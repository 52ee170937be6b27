"""Whether a confidence of .8 is right 8 times in 10: counts for a reliability diagram, and the error of calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = ["BINS", "bin_edges", "calibration_error", "reliability_counts"]

BINS = 15
"""Bins of equal width, as in Guo et al. (2017)."""


def bin_edges() -> NDArray[np.float64]:
    """Return the 16 edges; a bin holds its upper one, and the first holds 0 too."""
    return np.linspace(0.0, 1.0, BINS + 1)


def reliability_counts(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Count rows by the probability of the predicted class, its confidence.

    Args:
        probabilities: (n, K); the largest is the prediction, of equals the first.
        labels: (n,) codes; rows with -1 (unknown) are left out.

    Returns:
        (15, 3) float64: rows in the bin, sum of their confidence, rows that are right. Counts of several subjects can
        be added.

    Raises:
        InputError: Shapes that do not fit, or confidences outside [0, 1].
    """
    if probabilities.ndim != 2 or labels.shape != (len(probabilities),):
        raise InputError(f"probabilities of shape {probabilities.shape} need a label a row, got {labels.shape}")
    known = labels >= 0
    scores = probabilities[known].astype(np.float64)
    confidence = scores.max(axis=1, initial=0.0)
    # A softmax in float32 may end a little above 1.
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise InputError("a calibration error takes probabilities, and these go beyond 1 or are not finite")
    right = scores.argmax(axis=1) == labels[known]
    place = np.clip(np.searchsorted(bin_edges(), confidence, side="left") - 1, 0, BINS - 1)
    columns = [np.bincount(place, weights=values, minlength=BINS) for values in (None, confidence, right)]
    return np.column_stack(columns).astype(np.float64)


def calibration_error(counts: NDArray[np.float64]) -> float:
    """Return the top-label expected calibration error: the mean of |confidence − accuracy| over bins, weighed by rows.

    ECE = Σ_b n_b/n · |acc(b) − conf(b)| (Guo et al., 2017, equation 3).

    Args:
        counts: (15, 3) from `reliability_counts`, or a sum or mean of such, on any scale.

    Returns:
        ECE in [0, 1]; NaN without a row.
    """
    rows = float(counts[:, 0].sum())
    return float(np.abs(counts[:, 1] - counts[:, 2]).sum() / rows) if rows else float("nan")

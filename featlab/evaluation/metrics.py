"""How well one target subject's test rows are recognised: the numbers behind every table.

The label set of macro F1 is a choice that changes the number, so it is stated here once. With ``y = [0, 0, 0]`` and
``y_hat = [0, 0, 1]``, scikit-learn's default (the union of both) gives .400, all of ``K = 7`` classes give .1143, and
the main number of featlab, the classes *present in the subject's test labels*, gives .800: a person who never shows
fear is not marked down for a class that can not be right. Predictions of an absent class still cost recall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.config.sections import check_window
from featlab.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SubjectMetrics:
    """Scores of one subject's labelled test rows, all in [0, 1]; NaN and nothing where there are none."""

    macro_f1: float = math.nan  # Mean F1 over the classes present in the test labels. The main number.
    macro_f1_all: float = math.nan  # Mean F1 over all K classes; one that is neither shown nor predicted counts as 0.
    accuracy: float = math.nan  # Fraction of rows predicted right.
    balanced_accuracy: float = math.nan  # Mean recall over the classes present in the test labels.
    neutral_recall: float = math.nan  # Recall of the neutral class; NaN when the subject has no neutral test row.
    non_neutral_recall: float = math.nan  # Mean recall over the other classes present; NaN when there is none.
    histogram: tuple[int, ...] = ()  # Predicted rows for each of the K classes.
    frames: int = 0  # Labelled rows that were scored.
    collapsed: bool = False  # Whether every row was predicted as one and the same class.
    class_recall: tuple[float, ...] = ()  # Recall of each of the K classes, NaN for one that is not shown.
    confusion: tuple[int, ...] = ()  # K × K counts, row by row: label first, prediction second.


def subject_metrics(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], neutral_code: int
) -> SubjectMetrics:
    """Score one subject's test rows.

    ``labels`` are (n,) codes; rows with -1 (unknown) are ignored. Of (n, K) ``probabilities`` the largest is the
    prediction; of equals, the first. Arrays that don't fit together or aren't finite are an InputError, and so is not
    one label.
    """
    labels, probabilities = _labelled(labels, probabilities)
    if not len(labels):
        raise InputError("no labelled test row for this subject: nothing to score; give its test videos labels")
    count, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    matrix = np.bincount(labels.astype(np.int64) * count + predicted, minlength=count * count).reshape(count, count)
    shown, found, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    f1, recall = 2.0 * right / np.maximum(shown + found, 1), right / np.maximum(shown, 1)
    present, others = shown > 0, np.arange(count) != neutral_code
    return SubjectMetrics(
        macro_f1=float(f1[present].mean()),
        macro_f1_all=float(f1.mean()),
        accuracy=float(right.sum() / len(labels)),
        balanced_accuracy=float(recall[present].mean()),
        neutral_recall=float(recall[neutral_code]) if present[neutral_code] else math.nan,
        non_neutral_recall=float(recall[present & others].mean()) if (present & others).any() else math.nan,
        histogram=tuple(found.tolist()),
        frames=len(labels),
        collapsed=bool(found.max() == len(labels)),
        class_recall=tuple(np.where(present, recall, math.nan).tolist()),
        confusion=tuple(matrix.ravel().tolist()),
    )


def _labelled(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """Return the labels and probabilities of the rows that have a label, and check both."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise InputError(f"probabilities of shape {probabilities.shape} need a label a row, got {labels.shape}")
    if labels.max(initial=-1) >= probabilities.shape[1]:
        raise InputError(f"labels run up to {labels.max()}, and there are {probabilities.shape[1]} classes")
    known = labels >= 0
    scores = probabilities[known].astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError("probabilities hold NaN or infinity; the adaptation diverged or the features are damaged")
    return labels[known], scores


def video_scores(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], video: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (V,) labels and (V, K) mean probabilities of videos, by their codes: what is scored where one is the unit.

    Given are (n,) labels, -1 where unknown, (n, K) probabilities and (n,) videos. A video's label is the one that most
    of its labelled frames have, of equals the first in the classes' order; without a labelled frame it is left out. The
    mean is over all of its frames.
    """
    found, place = np.unique(video, return_inverse=True)
    known = labels >= 0
    votes = np.zeros((len(found), probabilities.shape[1]), dtype=np.int64)
    np.add.at(votes, (place[known], labels[known]), 1)
    sums = np.zeros(votes.shape)
    np.add.at(sums, place, probabilities)
    kept = votes.sum(axis=1) > 0
    return votes[kept].argmax(axis=1), sums[kept] / np.bincount(place)[kept, None]


BINS = 15
"""Bins of equal width, as in Guo et al. (2017); one holds its upper edge, and the first holds 0 too."""


def reliability_counts(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Count labelled rows by the probability of the predicted class, its confidence.

    Returns (15, 3) float64: rows in the bin, sum of their confidence, rows that are right. Counts of several subjects
    can be added.
    """
    labels, scores = _labelled(labels, probabilities)
    confidence = scores.max(axis=1, initial=0.0)
    # A softmax in float32 may end a little above 1.
    if (confidence > 1 + 1e-6).any():
        raise InputError("a calibration error takes probabilities, and these go beyond 1")
    right = scores.argmax(axis=1) == labels
    place = np.clip(np.searchsorted(np.linspace(0.0, 1.0, BINS + 1), confidence) - 1, 0, BINS - 1)
    columns = [np.bincount(place, weights=values, minlength=BINS) for values in (None, confidence, right)]
    return np.column_stack(columns).astype(np.float64)


def calibration_error(counts: NDArray[np.float64]) -> float:
    """Return the top-label expected calibration error: the mean of |confidence − accuracy| over bins, weighed by rows.

    ECE = Σ_b n_b/n · |acc(b) − conf(b)| (Guo et al., 2017, equation 3), in [0, 1]; NaN without a row. The (15, 3)
    counts may be a sum or mean of several, on any scale.
    """
    rows = float(counts[:, 0].sum())
    return float(np.abs(counts[:, 1] - counts[:, 2]).sum() / rows) if rows else float("nan")


def smooth_probabilities(
    probabilities: NDArray[np.float32], video: NDArray[np.integer[Any]], frame: NDArray[np.integer[Any]], window: int
) -> NDArray[np.float32]:
    """Return the centred moving average of class probabilities within each video, in frame order.

    The window counts rows, whatever frames were left out between them, and is cut at a video's ends: the first row is
    the mean of itself and the (window − 1) / 2 rows after it. A mean of probabilities sums to 1 as they do. Rows may
    come in any order; those of one frame stay in the order given. A window of 1 or 0 returns the probabilities as they
    are.
    """
    check_window("smoothing", window)
    rows = len(probabilities)
    if window <= 1 or not rows:
        return probabilities
    order = np.lexsort((frame, video))
    ordered = video[order]
    place = np.arange(rows)
    first = np.searchsorted(ordered, ordered, side="left")
    end = np.searchsorted(ordered, ordered, side="right")
    low = np.maximum(place - window // 2, first)
    high = np.minimum(place + window // 2 + 1, end)
    # Sums of a stretch are differences of running sums, in float64: their error is far below that of float32.
    total = np.zeros((rows + 1, probabilities.shape[1]))
    np.cumsum(probabilities[order], axis=0, dtype=np.float64, out=total[1:])
    smoothed = np.empty_like(probabilities)
    smoothed[order] = (total[high] - total[low]) / (high - low)[:, None]
    return smoothed

"""How well one target subject's test rows are recognised: the numbers behind every table.

The label set of macro F1 is a choice that changes the number, so it is stated here once. With ``y = [0, 0, 0]`` and
``y_hat = [0, 0, 1]``, scikit-learn's default (the union of both) gives .400, all of ``K = 7`` classes give .1143, and
the main number of featlab, the classes *present in the subject's test labels*, gives .800: a person who never shows
fear is not marked down for a class that can not be right. Predictions of an absent class still cost recall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = ["SubjectMetrics", "confusion_matrix", "subject_metrics"]


@dataclass(frozen=True)
class SubjectMetrics:
    """Scores of one subject's labelled test rows, all in [0, 1].

    Attributes:
        macro_f1: Mean F1 over the classes present in the test labels. The main number.
        macro_f1_all: Mean F1 over all K classes; a class that is neither shown nor predicted counts as 0.
        accuracy: Share of rows predicted right.
        balanced_accuracy: Mean recall over the classes present in the test labels.
        neutral_recall: Recall of the neutral class; NaN when the subject has no neutral test row.
        non_neutral_recall: Mean recall over the other classes present; NaN when there is none.
        histogram: Predicted rows for each of the K classes.
        frames: Labelled rows that were scored.
        recall: Recall of each of the K classes, NaN for one that is not shown.
        confusion: K × K counts, row by row: label first, prediction second.
        video_macro_f1: ``macro_f1`` with a video as the unit; NaN when no videos were given.
    """

    macro_f1: float
    macro_f1_all: float
    accuracy: float
    balanced_accuracy: float
    neutral_recall: float
    non_neutral_recall: float
    histogram: tuple[int, ...]
    frames: int
    recall: tuple[float, ...]
    confusion: tuple[int, ...]
    video_macro_f1: float = float("nan")

    @property
    def collapsed(self) -> bool:
        """Whether every row was predicted as one and the same class."""
        return max(self.histogram) == self.frames


def confusion_matrix(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]], count: int
) -> NDArray[np.int64]:
    """Count rows by (label, prediction).

    Args:
        labels: (n,) codes in ``[0, count)``.
        predictions: (n,) codes in ``[0, count)``.
        count: Number of classes K.

    Returns:
        (K, K) int64, row = label, column = prediction.
    """
    flat = labels.astype(np.int64) * count + predictions.astype(np.int64)
    return np.bincount(flat, minlength=count * count).reshape(count, count)


def subject_metrics(
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[Any],
    *,
    classes: Sequence[str],
    neutral_code: int,
    videos: NDArray[np.integer[Any]] | None = None,
) -> SubjectMetrics:
    """Score one subject's test rows.

    Args:
        labels: (n,) integer class codes; rows with -1 (unknown) are ignored.
        predicted: (n, K) finite probabilities or scores (the largest wins; of equals, the first), or (n,) codes.
        classes: The K class names.
        neutral_code: Index of the neutral class in ``classes``.
        videos: (n,) integer video codes; when given, ``video_macro_f1`` is filled. A video's label is its most frequent
            frame label, its prediction the class of the largest mean probability (of the most votes, for codes).

    Returns:
        The subject's scores.

    Raises:
        InputError: Shapes or codes that do not fit, non-finite probabilities, or no labelled row.
    """
    count = len(classes)
    labels = np.asarray(labels)
    _check_codes("labels", labels, -1, count)
    if not 0 <= neutral_code < count:
        raise InputError(f"neutral code {neutral_code} is not one of the {count} classes")
    scores = _as_scores(np.asarray(predicted), len(labels), count)
    known = labels >= 0
    if not known.any():
        raise InputError("no labelled test row for this subject: nothing to score; give its test videos labels")
    labels, scores = labels[known], scores[known]
    matrix = confusion_matrix(labels, scores.argmax(axis=1), count)
    f1, recall, present = _f1(matrix), _recall(matrix), matrix.sum(axis=1) > 0
    expressive = present.copy()
    expressive[neutral_code] = False
    video_macro_f1 = float("nan")
    if videos is not None:
        videos = np.asarray(videos)
        if videos.shape != known.shape:
            raise InputError(f"videos have shape {videos.shape}, expected {known.shape}: one code a row")
        video_macro_f1 = _video_macro_f1(labels, scores, videos[known])
    return SubjectMetrics(
        macro_f1=float(f1[present].mean()),
        macro_f1_all=float(f1.mean()),
        accuracy=float(np.trace(matrix) / matrix.sum()),
        balanced_accuracy=float(recall[present].mean()),
        neutral_recall=float(recall[neutral_code]) if present[neutral_code] else float("nan"),
        non_neutral_recall=float(recall[expressive].mean()) if expressive.any() else float("nan"),
        histogram=tuple(int(total) for total in matrix.sum(axis=0)),
        frames=int(matrix.sum()),
        recall=tuple(float(value) if shown else math.nan for value, shown in zip(recall, present, strict=True)),
        confusion=tuple(int(total) for total in matrix.ravel()),
        video_macro_f1=video_macro_f1,
    )


def _as_scores(predicted: NDArray[Any], rows: int, count: int) -> NDArray[np.float64]:
    """Return (n, K) scores; codes become one-hot rows, so that a mean over them counts votes."""
    if predicted.ndim == 2:
        if predicted.shape != (rows, count):
            raise InputError(f"probabilities have shape {predicted.shape}, expected {(rows, count)}: (rows, classes)")
        scores = predicted.astype(np.float64)
        if not np.isfinite(scores).all():
            raise InputError("probabilities hold NaN or infinity; the adaptation diverged or the features are damaged")
        return scores
    if predicted.shape != (rows,):
        raise InputError(f"predictions have shape {predicted.shape}, expected {(rows,)} or {(rows, count)}")
    _check_codes("predictions", predicted, 0, count)
    votes: NDArray[np.float64] = np.eye(count)[predicted]
    return votes


def _check_codes(what: str, codes: NDArray[Any], lowest: int, count: int) -> None:
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise InputError(f"{what} must be a 1-d integer array, not {codes.dtype} of shape {codes.shape}")
    if codes.size and (codes.min() < lowest or codes.max() >= count):
        raise InputError(f"{what} run from {codes.min()} to {codes.max()}, outside {lowest}..{count - 1}")


def _f1(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (K,) F1 = 2 tp / (shown + predicted); 0 for a class that is neither."""
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    f1: NDArray[np.float64] = 2.0 * np.diag(matrix) / np.maximum(total, 1)
    return f1


def _recall(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    recall: NDArray[np.float64] = np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)
    return recall


def _video_macro_f1(
    labels: NDArray[np.integer[Any]], scores: NDArray[np.float64], videos: NDArray[np.integer[Any]]
) -> float:
    count = scores.shape[1]
    names = np.unique(videos)
    truth = np.array([np.bincount(labels[videos == name], minlength=count).argmax() for name in names])
    guess = np.array([scores[videos == name].mean(axis=0).argmax() for name in names])
    matrix = confusion_matrix(truth, guess, count)
    return float(_f1(matrix)[matrix.sum(axis=1) > 0].mean())

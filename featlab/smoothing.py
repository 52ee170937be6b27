"""Temporal smoothing of predictions: an expression lasts longer than a frame, and a mistake often doesn't."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.config_sections import check_window
from featlab.errors import InputError

__all__ = ["smooth_probabilities"]


def smooth_probabilities(
    probabilities: NDArray[np.float32], video: NDArray[np.integer[Any]], frame: NDArray[np.integer[Any]], window: int
) -> NDArray[np.float32]:
    """Return the centred moving average of class probabilities within each video, in frame order.

    The window counts rows, whatever frames were left out between them, and is cut at a video's ends: the first row is
    the mean of itself and the (window − 1) / 2 rows after it. A mean of probabilities sums to 1 as they do.

    Args:
        probabilities: (n, K) float32, finite, rows in any order.
        video: (n,) which rows come from one video.
        frame: (n,) the order within a video; rows of one frame stay in the order given.
        window: Rows averaged over; odd. 1 or 0 returns the probabilities as they are.

    Returns:
        (n, K) in the order of ``probabilities``.

    Raises:
        ConfigError: A window that is even or negative.
        InputError: Shapes that do not fit.
    """
    check_window("smoothing", window)
    rows = len(probabilities)
    if probabilities.ndim != 2 or video.shape != (rows,) or frame.shape != (rows,):
        raise InputError(
            f"probabilities of shape {probabilities.shape} need {rows} values of video and frame, got "
            f"{video.shape} and {frame.shape}"
        )
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

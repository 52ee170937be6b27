"""The order of rows: ascending by subject, video and frame, each triple once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_disorder(
    subject: NDArray[np.integer[Any]], video: NDArray[np.integer[Any]], frame: NDArray[np.integer[Any]]
) -> int | None:
    """The first row that does not come strictly after the one before it.

    Args:
        subject: (N,) codes in name order.
        video: (N,) codes in name order.
        frame: (N,) frame numbers.

    Returns:
        The row's index (1 or more), or None when every row is in its place. It is a duplicate when all three of its
        numbers equal those of the row before.
    """
    same_subject = subject[1:] == subject[:-1]
    same_video = same_subject & (video[1:] == video[:-1])
    ascends = (subject[1:] > subject[:-1]) | (same_subject & (video[1:] > video[:-1]))
    ascends |= same_video & (frame[1:] > frame[:-1])
    if ascends.all():
        return None
    return int(np.argmin(ascends)) + 1

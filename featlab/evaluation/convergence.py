"""When an adaptation had converged, by one rule for every method: read off the losses that its steps logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

PARTS, MINIMUM = 10, 5
"""The running median takes a tenth of the losses, 5 at least: batches of other rows make a loss jump about."""
TOLERANCE = 0.05
"""Share of the whole fall within which a loss counts as settled."""

CONVERGENCE_RULE = (
    f"the first iteration from which on the loss, smoothed by a centred median over 1/{PARTS} of the iterations "
    f"({MINIMUM} at least), stays within {100 * TOLERANCE:g} % of its whole fall around its last level"
)
"""The rule, for tables."""


def converged_at(losses: Sequence[float], *, window: int | None = None, tolerance: float = TOLERANCE) -> int | None:
    """Return the number of the iteration from which on a loss stays where it ends.

    The loss is smoothed by a centred running median, narrower at the beginning, so that a loss that falls steadily is
    left as it is. Its last level is the last full median; its fall is that of the highest of the first smoothed values
    down to there. A loss that still falls at the end counts as converged in its last iterations only.

    Args:
        losses: One an iteration, each computed before its step.
        window: Odd number of losses in a median; a tenth of all by default, 5 at least.
        tolerance: Share of the fall.

    Returns:
        A number from 1 to ``len(losses)``; 0 without any loss (a closed form). ``None`` for a loss that ends higher
        than it began, or that is not finite: it has not converged.
    """
    values = np.asarray(losses, dtype=np.float64)
    if not len(values):
        return 0
    if not np.isfinite(values).all():
        return None
    if window is None:
        window = max(MINIMUM, len(values) // PARTS)
    half = min(window // 2, (len(values) - 1) // 2)
    smooth = _running_median(values, half)
    if smooth[-1] > smooth[0]:
        return None
    fall = smooth[: 2 * half + 1].max() - smooth[-1]
    away = np.flatnonzero(np.abs(smooth - smooth[-1]) > tolerance * fall)
    return int(away[-1]) + 2 if len(away) else 1


def iterations_to_converge(history: Sequence[Mapping[str, float]], iterations: int) -> int | None:
    """Return how many of its iterations an adaptation needed until its loss had settled, by `converged_at`.

    A method of several stages has a loss a stage, told apart by the names of its terms; their iterations are added up.
    0 for a closed form; ``None`` when a stage has not converged, or when losses were not logged once an iteration (a
    line search computes several).
    """
    if len(history) != iterations or any("loss" not in entry for entry in history):
        return None
    counts = [converged_at([entry["loss"] for entry in stage]) for _, stage in groupby(history, key=frozenset)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _running_median(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return the median of 2 ``half`` + 1 values around each but the last ``half``, narrower around the first ones."""
    inner = np.median(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1), axis=1)
    first = [np.median(values[: 2 * place + 1]) for place in range(half)]
    return np.concatenate([first, inner])

"""Statistics over target subjects: intervals, paired tests and their correction, counts of gains and losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = [
    "TOLERANCE",
    "bootstrap_interval",
    "deviation",
    "gap_closed",
    "holm",
    "mean",
    "negative_transfer",
    "paired_wilcoxon",
    "win_tie_loss",
]

TOLERANCE = 1e-9
"""Two scores nearer than this are equal: sums of the same terms in another order differ in the last bits."""

_EXACT_UP_TO = 200


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over subjects.

    Args:
        values: (n,) finite scores, one a subject.
        level: Coverage, in (0, 1).
        resamples: Bootstrap samples.
        seed: Of the resampling; the same seed gives the same interval.

    Returns:
        (low, high); (NaN, NaN) for fewer than two subjects, which say nothing about the spread.

    Raises:
        InputError: A non-finite value, a level outside (0, 1), or no resamples.
    """
    scores = _finite(values)
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of an interval lies between 0 and 1, not {level}")
    if resamples < 1:
        raise InputError(f"a bootstrap needs at least one resample, not {resamples}")
    if len(scores) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = scores[rng.integers(0, len(scores), size=(resamples, len(scores)))].mean(axis=1)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)


def paired_wilcoxon(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p value of the Wilcoxon signed-rank test of ``a`` against ``b``.

    Zero differences are dropped and equal ones share their mean rank (Wilcoxon 1945). The p value is exact up to
    200 subjects, ties included: subjects' scores are often equal, and SciPy's exact table does not hold then. Beyond,
    SciPy's normal approximation. The smallest p that n subjects can give is 2 / 2**n: five can never reach .05.

    Args:
        a: (n,) finite scores, one a subject.
        b: (n,) finite scores of the same subjects in the same order.

    Returns:
        p in (0, 1]; 1.0 when all differences are zero; NaN for no subjects.

    Raises:
        InputError: Different lengths or non-finite values.
    """
    difference = _paired(a, b)
    if difference.size == 0:
        return float("nan")
    difference = difference[np.abs(difference) > TOLERANCE]
    if difference.size == 0:
        return 1.0
    from scipy import stats

    # Differences that are equal but for rounding must tie, or the last bit decides their ranks.
    difference = np.round(difference, 9)
    if difference.size > _EXACT_UP_TO:
        return float(stats.wilcoxon(difference, method="approx").pvalue)
    doubled = np.round(2 * stats.rankdata(np.abs(difference))).astype(np.int64)
    observed = int(doubled[difference > 0].sum())
    chance = _rank_sum_distribution(doubled)
    tail = min(float(chance[: observed + 1].sum()), float(chance[observed:].sum()))
    return min(1.0, 2.0 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by the step-down rule of Holm (1979).

    Args:
        p_values: One a hypothesis; NaN for one that could not be tested, which counts for nothing.

    Returns:
        The adjusted values in the order given, at most 1; NaN stays NaN.
    """
    adjusted = [float("nan")] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = largest
    return adjusted


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN without a value."""
    return float(np.mean(values)) if values else float("nan")


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def gap_closed(score: float, source: float, oracle: float) -> float:
    """Return (score - source) / (oracle - source): 0 for source-only, 1 for the oracle, negative for harm.

    NaN when the oracle is not above source-only (there is no gap) or when any of the three is NaN.
    """
    if not oracle - source > TOLERANCE:
        return float("nan")
    return (score - source) / (oracle - source)


def negative_transfer(scores: Sequence[float], source_scores: Sequence[float]) -> int:
    """Return how many subjects a method left below source-only.

    Raises:
        InputError: Different lengths or non-finite values.
    """
    return win_tie_loss(scores, source_scores)[2]


def win_tie_loss(scores: Sequence[float], reference: Sequence[float]) -> tuple[int, int, int]:
    """Return on how many subjects ``scores`` are above, equal to (within `TOLERANCE`) and below ``reference``.

    Raises:
        InputError: Different lengths or non-finite values.
    """
    difference = _paired(scores, reference)
    wins = int((difference > TOLERANCE).sum())
    losses = int((difference < -TOLERANCE).sum())
    return wins, len(difference) - wins - losses, losses


def _rank_sum_distribution(doubled_ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the chance of each sum of (doubled) ranks when every sign is a fair coin.

    Ranks are doubled because a mean rank may end in one half. Adding one rank at a time shifts and mixes the
    distribution: all 2**n sign patterns without listing them.
    """
    chance = np.zeros(int(doubled_ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled_ranks:
        shifted = np.zeros_like(chance)
        shifted[rank:] = chance[:-rank]
        chance = 0.5 * (chance + shifted)
    return chance


def _paired(a: Sequence[float], b: Sequence[float]) -> NDArray[np.float64]:
    first, second = _finite(a), _finite(b)
    if len(first) != len(second):
        raise InputError(
            f"a paired comparison needs the same subjects on both sides, not {len(first)} and {len(second)}"
        )
    return first - second


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise InputError(f"scores must be a list of finite numbers, one a subject; got shape {scores.shape}")
    return scores

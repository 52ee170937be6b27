"""Statistics over target subjects: intervals, paired tests and their correction, gains and losses, average ranks.

Ranks are compared as in Demšar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7:
Friedman's test, then Nemenyi's critical difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

TOLERANCE = 1e-9
"""Two scores nearer than this are equal: sums of the same terms in another order differ in the last bits."""

_EXACT_UP_TO, _RESAMPLES = 200, 2000
Floats = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Scores of the same subjects compared, a pair each; a number that can't be had is NaN."""

    subjects: int
    difference: float  # Mean over subjects.
    ci95: tuple[float, float]  # Its bootstrap interval.
    p: float  # Wilcoxon.
    wins: int  # Subjects above the other by more than `TOLERANCE`.
    ties: int  # Subjects equal to it.
    losses: int  # Subjects below it.


def compare_scores(pairs: Iterable[Sequence[float]]) -> Comparison:
    """Compare two scores of each subject, ours and the other; values that are not finite are an InputError."""
    scores = _finite([one - other for one, other in pairs])
    wins, losses = int((scores > TOLERANCE).sum()), int((scores < -TOLERANCE).sum())
    return Comparison(
        subjects=len(scores),
        difference=mean(scores),
        ci95=bootstrap_interval(scores),
        p=wilcoxon(scores),
        wins=wins,
        ties=len(scores) - wins - losses,
        losses=losses,
    )


def bootstrap_interval(values: Floats) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of one score a subject; NaN for fewer than two."""
    scores = _finite(values)
    if len(scores) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    means = scores[rng.integers(0, len(scores), size=(_RESAMPLES, len(scores)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def wilcoxon(differences: Floats) -> float:
    """Return the two-sided p value of the Wilcoxon signed-rank test of one difference a subject.

    Zero differences are dropped and equal ones share their mean rank (Wilcoxon 1945). The p value is exact up to
    200 subjects, ties included: subjects' scores are often equal, and SciPy's exact table does not hold then. Beyond,
    SciPy's normal approximation. The smallest p that n subjects can give is 2 / 2**n: five can never reach .05. It is
    1.0 when all differences are zero, and NaN for no subjects. Values that are not finite are an InputError.
    """
    given = _finite(differences)
    difference = given[np.abs(given) > TOLERANCE]
    if not len(difference):
        return 1.0 if len(given) else math.nan
    # Differences that are equal but for rounding must tie, or the last bit decides their ranks.
    difference = np.round(difference, 9)
    if difference.size > _EXACT_UP_TO:
        from scipy.stats import wilcoxon as approximate

        return float(approximate(difference, method="approx").pvalue)
    doubled = np.round(2 * _places(np.abs(difference))).astype(np.int64)
    observed = int(doubled[difference > 0].sum())
    # The chance of each sum of ranks when every sign is a fair coin: a rank at a time shifts and mixes it. Ranks are
    # doubled, for a mean rank may end in .5.
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] = chance[rank:] + chance[:-rank]
        chance /= 2
    tail = min(float(chance[: observed + 1].sum()), float(chance[observed:].sum()))
    return min(1.0, 2.0 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by the step-down rule of Holm (1979), at most 1.

    NaN, for a hypothesis that could not be tested, counts for nothing and stays NaN.
    """
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = largest
    return adjusted


def mean(values: Floats) -> float:
    """Return the mean; NaN without a value."""
    return float(np.mean(values)) if len(values) else math.nan


def deviation(values: Floats) -> float:
    """Return the standard deviation of a sample; NaN for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def gap_closed(score: float, source: float, oracle: float) -> float:
    """Return (score - source) / (oracle - source): 0 for source-only, 1 for the oracle, negative for harm.

    NaN when the oracle is not above source-only (there is no gap) or when any of the three is NaN.
    """
    if not oracle - source > TOLERANCE:
        return math.nan
    return (score - source) / (oracle - source)


def _finite(values: Floats) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise InputError(f"scores must be a list of finite numbers, one a subject; got shape {scores.shape}")
    return scores


_DECIMALS = 9
"""Scores that are equal to so many decimals tie: see `featlab.evaluation.statistics.TOLERANCE`."""


@dataclass(frozen=True)
class RankComparison:
    """Methods in the order of their average rank."""

    methods: tuple[str, ...]  # The best first.
    # Their average ranks over subjects, from 1 (always the best); equal scores share their mean rank.
    ranks: tuple[float, ...]
    subjects: int  # N.
    level: float  # Of the tests.
    critical_difference: float  # Average ranks that differ by this much or more differ at ``level`` (Nemenyi).
    friedman_p: float  # That all methods are alike; NaN for two methods, which the test isn't made for.
    # (first, last) places in ``methods`` of the largest groups that do not differ.
    cliques: tuple[tuple[int, int], ...]

    def groups(self) -> tuple[list[int], ...]:
        """Return for each method the numbers of its cliques, from 1: two methods with one in common do not differ."""
        cliques = list(enumerate(self.cliques, start=1))
        return tuple(
            [number for number, (first, last) in cliques if first <= place <= last]
            for place in range(len(self.methods))
        )


def compare_ranks(scores: Mapping[str, Sequence[float]], *, level: float = 0.05) -> RankComparison:
    """Rank methods on each subject and compare their average ranks.

    ``scores`` are (N,) a method, larger is better, the same subjects in the same order everywhere; ``level`` is that of
    the critical difference.
    """
    if len(scores) < 2:
        raise InputError(f"ranks compare two methods or more, got {len(scores)}")
    if len({len(values) for values in scores.values()}) > 1:
        raise InputError("ranks need every method's score on the same subjects; the numbers of scores differ")
    matrix = np.column_stack([np.asarray(values, dtype=np.float64) for values in scores.values()])
    ranks = _ranks(matrix).mean(axis=0)
    order = np.argsort(ranks, kind="stable")
    difference = critical_difference(len(scores), len(matrix), level=level)
    ordered = [float(ranks[place]) for place in order]
    names = tuple(scores)
    return RankComparison(
        methods=tuple(names[place] for place in order),
        ranks=tuple(ordered),
        subjects=len(matrix),
        level=level,
        critical_difference=difference,
        friedman_p=friedman_p(matrix),
        cliques=cliques(ordered, difference),
    )


def friedman_p(scores: NDArray[np.float64]) -> float:
    """Return the p value of Friedman's test (ties corrected) that k methods are alike, from (N, k) scores.

    1.0 when all methods are equal on every subject; NaN for fewer than three methods.
    """
    ranks = _ranks(scores)
    subjects, methods = ranks.shape
    if methods < 3:
        return math.nan
    if (ranks == ranks[:, :1]).all():
        return 1.0
    middle = (methods + 1) / 2
    between, within = ((ranks.sum(axis=0) - subjects * middle) ** 2).sum(), ((ranks - middle) ** 2).sum()
    half = (methods - 1) * between / within / 2
    # The tail of chi squared: of 1 or 2 degrees of freedom, then two more a step.
    shape, chance = (1.0, math.exp(-half)) if methods % 2 else (0.5, math.erfc(math.sqrt(half)))
    while shape < (methods - 1) / 2:
        chance += math.exp(shape * math.log(half) - half - math.lgamma(shape + 1)) if half else 0.0
        shape += 1
    return float(chance)


def critical_difference(methods: int, subjects: int, *, level: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks: q √(k (k + 1) / 6N) (Demšar, 2006, section 3.2.2).

    q is the upper quantile of the studentised range of k means with infinite degrees of freedom, divided by √2.
    """
    q = _range_quantile(1.0 - level, methods) / math.sqrt(2.0)
    return q * math.sqrt(methods * (methods + 1) / (6.0 * subjects))


def cliques(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Return the largest groups of methods of which no two average ranks differ by ``difference`` or more.

    Ranks ascend. A group is (first, last) place, both included; groups of one method and parts of a larger group are
    left out, so both numbers ascend.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place in range(first, len(ranks)) if place == first or ranks[place] - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)


def _range_quantile(chance: float, many: int) -> float:
    """Return the range of so many normal values that is not passed with a chance, by halving."""
    largest = np.linspace(-9.0, 9.0, 721)
    density = many * np.exp(-(largest**2) / 2) / math.sqrt(2 * math.pi) * (largest[1] - largest[0])
    low, high = 0.0, 20.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        inside = [(math.erfc((z - middle) / _ROOT) - math.erfc(z / _ROOT)) / 2 for z in largest.tolist()]
        if float(density @ np.array(inside) ** (many - 1)) < chance:
            low = middle
        else:
            high = middle
    return low


_ROOT = math.sqrt(2.0)


def _places(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks along the last axis, 1 for the smallest; equal values share their mean rank."""
    ours, others = values[..., :, None], values[..., None, :]
    ranks: NDArray[np.float64] = (others < ours).sum(axis=-1) + ((others == ours).sum(axis=-1) + 1) / 2
    return ranks


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if scores.ndim != 2 or not len(scores) or not np.isfinite(scores).all():
        raise InputError(f"ranks need finite scores of one subject or more; got shape {scores.shape}")
    # Equal scores must tie, or the last bit decides their ranks.
    return _places(-np.round(scores, _DECIMALS))

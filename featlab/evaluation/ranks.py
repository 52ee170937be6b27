"""Average ranks of methods over subjects, and which of them differ (Demšar, 2006, "Statistical Comparisons of
Classifiers over Multiple Data Sets", JMLR 7): Friedman's test, then Nemenyi's critical difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = ["RankComparison", "cliques", "compare_ranks", "critical_difference", "friedman_p", "mean_ranks"]

_DECIMALS = 9
"""Scores that are equal to so many decimals tie: see `featlab.evaluation.statistics.TOLERANCE`."""


@dataclass(frozen=True)
class RankComparison:
    """Methods in the order of their average rank.

    Attributes:
        methods: The best first.
        ranks: Their average ranks over subjects, from 1 (always the best); equal scores share their mean rank.
        subjects: N.
        level: Of the tests.
        critical_difference: Average ranks that differ by this much or more differ at ``level`` (Nemenyi).
        friedman_p: That all methods are alike; NaN for two methods, which the test isn't made for.
        cliques: (first, last) places in ``methods`` of the largest groups that do not differ.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    subjects: int
    level: float
    critical_difference: float
    friedman_p: float
    cliques: tuple[tuple[int, int], ...]

    def groups(self) -> tuple[range, ...]:
        """Return for each method the numbers of its cliques, from 1: two methods with one in common do not differ."""
        # Cliques ascend at both ends, so that those of a method follow each other.
        return tuple(
            range(
                1 + sum(last < place for _, last in self.cliques),
                1 + sum(first <= place for first, _ in self.cliques),
            )
            for place in range(len(self.methods))
        )


def compare_ranks(scores: Mapping[str, Sequence[float]], *, level: float = 0.05) -> RankComparison:
    """Rank methods on each subject and compare their average ranks.

    Args:
        scores: Method to its (N,) scores, larger is better; the same subjects in the same order everywhere.
        level: Of the critical difference, in (0, 1).

    Raises:
        InputError: Fewer than two methods, no subject, different lengths, non-finite values, or a level outside (0, 1).
    """
    if len(scores) < 2:
        raise InputError(f"ranks compare two methods or more, got {len(scores)}")
    if len({len(values) for values in scores.values()}) > 1:
        raise InputError("ranks need every method's score on the same subjects; the numbers of scores differ")
    matrix = np.column_stack([np.asarray(values, dtype=np.float64) for values in scores.values()])
    ranks = mean_ranks(matrix)
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


def mean_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (k,) average ranks of (N, k) scores: 1 for the largest of each row, equal ones share their mean.

    Raises:
        InputError: No row, or non-finite scores.
    """
    ranks: NDArray[np.float64] = _ranks(scores).mean(axis=0)
    return ranks


def friedman_p(scores: NDArray[np.float64]) -> float:
    """Return the p value of Friedman's test (ties corrected) that k methods are alike on N subjects.

    Args:
        scores: (N, k).

    Returns:
        p in [0, 1]; 1.0 when all methods are equal on every subject; NaN for fewer than three methods.

    Raises:
        InputError: No row, or non-finite scores.
    """
    from scipy.stats import friedmanchisquare

    ranks = _ranks(scores)
    if ranks.shape[1] < 3:
        return math.nan
    if (ranks == ranks[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*ranks.T).pvalue)


def critical_difference(methods: int, subjects: int, *, level: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks: q √(k (k + 1) / 6N) (Demšar, 2006, section 3.2.2).

    q is the upper quantile of the studentised range of k means with infinite degrees of freedom, divided by √2.

    Args:
        methods: k, at least 2.
        subjects: N, at least 1.
        level: In (0, 1).

    Raises:
        InputError: A number outside its range.
    """
    from scipy.stats import studentized_range

    if methods < 2 or subjects < 1:
        raise InputError(f"a critical difference needs two methods and a subject, got {methods} and {subjects}")
    if not 0.0 < level < 1.0:
        raise InputError(f"the level of a test lies between 0 and 1, not {level}")
    q = float(studentized_range.ppf(1.0 - level, methods, np.inf)) / math.sqrt(2.0)
    return q * math.sqrt(methods * (methods + 1) / (6.0 * subjects))


def cliques(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Return the largest groups of methods of which no two average ranks differ by ``difference`` or more.

    Args:
        ranks: Ascending.
        difference: The critical difference.

    Returns:
        (first, last) places in ``ranks``, both included; groups of one method and parts of a larger group are left
        out, so both numbers ascend.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place in range(first, len(ranks)) if place == first or ranks[place] - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    if scores.ndim != 2 or not len(scores) or not np.isfinite(scores).all():
        raise InputError(f"ranks need finite scores of one subject or more; got shape {scores.shape}")
    # Equal scores must tie, or the last bit decides their ranks.
    ranks: NDArray[np.float64] = rankdata(-np.round(scores, _DECIMALS), axis=1)
    return ranks

"""Intervals, tests and ranks, against SciPy, enumeration and published numbers."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats

from featlab.errors import InputError
from featlab.evaluation.statistics import (
    bootstrap_interval,
    cliques,
    compare_ranks,
    compare_scores,
    critical_difference,
    friedman_p,
    gap_closed,
    holm,
    wilcoxon,
)

# The poster's BioVid table: SFDA-PFT, SFIT and SFDA-IT on its ten target subjects.
PFT = [80.65, 71.75, 90.26, 81.54, 92.68, 70.06, 84.26, 79.29, 74.53, 58.08]
SFIT = [76.85, 65.33, 78.70, 80.44, 87.01, 54.44, 57.54, 70.81, 57.66, 75.92]
SFDA_IT = [71.54, 63.89, 84.53, 80.30, 86.24, 59.18, 77.66, 72.08, 54.97, 67.01]


def by_enumeration(difference):
    """The definition: every pattern of signs is equally likely."""
    difference = np.array([value for value in difference if value != 0])
    ranks = stats.rankdata(np.abs(difference))
    observed = ranks[difference > 0].sum()
    sums = np.array([ranks[list(signs)].sum() for signs in product([False, True], repeat=len(ranks))])
    return min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))


def test_wilcoxon_gives_known_and_scipys_p_values():
    assert wilcoxon(np.subtract(PFT, SFIT)) == pytest.approx(0.064, abs=5e-4)
    assert wilcoxon(np.subtract(PFT, SFDA_IT)) == pytest.approx(0.037, abs=5e-4)
    for seed in range(6):
        difference = np.random.default_rng(seed).normal(0.3, 1.4, 17)
        assert wilcoxon(difference) == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue)
    for n in (200, 201):
        difference = np.random.default_rng(n).normal(0.1, 1.4, n)
        assert wilcoxon(difference) == pytest.approx(stats.wilcoxon(difference, method="approx").pvalue, rel=0.02)


def test_wilcoxon_with_ties_and_zeros_is_exact_and_its_smallest_p_set_by_the_number_of_subjects():
    for seed in range(6):
        difference = np.random.default_rng(seed).integers(-2, 4, 10) / 10
        assert wilcoxon(difference) == pytest.approx(by_enumeration(difference))
    assert wilcoxon([0.3, 0.1 + 0.2, 0.2, -0.3]) == pytest.approx(by_enumeration([0.3, 0.3, 0.2, -0.3]))
    for n, smallest in ((1, 1.0), (5, 0.0625), (6, 0.03125), (10, 2 / 2**10)):
        assert wilcoxon(range(1, n + 1)) == pytest.approx(smallest)
    assert wilcoxon([0.0, 1e-12]) == 1.0
    assert np.isnan(wilcoxon([]))


def test_holm_gives_the_textbook_values_in_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    raw = np.random.default_rng(0).uniform(size=20)
    adjusted = np.array(holm(list(raw)))
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    assert (adjusted <= 1).all()
    assert (adjusted >= raw).all()
    # NaN is kept and not counted.
    with_nan = holm([float("nan"), 0.01, 0.02])
    assert np.isnan(with_nan[0])
    assert with_nan[1:] == pytest.approx([0.02, 0.02])
    assert (holm([]), holm([0.2])) == ([], [0.2])


def test_the_bootstrap_interval_holds_the_mean_is_reproducible_and_agrees_with_scipys():
    scores = np.random.default_rng(3).uniform(size=12)
    low, high = bootstrap_interval(scores)
    assert low < scores.mean() < high
    assert bootstrap_interval(scores) == (low, high)
    scores = np.random.default_rng(4).normal(size=40)
    result = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20000, rng=1)
    assert bootstrap_interval(scores) == pytest.approx(tuple(result.confidence_interval), abs=0.03)
    # Of one subject it is unknown, of equals a point.
    assert np.isnan([*bootstrap_interval([0.5]), *bootstrap_interval([])]).all()
    assert bootstrap_interval([0.5, 0.5, 0.5]) == pytest.approx((0.5, 0.5))


def test_the_gap_runs_from_source_only_to_the_oracle_and_wins_ties_and_losses_forgive_rounding():
    assert gap_closed(0.4, 0.4, 0.9) == 0.0
    assert gap_closed(0.9, 0.4, 0.9) == 1.0
    assert gap_closed(0.3, 0.4, 0.9) == pytest.approx(-0.2)
    assert gap_closed(78.31, 65.17, 90.40) == pytest.approx(0.5208, abs=1e-4)
    for bounds in ((0.5, 0.5), (0.6, 0.5), (float("nan"), 0.9), (0.4, float("nan"))):
        assert np.isnan(gap_closed(0.7, *bounds))
    found = compare_scores([(0.5, 0.4), (0.3, 0.4), (0.1 + 0.2, 0.3), (0.7, 0.6)])
    assert (found.subjects, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert found.difference == pytest.approx(0.025)
    assert found.ci95 == pytest.approx(bootstrap_interval([0.1, -0.1, 0, 0.1]))
    assert found.p == wilcoxon([0.1, -0.1, 0, 0.1])
    assert (compare_scores([]).subjects, compare_scores([]).wins) == (0, 0)


def test_what_makes_no_sense_is_refused(refused):
    nan = float("nan")
    with refused(InputError, "finite"):
        compare_scores([(nan, 0.1)])
    with refused(InputError, "finite"):
        bootstrap_interval([[0.1, 0.2]])
    for scores, said in (
        ({"a": [0.1]}, "two methods or more"),
        ({}, "two methods or more"),
        ({"a": [0.1], "b": [0.1, 0.2]}, "same subjects"),
        ({"a": [], "b": []}, "one subject or more"),
        ({"a": [0.1], "b": [nan]}, "finite"),
    ):
        with refused(InputError, said):
            compare_ranks(scores)


# Demšar (2006), table 6: C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],  # printed as equal, ranked 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_the_critical_difference_uses_the_published_quantiles():
    # Demšar (2006), table 5(a), at .05 and at .10.
    for methods, q in ((2, 1.960), (4, 2.569), (5, 2.728), (10, 3.164)):
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 30))
        assert critical_difference(methods, 30) == pytest.approx(expected, rel=5e-4)
    for methods, level in ((3, 0.5), (8, 0.01), (40, 0.05)):
        q = stats.studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
        assert critical_difference(methods, 6, level=level) == pytest.approx(q * np.sqrt(methods * (methods + 1) / 36))
    assert critical_difference(4, 14, level=0.1) == pytest.approx(2.291 * np.sqrt(4 * 5 / (6 * 14)), rel=5e-4)


def test_demsars_example_gives_the_published_ranks_and_differences():
    names = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
    found = compare_ranks(dict(zip(names, DEMSAR.T, strict=True)))
    assert found.methods == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert np.round(found.ranks, 3) == pytest.approx([1.964, 2.0, 2.893, 3.143])
    assert found.subjects == 14
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.cliques == ((0, 3),)
    statistic = 12 * 14 / (4 * 5) * (np.sum(np.square(found.ranks)) - 4 * 5**2 / 4)
    assert statistic == pytest.approx(9.28, abs=5e-3)
    # At .10 the published difference is 1.12, and C4.5 is worse than the two best.
    lenient = compare_ranks(dict(zip(names, DEMSAR.T, strict=True)), level=0.1)
    assert lenient.critical_difference == pytest.approx(1.12, abs=5e-3)
    assert lenient.cliques == ((0, 2), (2, 3))
    assert lenient.groups() == ([1], [1], [1, 2], [2])


def test_friedman_is_scipys_and_scipy_corrects_for_ties():
    for methods in (3, 4, 7, 24):
        scores = np.random.default_rng(methods).integers(0, 9, size=(14, methods)) / 9
        assert friedman_p(scores) == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    without_ties = np.random.default_rng(0).normal(size=(12, 6))
    ranks = stats.rankdata(-without_ties, axis=1).mean(axis=0)
    statistic = 12 * 12 / (6 * 7) * (np.sum(ranks**2) - 6 * 7**2 / 4)
    assert friedman_p(without_ties) == pytest.approx(stats.chi2.sf(statistic, 5))


def test_ranks_of_equals_of_one_subject_and_of_two_methods():
    nan = pytest.approx(np.nan, nan_ok=True)
    for scores, methods, ranks, p, groups in (
        ({"b": [0.5, 0.7], "a": [0.5, 0.7], "c": [0.5, 0.7]}, "bac", (2.0, 2.0, 2.0), 1.0, ((0, 2),)),
        # Of one subject, equals but for rounding.
        (
            {"a": [0.3], "b": [0.1 + 0.2], "c": [0.5], "d": [0.1]},
            "cabd",
            (1.0, 2.5, 2.5, 4.0),
            pytest.approx(stats.chi2.sf(3, 3)),
            ((0, 3),),
        ),
        # One subject says nothing.
        ({"a": [0.1], "b": [0.3], "c": [0.2]}, "bca", (1.0, 2.0, 3.0), pytest.approx(np.exp(-1)), ((0, 2),)),
        # Two methods have no Friedman test: one method wins on all of 20.
        ({"a": [0.1] * 20, "b": [0.3] * 20}, "ba", (1.0, 2.0), nan, ()),
    ):
        found = compare_ranks(scores)
        assert (found.methods, found.ranks, found.cliques) == (tuple(methods), ranks, groups)
        assert found.friedman_p == p
    # Of two methods the quantile is the normal one.
    assert found.critical_difference == pytest.approx(1.96 / np.sqrt(20), rel=1e-4)


def test_cliques_are_the_largest_groups_and_cover_every_pair_that_does_not_differ():
    for seed in range(5):
        ranks = sorted(np.random.default_rng(seed).uniform(1, 12, 12))
        found = cliques(ranks, 2.5)
        together = {(i, j) for first, last in found for i in range(first, last + 1) for j in range(i + 1, last + 1)}
        assert together == {(i, j) for i in range(12) for j in range(i + 1, 12) if ranks[j] - ranks[i] < 2.5}
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(found))
    # A difference as large as the critical one is a difference.
    assert cliques([1.0, 2.0, 2.5], 1.0) == ((1, 2),)

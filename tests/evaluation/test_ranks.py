"""Average ranks, Friedman's test and Nemenyi's critical difference, against Demšar's numbers and SciPy."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from featlab.errors import InputError
from featlab.evaluation.statistics import cliques, compare_ranks, critical_difference, friedman_p, mean_ranks

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


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_uses_the_published_quantiles(methods, q):
    # Demšar (2006), table 5(a).
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 30))
    assert critical_difference(methods, 30) == pytest.approx(expected, rel=5e-4)


def test_the_critical_difference_at_another_level():
    # Demšar (2006), table 5(a), the row of .10 and four classifiers.
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


def test_friedman_is_scipys_and_scipy_corrects_for_ties():
    assert friedman_p(DEMSAR) == stats.friedmanchisquare(*DEMSAR.T).pvalue
    without_ties = np.random.default_rng(0).normal(size=(12, 6))
    ranks = stats.rankdata(-without_ties, axis=1).mean(axis=0)
    statistic = 12 * 12 / (6 * 7) * (np.sum(ranks**2) - 6 * 7**2 / 4)
    assert friedman_p(without_ties) == pytest.approx(stats.chi2.sf(statistic, 5))


def test_equal_scores_share_their_mean_rank_though_the_last_bit_differs():
    assert list(mean_ranks(np.array([[0.3, 0.1 + 0.2, 0.5, 0.1]]))) == [2.5, 2.5, 1.0, 4.0]


@pytest.mark.parametrize("methods", [2, 3, 7])
def test_ranks_equal_pairwise_counting(methods):
    scores = np.random.default_rng(methods).integers(0, 4, (9, methods)) / 4
    better = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2) - 1
    assert mean_ranks(scores) == pytest.approx((1 + better + equal / 2).mean(axis=0))
    assert mean_ranks(scores).sum() == pytest.approx(methods * (methods + 1) / 2)


def test_methods_that_are_equal_everywhere_rank_equal_in_the_order_given():
    found = compare_ranks({"b": [0.5, 0.7], "a": [0.5, 0.7], "c": [0.5, 0.7]})
    assert found.methods == ("b", "a", "c")
    assert found.ranks == (2.0, 2.0, 2.0)
    assert found.friedman_p == 1.0
    assert found.cliques == ((0, 2),)


def test_one_subject_says_nothing():
    found = compare_ranks({"a": [0.1], "b": [0.3], "c": [0.2]})
    assert found.methods == ("b", "c", "a")
    assert found.ranks == (1.0, 2.0, 3.0)
    assert found.cliques == ((0, 2),)
    assert found.critical_difference > 2


def test_two_methods_have_ranks_and_no_friedman_test():
    found = compare_ranks({"a": [0.1] * 20, "b": [0.3] * 20})
    assert found.ranks == (1.0, 2.0)
    assert np.isnan(found.friedman_p)
    # The normal quantile: one method wins on all of 20.
    assert found.critical_difference == pytest.approx(1.96 / np.sqrt(20), rel=1e-4)
    assert found.cliques == ()


def test_a_difference_as_large_as_the_critical_one_is_a_difference():
    assert cliques([1.0, 2.0, 2.5], 1.0) == ((1, 2),)


@pytest.mark.parametrize("seed", range(5))
def test_cliques_are_the_largest_groups_and_cover_every_pair_that_does_not_differ(seed):
    ranks = sorted(np.random.default_rng(seed).uniform(1, 12, 12))
    found = cliques(ranks, 2.5)
    together = {(i, j) for first, last in found for i in range(first, last + 1) for j in range(i + 1, last + 1)}
    assert together == {(i, j) for i in range(12) for j in range(i + 1, 12) if ranks[j] - ranks[i] < 2.5}
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(found))


def test_methods_have_a_group_in_common_exactly_when_they_do_not_differ():
    scores = np.random.default_rng(1).normal(size=(40, 9)) + np.arange(9) / 2
    found = compare_ranks({str(place): column for place, column in enumerate(scores.T)})
    groups = [set(group) for group in found.groups()]
    for i in range(9):
        for j in range(i + 1, 9):
            assert bool(groups[i] & groups[j]) == (found.ranks[j] - found.ranks[i] < found.critical_difference)
    assert len(found.cliques) > 2


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": [0.1]}, "two methods or more"),
        ({}, "two methods or more"),
        ({"a": [0.1], "b": [0.1, 0.2]}, "same subjects"),
        ({"a": [], "b": []}, "one subject or more"),
        ({"a": [0.1], "b": [float("nan")]}, "finite"),
    ],
)
def test_scores_that_can_not_be_ranked_are_refused(scores, said):
    with pytest.raises(InputError, match=said):
        compare_ranks(scores)


@pytest.mark.parametrize("arguments", [(1, 5), (3, 0)])
def test_a_critical_difference_of_nothing_is_refused(arguments):
    with pytest.raises(InputError, match="two methods and a subject"):
        critical_difference(*arguments)


@pytest.mark.parametrize("level", [0.0, 1.0, 5])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(InputError, match="level"):
        critical_difference(3, 5, level=level)

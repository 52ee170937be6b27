from itertools import product

import numpy as np
import pytest
from scipy import stats

from featlab.errors import InputError
from featlab.evaluation.statistics import (
    bootstrap_interval,
    gap_closed,
    holm,
    negative_transfer,
    paired_wilcoxon,
    win_tie_loss,
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


def test_wilcoxon_on_the_posters_table_gives_the_known_p_values():
    assert paired_wilcoxon(PFT, SFIT) == pytest.approx(0.064, abs=5e-4)
    assert paired_wilcoxon(PFT, SFDA_IT) == pytest.approx(0.037, abs=5e-4)


@pytest.mark.parametrize("seed", range(6))
def test_wilcoxon_without_ties_equals_scipys_exact_test(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.3, 1.0, 17), rng.normal(size=17)
    assert paired_wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)


@pytest.mark.parametrize("seed", range(6))
def test_wilcoxon_with_ties_and_zeros_is_exact(seed):
    difference = np.random.default_rng(seed).integers(-2, 4, 10) / 10
    assert paired_wilcoxon(difference, np.zeros(10)) == pytest.approx(by_enumeration(difference))


def test_differences_equal_but_for_rounding_tie():
    a = [0.3, 0.1 + 0.2, 0.2, 0.0]
    b = [0.0, 0.0, 0.0, 0.3]
    assert paired_wilcoxon(a, b) == pytest.approx(by_enumeration([0.3, 0.3, 0.2, -0.3]))


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (5, 0.0625), (6, 0.03125), (10, 2 / 2**10)])
def test_the_smallest_p_is_set_by_the_number_of_subjects(n, smallest):
    assert paired_wilcoxon(np.arange(1, n + 1), np.zeros(n)) == pytest.approx(smallest)


def test_wilcoxon_of_no_difference_is_one_and_of_nobody_nan():
    assert paired_wilcoxon([0.5, 0.6], [0.5, 0.6 + 1e-12]) == 1.0
    assert np.isnan(paired_wilcoxon([], []))


def test_wilcoxon_of_many_subjects_is_near_the_normal_approximation():
    rng = np.random.default_rng(0)
    for n in (200, 201):
        a, b = rng.normal(0.1, 1, n), rng.normal(size=n)
        approximate = stats.wilcoxon(a - b, method="approx").pvalue
        assert paired_wilcoxon(a, b) == pytest.approx(approximate, rel=0.02)


def test_holm_gives_the_textbook_values_in_the_order_given():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_monotone_at_most_one_and_never_below_the_raw_value():
    raw = np.random.default_rng(0).uniform(size=20)
    adjusted = np.array(holm(list(raw)))
    order = np.argsort(raw)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted <= 1).all()
    assert (adjusted >= raw).all()


def test_holm_keeps_nan_and_does_not_count_it():
    adjusted = holm([float("nan"), 0.01, 0.02])
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.02, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_the_bootstrap_interval_holds_the_mean_and_is_reproducible():
    scores = np.random.default_rng(3).uniform(size=12)
    low, high = bootstrap_interval(scores)
    assert low < scores.mean() < high
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(scores, seed=1) != (low, high)
    narrow = bootstrap_interval(scores, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_bootstrap_interval_agrees_with_scipys():
    scores = np.random.default_rng(4).normal(size=40)
    result = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20000, rng=1)
    ours = bootstrap_interval(scores, resamples=20000)
    assert ours == pytest.approx(tuple(result.confidence_interval), abs=0.03)


def test_the_bootstrap_interval_of_one_subject_is_unknown_and_of_equals_a_point():
    assert np.isnan(bootstrap_interval([0.5])).all()
    assert np.isnan(bootstrap_interval([])).all()
    assert bootstrap_interval([0.5, 0.5, 0.5]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 1.0}, {"level": 95}, {"resamples": 0}])
def test_a_bootstrap_that_makes_no_sense_is_refused(options):
    with pytest.raises(InputError):
        bootstrap_interval([0.1, 0.2], **options)


def test_the_gap_runs_from_source_only_to_the_oracle():
    assert gap_closed(0.4, 0.4, 0.9) == 0.0
    assert gap_closed(0.9, 0.4, 0.9) == 1.0
    assert gap_closed(0.3, 0.4, 0.9) == pytest.approx(-0.2)
    assert gap_closed(78.31, 65.17, 90.40) == pytest.approx(0.5208, abs=1e-4)


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.6, 0.5), (float("nan"), 0.9), (0.4, float("nan"))])
def test_without_a_gap_nothing_is_closed(bounds):
    assert np.isnan(gap_closed(0.7, *bounds))


def test_wins_ties_and_losses_add_up_and_forgive_rounding():
    scores, reference = [0.5, 0.3, 0.1 + 0.2, 0.7], [0.4, 0.4, 0.3, 0.6]
    assert win_tie_loss(scores, reference) == (2, 1, 1)
    assert negative_transfer(scores, reference) == 1
    assert win_tie_loss([], []) == (0, 0, 0)


def test_unequal_or_broken_scores_are_refused():
    with pytest.raises(InputError, match="same subjects"):
        paired_wilcoxon([0.1], [0.1, 0.2])
    with pytest.raises(InputError, match="finite"):
        negative_transfer([float("nan")], [0.1])
    with pytest.raises(InputError, match="finite"):
        bootstrap_interval([[0.1, 0.2]])

import numpy as np
import pytest

from featlab.errors import InputError
from featlab.evaluation.metrics import BINS, bin_edges, calibration_error, reliability_counts


def ece(probabilities, labels):
    return calibration_error(reliability_counts(np.asarray(probabilities), np.asarray(labels)))


def plainly(probabilities, labels):
    """Guo et al. (2017), equation 3, bin by bin."""
    probabilities, labels = probabilities[labels >= 0].astype(np.float64), labels[labels >= 0]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    total = 0.0
    for place in range(BINS):
        inside = (confidence > place / BINS) & (confidence <= (place + 1) / BINS)
        if inside.any():
            total += inside.sum() / len(labels) * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("sharp", [0.1, 1.0, 20.0])
def test_it_is_what_the_definition_gives(classes, sharp):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, sharp), 500).astype(np.float32)
    labels = rng.integers(-1, classes, 500)
    assert ece(probabilities, labels) == pytest.approx(plainly(probabilities, labels), abs=1e-12)


def test_confidence_that_is_right_as_often_as_it_says_has_no_error():
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.1, 0.9]] * 10)
    labels = [0, 0, 0, 1] + [1] * 9 + [0]
    assert ece(probabilities, labels) == pytest.approx(0.0, abs=1e-12)


def test_always_sure_and_always_wrong_is_the_largest_error():
    assert ece([[1.0, 0.0]] * 5, [1] * 5) == 1.0
    assert ece([[1.0, 0.0]] * 5, [0] * 5) == 0.0


def test_a_guess_among_two_classes_that_is_right_half_of_the_time_has_no_error():
    assert ece([[0.5, 0.5]] * 6, [0, 1] * 3) == 0.0


def test_errors_of_opposite_sign_meet_in_one_bin_only():
    assert ece([[0.99, 0.01], [0.95, 0.05]], [0, 1]) == pytest.approx(abs(0.97 - 0.5))
    assert ece([[0.99, 0.01], [0.55, 0.45]], [1, 0]) == pytest.approx((0.99 + 0.45) / 2)


def test_counts_hold_every_labelled_row_once():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(3), 200), rng.integers(-1, 3, 200)
    counts = reliability_counts(probabilities, labels)
    known = labels >= 0
    assert counts.shape == (BINS, 3)
    assert counts[:, 0].sum() == known.sum()
    assert counts[:, 1].sum() == pytest.approx(probabilities[known].max(axis=1).sum())
    assert counts[:, 2].sum() == (probabilities.argmax(axis=1) == labels)[known].sum()
    low, high, full = bin_edges()[:-1], bin_edges()[1:], counts[:, 0] > 0
    mean = counts[full, 1] / counts[full, 0]
    assert ((mean > low[full]) & (mean <= high[full])).all()


def test_counts_of_two_parts_add_up_to_those_of_the_whole():
    rng = np.random.default_rng(2)
    probabilities, labels = rng.dirichlet(np.ones(3), 60), rng.integers(0, 3, 60)
    parts = [reliability_counts(probabilities[rows], labels[rows]) for rows in (slice(20), slice(20, 60))]
    assert np.allclose(sum(parts), reliability_counts(probabilities, labels))
    assert calibration_error(sum(parts) / 60) == pytest.approx(plainly(probabilities, labels))


def test_the_edge_of_a_bin_belongs_to_the_lower_one():
    assert reliability_counts(np.array([[1.0, 0.0]]), np.array([0]))[-1].tolist() == [1, 1, 1]
    third = np.full((1, 15), bin_edges()[1])
    assert reliability_counts(third, np.array([3]))[0].tolist() == [1, bin_edges()[1], 0]


def test_rounding_above_one_stays_in_the_last_bin():
    above = np.nextafter(np.float32(1), np.float32(2))
    assert reliability_counts(np.array([[above, 0]], dtype=np.float32), np.array([0]))[-1, 0] == 1


def test_without_a_labelled_row_there_is_no_error_to_speak_of():
    assert np.isnan(ece([[0.5, 0.5]], [-1]))
    assert np.isnan(ece(np.zeros((0, 2)), np.zeros(0, dtype=int)))


@pytest.mark.parametrize("value", [1.5, np.nan, np.inf])
def test_what_is_no_probability_is_refused(value, refused):
    with refused(InputError, "takes probabilities"):
        reliability_counts(np.array([[value, 0.0]]), np.array([0]))


def test_shapes_that_do_not_fit_are_refused(refused):
    with refused(InputError, "(2, 2)", "(3,)"):
        reliability_counts(np.full((2, 2), 0.5), np.zeros(3, dtype=int))

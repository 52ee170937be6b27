import math

import numpy as np

from featlab.model.training import converged_at, iterations_to_converge


def test_an_exponential_decay_settles_after_three_time_constants_whatever_its_size_and_sign():
    # exp(-t / speed) is below 5 % of its fall from t = speed * ln 20 on; t counts from 0, iterations from 1.
    for speed in (4.0, 9.7, 25.0):
        losses = 3 + 2 * np.exp(-np.arange(400) / speed)
        assert converged_at(losses) == math.ceil(speed * math.log(20)) + 1
        assert converged_at(losses, tolerance=0.2) == math.ceil(speed * math.log(5)) + 1
    losses = np.exp(-np.arange(60) / 6)
    assert converged_at(losses) == converged_at(1e-6 * losses) == converged_at(100 * losses - 700)


def test_a_step_is_found_where_it_is_and_a_single_outlier_is_none():
    assert converged_at([5.0] * 12 + [1.0] * 30) == 13
    assert converged_at([5.0, 1.0]) == 2
    assert converged_at([5.0] + [1.0] * 9) == 2
    losses = [4.0] * 10 + [1.0] * 30
    losses[25], losses[32] = 9.0, -9.0
    assert converged_at(losses) == 11
    # Two-sided, so that a dip is not taken for the end.
    assert converged_at([10.0] * 10 + [0.0] * 20 + [2.0] * 20) == 31


def test_no_iteration_one_iteration_and_a_constant():
    assert [converged_at(losses) for losses in ([], [3.0], [3.0] * 50)] == [0, 1, 1]


def test_a_loss_that_ends_higher_than_it_began_or_is_not_finite_has_not_converged():
    for losses in ([1.0, 2.0], list(range(40)), [1.0] + [3.0] * 9 + [2.0] * 30):
        assert converged_at(losses) is None
    for bad in (math.nan, math.inf, -math.inf):
        for place in (0, 7, 19):
            losses = list(np.exp(-np.arange(20.0)))
            losses[place] = bad
            assert converged_at(losses) is None


def test_the_window_may_be_given():
    losses = np.concatenate([[1.0] * 9, [0.0, 1.0] * 8, [0.0] * 20])
    assert converged_at(losses, window=1) == 26
    assert converged_at(losses, window=5) < 26


def entries(losses, name="style"):
    return [{name: loss, "loss": loss} for loss in losses]


def test_stages_are_judged_one_by_one_and_added():
    # Together they would be one loss that jumps up; apart, each falls.
    first, second = [1.0] * 5 + [0.5] * 15, [90.0] * 8 + [80.0] * 12
    history = entries(first, "teacher") + entries(second, "generator")
    assert iterations_to_converge(history, 40) == converged_at(first) + converged_at(second) == 6 + 9
    assert iterations_to_converge(entries(first + second), 40) is None
    # One stage that has not converged is enough.
    assert iterations_to_converge(entries(first, "teacher") + entries([1.0, 2.0, 3.0], "generator"), 23) is None


def test_a_closed_form_needs_none_and_losses_not_logged_once_an_iteration_say_nothing():
    assert iterations_to_converge((), 0) == 0
    assert iterations_to_converge((), 25) is None
    assert iterations_to_converge(entries([3.0, 2.0, 1.0]), 2) is None
    assert iterations_to_converge([{"style": 1.0}], 1) is None

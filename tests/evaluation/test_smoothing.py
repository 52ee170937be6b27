import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featlab.errors import ConfigError, InputError
from featlab.evaluation.metrics import smooth_probabilities


def rows_of_videos(lengths, classes=3, seed=0):
    """Rows of videos of some lengths, shuffled; frame numbers have holes."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    video = np.repeat(rng.permutation(len(lengths)).astype(np.int32), lengths)
    frame = np.concatenate([np.sort(rng.choice(5 * length, length, replace=False)) for length in lengths])
    order = rng.permutation(count)
    return probabilities[order], video[order], frame[order].astype(np.int32)


def plainly(probabilities, video, frame, window):
    """Row by row, as one would say it."""
    smoothed = np.empty_like(probabilities)
    for row in range(len(probabilities)):
        mine = sorted(np.flatnonzero(video == video[row]), key=lambda other: frame[other])
        place = mine.index(row)
        near = mine[max(0, place - window // 2) : place + window // 2 + 1]
        smoothed[row] = np.mean(probabilities[near].astype(np.float64), axis=0)
    return smoothed


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 3, 5, 9, 99]), st.integers(0, 99))
def test_it_is_what_a_plain_loop_gives(lengths, window, seed):
    rows = rows_of_videos(lengths, seed=seed)
    assert np.allclose(smooth_probabilities(*rows, window), plainly(*rows, window), rtol=0, atol=1e-7)


def test_one_video_by_hand():
    probabilities = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    smoothed = smooth_probabilities(probabilities, np.zeros(4, np.int32), np.arange(4, dtype=np.int32), 3)
    assert smoothed[:, 0] == pytest.approx([1, 2 / 3, 2 / 3, 1 / 2])
    assert smoothed.argmax(axis=1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("window", [0, 1])
def test_a_window_of_one_or_none_changes_no_bit(window):
    rows = rows_of_videos([4, 1, 6])
    assert np.array_equal(smooth_probabilities(*rows, window), rows[0])


def test_videos_do_not_mix():
    probabilities = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    video, frame = np.repeat(np.arange(2, dtype=np.int32), 3), np.tile(np.arange(3, dtype=np.int32), 2)
    assert np.array_equal(smooth_probabilities(probabilities, video, frame, 9), probabilities)


def test_it_keeps_the_type_the_sum_and_what_it_was_given():
    probabilities, video, frame = rows_of_videos([40, 7])
    before = probabilities.copy()
    smoothed = smooth_probabilities(probabilities, video, frame, 9)
    assert smoothed.dtype == np.float32
    assert np.allclose(smoothed.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(probabilities, before)


def test_the_order_of_rows_does_not_matter():
    rows = rows_of_videos([8, 5, 3])
    order = np.random.default_rng(1).permutation(16)
    shuffled = smooth_probabilities(*(part[order] for part in rows), 5)
    assert np.allclose(shuffled, smooth_probabilities(*rows, 5)[order], atol=1e-7)


def test_far_along_a_long_table_the_mean_is_still_that_of_its_window():
    """Running sums grow with the rows; what is left of their error must be far below float32's."""
    probabilities, video, frame = rows_of_videos([200_000], classes=2)
    smoothed = smooth_probabilities(probabilities, video, frame, 9)
    last = np.argsort(frame)[-9:]
    assert smoothed[last[4]] == pytest.approx(probabilities[last].astype(np.float64).mean(axis=0), abs=1e-7)


def test_no_rows_stay_none():
    none = np.zeros(0, np.int32)
    assert smooth_probabilities(np.zeros((0, 3), np.float32), none, none, 5).shape == (0, 3)


@pytest.mark.parametrize("window", [2, 8, -1, -3])
def test_a_window_without_a_middle_is_refused(window, refused):
    with refused(ConfigError, f"smoothing = {window}", "must be odd"):
        smooth_probabilities(*rows_of_videos([3]), window)


def test_shapes_that_do_not_fit_are_refused(refused):
    probabilities, video, frame = rows_of_videos([3])
    with refused(InputError, "(3, 3)", "(2,)"):
        smooth_probabilities(probabilities, video[:2], frame, 3)

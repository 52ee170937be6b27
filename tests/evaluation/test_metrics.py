"""Scores of one subject, calibration and smoothing, against scikit-learn and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from featlab.errors import ConfigError, InputError
from featlab.evaluation.metrics import (
    BINS,
    calibration_error,
    reliability_counts,
    smooth_probabilities,
    subject_metrics,
    video_scores,
)
from featlab.protocol.splits import untested_classes


def scored(labels, predicted, classes=7):
    """The metrics of codes: one-hot probabilities."""
    return subject_metrics(np.array(labels), np.eye(classes)[predicted], neutral_code=0)


def test_every_number_equals_scikit_learns():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels, probabilities = rng.choice([0, 2, 3, 6], size=60), rng.dirichlet(np.ones(7), size=60)
        predictions, present = probabilities.argmax(axis=1), np.unique(labels)
        recall = oracle.recall_score(labels, predictions, labels=range(7), average=None, zero_division=0)
        metrics = subject_metrics(labels, probabilities, neutral_code=0)
        for score, classes in ((metrics.macro_f1, present), (metrics.macro_f1_all, range(7))):
            expected = oracle.f1_score(labels, predictions, labels=classes, average="macro", zero_division=0)
            assert score == pytest.approx(expected)
        assert metrics.accuracy == pytest.approx(oracle.accuracy_score(labels, predictions))
        assert metrics.balanced_accuracy == pytest.approx(recall[present].mean())
        assert metrics.neutral_recall == pytest.approx(recall[0])
        assert metrics.non_neutral_recall == pytest.approx(recall[[2, 3, 6]].mean())
        assert metrics.histogram == tuple(np.bincount(predictions, minlength=7))
        assert metrics.frames == 60
        matrix = oracle.confusion_matrix(labels, predictions, labels=range(7))
        assert metrics.confusion == tuple(matrix.ravel())
        shown = np.isin(range(7), present)
        assert metrics.class_recall == pytest.approx(tuple(np.where(shown, recall, np.nan)), nan_ok=True)


def test_rows_without_a_label_change_nothing_what_is_not_shown_is_nan_and_one_answer_is_a_collapse():
    assert repr(scored([-1, 0, 1, -1, 1], [6, 0, 1, 6, 0])) == repr(scored([0, 1, 1], [0, 1, 0]))
    assert np.isnan(scored([0, 0], [0, 1]).non_neutral_recall)
    assert np.isnan(scored([1, 1], [0, 1]).neutral_recall)
    assert scored([0, 1, 2], [0, 0, 0]).collapsed
    assert not scored([0, 1, 2], [0, 0, 1]).collapsed


def test_rows_and_windows_that_do_not_fit_are_refused_in_one_line(refused):
    for labels, probabilities, said in (
        ([-1, -1], np.ones((2, 7)), "no labelled test row"),
        ([], np.zeros((0, 7)), "no labelled test row"),
        ([0, 7], np.ones((2, 7)), "run up to 7, and there are 7 classes"),
        ([0, 1], np.ones((3, 7)), "(3, 7) need a label a row"),
        ([0, 1], np.ones(2), "(2,) need a label a row"),
        ([0, 1], np.full((2, 7), np.nan), "NaN"),
    ):
        with refused(InputError, said):
            subject_metrics(np.array(labels, dtype=int), probabilities, neutral_code=0)
    probabilities, video, frame = rows_of_videos([3])
    for window in (2, 8, -1, -3):
        with refused(ConfigError, f"smoothing = {window}", "must be odd"):
            smooth_probabilities(probabilities, video, frame, window)


def ece(probabilities, labels):
    return calibration_error(reliability_counts(np.asarray(probabilities), np.asarray(labels)))


def ece_bin_by_bin(probabilities, labels):
    """Guo et al. (2017), equation 3."""
    probabilities, labels = probabilities[labels >= 0].astype(np.float64), labels[labels >= 0]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    inside = [(confidence > place / BINS) & (confidence <= (place + 1) / BINS) for place in range(BINS)]
    return sum(abs((right[rows] - confidence[rows]).sum()) for rows in inside) / len(labels)


def test_the_calibration_error_is_what_the_definition_gives():
    for classes in (2, 7):
        for sharp in (0.1, 1.0, 20.0):
            rng = np.random.default_rng(0)
            probabilities = rng.dirichlet(np.full(classes, sharp), 500).astype(np.float32)
            labels = rng.integers(-1, classes, 500)
            assert ece(probabilities, labels) == pytest.approx(ece_bin_by_bin(probabilities, labels), abs=1e-12)
    # Always sure and always wrong; nothing to judge.
    assert ece([[1.0, 0.0]] * 5, [1] * 5) == 1.0
    assert np.isnan(ece([[0.5, 0.5]], [-1]))
    assert np.isnan(ece(np.zeros((0, 2)), np.zeros(0, dtype=int)))


def test_bins_have_edges_and_what_is_no_probability_is_refused(refused):
    assert reliability_counts(np.array([[1.0, 0.0]]), np.array([0]))[-1].tolist() == [1, 1, 1]
    # An edge belongs to the lower bin, and rounding above 1 stays in the last.
    third = np.full((1, 15), 1 / 15)
    assert reliability_counts(third, np.array([3]))[0].tolist() == [1, 1 / 15, 0]
    above = np.nextafter(np.float32(1), np.float32(2))
    assert reliability_counts(np.array([[above, 0]], dtype=np.float32), np.array([0]))[-1, 0] == 1
    with refused(InputError, "takes probabilities"):
        reliability_counts(np.array([[1.5, 0.0]]), np.array([0]))


def rows_of_videos(lengths, classes=3, seed=0):
    """Rows of videos of some lengths, shuffled; frame numbers have holes."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    probabilities = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    video = np.repeat(rng.permutation(len(lengths)).astype(np.int32), lengths)
    frame = np.concatenate([np.sort(rng.choice(5 * length, length, replace=False)) for length in lengths])
    order = rng.permutation(count)
    return probabilities[order], video[order], frame[order].astype(np.int32)


def smoothed_row_by_row(probabilities, video, frame, window):
    for row in range(len(probabilities)):
        mine = sorted(np.flatnonzero(video == video[row]), key=lambda other: frame[other])
        place = mine.index(row)
        near = mine[max(0, place - window // 2) : place + window // 2 + 1]
        yield np.mean(probabilities[near].astype(np.float64), axis=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 3, 5, 9, 99]), st.integers(0, 99))
def test_smoothing_is_what_a_plain_loop_gives(lengths, window, seed):
    rows = rows_of_videos(lengths, seed=seed)
    assert np.allclose(smooth_probabilities(*rows, window), [*smoothed_row_by_row(*rows, window)], rtol=0, atol=1e-7)


def test_smoothing_leaves_alone_what_it_should_also_far_along_a_long_table():
    rows = rows_of_videos([40, 7])
    before = rows[0].copy()
    for window in (0, 1):
        assert np.array_equal(smooth_probabilities(*rows, window), rows[0])
    assert smooth_probabilities(*rows, 9).dtype == np.float32
    assert np.array_equal(rows[0], before)
    none = np.zeros(0, np.int32)
    assert smooth_probabilities(np.zeros((0, 3), np.float32), none, none, 5).shape == (0, 3)
    # Running sums grow with the rows; what is left of their error must be far below float32's.
    probabilities, video, frame = rows_of_videos([200_000], classes=2)
    last = np.argsort(frame)[-9:]
    expected = probabilities[last].astype(np.float64).mean(axis=0)
    assert smooth_probabilities(probabilities, video, frame, 9)[last[4]] == pytest.approx(expected, abs=1e-7)


def test_a_video_has_the_label_of_most_of_its_frames_and_the_mean_of_their_probabilities():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        video, labels = rng.integers(0, 9, 60) * 7, rng.integers(-1, 3, 60)
        labels[video == 14] = -1
        given = rng.dirichlet(np.ones(3), 60).astype(np.float32)
        found, means = video_scores(labels, given, video)
        expected = []
        for code in sorted(set(video.tolist()) - {14}):
            known = [label for label in labels[video == code].tolist() if label >= 0]
            most = max(sorted(set(known)), key=known.count)
            expected.append((most, given[video == code].astype(np.float64).mean(axis=0)))
        assert found.tolist() == [label for label, _ in expected]
        np.testing.assert_allclose(means, [mean for _, mean in expected], rtol=1e-12)


def joined(table, *videos):
    """The table with some videos put into one recording, one after the other."""
    codes = [table.videos.index(name) for name in videos]
    inside = np.isin(table.video, codes)
    frame = np.where(inside, table.frame + 100 * np.searchsorted(codes, table.video), table.frame).astype(np.int32)
    return replace(table, video=np.where(inside, codes[0], table.video).astype(np.int32), frame=frame)


def test_classes_of_which_the_split_leaves_no_row_to_test_are_named_for_each_target(people):
    table = people(3, clips=1, frames=6, classes=3)  # disgust, neutral, anger: one recording each
    # Recorded at one go, anger before the neutral frames: what comes before those is neither adapted on nor tested.
    mixed = joined(table, "anger-0", "disgust-0", "neutral-0")
    only = mixed.take((mixed.subject > 0) | (table.label == table.neutral_code))
    # Two neutral recordings of their own leave every class.
    more = people(3, clips=2, frames=6, classes=3)
    # Who has no neutral rows fails elsewhere; rows without a label are of no class.
    bare = replace(table, label=np.where(table.label == table.neutral_code, -1, table.label).astype(np.int16))
    lost = {name: ["anger", "disgust"] for name in ("s01", "s02")}
    for rows, scope, expected in (
        *((table, "person", {}), (only, "person", lost), (more, "person", {})),
        *((more, "dataset", {}), (bare, "person", {})),
    ):
        assert untested_classes(rows, rows.subjects, 2, scope) == expected


def test_stills_are_recordings_that_smoothing_does_not_cross(people):
    probabilities = np.random.default_rng(0).dirichlet([1, 1], 6).astype(np.float32)
    stills, frames = np.arange(6), np.zeros(6, dtype=int)
    np.testing.assert_array_equal(smooth_probabilities(probabilities, stills, frames, 9), probabilities)

from dataclasses import replace

import numpy as np
import pytest

from featlab.errors import InputError
from featlab.protocol.splits import reduced_split, split_target


@pytest.fixture
def mine(people):
    """Four neutral clips of five frames, of which two are adapted on, and eight clips of two expressions."""
    return people(subjects=1, clips=4, frames=5, classes=3)


def reduced(table, seed=0, **conditions):
    return reduced_split(table, split_target(table), seed, **conditions)


def frames_of(table, rows):
    """(video, frame) of some rows, in time."""
    return sorted((table.videos[table.video[row]], int(table.frame[row])) for row in rows)


def test_a_short_clip_is_the_first_frames_in_time_whatever_the_order_and_a_whole_one_as_it_was(mine):
    split = split_target(mine)
    same = reduced_split(mine, split, 0)
    assert np.array_equal(same.adapt, split.adapt)
    assert np.array_equal(same.test, split.test)
    shuffled = mine.take(np.random.default_rng(0).permutation(len(mine)))
    # Time is that of names and frames.
    backwards = replace(shuffled, videos=tuple(f"{99 - n}" for n in range(len(mine.videos))))
    for table in (mine, shuffled, backwards):
        split = split_target(table)
        for frames in (1, 4, 5, 7, 10, 99):
            short = reduced(table, frames=frames)
            assert frames_of(table, short.adapt) == frames_of(table, split.adapt)[:frames]
            assert np.array_equal(short.test, split.test)
            assert (np.diff(short.adapt) > 0).all()


def test_a_share_becomes_test_frames_of_other_classes_and_a_larger_one_replaces_more_of_the_same(mine):
    for share, frames, replaced in ((0.1, 0, 1), (0.5, 0, 5), (0.9, 0, 9), (0.3, 4, 1), (0.04, 0, 0)):
        whole, unclean = reduced(mine, frames=frames), reduced(mine, frames=frames, contamination=share)
        come = np.setdiff1d(unclean.adapt, whole.adapt)
        assert len(unclean.adapt) == len(whole.adapt)
        assert len(come) == replaced
        assert (mine.label[come] != mine.neutral_code).all()
        assert set(come) <= set(whole.test)
        # What came left the test; what was replaced is nowhere.
        assert np.array_equal(unclean.test, np.setdiff1d(whole.test, come))
        for rows in (unclean.adapt, unclean.test):
            assert (np.diff(rows) > 0).all()
    few, many = reduced(mine, contamination=0.3), reduced(mine, contamination=0.6)
    is_other = mine.label != mine.neutral_code
    assert set(few.adapt[is_other[few.adapt]]) < set(many.adapt[is_other[many.adapt]])
    assert set(many.adapt[~is_other[many.adapt]]) < set(few.adapt[~is_other[few.adapt]])


def test_rows_of_unknown_label_are_not_taken_for_another_class(mine):
    label = mine.label.copy()
    unknown = np.flatnonzero(label != mine.neutral_code)[::2]
    label[unknown] = -1
    unclean = reduced(replace(mine, label=label), contamination=0.9)
    assert not set(unclean.adapt) & set(unknown)


def test_which_frames_depends_on_the_seed_and_the_name_alone(mine):
    def chosen(table, seed=0):
        return frames_of(table, reduced(table, seed, contamination=0.5).adapt)

    shuffled = mine.take(np.random.default_rng(3).permutation(len(mine)))
    assert chosen(mine) == chosen(shuffled)
    assert chosen(mine) != chosen(mine, seed=1)
    assert chosen(mine) != chosen(replace(mine, subjects=("someone else",)))


def test_one_frame_of_another_class_stays_in_the_test(mine, refused):
    neutral, others = (np.flatnonzero((mine.label == mine.neutral_code) == kind) for kind in (True, False))
    few, enough = (mine.take(np.sort([*neutral, *others[:there]])) for there in (5, 6))
    assert (enough.label[reduced(enough, contamination=0.5).test] != enough.neutral_code).sum() == 1
    with refused(InputError, "'s00' has 5 test frames of other classes", "replace 5 of 10"):
        reduced(few, contamination=0.5)

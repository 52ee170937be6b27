from dataclasses import replace

import numpy as np

from featlab.evaluation.metrics import smooth_probabilities
from featlab.protocol.splits import untested_classes


def joined(table, *videos):
    """The table with some videos put into one recording, one after the other."""
    codes = [table.videos.index(name) for name in videos]
    inside = np.isin(table.video, codes)
    frame = np.where(inside, table.frame + 100 * np.searchsorted(codes, table.video), table.frame).astype(np.int32)
    return replace(table, video=np.where(inside, codes[0], table.video).astype(np.int32), frame=frame)


def test_classes_of_which_the_split_leaves_no_row_to_test_are_named_for_each_target(people):
    table = people(3, clips=1, frames=6, classes=3)  # disgust, neutral, anger: one recording each
    assert untested_classes(table, table.subjects, 2, "person") == {}
    # Recorded at one go, anger before the neutral frames: what comes before those is neither adapted on nor tested.
    mixed = joined(table, "anger-0", "disgust-0", "neutral-0")
    only = mixed.take((mixed.subject == 1) | (table.label == table.neutral_code) | (mixed.subject == 2))
    assert untested_classes(only, only.subjects, 2, "person") == {
        "s01": ["anger", "disgust"],
        "s02": ["anger", "disgust"],
    }
    # Two neutral recordings of their own leave every class.
    more = people(3, clips=2, frames=6, classes=3)
    assert untested_classes(more, more.subjects, 2, "person") == {}
    assert untested_classes(more, more.subjects, 2, "dataset") == {}
    # Who has no neutral rows fails elsewhere; rows without a label are of no class.
    bare = replace(table, label=np.where(table.label == table.neutral_code, -1, table.label).astype(np.int16))
    assert untested_classes(bare, bare.subjects, 2, "person") == {}


def test_stills_are_recordings_that_smoothing_does_not_cross(people):
    probabilities = np.random.default_rng(0).dirichlet([1, 1], 6).astype(np.float32)
    stills, frames = np.arange(6), np.zeros(6, dtype=int)
    np.testing.assert_array_equal(smooth_probabilities(probabilities, stills, frames, 9), probabilities)

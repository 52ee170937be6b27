"""Neutral clips that are shorter than the one there is, or not all neutral: what an evaluation can do to a split.

`featlab adapt` takes the clip as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.protocol.splits import Split
from featlab.seeding import generator


@dataclass(frozen=True)
class ClipConditions:
    """What is done to the neutral clip of every target before anything is adapted to it."""

    frames: int = 0  # Adapt on at most that many, the first in time; 0 takes all.
    contamination: float = 0.0  # Fraction of them, in [0, 1), that is replaced by test frames of other classes.


WHOLE_CLIP = ClipConditions()


def reduced_split(table: FeatureTable, split: Split, conditions: ClipConditions, seed: int) -> Split:
    """Shorten one subject's clip, then replace some of its frames by frames of other classes.

    Frames are taken in time: videos in name order, frames in theirs. Those left out are neither adapted on nor tested.
    Then round(contamination × frames) random frames of the clip give way to as many random test rows with a known
    label that isn't neutral, and those leave the test. A larger fraction replaces what a smaller one does and more, for
    one seed.
    """
    adapt, test = split.adapt, split.test
    if conditions.frames:
        adapt = _in_time(table, adapt)[: conditions.frames]
    replaced = round(conditions.contamination * len(adapt))
    if replaced:
        name = table.subject_names_present()[0]
        label = table.label[test]
        others = _in_time(table, test[(label >= 0) & (label != table.neutral_code)])
        if replaced >= len(others):
            raise InputError(
                f"subject {name!r} has {len(others)} test frames of other classes, too few to replace {replaced} of "
                f"{len(adapt)} neutral ones and test on the rest; choose less --contamination or fewer --frames"
            )
        rng = generator("contamination", seed, name)
        # Two permutations whose beginnings are taken, so that a larger fraction holds a smaller one.
        gone = rng.permutation(_in_time(table, adapt))[:replaced]
        come = rng.permutation(others)[:replaced]
        adapt = np.concatenate([np.setdiff1d(adapt, gone), come])
        test = np.setdiff1d(test, come)
    return Split(np.sort(adapt), test)


def _in_time(table: FeatureTable, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return rows by their video's name and frame: what is chosen must not depend on the order in the table."""
    names = np.array(table.videos)[table.video[rows]]
    return rows[np.lexsort((table.frame[rows], names))]

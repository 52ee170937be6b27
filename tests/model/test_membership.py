"""The membership test: near 1 where it was planted, a guess where nothing tells people apart."""

import numpy as np
import pytest
import torch

from featlab.config.sections import HeadConfig
from featlab.model.style_bank import (
    LEAST_PEOPLE,
    SourceRows,
    StyleBank,
    _other_half,
    membership_sentence,
    membership_test,
)

HEAD = HeadConfig(epochs=20, bottleneck=8, lr=0.02)


def found(table, *, bank=True):
    source = SourceRows.of(table, torch.from_numpy(table.embeddings))
    held = StyleBank({}, len(table.subjects)) if bank else None
    return membership_test(source, held, HEAD, classes=2, seed=3)


def test_people_who_look_like_themselves_are_found_and_people_who_look_like_nobody_are_not(people):
    areas = found(people(subjects=36, dim=40, identity=3.0, resting=0.0, noise=0.1))
    assert areas["people"] == 36
    assert areas["centre"] > 0.7
    # The same rows, dealt to people at random: who was in can only be guessed.
    nobody = found(people(subjects=36, dim=40, identity=0.0, resting=0.0))
    assert all(abs(nobody[name] - 0.5) < 0.15 for name in ("centre", "head"))
    for number in ("36 people in", "the style bank's centre"):
        assert number in membership_sentence(areas)


def test_what_is_attacked_is_what_the_bundle_holds_and_too_few_people_are_not_measured(people):
    table = people(subjects=LEAST_PEOPLE)
    assert set(found(table)) == {"people", "centre", "head"}
    assert set(found(table, bank=False)) == {"people", "head"}
    assert found(table) == found(table)
    once = people(subjects=LEAST_PEOPLE, clips=1, frames=1)
    for few in (table.without("s03"), once, table.take(table.label != table.neutral_code)):
        assert found(few) == {}
    assert "not measured" in membership_sentence({})


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_the_attack_has_other_videos_or_other_frames_than_the_statistics(clips, people):
    table = people(subjects=3, clips=clips, frames=4)
    other = _other_half(*(part.astype(np.int64) for part in (table.subject, table.label, table.video)))
    for who in range(3):
        for label in range(2):
            mine = (table.subject == who) & (table.label == label)
            if clips == 1:
                assert (other[mine] == (table.frame[mine] >= 2)).all()
            else:
                assert set(table.video[mine & other]).isdisjoint(table.video[mine & ~other])
                assert other[mine].sum() == 4 * (clips // 2)

"""The carried share and the clips that it is learnt from: found where it was planted, from source people alone."""

import itertools
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.stats
import torch

from featlab.methods import make_method
from featlab.model import linear
from featlab.model.linear import CANDIDATES, LEAST_SUBJECTS, largest_alike, learn_share, person_folds
from featlab.model.style_bank import CarriedShare, SourceRows, shares_sentence
from featlab.protocol.splits import target_of


def clips_of(table):
    return SourceRows.of(table, torch.from_numpy(table.embeddings))


def planted(people, share, subjects=24):
    """People whose offset at rest is there in their expressions by a share."""
    table = people(subjects=subjects, frames=6, dim=6, identity=0.0, resting=0.0, noise=0.3)
    rng = np.random.default_rng(0)
    offsets = 3 * rng.normal(size=(subjects, 6))
    neutral = table.label == table.neutral_code
    table.embeddings[neutral] += offsets[table.subject[neutral]].astype(np.float32)
    table.embeddings[~neutral] += share * offsets[table.subject[~neutral]].astype(np.float32)
    return table


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_that_was_planted_is_found(share, people):
    """Rows of expressions are aligned best by it, and neutral rows by all of the offset: the best is near or above."""
    table = planted(people, share)
    found = learn_share(clips_of(table), 2, 4.0, seed=0)
    assert found.people == 24
    assert len(found.losses) == len(CANDIDATES)
    assert found.value >= CANDIDATES[int(np.argmin(found.losses))]
    assert abs(found.value - share) <= 0.5
    if share == 1.0:
        assert found.value >= 0.95


def test_the_largest_share_is_taken_that_cant_be_told_from_the_best():
    rng = np.random.default_rng(1)
    for _ in range(20):
        losses = rng.normal(size=(12, 5)) + np.linspace(1.0, 0.0, 5)
        best = losses.mean(axis=0).argmin()
        for place in range(5):
            worse = losses[:, place] - losses[:, best]
            if place == best or worse.mean() <= scipy.stats.sem(worse):
                break
        assert largest_alike(torch.from_numpy(losses)) == place
    assert largest_alike(torch.ones(3, 4)) == 0
    # Every person is a little worse with all of it: that is told from the best, however small.
    assert largest_alike(torch.tensor([[1.01, 1.0], [2.01, 2.0]], dtype=torch.float64)) == 1


def test_of_many_rows_an_even_selection_tells_the_share(people, monkeypatch):
    table, fit = planted(people, 1.0), Mock(wraps=linear.fit_classifier)
    monkeypatch.setattr(linear, "MOST_ROWS", len(table) // 2)
    monkeypatch.setattr(linear, "fit_classifier", fit)
    found = learn_share(clips_of(table), 2, 4.0, seed=0)
    assert (found.people, found.value) == (24, pytest.approx(1, abs=0.1))
    assert 0 < max(len(call.args[1]) for call in fit.call_args_list) <= len(table) // 2


def test_every_person_is_held_out_once_and_only_the_seed_of_that_changes_what_is_learnt(people):
    assert sorted(torch.cat(person_folds(13, 0)).tolist()) == list(range(13))
    table = planted(people, 0.5, subjects=10)
    first, again, other = (learn_share(clips_of(table), 2, 4.0, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.losses != other.losses


def test_with_too_few_people_all_of_the_offset_is_taken_and_said(people):
    found = learn_share(clips_of(people(subjects=LEAST_SUBJECTS - 1)), 2, 4.0, seed=0)
    assert found == CarriedShare()
    assert "not learned" in found.sentence()
    one = CarriedShare(0.95, 52)
    for words in ("95 % of how a face differs at rest", "52 people"):
        assert words in one.sentence()
    several = shares_sentence([one, CarriedShare(0.8, 51), CarriedShare(0.9, 52)])
    assert several == one.sentence().replace("95", "80 to 95").replace("52", "51 to 52")


def test_a_bundle_takes_the_share_that_it_learned_and_the_offset_is_that_share(people, small_bundle):
    table = people(subjects=9)
    known, mine = table.without("s08"), table.rows_of("s08")
    rows = mine.take(mine.label == mine.neutral_code)
    offsets = []
    for values in (
        {},
        {"pretrain.learn_share": False, "pretrain.share": 1.0},
        {"pretrain.learn_share": False, "pretrain.share": 0.25},
    ):
        bundle = small_bundle(known, values | {"pretrain.validation": False}, methods=["pft"])
        assert bundle.share.people == (0 if values else 8)
        model = make_method("pft", {"pft": {"weighting": "mean"}}).adapt(bundle, target_of(rows))
        offsets.append(model.model.translator.offset / bundle.share.value)
    for offset in offsets[1:]:
        torch.testing.assert_close(offset, offsets[0], atol=1e-4, rtol=1e-4)


def test_where_a_clip_tells_nothing_of_the_next_adapt_says_that_it_does_not_help(people, small_bundle):
    """What a clip looks like is its own: nothing of it is there in other clips of the person."""
    table = people(subjects=24, frames=6, dim=6, identity=0.0, resting=0.0, noise=0.3)
    clip = table.subject.astype(int) * len(table.videos) + table.video
    offsets = 2 * np.random.default_rng(0).normal(size=(clip.max() + 1, 6))
    table = replace(table, embeddings=(table.embeddings + offsets[clip]).astype(np.float32))
    bundle = small_bundle(table.without("s23"), {"pretrain.epochs": 5, "head.epochs": 20}, methods=["pft"])
    assert bundle.share.value <= 0.25
    mine = table.rows_of("s23")
    adapted = make_method("pft").adapt(bundle, target_of(mine.take(mine.label == mine.neutral_code)))
    assert any("source people who were held out" in line for line in adapted.warnings)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def uneven(people):
    """Clips of different lengths: s00 keeps one neutral clip, s01 two of 1 and 5 rows, s02 none; s03 keeps all."""
    table = people(subjects=4, clips=3, frames=5)
    who, clip = table.subject, np.array([name[-1] for name in table.videos])[table.video]
    drop = (who == 0) & (clip != "0") | (who == 1) & ((clip == "0") | (clip == "1") & (table.frame > 0)) | (who == 2)
    return table.take((table.label != table.neutral_code) | ~drop)


def test_a_clip_is_a_subjects_neutral_rows_of_one_video_and_means_are_over_clips_whatever_their_lengths(uneven):
    clips = clips_of(uneven)
    assert clips.subjects == ("s00", "s01", "s03")
    assert clips.count.tolist() == [1, 2, 3]
    neutral, seen = uneven.label == uneven.neutral_code, []
    for place, subject in enumerate(clips.subjects):
        mine = uneven.subject == uneven.subjects.index(subject)
        assert (clips.row_subject.numpy() == place).tolist() == mine.tolist()
        own = clips.clips[place, : clips.count[place]].tolist()
        for clip, video in zip(own, np.unique(uneven.video[mine & neutral]), strict=True):
            rows = mine & neutral & (uneven.video == video)
            assert np.array_equal((clips.row_clip == clip).numpy(), rows)
            np.testing.assert_allclose(clips.clip_mean[clip], uneven.embeddings[rows].mean(axis=0), atol=1e-5)
        torch.testing.assert_close(clips.subject_mean()[place], clips.clip_mean[own].mean(dim=0))
        seen += own
    assert sorted(seen) == list(range(6))
    assert ((clips.row_clip >= 0).numpy() == neutral).all()
    assert (clips.row_subject[uneven.subject == 2] == -1).all()
    order = np.random.default_rng(0).permutation(len(uneven))
    shuffled = clips_of(uneven.take(order))
    torch.testing.assert_close(shuffled.clip_mean, clips.clip_mean)
    assert torch.equal(shuffled.row_clip, clips.row_clip[order])


def test_rows_that_are_not_known_to_be_neutral_are_in_no_clip(people):
    table = people()
    clips = clips_of(table.take(table.label != table.neutral_code))
    assert clips.subjects == ()
    assert (clips.row_subject == -1).all()
    table = replace(table, label=np.where(table.frame < 3, table.label, -1).astype(np.int16))
    assert (clips_of(table).row_clip[table.frame >= 3] == -1).all()


def test_a_row_is_seen_through_half_of_its_subjects_other_clips(people):
    # A subject with fewer clips than others is never seen through one twice: s00 has 4 of 7.
    table = people(subjects=2, clips=7, frames=2)
    late = np.isin(table.video, [table.videos.index(f"neutral-{clip}") for clip in (4, 5, 6)])
    few = clips_of(table.take(~late | (table.subject > 0)))
    for clips in (few, *(clips_of(people(subjects=3, clips=count, frames=2)) for count in (1, 2, 3, 4, 5))):
        rows = torch.nonzero(clips.row_subject >= 0).squeeze(1)
        for row, mean in zip(rows.tolist() * 5, clips.episode_mean(rows.repeat(5), random()), strict=True):
            who = clips.row_subject[row]
            mine = clips.clips[who, : clips.count[who]].tolist()
            others = [clip for clip in mine if clip != clips.row_clip[row]] or mine
            chosen = itertools.combinations(others, max(1, len(mine) // 2))
            assert min((mean - clips.clip_mean[list(some)].mean(dim=0)).abs().max() for some in chosen) < 1e-5


def test_every_clip_that_may_be_seen_is_seen(people):
    clips = clips_of(people(subjects=2, clips=3, frames=2))
    for neutral, choices in ((True, 2), (False, 3)):
        row = torch.nonzero((clips.row_subject == 1) & ((clips.row_clip >= 0) == neutral))[0]
        seen = clips.episode_mean(row.repeat(200), random())
        assert len(torch.unique(seen.round(decimals=4), dim=0)) == choices


def test_neutral_rows_are_tested_as_often_as_the_protocol_leaves_them(people):
    for count, fraction in ((1, 1 / 2), (2, 1 / 2), (3, 2 / 3), (4, 1 / 2), (5, 3 / 5)):
        clips = clips_of(people(subjects=2, clips=count, frames=2))
        rows = torch.nonzero(clips.row_subject >= 0).squeeze(1)
        expected = torch.where(clips.row_clip[rows] >= 0, fraction, 1.0)
        torch.testing.assert_close(clips.tested_share(rows), expected)

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.model.style_bank import SourceRows


def clips_of(table):
    return SourceRows.of(table, torch.from_numpy(table.embeddings))


def neutral_rows(table, subject, video=None):
    """The oracle's row picker, by name."""
    mine = (table.subject == table.subjects.index(subject)) & (table.label == table.neutral_code)
    return mine if video is None else mine & (table.video == table.videos.index(video))


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def uneven(people):
    """Clips of different lengths: s00 keeps one neutral clip, s01 two of 1 and 5 rows, s02 none; s03 keeps all."""
    table = people(subjects=4, clips=3, frames=5)
    drop = neutral_rows(table, "s00", "neutral-1") | neutral_rows(table, "s00", "neutral-2")
    drop |= neutral_rows(table, "s01", "neutral-0") | (neutral_rows(table, "s01", "neutral-1") & (table.frame > 0))
    drop |= neutral_rows(table, "s02")
    return table.take(~drop)


def test_a_clip_is_a_subjects_neutral_rows_of_one_video_and_its_mean_is_numpys(uneven):
    clips = clips_of(uneven)
    assert clips.subjects == ("s00", "s01", "s03")
    assert clips.count.tolist() == [1, 2, 3]
    assert clips.clip_mean.shape == (6, uneven.dim)
    seen = set()
    for position, subject in enumerate(clips.subjects):
        for clip in clips.clips[position, : clips.count[position]].tolist():
            rows = (clips.row_clip == clip).numpy()
            assert set(uneven.subject[rows]) == {uneven.subjects.index(subject)}
            assert (uneven.label[rows] == uneven.neutral_code).all()
            (video,) = np.unique(uneven.video[rows])
            assert np.array_equal(rows, neutral_rows(uneven, subject, uneven.videos[video]))
            np.testing.assert_allclose(clips.clip_mean[clip], uneven.embeddings[rows].mean(axis=0), atol=1e-5)
            seen.add(clip)
    assert seen == set(range(6))
    for row, (subject, clip) in enumerate(zip(clips.row_subject.tolist(), clips.row_clip.tolist(), strict=True)):
        name = uneven.subjects[uneven.subject[row]]
        assert subject == (-1 if name == "s02" else clips.subjects.index(name))
        assert (clip >= 0) == (uneven.label[row] == uneven.neutral_code)


def test_a_subjects_mean_is_over_clips_whatever_their_lengths_and_the_order_of_rows(uneven):
    means = clips_of(uneven).subject_mean()
    long, short = (uneven.embeddings[neutral_rows(uneven, "s01", f"neutral-{clip}")] for clip in (2, 1))
    assert (len(long), len(short)) == (5, 1)
    np.testing.assert_allclose(means[1], (long.mean(axis=0) + short[0]) / 2, atol=1e-5)
    only = uneven.embeddings[neutral_rows(uneven, "s00")]
    np.testing.assert_allclose(means[0], only.mean(axis=0), atol=1e-5)
    order = np.random.default_rng(0).permutation(len(uneven))
    straight, shuffled = clips_of(uneven), clips_of(uneven.take(order))
    torch.testing.assert_close(shuffled.clip_mean, straight.clip_mean)
    assert torch.equal(shuffled.row_clip, straight.row_clip[order])
    assert torch.equal(shuffled.row_subject, straight.row_subject[order])


def test_rows_that_are_not_known_to_be_neutral_are_in_no_clip(people):
    table = people()
    clips = clips_of(table.take(table.label != table.neutral_code))
    assert clips.subjects == ()
    assert (clips.row_subject == -1).all()
    assert (clips.row_clip == -1).all()
    table = replace(table, label=np.where(table.frame < 3, table.label, -1).astype(np.int16))
    assert (clips_of(table).row_clip[table.frame >= 3] == -1).all()


def test_a_row_is_seen_through_half_of_its_subjects_other_clips(people):
    for count in (1, 2, 3, 4, 5):
        clips = clips_of(people(subjects=3, clips=count, frames=2))
        rows = torch.nonzero(clips.row_subject >= 0).squeeze(1)
        half = max(1, count // 2)
        for seed in range(5):
            for row, mean in zip(rows.tolist(), clips.episode_mean(rows, random(seed)).numpy(), strict=True):
                mine = clips.clips[clips.row_subject[row], :count].tolist()
                others = [clip for clip in mine if clip != clips.row_clip[row]] or mine
                choices = [
                    clips.clip_mean[list(some)].mean(dim=0).numpy() for some in itertools.combinations(others, half)
                ]
                assert min(np.abs(mean - choice).max() for choice in choices) < 1e-5
    # A subject with fewer clips than others is never seen through one twice: s00 has 4 of 7.
    table = people(subjects=2, clips=7, frames=2)
    late = np.isin(table.video, [table.videos.index(f"neutral-{clip}") for clip in (4, 5, 6)])
    clips = clips_of(table.take(~late | (table.subject > 0)))
    (row,) = torch.nonzero((clips.row_subject == 0) & (clips.row_clip < 0))[0]
    pairs = [clips.clip_mean[list(some)].mean(dim=0) for some in itertools.combinations(clips.clips[0, :4].tolist(), 2)]
    for mean in clips.episode_mean(row.repeat(100), random()):
        assert min((mean - pair).abs().max() for pair in pairs) < 1e-5


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

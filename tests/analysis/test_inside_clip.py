"""One clip over time: which video, whose model, which numbers, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

from featlab import FeatureTable
from featlab.analysis.inside import adapt_people
from featlab.analysis.inside.clip import (
    choose_video,
    clip_columns,
    clip_over_time,
    clip_sentence,
    clip_table,
    draw_clip,
    video_rows,
)
from featlab.errors import InputError
from featlab.methods.base import base_model
from featlab.model.networks import AdaptedModel
from featlab.protocol.splits import split_target
from featlab.workspace.predict import adaptation_of
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import bundle_folder

SHIFT = {"adapt.method": "neutral-shift"}
CLASSES = ("anger", "neutral", "joy")
DIM, FRAMES = 8, 6


def person_rows(videos, subjects=5):
    """Rows of people with the same videos: name to the label of each frame, by name; "?" is unknown."""
    rng = np.random.default_rng(0)
    names = tuple(sorted(videos))
    frames = [
        (code, 3 * number + 7, kind) for code, name in enumerate(names) for number, kind in enumerate(videos[name])
    ]
    video, frame, kind = (np.tile(column, subjects) for column in zip(*frames, strict=True))
    label = np.array([CLASSES.index(each) if each != "?" else -1 for each in kind])
    subject = np.repeat(np.arange(subjects), len(frames))
    own = rng.normal(size=(subjects, DIM))[subject] + 0.4 * rng.normal(size=(len(label), DIM))
    return FeatureTable(
        embeddings=(rng.normal(size=(4, DIM))[label] + own).astype(np.float32),
        label=label.astype(np.int16),
        subject=subject.astype(np.int32),
        video=video.astype(np.int32),
        frame=frame.astype(np.int32),
        subjects=tuple(f"s{number}" for number in range(subjects)),
        videos=names,
        classes=CLASSES,
        neutral="neutral",
    )


MIXED = ["neutral", "joy", "joy", "joy", "neutral", "anger"]
VIDEOS = {name: [name[2:]] * FRAMES for name in ("a-neutral", "b-neutral", "c-anger", "d-anger")} | {"e-mixed": MIXED}


@pytest.fixture(scope="module")
def workspace(opened):
    return opened(person_rows(VIDEOS), **SHIFT)


def one(videos):
    return person_rows(videos, subjects=1)


def videos_of(table, rows):
    return [table.videos[code] for code in np.unique(table.video[rows])]


def test_the_video_with_the_most_expressive_frames_is_shown_and_of_equal_ones_the_first():
    table = one({"z": ["joy"] * 3 + ["neutral"], "m": ["anger", "joy", "joy"], "a": ["neutral"] * 9, "b": ["joy"]})
    everything = np.arange(len(table))
    assert choose_video(table, everything) == "m"
    assert choose_video(table, everything[table.video[everything] != 2]) == "z"
    silent = one({"b": ["neutral"] * 9, "c": ["?"] * 2, "d": ["?"] * 2})
    assert choose_video(silent, np.arange(len(silent))) == "c"


def test_an_adapted_video_is_never_shown_while_there_is_another_and_rows_come_in_order_of_time():
    table = one(VIDEOS)
    split = split_target(table)
    assert np.unique(table.video[split.adapt]).tolist() == [0]
    assert videos_of(table, video_rows(table, split)) == ["c-anger"]
    for video, said in (
        ("a-neutral", "adapted on.*b-neutral, c-anger"),
        ("c-angre", "no such video; did you mean 'c-anger'"),
    ):
        with pytest.raises(InputError, match=said):
            video_rows(table, split, video)
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    assert (np.diff(shuffled.frame[video_rows(shuffled, split_target(shuffled))]) > 0).all()
    # A single neutral video is split in time, and its test part is shown if there is no other.
    for other in ({}, {"other": ["joy"] * 2}):
        table = one({"only": ["neutral"] * 10 + ["joy"] * 8} | other)
        assert videos_of(table, video_rows(table, split_target(table, 2))) == [*other, "only"][:1]


def test_the_numbers_are_those_of_an_evaluation_and_of_predict(workspace):
    for method in ("neutral-shift", "pft"):
        opened = replace(workspace, config=workspace.config.with_values({"adapt.method": method}, "test"))
        clip = clip_over_time(opened, "s2", ["s2"])
        person = adapt_people(opened, ["s2"], [method]).people[0]
        part = person.table.take(video_rows(person.table, person.split))
        assert np.array_equal(opened.table.take(clip.rows).embeddings, part.embeddings)
        source = opened.source(("s2",))
        bundle, made = bundle_stage(source, [method])
        assert made.reused
        for found, model in ((clip.before, AdaptedModel(base_model(bundle))), (clip.after, person.models[method])):
            assert np.array_equal(found, model.predict_proba(part.embeddings))
        stored, _ = adaptation_of(opened, bundle, bundle_folder(source, [method]), "s2")
        assert np.array_equal(clip.after, stored.predict_proba(part.embeddings))
    # The source model has met nobody who is kept out.
    clip_over_time(workspace, "s2", ["s2", "s4"])
    assert bundle_stage(workspace.source(("s2", "s4")), ["neutral-shift"])[1].reused


def test_labels_change_no_probability_and_without_any_everything_is_adapted_on_with_a_warning(workspace, opened):
    table = workspace.table
    label = np.where((table.subject == 2) & (table.video == 2), 2, table.label).astype(np.int16)
    label[(table.subject == 2) & (table.video == 3)] = -1
    clip, other = (
        clip_over_time(place, "s2", ["s2"], video="c-anger")
        for place in (workspace, opened(replace(table, label=label), **SHIFT))
    )
    assert np.array_equal(clip.before, other.before)
    assert np.array_equal(clip.after, other.after)
    assert clip_columns(other)["label"] == ["joy"] * FRAMES
    table = person_rows(VIDEOS)
    table.label[table.subject == 2] = -1
    clip = clip_over_time(opened(table, **SHIFT), "s2", ["s2"])
    assert (clip.video, clip.adapted_frames) == ("a-neutral", 5 * FRAMES)
    assert "no row of 's2' has a label" in clip.warnings[0]
    assert clip_columns(clip)["shown"] == [-1] * FRAMES
    assert "of 6 frames change class. One video" in clip_sentence(clip)
    assert clip_table(clip).rows[0][1:] == ("–", "–", "–")
    assert not draw_clip(clip, [None] * FRAMES).axes[0].patches


@pytest.fixture(scope="module")
def clip(workspace):
    """The mixed clip of s2, with probabilities that are easy to count with."""
    made = clip_over_time(workspace, "s2", ["s2"], video="e-mixed")
    before = np.tile(np.array([0.1, 0.6, 0.3], dtype=np.float32), (FRAMES, 1))
    after = before.copy()
    after[1:4] = (0.1, 0.2, 0.7)
    return replace(made, before=before, after=after)


def test_columns_table_and_sentence_say_what_the_labels_and_predictions_are(clip, readable):
    data = clip_columns(clip)
    assert (data["frame"], data["label"], data["shown"]) == ([7, 10, 13, 16, 19, 22], MIXED, [0, 1, 1, 1, 0, 1])
    assert data["predicted_before"] == ["neutral"] * 6
    assert data["predicted_after"] == ["neutral", "joy", "joy", "joy", "neutral", "neutral"]
    assert data["before"] == pytest.approx([0.4] * 6)
    # Right: the 2 neutral frames before, and 3 of joy beside them after; 4 frames are not neutral.
    assert clip_table(clip).rows == (("Before", "33.3", "0.400", "0.400"), ("After", "83.3", "0.700", "0.400"))
    said = "3 of 6 frames change class; 33.3 % of the labelled ones are recognised before adapting, 83.3 % after."
    assert said in clip_sentence(clip)
    label = clip.label.copy()
    label[[0, 4]] = -1
    some = clip_table(replace(clip, label=label))
    assert ("4 labelled of 6 frames" in some.title, [row[1] for row in some.rows]) == (True, ["0.0", "75.0"])
    joy = replace(clip, shown="joy")
    assert clip_columns(joy)["shown"] == [0, 1, 1, 1, 0, 0]
    assert clip_columns(joy)["after"] == pytest.approx([0.3, 0.7, 0.7, 0.7, 0.3, 0.3])
    shown = [np.zeros((12, 12, 3), dtype=np.uint8)] * FRAMES
    assert readable(draw_clip(joy, shown)).axes[0].get_ylabel() == "p(joy)"

"""Evaluating methods on one person or a data set: what they are given, how they are scored, how they fail."""

from contextlib import nullcontext
from dataclasses import fields, replace
from unittest.mock import Mock

import numpy as np
import pytest

from featlab.compute import run_seed
from featlab.errors import InputError
from featlab.evaluation.metrics import reliability_counts, smooth_probabilities, subject_metrics, video_scores
from featlab.evaluation.run import RunNumbers, evaluate_subject, oracle_probabilities
from featlab.methods import AdaptedModel, get_method, make_method, method_names
from featlab.methods.base import SourceFeatures
from featlab.protocol.splits import reduced_split, split_dataset, split_target, target_of

NAMES = method_names()
LABEL_FREE = [name for name in NAMES if not get_method(name).needs_labels]
CLASSES = 3
WHOLE = RunNumbers(scope="dataset")


@pytest.fixture(scope="module")
def table(people):
    """Four neutral clips a person, so that both halves of a split have some; s04 is the target."""
    return people(subjects=5, clips=4, frames=4, classes=CLASSES)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s04"), methods=NAMES)


@pytest.fixture(scope="module")
def mine(table):
    return table.rows_of("s04")


@pytest.fixture(scope="module")
def strangers(people):
    """Three people whom the bundle does not know, as a target data set."""
    return people(subjects=7, clips=4, frames=4, classes=CLASSES).rows_of("s04", "s05", "s06")


@pytest.fixture(scope="module")
def source(bundle, table):
    """What the methods with source access are given."""
    return SourceFeatures.of(bundle, table.without("s04"))


def methods(*names):
    return [make_method(name, {name: quick(name)}) for name in names]


def quick(name):
    """A few steps, where the number is an option."""
    known = {field.name for field in fields(get_method(name).config_type)}
    steps = {"iterations": 4, "epochs": 2, "steps": 2, "ssl_iterations": 4, "teacher_epochs": 2, "retrain_epochs": 2}
    return {option: value for option, value in steps.items() if option in known}


def expected_scores(table, rows, probabilities):
    return subject_metrics(table.label[rows], probabilities, table.neutral_code)


@pytest.fixture
def predictions(monkeypatch):
    """What each method predicts from here on: the labels have no other way into a number than through these."""
    seen, real = [], AdaptedModel.predict_proba
    monkeypatch.setattr(AdaptedModel, "predict_proba", lambda model, rows: seen.append(real(model, rows)) or seen[-1])
    return seen


@pytest.fixture
def given(monkeypatch):
    """The targets that source-only is adapted to, and their seeds, in order."""
    targets, real = [], get_method("source-only").adapt

    def spy(self, bundle, target, *, seed=0):
        targets.append((target, seed))
        return real(self, bundle, target, seed=seed)

    monkeypatch.setattr(get_method("source-only"), "adapt", spy)
    return targets


def test_test_labels_change_no_prediction_but_the_oracles(bundle, mine, source, predictions):
    others = np.flatnonzero(mine.label != mine.neutral_code)
    exchanged, removed = mine.label.copy(), mine.label.copy()
    exchanged[others] = np.random.default_rng(0).permutation(2 - exchanged[others])
    removed[others[::2]] = -1
    frames = len(split_target(mine).adapt)
    able = [name for name in LABEL_FREE if frames >= get_method(name).minimum_rows(CLASSES)]
    assert len(able) >= len(LABEL_FREE) - 2
    for label in (mine.label, exchanged, removed):
        rows = evaluate_subject(bundle, replace(mine, label=label), methods(*able), source=source)
        assert not any(row.error for row in rows)
    for name, *values in zip(able, *np.split(np.array(predictions), 3), strict=True):
        assert all(np.array_equal(values[0], other) for other in values), name


def test_labels_of_a_data_set_change_no_prediction_but_the_oracles(bundle, strangers, source, monkeypatch, predictions):
    """Which videos are adapted on is kept: labels may be exchanged among the videos of one side only."""
    split = split_dataset(strangers)
    label = strangers.label.copy()
    label[split.test] = np.random.default_rng(0).permutation(label[split.test])
    monkeypatch.setattr("featlab.evaluation.run.split_dataset", lambda *_: split)
    able = [name for name in LABEL_FREE if not get_method(name).needs_neutral]
    for labels in (strangers.label, label):
        evaluate_subject(bundle, replace(strangers, label=labels), methods(*able), source=source, numbers=WHOLE)
    assert np.array_equal(*np.split(np.array(predictions), 2))


def test_a_method_is_given_the_adapt_rows_only_also_of_a_short_and_unclean_clip(bundle, mine, given):
    whole = split_target(mine)
    clip = {"frames": 6, "contamination": 0.5}
    short = reduced_split(mine, whole, bundle.seed, **clip)
    for split, options in ((whole, {}), (short, clip)):
        numbers = RunNumbers(draw=3, seed=2, **options)
        (row,) = evaluate_subject(bundle, mine, methods("source-only"), numbers=numbers)
        target, seed = given.pop()
        assert np.array_equal(target.embeddings, mine.embeddings[split.adapt])
        assert np.array_equal(target.frame, mine.frame[split.adapt])
        assert not hasattr(target, "label")
        assert seed == run_seed(bundle.seed, "source-only", "s04")
        assert (row.method, row.subject, row.draw, row.seed) == ("source-only", "s04", 3, 2)
        assert (row.adapt_frames, row.frames) == (len(split.adapt), len(split.test))
    assert row.adapt_frames == 6
    assert (mine.label[short.adapt] != mine.neutral_code).sum() == 3


def test_scores_confusion_recalls_and_reliability_are_those_of_the_test_rows(bundle, mine):
    split = split_target(mine)
    model = make_method("neutral-shift").adapt(bundle, target_of(mine, split.adapt))
    probabilities = model.predict_proba(mine.embeddings[split.test])
    (row,) = evaluate_subject(bundle, mine, methods("neutral-shift"))
    for name, value in vars(expected_scores(mine, split.test, probabilities)).items():
        assert getattr(row, name) == value, name
    assert row.selection == "source-free"
    counts = reliability_counts(probabilities, mine.label[split.test])
    assert np.array_equal(np.reshape(row.reliability, (15, 3)), counts)


def test_numbers_follow_the_seed_and_do_not_depend_on_the_other_methods(bundle, mine, source):
    options = {"numbers": RunNumbers(seed=1, count_flops=True), "source": source}
    together = evaluate_subject(bundle, mine, methods(*NAMES), **options)
    alone = [row for name in reversed(NAMES) for row in evaluate_subject(bundle, mine, methods(name), **options)]
    assert [row.method for row in together] == list(NAMES)
    assert all(np.isfinite(row.flops) for row in together if not row.error)
    assert [replace(row, seconds=0).to_dict() for row in together] == [
        replace(row, seconds=0).to_dict() for row in reversed(alone)
    ]


def test_adapting_to_a_person_helps_these_people(people, small_bundle):
    table = people(subjects=12, clips=3)
    bundle = small_bundle(table.without("s10", "s11"), {"head.epochs": 20}, methods=["pft"])
    for name in ("s10", "s11"):
        pft, oracle = evaluate_subject(bundle, table.rows_of(name), methods("pft", "oracle"))
        assert min(pft.macro_f1, oracle.macro_f1) > 0.9
        # What T reads of it is told by its rows alone.
        assert (pft.carried_share, pft.share_people, oracle.share_people) == (bundle.share.value, 10, 0)


def test_operations_are_counted_on_request(bundle, mine, source):
    plain, counted = (
        evaluate_subject(
            bundle, mine, methods("source-only", "pft", "ftdnn"), source=source, numbers=RunNumbers(count_flops=count)
        )
        for count in (False, True)
    )
    assert all(np.isnan(row.flops) for row in plain)
    source_only, pft, ftdnn = (row.flops for row in counted)
    assert 0 == source_only < pft
    # A step: forward and backward of B and C on 32 source rows, twice as many operations as multiplications.
    weights = sum(p.numel() for p in (bundle.head.linear.weight, bundle.head.classifier.weight))
    assert 4 * 32 * 2 * weights < ftdnn < 4 * 64 * 6 * weights
    assert [row.macro_f1 for row in plain] == [row.macro_f1 for row in counted]


def test_smoothed_and_video_scores_are_of_the_same_probabilities_for_every_method(bundle, mine, source):
    names, split = ("source-only", "shot-im", "ftdnn", "oracle"), split_target(mine)
    plain, rows = (
        evaluate_subject(bundle, mine, methods(*names), source=source, numbers=RunNumbers(smoothing=window))
        for window in (0, 3)
    )
    for before, row in zip(plain, rows, strict=True):
        assert np.isnan(before.macro_f1_smoothed)
        assert np.isfinite(row.macro_f1_smoothed)
        assert (row.macro_f1, row.reliability) == (before.macro_f1, before.reliability)
    model = make_method("source-only").adapt(bundle, target_of(mine, split.adapt))
    video = mine.video[split.test]
    for row, given in (
        (rows[0], model.predict_proba(mine.embeddings[split.test])),
        (rows[-1], oracle_probabilities(bundle, mine, split, *methods("oracle"))[0]),
    ):
        labels, means = video_scores(mine.label[split.test], given, video)
        videos = subject_metrics(labels, means, mine.neutral_code)
        assert (row.videos, row.video_macro_f1) == (len(labels), videos.macro_f1)
        assert (row.video_accuracy, row.video_balanced_accuracy) == (videos.accuracy, videos.balanced_accuracy)
        smoothed = smooth_probabilities(given, video, mine.frame[split.test], 3)
        assert row.macro_f1_smoothed == expected_scores(mine, split.test, smoothed).macro_f1


def test_a_data_set_is_adapted_to_once_and_every_subject_scored_and_smoothed_alone(bundle, strangers, given):
    numbers = replace(WHOLE, draw=1, seed=2, smoothing=99)
    rows = evaluate_subject(bundle, strangers, methods("source-only"), numbers=numbers)
    ((target, _),) = given
    split = split_dataset(strangers)
    adapted_on = {(s, v) for s, v in zip(strangers.subject[split.adapt], strangers.video[split.adapt], strict=True)}
    assert np.array_equal(target.embeddings, strangers.embeddings[split.adapt])
    # Videos of one name are one of each subject.
    assert len(np.unique(target.video)) == len(adapted_on)
    model = make_method("source-only").adapt(bundle, target)
    for name, row in zip(("s04", "s05", "s06"), rows, strict=True):
        assert (row.subject, row.draw, row.seed, row.scope) == (name, 1, 2, "dataset")
        own = split.test[strangers.subject[split.test] == strangers.subjects.index(name)]
        probabilities = model.predict_proba(strangers.embeddings[own])
        assert row.macro_f1 == expected_scores(strangers, own, probabilities).macro_f1
        assert row.adapt_frames == len(split.adapt)
        smoothed = smooth_probabilities(probabilities, strangers.video[own], strangers.frame[own], 99)
        assert row.macro_f1_smoothed == expected_scores(strangers, own, smoothed).macro_f1


def test_a_method_that_fails_is_a_row_with_its_error_and_the_others_run(bundle, mine, monkeypatch):
    # One that needs source rows and gets none fails so, too.
    (row,) = evaluate_subject(bundle, mine, methods("ftdnn"))
    assert "needs the source rows" in row.error
    assert row.selection == "source-access"
    for error in (InputError("the clip is too dark"), RuntimeError("no convergence\nat all"), TypeError("2 arguments")):
        monkeypatch.setattr(get_method("coral"), "adapt", Mock(side_effect=error))
        # A mistake in a method is not hidden.
        with pytest.raises(TypeError) if isinstance(error, TypeError) else nullcontext():
            first, second = evaluate_subject(bundle, mine, methods("coral", "source-only"))
        assert (first.method, first.subject, first.frames, first.histogram) == ("coral", "s04", 0, ())
        assert first.error in str(error) or isinstance(error, TypeError)
        assert not second.error


def test_in_a_data_set_methods_of_a_neutral_clip_say_why_they_can_not_run(bundle, strangers, source):
    rows = evaluate_subject(bundle, strangers, methods(*NAMES), source=source, numbers=WHOLE)
    assert len(rows) == 3 * len(NAMES)
    for row in rows:
        assert bool(row.error) == get_method(row.method).needs_neutral, row
        assert not row.error or "one person's neutral clip" in row.error


def test_a_subject_without_a_labelled_test_row_fails_alone(bundle, strangers):
    label = np.where(strangers.subject == strangers.subjects.index("s05"), -1, strangers.label).astype(np.int16)
    rows = evaluate_subject(bundle, replace(strangers, label=label), methods("source-only"), numbers=WHOLE)
    assert [(row.subject, bool(row.error)) for row in rows] == [("s04", False), ("s05", True), ("s06", False)]
    assert "no labelled test row" in rows[1].error


def test_rows_that_do_not_fit_are_refused(bundle, table, mine, refused):
    for rows, words in (
        (table.rows_of("s01"), ["'s01' is both source and target"]),
        (table.rows_of("s03", "s04"), ["one target subject, got 2"]),
        (mine.take(mine.label != mine.neutral_code), ["'s04'", "'neutral'"]),
        (replace(mine, classes=("neutral", "anger", "disgust")), ["classes", "neutral, anger"]),
        (replace(mine, classes=("anger", "neutral", "fear")), ["classes", "fear"]),
    ):
        with refused(InputError, *words):
            evaluate_subject(bundle, rows, methods("source-only"))


@pytest.mark.parametrize("kind", ["blocks", "videos"])
@pytest.mark.parametrize(("clips", "frames"), [(2, 4), (2, 20), (3, 1), (3, 2), (3, 7), (4, 1), (4, 4)])
def test_every_test_row_is_predicted_once_by_an_oracle_that_never_saw_it(
    kind, clips, frames, people, bundle, monkeypatch
):
    mine = people(subjects=5, clips=clips, frames=frames, classes=CLASSES).rows_of("s04")
    split, seen = split_target(mine), []

    def spy(method, bundle, target, *, seed=0, labels=None):
        assert len(labels) == len(target)
        seen.append([target.embeddings])
        return make_method("source-only").adapt(bundle, target)

    real = AdaptedModel.predict_proba
    monkeypatch.setattr(get_method("oracle"), "adapt", spy)
    monkeypatch.setattr(AdaptedModel, "predict_proba", lambda model, rows: seen[-1].append(rows) or real(model, rows))
    oracle_probabilities(bundle, mine, split, make_method("oracle", {"oracle": {"folds": kind}}))
    # Rows are told by their embeddings.
    place = {row.tobytes(): number for number, row in enumerate(mine.embeddings)}
    folds = [[[place[row.tobytes()] for row in part] for part in fold] for fold in seen]
    assert len(folds) == 5
    assert sorted(row for _, predicted in folds for row in predicted) == sorted(split.test)
    for tuned, predicted in folds:
        assert not set(tuned) & set(predicted)
        assert set(split.adapt) <= set(tuned)
        # From four clips on, every expression is left to learn from.
        assert clips < 4 or set(mine.label[tuned]) == set(range(CLASSES))
        if kind == "videos":
            assert not set(mine.video[tuned]) & set(mine.video[predicted])
        elif frames == 20:
            for video in np.unique(mine.video[split.test]):
                block = sorted(mine.frame[row] for row in predicted if mine.video[row] == video)
                assert block == list(range(block[0], block[0] + 4))

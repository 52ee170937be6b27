from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from featlab.errors import InputError
from featlab.evaluation.metrics import reliability_counts, smooth_probabilities, subject_metrics
from featlab.evaluation.run import RunNumbers, evaluate_dataset, evaluate_subject, oracle_probabilities
from featlab.methods import (
    AdaptedModel,
    Method,
    get_method,
    make_method,
    method_names,
)
from featlab.methods.base import SourceFeatures
from featlab.protocol.clips import ClipConditions, reduced_split
from featlab.protocol.splits import split_dataset, split_target, target_of
from featlab.seeding import run_seed

NAMES = method_names()
LABEL_FREE = [name for name in NAMES if not get_method(name).needs_labels]
CLASSES = 3


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


def scores_of(row):
    """All of a row but the time it took."""
    return {name: value for name, value in row.to_dict().items() if name != "seconds"}


def predicted(bundle, table, rows, adapt):
    """What source-only says of some rows."""
    return make_method("source-only").adapt(bundle, target_of(table, adapt)).predict_proba(table.embeddings[rows])


def predictions_of(bundle, table, names, source, monkeypatch):
    """What each method predicted, in order: the labels have no other way into a number than through these."""
    seen = []
    predict = AdaptedModel.predict_proba

    def spy(model, embeddings, **options):
        seen.append(predict(model, embeddings, **options))
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(AdaptedModel, "predict_proba", spy)
        rows = evaluate_subject(bundle, table, methods(*names), source=source)
    return seen, [row.error for row in rows]


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["exchanged", "removed", "shuffled"])
def test_test_labels_change_no_prediction_but_the_oracles(change, bundle, mine, source, monkeypatch):
    label = mine.label.copy()
    others = np.flatnonzero(label != mine.neutral_code)
    if change == "exchanged":
        label[others] = 2 - label[others]
    elif change == "removed":
        label[others[::2]] = -1
    else:
        label[others] = np.random.default_rng(0).permutation(label[others])
    assert (label != mine.label).any()
    frames = len(split_target(mine).adapt)
    able = [name for name in LABEL_FREE if frames >= get_method(name).minimum_rows(CLASSES)]
    straight, errors = predictions_of(bundle, mine, able, source, monkeypatch)
    other, _ = predictions_of(bundle, replace(mine, label=label), able, source, monkeypatch)
    assert not any(errors), errors
    assert len(straight) == len(other) == len(able) >= len(LABEL_FREE) - 2
    for name, ours, theirs in zip(able, straight, other, strict=True):
        assert np.array_equal(ours, theirs), name


def test_a_method_is_given_the_adapt_rows_only(bundle, mine):
    given = []

    class Spy(Method):
        name, title, setting, published = "spy", "Spy", "Baselines", "A test."

        def adapt(self, bundle, target, *, seed=0):
            given.append((target, seed))
            return make_method("source-only").adapt(bundle, target)

    (row,) = evaluate_subject(bundle, mine, [Spy()], numbers=RunNumbers(draw=3, seed=2))
    ((target, seed),) = given
    split = split_target(mine)
    assert np.array_equal(target.embeddings, mine.embeddings[split.adapt])
    assert np.array_equal(target.frame, mine.frame[split.adapt])
    assert not hasattr(target, "label")
    assert seed == run_seed(bundle.seed, "spy", "s04")
    assert (row.method, row.subject, row.draw, row.seed) == ("spy", "s04", 3, 2)
    assert (row.adapt_frames, row.frames) == (len(split.adapt), len(split.test))


# --- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_test_rows(bundle, mine):
    split = split_target(mine)
    model = make_method("neutral-shift").adapt(bundle, target_of(mine, split.adapt))
    expected = subject_metrics(
        mine.label[split.test],
        model.predict_proba(mine.embeddings[split.test]),
        classes=mine.classes,
        neutral_code=mine.neutral_code,
    )
    (row,) = evaluate_subject(bundle, mine, methods("neutral-shift"))
    for name in ("macro_f1", "macro_f1_all", "accuracy", "balanced_accuracy", "neutral_recall", "non_neutral_recall"):
        assert getattr(row, name) == getattr(expected, name), name
    assert (row.histogram, row.frames, row.collapsed) == (expected.histogram, expected.frames, expected.collapsed)
    assert row.selection == "source-free"
    assert sum(row.histogram) == row.frames


def test_numbers_follow_the_seed_and_do_not_depend_on_the_other_methods(bundle, mine, source):
    options = {"numbers": RunNumbers(seed=1), "source": source}
    together = evaluate_subject(bundle, mine, methods(*NAMES), **options)
    alone = [row for name in reversed(NAMES) for row in evaluate_subject(bundle, mine, methods(name), **options)]
    assert [row.method for row in together] == list(NAMES)
    assert [scores_of(row) for row in together] == [scores_of(row) for row in reversed(alone)]


def test_adapting_to_a_person_helps_these_people(people, small_bundle):
    table = people(subjects=12, clips=3)
    bundle = small_bundle(table.without("s10", "s11"), {"head.epochs": 20, "pretrain.epochs": 10}, methods=NAMES)
    rows = [
        row
        for name in ("s10", "s11")
        for row in evaluate_subject(bundle, table.rows_of(name), methods("pft", "oracle"))
    ]
    assert min(row.macro_f1 for row in rows if row.method == "oracle") > 0.9
    assert min(row.macro_f1 for row in rows if row.method == "pft") > 0.9


# --- failures ---------------------------------------------------------------------------------------------------------


class Failing(Method):
    name, title, setting, published = "failing", "Failing", "Baselines", "A test."

    def adapt(self, bundle, target, *, seed=0):
        raise self.error


def test_a_method_that_fails_is_a_row_with_its_error_and_the_others_run(bundle, mine):
    failing = Failing()
    for failing.error in (InputError("the clip is too dark"), RuntimeError("no convergence\nat all")):
        first, second = evaluate_subject(bundle, mine, [failing, *methods("source-only")])
        assert first.error == str(failing.error).splitlines()[0]
        assert np.isnan(first.macro_f1)
        assert (first.method, first.subject, first.frames, first.histogram) == ("failing", "s04", 0, ())
        assert not second.error
    # A mistake in a method is not hidden.
    failing.error = TypeError("takes 2 arguments")
    with pytest.raises(TypeError):
        evaluate_subject(bundle, mine, [failing])


def test_a_bundle_without_what_a_method_needs_is_that_methods_error(bundle, mine, source):
    rows = evaluate_subject(replace(bundle, bank=None, extras={}), mine, methods(*NAMES), source=source)
    for row in rows:
        method = get_method(row.method)
        few = row.error.startswith(f"{row.method} needs {method.minimum_rows(CLASSES)} target rows")
        assert few or bool(row.error) == (method.needs_style_bank or method.needs_extras), row
        assert not row.error or "needs" in row.error


def test_without_source_rows_the_methods_that_need_them_say_so(bundle, mine):
    needing = [name for name in NAMES if get_method(name).needs_source]
    assert needing
    for row in evaluate_subject(bundle, mine, methods(*needing)):
        assert "needs the source rows" in row.error
        assert row.selection == "source-access"


# --- a data set -------------------------------------------------------------------------------------------------------


@pytest.fixture
def given(monkeypatch):
    """The targets that source-only is adapted to, in their order."""
    targets = []
    real = get_method("source-only").adapt

    def spy(self, bundle, target, *, seed=0):
        targets.append(target)
        return real(self, bundle, target, seed=seed)

    monkeypatch.setattr(get_method("source-only"), "adapt", spy)
    return targets


@pytest.fixture(scope="module")
def strangers(people):
    """Three people whom the bundle does not know, as a target data set."""
    return people(subjects=7, clips=4, frames=4, classes=CLASSES).rows_of("s04", "s05", "s06")


def test_a_data_set_is_adapted_to_once_and_every_subject_scored(bundle, strangers, given):
    rows = evaluate_dataset(bundle, strangers, methods("source-only"), numbers=RunNumbers(draw=1, seed=2))
    (target,) = given
    split = split_dataset(strangers)
    assert np.array_equal(target.embeddings, strangers.embeddings[split.adapt])
    assert len(np.unique(target.video)) == len(
        {(s, v) for s, v in zip(strangers.subject[split.adapt], strangers.video[split.adapt], strict=True)}
    )
    assert [(row.subject, row.draw, row.seed, row.scope) for row in rows] == [
        (name, 1, 2, "dataset") for name in ("s04", "s05", "s06")
    ]
    for row in rows:
        mine = split.test[strangers.subject[split.test] == strangers.subjects.index(row.subject)]
        probabilities = make_method("source-only").adapt(bundle, target).predict_proba(strangers.embeddings[mine])
        expected = subject_metrics(
            strangers.label[mine], probabilities, classes=strangers.classes, neutral_code=strangers.neutral_code
        )
        assert (row.macro_f1, row.class_recall) == (expected.macro_f1, expected.class_recall)
        assert row.adapt_frames == len(split.adapt)


def test_in_a_data_set_methods_of_a_neutral_clip_say_why_they_can_not_run(bundle, strangers, table):
    source = SourceFeatures.of(bundle, table.without("s04"))
    rows = evaluate_dataset(bundle, strangers, methods(*NAMES), source=source)
    assert len(rows) == 3 * len(NAMES)
    for row in rows:
        assert bool(row.error) == get_method(row.method).needs_neutral, row
        assert not row.error or "one person's neutral clip" in row.error


def test_labels_of_a_data_set_change_no_prediction_but_the_oracles(bundle, strangers, table, monkeypatch):
    """Which videos are adapted on is kept: labels may be exchanged among the videos of one side only."""
    source = SourceFeatures.of(bundle, table.without("s04"))
    split = split_dataset(strangers)
    label = strangers.label.copy()
    rng = np.random.default_rng(0)
    label[split.test] = rng.permutation(label[split.test])
    monkeypatch.setattr("featlab.evaluation.run.split_dataset", lambda *_: split)
    able = [name for name in LABEL_FREE if not get_method(name).needs_neutral]
    seen = []
    predict = AdaptedModel.predict_proba

    def spy(model, embeddings, **options):
        seen.append(predict(model, embeddings, **options))
        return seen[-1]

    monkeypatch.setattr(AdaptedModel, "predict_proba", spy)
    for labels in (strangers.label, label):
        evaluate_dataset(bundle, replace(strangers, label=labels), methods(*able), source=source)
    assert len(seen) == 2 * len(able)
    for name, ours, theirs in zip(able, seen[: len(able)], seen[len(able) :], strict=True):
        assert np.array_equal(ours, theirs), name


def test_a_subject_of_a_data_set_without_test_labels_fails_alone(bundle, strangers):
    label = np.where(strangers.subject == strangers.subjects.index("s05"), -1, strangers.label).astype(np.int16)
    rows = evaluate_dataset(bundle, replace(strangers, label=label), methods("source-only"))
    assert [(row.subject, bool(row.error)) for row in rows] == [("s04", False), ("s05", True), ("s06", False)]


# --- numbers of a row -------------------------------------------------------------------------------------------------


def test_operations_are_counted_on_request_and_change_nothing(bundle, mine, source):
    names = ("source-only", "pft", "ftdnn", "oracle")
    plain = evaluate_subject(bundle, mine, methods(*names), source=source)
    counted = evaluate_subject(bundle, mine, methods(*names), source=source, numbers=RunNumbers(count_flops=True))
    assert all(np.isnan(row.flops) for row in plain)
    by_name = {row.method: row.flops for row in counted}
    assert by_name["source-only"] == 0
    assert by_name["pft"] > 0
    # A step: forward and backward of B and C on 32 source rows, twice as many operations as multiplications.
    weights = sum(p.numel() for p in (bundle.head.linear.weight, bundle.head.classifier.weight))
    assert 4 * 32 * 2 * weights < by_name["ftdnn"] < 4 * 64 * 6 * weights
    for ours, theirs in zip(plain, counted, strict=True):
        assert ours.macro_f1 == theirs.macro_f1


def test_confusion_recalls_and_reliability_are_those_of_the_test_rows(bundle, mine):
    (row,) = evaluate_subject(bundle, mine, methods("source-only"))
    split = split_target(mine)
    label, probabilities = mine.label[split.test], predicted(bundle, mine, split.test, split.adapt)
    counts = np.array(row.confusion).reshape(CLASSES, CLASSES)
    np.testing.assert_array_equal(counts, confusion_matrix(label, probabilities.argmax(axis=1), labels=range(CLASSES)))
    assert tuple(counts.sum(axis=0)) == row.histogram
    assert row.class_recall == pytest.approx(tuple(counts.diagonal() / counts.sum(axis=1)))
    assert np.array_equal(np.reshape(row.reliability, (15, 3)), reliability_counts(probabilities, label))
    assert sum(row.reliability[::3]) == row.frames


def test_the_smoothed_score_is_that_of_smoothed_probabilities_of_every_method(bundle, mine, source):
    names, split = ("source-only", "shot-im", "ftdnn", "oracle"), split_target(mine)
    where = (mine.video[split.test], mine.frame[split.test])
    plain = evaluate_subject(bundle, mine, methods(*names), source=source)
    rows = evaluate_subject(bundle, mine, methods(*names), source=source, numbers=RunNumbers(smoothing=3))
    for before, row in zip(plain, rows, strict=True):
        assert np.isnan(before.macro_f1_smoothed)
        assert (row.macro_f1, row.reliability) == (before.macro_f1, before.reliability)
    fixed = methods("oracle")[0]
    probabilities = {
        "source-only": predicted(bundle, mine, split.test, split.adapt),
        "oracle": oracle_probabilities(bundle, mine, split, fixed)[0],
    }
    by_name = {row.method: row.macro_f1_smoothed for row in rows}
    for name, given in probabilities.items():
        expected = subject_metrics(
            mine.label[split.test],
            smooth_probabilities(given, *where, 3),
            classes=mine.classes,
            neutral_code=mine.neutral_code,
        )
        assert by_name[name] == expected.macro_f1
    assert all(np.isfinite(value) for value in by_name.values())


def test_in_a_data_set_videos_of_one_name_are_smoothed_subject_by_subject(bundle, strangers):
    rows = evaluate_dataset(bundle, strangers, methods("source-only"), numbers=RunNumbers(smoothing=99))
    split = split_dataset(strangers)
    model = make_method("source-only").adapt(bundle, target_of(strangers))
    for row in rows:
        mine = split.test[strangers.subject[split.test] == strangers.subjects.index(row.subject)]
        given = model.predict_proba(strangers.embeddings[mine])
        smoothed = smooth_probabilities(given, strangers.video[mine], strangers.frame[mine], 99)
        expected = subject_metrics(
            strangers.label[mine], smoothed, classes=strangers.classes, neutral_code=strangers.neutral_code
        )
        assert row.macro_f1_smoothed == expected.macro_f1


def test_a_method_is_given_the_short_and_unclean_clip_without_a_label(bundle, mine, given):
    conditions = ClipConditions(frames=6, contamination=0.5)
    (row,) = evaluate_subject(bundle, mine, methods("source-only"), conditions=conditions)
    split = reduced_split(mine, split_target(mine), conditions, bundle.seed)
    assert np.array_equal(given[0].embeddings, mine.embeddings[split.adapt])
    assert not hasattr(given[0], "label")
    assert (row.adapt_frames, row.frames) == (6, len(split.test))
    assert (mine.label[split.adapt] != mine.neutral_code).sum() == 3


def test_a_target_without_a_test_label_is_an_error(bundle, mine):
    one = np.flatnonzero(mine.label == mine.neutral_code)[0]
    label = np.where(np.arange(len(mine)) == one, mine.label, -1).astype(np.int16)
    (row,) = evaluate_subject(bundle, replace(mine, label=label), methods("source-only"))
    assert "no labelled test row" in row.error


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


# --- the oracle -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch):
    """(rows that the oracle was tuned on, rows that it then predicted), fold by fold, as sets of embeddings."""
    oracle, seen = get_method("oracle"), []
    adapt, predict = oracle.adapt, AdaptedModel.predict_proba

    def keys(embeddings):
        return {row.tobytes() for row in embeddings}

    def spy_fit(method, bundle, target, *, seed=0, labels=None):
        assert len(labels) == len(target)
        seen.append([keys(target.embeddings), None])
        return adapt(method, bundle, target, labels=labels)

    def spy_predict(model, embeddings, **options):
        seen[-1][1] = keys(embeddings)
        return predict(model, embeddings, **options)

    monkeypatch.setattr(oracle, "adapt", spy_fit)
    monkeypatch.setattr(AdaptedModel, "predict_proba", spy_predict)
    return seen


def videos_of(table, keys):
    return {
        table.videos[code] for row, code in zip(table.embeddings, table.video, strict=True) if row.tobytes() in keys
    }


def check_folds(mine, split, fits):
    """Every test row is predicted once, by a model that was not tuned on it."""
    for tuned, predicted in fits:
        assert not tuned & predicted
        assert {row.tobytes() for row in mine.embeddings[split.adapt]} <= tuned
    everything = [key for _, predicted in fits for key in predicted]
    assert sorted(everything) == sorted(row.tobytes() for row in mine.embeddings[split.test])


@pytest.mark.parametrize("clips", [2, 3, 4])
def test_with_whole_videos_the_oracle_never_sees_the_video_that_it_predicts(clips, bundle, people, fits):
    mine = people(subjects=5, clips=clips, frames=4, classes=CLASSES).rows_of("s04")
    split = split_target(mine)
    oracle = make_method("oracle", {"oracle": {"folds": "videos"}})
    probabilities, _ = oracle_probabilities(bundle, mine, split, oracle)
    assert np.isfinite(probabilities).all()
    assert 2 <= len(fits) <= 5
    check_folds(mine, split, fits)
    for tuned, predicted in fits:
        assert not videos_of(mine, tuned) & videos_of(mine, predicted)


@pytest.mark.parametrize("frames", [1, 2, 7, 20])
@pytest.mark.parametrize("folds", ["blocks", "videos"])
def test_the_oracle_never_sees_the_rows_that_it_predicts(folds, frames, bundle, people, fits):
    mine = people(subjects=5, clips=3, frames=frames, classes=CLASSES).rows_of("s04")
    split = split_target(mine)
    oracle_probabilities(bundle, mine, split, make_method("oracle", {"oracle": {"folds": folds}}))
    assert len(fits) == 5
    check_folds(mine, split, fits)


def test_a_block_of_the_oracle_is_a_stretch_of_each_video(bundle, people, fits):
    mine = people(subjects=5, clips=2, frames=20, classes=CLASSES).rows_of("s04")
    split = split_target(mine)
    oracle_probabilities(bundle, mine, split, make_method("oracle", {"oracle": {"folds": "blocks"}}))
    for _, predicted in fits:
        for video in np.unique(mine.video[split.test]):
            rows = [
                row for row in split.test if mine.video[row] == video and mine.embeddings[row].tobytes() in predicted
            ]
            frames = sorted(mine.frame[rows].tolist())
            assert frames == list(range(frames[0], frames[0] + 4))


@pytest.mark.parametrize("folds", ["blocks", "videos"])
@pytest.mark.parametrize("frames", [1, 4])
def test_in_every_fold_the_oracle_learns_from_every_expression(folds, frames, bundle, people, fits):
    mine = people(subjects=5, clips=4, frames=frames, classes=CLASSES).rows_of("s04")
    oracle_probabilities(bundle, mine, split_target(mine), make_method("oracle", {"oracle": {"folds": folds}}))
    labels = dict(zip((row.tobytes() for row in mine.embeddings), mine.label.tolist(), strict=True))
    for tuned, _ in fits:
        assert {labels[key] for key in tuned} == set(range(CLASSES))


def test_the_oracles_row_says_that_it_is_one(bundle, mine):
    (row,) = evaluate_subject(bundle, mine, [make_method("oracle")])
    assert row.selection == "oracle"
    assert row.iterations == 100
    assert row.trainable == sum(parameter.numel() for parameter in bundle.head.parameters())

"""PersonalizedClassifier and StyleTranslator against scikit-learn's own checks and against featlab's functions."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featlab import (
    ExtractorInfo,
    PersonalizedClassifier,
    StyleTranslator,
    build_bundle,
    load_bundle,
    make_method,
    save_bundle,
)
from featlab.config.load import Config
from featlab.errors import ConfigError, InputError
from featlab.protocol.splits import Target

pytestmark = pytest.mark.filterwarnings("ignore:subject .* is the clip neutral:UserWarning")

QUICK = {"dim": 8, "bottleneck": 64, "epochs": 20, "pretrain_epochs": 1}
"""Enough for the check that a classifier learns three blobs."""
SMALL = {"dim": 6, "bottleneck": 8, "epochs": 4, "pretrain_epochs": 3, "random_state": 5}
ESTIMATORS = [PersonalizedClassifier(**SMALL), StyleTranslator(**SMALL)]

both = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)


@parametrize_with_checks([PersonalizedClassifier(**QUICK), StyleTranslator(**QUICK)])
def test_scikit_learns_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=sklearn.exceptions.SkipTestWarning)
        check(estimator)


@pytest.fixture
def data(people):
    """(X, y, subject, video) of 5 people as scikit-learn has them, and of a sixth, at rest."""

    def arrays(table):
        subject, video = np.array(table.subjects)[table.subject], np.array(table.videos)[table.video]
        return table.embeddings, np.array(table.classes)[table.label], subject, video

    table = people(subjects=6, clips=3)
    new = table.rows_of("s05")
    return arrays(table.without("s05")), arrays(new.take(new.label == new.neutral_code))


def test_a_personalised_classifier_is_what_a_method_makes_of_the_same_rows_and_can_be_pickled(people, data):
    (X, y, subject, video), (X_rest, _, _, video_rest) = data
    # Without landmarks the pairs are by cosine.
    values = {
        "features.dim": 6,
        "head.bottleneck": 8,
        "head.epochs": 4,
        "pretrain.epochs": 3,
        "pair.strategy": "cosine",
    }
    methods = ("source-only", "neutral-shift", "adabn", "coral", "referenced", "pft-poster", "pft")
    config, made_by = Config().with_values(values, "test"), ExtractorInfo("array", "none", "12 values")
    table = people(subjects=6, clips=3)
    bundle = build_bundle(table.without("s05"), config, seed=5, extractor=made_by, methods=methods)
    _, codes = np.unique(video_rest, return_inverse=True)
    target = Target(X_rest, codes.astype(np.int32), np.arange(len(X_rest), dtype=np.int32))
    tested = table.rows_of("s05").embeddings
    for method in methods:
        with torch.no_grad():  # As somebody's own evaluation may have it.
            model = PersonalizedClassifier(method=method, **SMALL).fit(X, y, subject=subject, video=video)
            model.personalize(X_rest, subject="s05", video=video_rest)
        expected = make_method(method).adapt(bundle, target, seed=5).predict_proba(tested)
        found = model.predict_proba(tested, subject="s05")
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=method)
        again = pickle.loads(pickle.dumps(model)).personalize(X_rest, subject="newer", video=video_rest)
        for name in ("s05", "newer"):
            np.testing.assert_array_equal(again.predict_proba(tested, subject=name), found, err_msg=method)
    assert np.abs(found - model.predict_proba(tested)).max() > 0.01


def test_each_row_is_predicted_by_its_own_subjects_model_and_the_bundle_can_be_saved(tmp_path, data):
    (X, y, subject, video), (X_rest, y_rest, _, _) = data
    model = PersonalizedClassifier(**SMALL).fit(X, y, subject=subject, video=video).personalize(X_rest, subject=7)
    names = np.array([7.0, 8.0, 7.0])
    mixed = model.predict_proba(X[:3], subject=names)
    own, source = model.predict_proba(X[:3], subject=7), model.predict_proba(X[:3])
    np.testing.assert_allclose(mixed, np.stack([own[0], source[1], own[2]]), atol=1e-12)
    assert model.predict(X[:3], subject=names).tolist() == model.classes_[mixed.argmax(axis=1)].tolist()
    assert model.score(X_rest, y_rest, subject=7) == float(np.mean(model.predict(X_rest, subject=7) == y_rest))
    bundle = load_bundle(save_bundle(tmp_path / "bundle", model.bundle_))
    assert [name in bundle.source_subjects for name in ("s00", "s04", "7")] == [True, True, False]
    assert bundle.classes == tuple(model.classes_)


def test_a_translator_in_a_pipeline_translates_in_fit_as_it_does_afterwards(data):
    (X, y, subject, _), _ = data
    with sklearn.config_context(enable_metadata_routing=True):
        translator = StyleTranslator(**SMALL).set_fit_request(subject=True).set_transform_request(subject=True)
        pipeline = make_pipeline(translator, "passthrough")
        found = pipeline.fit_transform(X, y, subject=subject)
        np.testing.assert_array_equal(found, pipeline.transform(X, subject=subject))
        np.testing.assert_array_equal(found, clone(translator).fit_transform(X, y, subject=subject))


@both
def test_without_a_subject_the_head_is_trained_and_the_translator_is_the_identity(data, estimator):
    (X, y, _, _), (X_rest, _, _, _) = data
    for subject, name in (([3] * len(X), "3"), (None, "everyone")):
        model = clone(estimator).fit(X, y, subject=subject)
        assert name in model.bundle_.source_subjects
        features = model.bundle_.projection(torch.from_numpy(X))
        assert torch.equal(model.bundle_.translator(features), features)
    assert set(model.personalize(X_rest, subject="everyone").personal_) == {"everyone"}


def test_the_offset_is_the_centre_minus_the_persons_neutral_mean(data):
    (X, y, subject, video), (X_rest, _, _, _) = data
    model = StyleTranslator(**SMALL).fit(X, y, subject=subject, video=video)
    bundle = model.bundle_

    def features(values):
        return bundle.projection(torch.from_numpy(values))

    def check(rows, own, who):
        expected = bundle.translator(features(rows) + centre - own).numpy()
        np.testing.assert_allclose(model.transform(rows, subject=who), expected, atol=1e-4)

    neutral = y == "neutral"
    means = torch.stack([features(X[neutral & (subject == name)]).mean(dim=0) for name in np.unique(subject)])
    centre = means.mean(dim=0)
    check(X[subject == "s01"], means[1], "s01")
    check(X_rest, centre, None)
    check(X_rest, features(X_rest).mean(dim=0), "new")
    model.personalize(X_rest[:4], subject="new")
    check(X_rest, features(X_rest[:4]).mean(dim=0), "new")
    assert list(model.get_feature_names_out()) == [f"styletranslator{place}" for place in range(6)]


@both
def test_an_integer_seed_gives_the_same_and_none_another_model_and_an_earlier_fit_is_forgotten(data, estimator):
    (X, y, subject, _), (X_rest, _, _, _) = data
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    models = [
        clone(estimator).set_params(random_state=seed).fit(X, y, subject=subject)
        for seed in (3, 3, 4, None, None, np.random.RandomState(1), np.random.RandomState(1))
    ]
    first, *others = [model.bundle_.head.linear.weight for model in models]
    assert [torch.equal(first, other) for other in others] == [True, *[False] * 5]
    assert [torch.equal(*others[place : place + 2]) for place in (2, 4)] == [False, True]
    model = models[0].personalize(X_rest, subject="new")
    assert set(model.personal_) == {"new"}
    assert (torch.equal(torch.get_rng_state(), state), torch.get_num_threads()) == (True, threads)
    # The neutral class is the one called so, or the first, or the one that is named.
    numbers = (y == "neutral") + 3
    for labels, given, neutral in (
        (y, "anger", "anger"),
        (numbers, None, "3"),
        (numbers, 4, "4"),
        (y, None, "neutral"),
    ):
        assert model.set_params(neutral=given).fit(X, labels, subject=subject).bundle_.neutral == neutral
    assert model.personal_ == {}


@both
def test_subjects_that_do_not_fit_are_refused(data, estimator):
    (X, y, subject, _), (X_rest, _, _, _) = data
    model = clone(estimator).fit(X, y, subject=subject)
    ask = model.predict if isinstance(model, PersonalizedClassifier) else model.transform
    for wrong, words in (
        (["a", "b"], r"subject has shape \(2,\); expected one value for each of 60 rows"),
        ([1.0] * 50 + [float("nan")] * 10, "subject of row 50 is empty"),
        ([""] * 60, "subject of row 0 is empty"),
    ):
        with pytest.raises(InputError, match=words):
            clone(estimator).fit(X[:60], y[:60], subject=wrong)
        with pytest.raises(InputError, match=words):
            ask(X[:60], subject=wrong)
    for given, name, said in (
        (X_rest, "s03", "'s03' is one of those that were fitted on"),
        (np.full_like(X_rest, np.nan), "new", "NaN"),
        (X_rest[:0], "new", "0 sample"),
    ):
        with pytest.raises(ValueError, match=said):
            model.personalize(given, subject=name)
    assert model.personal_ == {}


def test_settings_and_methods_that_do_not_exist_are_refused(data, refused):
    (X, y, subject, _), _ = data
    for estimator, error, *words in (
        (PersonalizedClassifier(settings={"head.l": 1}), ConfigError, "unknown key head.l; did you mean 'lr'"),
        (PersonalizedClassifier(method="pftt"), ConfigError, "unknown method 'pftt'", "did you mean 'pft'"),
        (PersonalizedClassifier(method="oracle"), ConfigError, "'oracle' needs the person's labels"),
        (StyleTranslator(neutral="calm"), InputError, "neutral = 'calm' is none of the classes"),
    ):
        with refused(error, *words):
            estimator.fit(X, y, subject=subject)


def test_settings_reach_the_method_and_a_clip_that_does_not_look_neutral_is_warned_about(data):
    (X, y, subject, _), (X_rest, _, _, _) = data
    settings = {"head.lr": 0.05, "adapt.pft.iterations": 0}
    model = PersonalizedClassifier(settings=settings, **SMALL | {"epochs": 60}).fit(X, y, subject=subject)
    assert model.bundle_.config.head.lr == 0.05
    model.personalize(X_rest, subject="new")
    # No step: what predicts is T as pretrained, whose offset is zero.
    assert float(model.personal_["new"].translator.offset.abs().max()) == 0
    with pytest.warns(UserWarning, match="subject 'new': .*is the clip neutral"):
        model.personalize(X[y == "anger"], subject="new")

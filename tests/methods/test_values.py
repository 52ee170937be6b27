"""The numbers of the source-free methods without training at the target, of PFT and of the oracle, against NumPy,
SciPy and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from sklearn.linear_model import LogisticRegression

from featlab.errors import ConfigError, InputError
from featlab.methods import make_method
from featlab.model.style_bank import CarriedShare
from featlab.protocol.splits import target_of

METHODS = ("neutral-shift", "adabn", "coral", "referenced", "pft", "pft-poster", "oracle")


@pytest.fixture(scope="module", params=[2, 3], ids=["2 classes", "3 classes"])
def table(request, people):
    """One neutral clip a source subject, so that a row can be referenced to that one only; s05 is the target."""
    return people(subjects=6, clips=1, frames=16, classes=request.param)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=METHODS)


def run(name, bundle, rows, **options):
    return make_method(name, {name: options}).adapt(bundle, target_of(rows))


def numpy_of(*tensors):
    return tuple(tensor.detach().double().numpy() for tensor in tensors)


def features_of(bundle, embeddings):
    mean, components = numpy_of(bundle.projection.mean, bundle.projection.components)
    return (embeddings.astype(np.float64) - mean) @ components


def linear_of(bundle, features):
    weight, bias = numpy_of(bundle.head.linear.weight, bundle.head.linear.bias)
    return features @ weight.T + bias


def probabilities_of(bundle, features, mean=None, variance=None):
    """BatchNorm in evaluation mode, and C's weight normalisation: w = g v / ‖v‖, row by row."""
    norm, classifier = bundle.head.norm, bundle.head.classifier
    scale, shift, *statistics = numpy_of(norm.weight, norm.bias, norm.running_mean, norm.running_var)
    mean, variance = statistics if mean is None else (mean, variance)
    bottleneck = (linear_of(bundle, features) - mean) / np.sqrt(variance + norm.eps) * scale + shift
    weights = classifier.parametrizations.weight
    length, direction, bias = numpy_of(weights.original0, weights.original1, classifier.bias)
    weight = length * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return scipy.special.softmax(bottleneck @ weight.T + bias, axis=1)


def centre_of(bundle, table):
    """The mean over source subjects of the mean of their one neutral clip."""
    source = table.without("s05")
    features = features_of(bundle, source.embeddings)
    neutral = source.label == source.neutral_code
    return np.mean([features[neutral & (source.subject == code)].mean(axis=0) for code in range(5)], axis=0)


def test_neutral_shift_equals_numpy_in_either_precision_and_rows_to_predict_have_to_fit(
    bundle, table, rows, probe, refused
):
    shift = centre_of(bundle, table) - features_of(bundle, rows.embeddings).mean(axis=0)
    expected = probabilities_of(bundle, features_of(bundle, probe) + shift)
    model = run("neutral-shift", bundle, rows)
    np.testing.assert_allclose(model.predict_proba(probe), expected, atol=1e-5)
    assert model.predict_proba(probe[:0]).shape == (0, len(table.classes))
    for shape in ((4, 11), (12,), (2, 2, 12)):
        with refused(InputError, str(shape), "(n, 12)"):
            model.predict_proba(np.zeros(shape, dtype=np.float32))
    double = replace(target_of(rows), embeddings=rows.embeddings.astype(np.float64))
    again = make_method("neutral-shift").adapt(bundle, double).predict_proba(probe.astype(np.float64))
    np.testing.assert_allclose(again, model.predict_proba(probe), atol=1e-6)


def test_adabn_equals_the_batch_norm_formula(bundle, rows, probe):
    values = linear_of(bundle, features_of(bundle, rows.embeddings))
    expected = probabilities_of(bundle, features_of(bundle, probe), values.mean(axis=0), values.var(axis=0))
    np.testing.assert_allclose(run("adabn", bundle, rows).predict_proba(probe), expected, atol=1e-4)


def test_coral_equals_scipys_matrix_square_roots(bundle, table, rows, probe):
    source = table.without("s05")
    neutral = source.take(source.label == source.neutral_code)
    features = features_of(bundle, neutral.embeddings)
    for code in range(5):
        features[neutral.subject == code] -= features[neutral.subject == code].mean(axis=0)
    own = features_of(bundle, rows.embeddings)
    identity = np.eye(features.shape[1])
    colour = scipy.linalg.sqrtm(features.T @ features / len(features) + identity).real
    whiten = scipy.linalg.inv(scipy.linalg.sqrtm(np.cov(own.T, bias=True) + identity).real)
    moved = (features_of(bundle, probe) - own.mean(axis=0)) @ whiten @ colour + centre_of(bundle, table)
    expected = probabilities_of(bundle, moved)
    np.testing.assert_allclose(run("coral", bundle, rows).predict_proba(probe), expected, atol=1e-4)


def test_referenced_equals_scikit_learns_probabilities(bundle, table, rows, probe):
    source = table.without("s05")
    features = features_of(bundle, source.embeddings).astype(np.float32).astype(np.float64)
    neutral = source.label == source.neutral_code
    for code in range(5):
        mine = source.subject == code
        features[mine] -= features[mine & neutral].mean(axis=0)
    # The one neutral clip is half of the time what a subject is referenced to, and half of the time tested.
    weight = np.where(neutral, 0.5, 1.0)
    fitted = LogisticRegression(C=0.03, max_iter=5000).fit(features, source.label, sample_weight=weight)
    own = features_of(bundle, probe) - features_of(bundle, rows.embeddings).mean(axis=0)
    model = run("referenced", bundle, rows)
    np.testing.assert_allclose(model.predict_proba(probe), fitted.predict_proba(own), atol=2e-3)


def test_referenced_never_predicts_a_class_without_source_rows(people, small_bundle):
    table = people(subjects=6, clips=1, frames=16, classes=3)
    known = table.without("s05")
    disgust = table.classes.index("disgust")
    bundle = small_bundle(known.take(known.label != disgust), methods=["referenced"])
    mine = table.rows_of("s05")
    model = run("referenced", bundle, mine.take(mine.label == mine.neutral_code))
    assert model.predict_proba(mine.embeddings)[:, disgust].max() == 0


def test_the_style_of_features_is_aligned_where_the_line_search_ends(bundle, table, rows):
    bundle = replace(bundle, share=CarriedShare(0.7))
    plain, searched = run("pft", bundle, rows, weighting="mean"), run("pft", bundle, rows, optimiser="lbfgs")
    expected = 0.7 * (centre_of(bundle, table) - features_of(bundle, rows.embeddings).mean(axis=0))
    for model in (plain, searched):
        np.testing.assert_allclose(model.model.translator.offset, expected, atol=1e-3)
    assert searched.history[-1]["style"] < 1e-6 < 1e-3 < searched.history[0]["style"]
    assert (plain.iterations, plain.trainable) == (1, searched.trainable)


def test_the_anchor_is_the_divergence_of_t_from_the_source_model_and_consistency_that_of_two_frames(bundle, rows):
    model = run("pft", bundle, rows, optimiser="lbfgs", anchor=2.0, consistency=3.0, iterations=1)
    features = features_of(bundle, rows.embeddings)
    with torch.no_grad():
        q = scipy.special.softmax(bundle.logits(torch.from_numpy(features).float()).double().numpy(), axis=1)
    divergence = scipy.special.rel_entr(probabilities_of(bundle, features), q).sum(axis=1).mean()
    assert model.history[0]["anchor"] == pytest.approx(2 * divergence, rel=1e-3)
    # One frame is its own partner.
    assert run("pft", bundle, rows.take([0]), optimiser="lbfgs", consistency=3.0).history[0]["consistency"] == 0


def test_update_says_which_tensors_of_t_move_and_by_default_the_offset(bundle, rows):
    searched = {"layers": "embedding", "iterations": 5, "optimiser": "lbfgs"}
    last = {"last.weight", "last.bias"}
    for options, expected in (
        ({}, {"offset"}),
        (searched | {"update": "offset"}, {"offset"}),
        (searched | {"optimiser": "adam"}, {"offset"}),
        (searched | {"update": "last"}, last),
        (searched | {"update": "all"}, last | {"offset", "first.weight", "first.bias"}),
    ):
        model = run("pft", bundle, rows, **options)
        after, before = model.model.translator.state_dict(), bundle.translator.state_dict()
        moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
        assert moved == expected
        assert not options or 0 <= min(entry["loss"] for entry in model.history) < model.history[0]["loss"]
        assert model.trainable == sum(after[name].numel() for name in moved)


def test_losses_that_can_not_be_minimised_are_refused_in_one_line(bundle, rows, refused):
    for options in ({"update": "last"}, {"layers": ""}):
        with refused(ConfigError, "adapt.pft", "layer"):
            run("pft", bundle, rows, optimiser="lbfgs", **options)
    others = {"std": 1, "consistency": 1, "anchor": 1, "update": "all", "layers": "embedding", "style": 0}
    for option, value in others.items():
        with refused(ConfigError, "adapt.pft", "closed form", "optimiser"):
            run("pft", bundle, rows, **{option: value})
    with refused(InputError, "pft-poster", "style bank"):
        run("pft-poster", replace(bundle, bank=None), rows, style=1)


def test_a_clip_that_is_not_called_neutral_afterwards_is_warned_about(bundle, table, rows):
    other = 1 - table.neutral_code
    model = run("pft", replace(bundle, neutral=table.classes[other]), rows)
    fraction = np.mean(model.predict_proba(rows.embeddings).argmax(axis=1) == other)
    assert bool(model.warnings) == (fraction < 0.5)


def test_the_oracle_learns_the_labels_it_is_given_and_none_it_is_not(bundle, table, probe, refused):
    mine = table.rows_of("s05")
    method = make_method("oracle")
    start = make_method("oracle", {"oracle": {"iterations": 0}}).adapt(bundle, target_of(mine), labels=mine.label)
    shifted = run("neutral-shift", bundle, mine.take(mine.label == mine.neutral_code))
    np.testing.assert_allclose(start.predict_proba(probe), shifted.predict_proba(probe), atol=1e-6)
    model = method.adapt(bundle, target_of(mine), labels=mine.label)
    assert np.mean(model.predict_proba(probe).argmax(axis=1) == mine.label) > 0.9
    assert model.history[-1]["loss"] < model.history[0]["loss"]
    # In training mode BatchNorm ends at the person's statistics, in evaluation mode at the source's.
    for mode, stays in (("eval", True), ("train", False)):
        tuned = make_method("oracle", {"oracle": {"bn_mode": mode}})
        head = tuned.adapt(bundle, target_of(mine), labels=mine.label).model.head
        assert torch.equal(head.norm.running_mean, bundle.head.norm.running_mean) == stays
        assert not head.training
    known = mine.frame < 5
    partly = method.adapt(bundle, target_of(mine), labels=np.where(known, mine.label, -1).astype(np.int16))
    only = method.adapt(bundle, target_of(mine, np.flatnonzero(known)), labels=mine.label[known])
    # The same rows elsewhere in memory: their sums may be rounded otherwise.
    np.testing.assert_allclose(partly.predict_proba(probe), only.predict_proba(probe), atol=1e-3)
    with refused(InputError, "labelled row"):
        method.adapt(bundle, target_of(mine), labels=np.full(len(mine), -1, dtype=np.int16))

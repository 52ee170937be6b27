"""Methods with source access: what they learn from, and the loop that they share."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from featlab.methods import get_method, make_method
from featlab.methods.base import SourceFeatures
from featlab.methods.joint import JointConfig, fit_joint, fit_updates, is_due, new_part
from featlab.methods.student import make_student
from featlab.protocol.splits import Target, target_of

NAMES = ("icid", "dfa", "lpl", "detn", "ftdnn", "ecan", "cada", "safn", "swd", "agra")
BLIND = ("ftdnn", "lpl", "icid")
"""Methods of the source only, which don't look at the target."""
CLASSES = 3
SMALL = {"iterations": 3, "hidden": 16, "graph_hidden": 8, "directions": 16}


@pytest.fixture(scope="module")
def table(people):
    """s05 is the target; the bundle doesn't know them."""
    return people(subjects=6, classes=CLASSES)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"))


@pytest.fixture(scope="module")
def source(bundle, table):
    return SourceFeatures.of(bundle, table.without("s05"))


@pytest.fixture(scope="module")
def rows(table):
    """The target's neutral rows."""
    mine = table.rows_of("s05")
    return mine.take(mine.label == mine.neutral_code)


@pytest.fixture(scope="module")
def probe(table):
    return table.rows_of("s05").embeddings


def fitted(name, bundle, source, target, *, seed=0, **options):
    known = {field.name for field in dataclasses.fields(get_method(name).config_type)}
    small = {key: value for key, value in SMALL.items() if key in known}
    return make_method(name, {name: small | options}).adapt(bundle, target, source=source, seed=seed)


def target(embeddings):
    count = len(embeddings)
    return Target(embeddings, np.zeros(count, dtype=np.int32), np.arange(count, dtype=np.int32))


def head_of(model):
    """B and C of a fitted model, which some methods wrap."""
    head = model.model.head
    return getattr(head, "head", head)


# --- before any step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_steps_change_every_tensor_of_b_and_c_and_no_other(name, bundle, source, rows, probe):
    before = {key: tensor.clone() for key, tensor in bundle.head.state_dict().items()}
    model = fitted(name, bundle, source, target_of(rows))
    assert all(torch.equal(tensor, before[key]) for key, tensor in bundle.head.state_dict().items())
    assert not bundle.head.training
    for key, tensor in head_of(model).state_dict().items():
        # Under BatchNorm in training a bias before it has no gradient, but weight decay and rounding.
        assert key == "linear.bias" or not torch.equal(tensor, before[key]), key
    expected = make_method("source-only").adapt(bundle, target_of(rows)).predict_proba(probe)
    assert np.abs(model.predict_proba(probe) - expected).max() > 1e-4
    for key, tensor in bundle.projection.state_dict().items():
        assert torch.equal(tensor, model.model.projection.state_dict()[key])
    assert isinstance(model.model.translator, torch.nn.Identity)


# --- targets and sources of every size and kind -----------------------------------------------------------------------


def test_source_features_are_the_labelled_rows_in_the_order_of_subject_video_and_frame(bundle, table):
    labels = table.label.copy()
    labels[::3] = -1
    known = SourceFeatures.of(bundle, replace(table, label=labels))
    assert known.labels.dtype == torch.int64
    assert known.labels.tolist() == [int(code) for code in labels if code >= 0]
    with torch.no_grad():
        expected = bundle.projection(torch.from_numpy(table.embeddings[labels >= 0]))
    torch.testing.assert_close(known.features, expected)
    mixed = replace(table, label=labels).take(np.random.default_rng(0).permutation(len(table)))
    again = SourceFeatures.of(bundle, mixed)
    assert torch.equal(again.labels, known.labels)
    torch.testing.assert_close(again.features, known.features)


# --- determinism ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_target_matters_to_those_methods_that_look_at_it(name, bundle, source, table, rows, probe):
    other = table.rows_of("s04")
    first, second = (
        fitted(name, bundle, source, target_of(part)).predict_proba(probe) for part in (rows, other.take(slice(9)))
    )
    assert np.array_equal(first, second) == (name in BLIND)


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bn_mode", ["train", "eval"])
def test_the_source_is_learnt(name, bn_mode, bundle, source, rows):
    history = fitted(name, bundle, source, target_of(rows), iterations=60, lr=1e-2, bn_mode=bn_mode).history
    assert len(history) == 60
    terms = [entry["classification"] for entry in history]
    assert np.mean(terms[-10:]) < np.mean(terms[:10])
    for entry in history:
        assert all(np.isfinite(list(entry.values())))
        assert entry["loss"] == pytest.approx(sum(value for key, value in entry.items() if key != "loss"), rel=1e-4)


# --- the loop ---------------------------------------------------------------------------------------------------------


def squares(student):
    return {"size": sum(parameter.square().sum() for parameter in student.parameters_of("classifier"))}


def features_of(bundle, rows):
    with torch.no_grad():
        return bundle.projection(torch.from_numpy(rows.embeddings))


def test_batches_hold_every_row_as_often_as_every_other_and_both_domains(bundle, source, rows):
    student = make_student(bundle, "none", 0)
    features = features_of(bundle, rows)[:7]
    seen, sizes, steps = [], set(), []

    def losses(batch):
        assert torch.equal(batch.target, features[batch.target_rows])
        matches = (batch.source.unsqueeze(1) == source.features).all(dim=2)
        assert torch.equal(source.labels[matches.float().argmax(dim=1)], batch.labels)
        seen.extend(batch.target_rows.tolist())
        sizes.add((len(batch.source), len(batch.labels), len(batch.target)))
        steps.append((batch.step, batch.total))
        return squares(student)

    fit = fit_joint(student, source, features, JointConfig(iterations=6, batch=9), losses, seed=0)
    assert sizes == {(9, 9, 7)}
    assert sorted(seen) == sorted(list(range(7)) * 6)
    assert steps == [(step, 6) for step in range(6)]
    assert fit.iterations == 6


def test_the_rate_falls_to_a_tenth_after_each_third(bundle, source, rows):
    student = make_student(bundle, "none", 0)
    bias = student.head.classifier.bias
    values = []

    def losses(batch):
        values.append(bias[0].item())
        return {"slope": bias.sum()}

    config = JointConfig(iterations=9, lr=1.0, momentum=0.0, weight_decay=0.0)
    fit_joint(student, source, features_of(bundle, rows), config, losses, seed=0)
    steps = -np.diff([*values, bias[0].item()])
    np.testing.assert_allclose(steps, np.repeat([1.0, 0.1, 0.01], 3), rtol=1e-3)


def test_parts_that_start_from_nothing_learn_ten_times_as_fast_and_copies_as_fast(bundle, source, rows):
    student = make_student(bundle, "none", 0)
    copied, new = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    bias = student.head.classifier.bias
    before = bias.clone()
    config = JointConfig(iterations=1, lr=0.5, momentum=0.0, weight_decay=0.0)
    fit = fit_joint(
        student,
        source,
        features_of(bundle, rows),
        config,
        lambda batch: {"slope": copied.sum() + new.sum() + bias.sum()},
        seed=0,
        copies=[copied],
        extra=[new],
    )
    torch.testing.assert_close(before - bias, torch.full_like(bias, 0.5))
    assert torch.equal(copied, torch.full((2,), -0.5))
    assert torch.equal(new, torch.full((2,), -5.0))
    assert fit.trainable == 4 + sum(parameter.numel() for parameter in bundle.head.parameters())
    assert not copied.requires_grad


def test_a_phase_changes_what_it_trains_and_nothing_else(bundle, source, rows):
    student = make_student(bundle, "none", 0)
    bottleneck, classifier = student.parameters_of("bottleneck"), student.parameters_of("classifier")
    seen = []

    def everything(batch):
        seen.append([parameter.detach().clone() for parameter in (*bottleneck, *classifier)])
        z = student.bottleneck(batch.source)
        return {f"size {len(seen)}": student.head.classify(z).square().sum()}

    updates = [(everything, classifier), (everything, bottleneck)]
    # With momentum and weight decay, which must not move what a phase leaves alone either.
    fit = fit_updates(
        student, source, features_of(bundle, rows), JointConfig(iterations=2, bn_mode="eval"), updates, seed=0
    )
    count = len(bottleneck)
    for first, second, trained in zip(seen, seen[1:], (classifier, bottleneck, classifier), strict=False):
        same = [torch.equal(one, other) for one, other in zip(first, second, strict=True)]
        expected = [True] * count + [False] * len(classifier) if trained is classifier else [False] * count
        assert same[: len(expected)] == expected
        assert trained is classifier or all(same[count:])
    assert [sorted(entry) for entry in fit.history] == [["loss", "size 1", "size 2"], ["loss", "size 3", "size 4"]]


@pytest.mark.parametrize(("total", "times"), [(500, 3), (500, 6), (9, 3), (2, 6), (1, 1)])
def test_what_is_renewed_is_renewed_from_the_first_step_at_equal_intervals(total, times):
    due = [step for step in range(total) if is_due(step, total, times)]
    assert due[0] == 0
    assert len(due) == min(times, total)
    assert max(np.diff([*due, total])) - min(np.diff([*due, total])) <= 1


def test_a_new_part_depends_on_its_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (
        new_part(lambda: torch.nn.Linear(3, 2), torch.device("cpu"), seed, "part") for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)

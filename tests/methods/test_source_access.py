"""What holds for every method with source access, and the loop that they share."""

import dataclasses
import inspect
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from featlab.config.options import with_options
from featlab.errors import ConfigError, InputError
from featlab.methods import get_method, make_method
from featlab.methods.base import SourceAccess, SourceFeatures
from featlab.methods.joint import JointConfig, fit_joint, fit_updates, is_due, new_part
from featlab.methods.student import make_student
from featlab.protocol.splits import Target, target_of

NAMES = ("icid", "dfa", "lpl", "detn", "ftdnn", "ecan", "cada", "safn", "swd", "agra")
BLIND = ("ftdnn", "lpl", "icid")
"""Methods of the source only, which don't look at the target."""
CLASSES = 3
SMALL = {"iterations": 3, "hidden": 16, "graph_hidden": 8, "directions": 16}

for name in NAMES:
    import_module(f"featlab.methods.{name}")


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


def assert_probabilities(values, rows):
    assert values.shape == (rows, CLASSES)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


# --- what it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_method_with_source_access_says_so(name):
    method = get_method(name)
    assert issubclass(method, SourceAccess)
    assert (method.name, method.setting, method().selection) == (name, "UDA (source access)", "source-access")
    assert method.title.lower().startswith(name)
    assert method.updates == ("bottleneck", "classifier")
    assert "500 steps" in method.published or name == "ecan"
    assert method.config_type.section == f"adapt.{name}"
    assert not any((method.needs_extras, method.needs_style_bank, method.needs_labels))


def test_titles_differ():
    assert len({get_method(name).title for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_adapting_without_the_source_is_refused_in_one_line(name, bundle, rows, refused):
    with refused(InputError, name, "source rows", "featlab evaluate"):
        make_method(name).adapt(bundle, target_of(rows))


@pytest.mark.parametrize("name", NAMES)
def test_no_target_label_is_in_reach(name, bundle, source, table, rows, probe):
    assert list(inspect.signature(get_method(name).fit).parameters) == ["self", "bundle", "source", "target", "seed"]
    wrong = replace(rows, label=np.full(len(rows), 2, dtype=np.int16))
    first = fitted(name, bundle, source, target_of(rows)).predict_proba(probe)
    assert np.array_equal(fitted(name, bundle, source, target_of(wrong)).predict_proba(probe), first)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_the_search_space_is_a_setting_and_the_default_is_among_them(name):
    method = get_method(name)
    default = method.config_type()
    assert {"lr"} < {option for option, _ in method.space}
    for option, values in method.space:
        assert 2 <= len(values) <= 4
        assert getattr(default, option) in values
        for value in values:
            assert getattr(with_options(default, {option: value}, default.section), option) == value


# --- before any step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bn_mode", ["train", "eval"])
def test_without_a_step_every_method_is_the_source_model_bitwise(name, bn_mode, bundle, source, rows, probe):
    expected = make_method("source-only").adapt(bundle, target_of(rows)).predict_proba(probe)
    model = fitted(name, bundle, source, target_of(rows), iterations=0, bn_mode=bn_mode)
    assert np.array_equal(model.predict_proba(probe), expected)
    assert (model.iterations, model.history) == (0, ())
    assert model.trainable > 0


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


@pytest.mark.parametrize("name", NAMES)
def test_the_sources_statistics_stay_when_batch_norm_is_in_evaluation_mode(name, bundle, source, rows):
    norm = head_of(fitted(name, bundle, source, target_of(rows), bn_mode="eval")).norm
    assert torch.equal(norm.running_mean, bundle.head.norm.running_mean)
    assert torch.equal(norm.running_var, bundle.head.norm.running_var)
    assert not torch.equal(norm.weight, bundle.head.norm.weight)


@pytest.mark.parametrize("name", NAMES)
def test_a_fitted_model_is_frozen_in_evaluation_mode(name, bundle, source, rows):
    model = fitted(name, bundle, source, target_of(rows)).model
    assert not any(part.training for part in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- targets and sources of every size and kind -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bn_mode", ["train", "eval"])
@pytest.mark.parametrize("count", [1, 2, CLASSES, CLASSES + 1])
def test_a_target_of_a_few_rows_is_enough(name, bn_mode, count, bundle, source, rows, probe):
    model = fitted(name, bundle, source, target_of(rows.take(slice(count))), bn_mode=bn_mode)
    assert_probabilities(model.predict_proba(probe), len(probe))
    assert model.iterations == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["constant", "duplicated", "zero", "large", "float16"])
def test_odd_rows_give_finite_probabilities(name, kind, bundle, source, rows, probe):
    own = rows.embeddings
    odd = {
        "constant": np.repeat(own[:1], 9, axis=0),
        "duplicated": np.concatenate([own, own]),
        "zero": np.zeros_like(own),
        "large": own * np.float32(1e4),
        "float16": own.astype(np.float16).astype(np.float32),
    }[kind]
    model = fitted(name, bundle, source, target(odd), iterations=20)
    assert_probabilities(model.predict_proba(probe), len(probe))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", range(CLASSES))
def test_a_source_of_one_class_gives_finite_probabilities(name, code, bundle, table, rows, probe):
    source_table = table.without("s05")
    one = SourceFeatures.of(bundle, source_table.take(source_table.label == code))
    model = fitted(name, bundle, one, target_of(rows), iterations=20)
    assert_probabilities(model.predict_proba(probe), len(probe))


@pytest.mark.parametrize("name", NAMES)
def test_a_source_of_two_equal_rows_is_the_smallest(name, bundle, source, rows, probe, refused):
    two = SourceFeatures(source.features[[0, 0]], source.labels[[0, 0]])
    assert_probabilities(fitted(name, bundle, two, target_of(rows)).predict_proba(probe), len(probe))
    for count in (0, 1):
        fewer = SourceFeatures(source.features[:count], source.labels[:count])
        with refused(InputError, "2 labelled source rows", f"got {count}"):
            fitted(name, bundle, fewer, target_of(rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_of_another_width_is_refused(name, bundle, source, rows, refused):
    with refused(InputError, "11", "12"):
        fitted(name, bundle, source, target(rows.embeddings[:, :11]))


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
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(name, bundle, source, rows, probe):
    first, again, other = (
        fitted(name, bundle, source, target_of(rows), seed=seed).predict_proba(probe) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_rows_changes_nothing(name, bundle, source, table, rows, probe):
    rng = np.random.default_rng(0)
    straight = fitted(name, bundle, source, target_of(rows), batch=8).predict_proba(probe)
    mixed = target_of(rows, rng.permutation(len(rows)))
    np.testing.assert_allclose(fitted(name, bundle, source, mixed, batch=8).predict_proba(probe), straight, atol=1e-5)
    source_table = table.without("s05")
    source_mixed = SourceFeatures.of(bundle, source_table.take(rng.permutation(len(source_table))))
    found = fitted(name, bundle, source_mixed, target_of(rows), batch=8).predict_proba(probe)
    np.testing.assert_allclose(found, straight, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_fitting_leaves_the_global_generators_alone(name, bundle, source, rows):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted(name, bundle, source, target_of(rows))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generators_state_changes_nothing(name, bundle, source, rows, probe):
    expected = fitted(name, bundle, source, target_of(rows)).predict_proba(probe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert np.array_equal(fitted(name, bundle, source, target_of(rows)).predict_proba(probe), expected)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_that_is_far_too_high_is_refused_in_one_line(name, bundle, source, rows, refused):
    with refused(InputError, "diverged", f"adapt.{name}.lr"):
        fitted(name, bundle, source, target_of(rows), iterations=30, lr=1e30, bn_mode="eval")


@pytest.mark.parametrize("name", NAMES)
def test_settings_out_of_range_are_refused_under_the_methods_own_name(name, refused):
    numbers = [
        field.name
        for field in dataclasses.fields(get_method(name).config_type)
        if isinstance(getattr(get_method(name).config_type(), field.name), int | float)
    ]
    assert {"iterations", "batch", "lr", "momentum", "weight_decay"} <= set(numbers)
    for option in numbers:
        with refused(ConfigError, f"adapt.{name}.{option} = -1"):
            make_method(name, {name: {option: -1}})
    with refused(ConfigError, f"adapt.{name}.bn_mode", "train, eval"):
        make_method(name, {name: {"bn_mode": "none"}})


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

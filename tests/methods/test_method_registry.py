"""What holds for every registered method, and the registry itself. A new method is tested once it is registered."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from featlab.bundle.bundle import bundle_card
from featlab.errors import ConfigError, InputError
from featlab.methods import Method, get_method, make_method, method_names, register
from featlab.methods.base import PARTS, SourceFeatures
from featlab.methods.registry import METHODS
from featlab.protocol.splits import Target, target_of
from featlab.registry import Registry

NAMES = method_names()
ADAPTING = [name for name in NAMES if not get_method(name).needs_labels]
CLOSED_FORM = ("source-only", "neutral-shift", "adabn", "coral", "referenced")
STEPS = ("iterations", "epochs")
"""What the number of steps is called in a configuration."""
STEPPED = {name: step for name in NAMES for step in STEPS if hasattr(get_method(name).config_type(), step)}
SHUFFLING = {"pft-poster"}
"""Methods that draw batches by a row's place; the others draw them by its video and frame, or draw none."""
CLASSES = 3


@pytest.fixture(scope="module")
def table(people):
    """One person more than the bundle knows: s05 is the target. `pft` looks at itself with 8 source people or more."""
    return people(subjects=9, frames=8, classes=CLASSES)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=NAMES)


@pytest.fixture(scope="module")
def rows(table):
    """The target's neutral rows."""
    mine = table.rows_of("s05")
    return mine.take(mine.label == mine.neutral_code)


@pytest.fixture(scope="module")
def probe(table):
    """Rows to predict: all of the target's."""
    return table.rows_of("s05").embeddings


def method_of(name, **options):
    small = {"iterations": 3, "epochs": 2, "steps": 3, "ssl_iterations": 3, "teacher_epochs": 2, "retrain_epochs": 2}
    known = {field.name for field in dataclasses.fields(get_method(name).config_type)}
    return make_method(name, {name: {key: value for key, value in small.items() if key in known} | options})


def adapted(name, bundle, target, *, seed=0, labels=None, **options):
    method = method_of(name, **options)
    if method.needs_labels:
        neutral = np.full(len(target), bundle.neutral_code, dtype=np.int16)
        return method.adapt(bundle, target, labels=neutral if labels is None else labels)
    if method.needs_source:
        return method.adapt(bundle, target, source=source_of(bundle), seed=seed)
    return method.adapt(bundle, target, seed=seed)


def source_of(bundle):
    """Labelled rows for the methods with source access: any will do, of the bundle's width and classes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % CLASSES
    features = torch.randn(40, bundle.head.linear.in_features, generator=random) + labels[:, None]
    return SourceFeatures(features, labels)


def target(embeddings):
    count = len(embeddings)
    return Target(embeddings, np.zeros(count, dtype=np.int32), np.arange(count, dtype=np.int32))


def tensors_of(bundle):
    found = {}
    for part in ("projection", "head", "translator"):
        found |= {f"{part}.{name}": tensor for name, tensor in getattr(bundle, part).state_dict().items()}
    found |= {
        f"bank.{layer}.{i}": tensor for layer, pair in bundle.bank.layers.items() for i, tensor in enumerate(pair)
    }
    return found | {
        f"extras.{name}.{key}": tensor for name, extra in bundle.extras.items() for key, tensor in extra.items()
    }


# --- before any step --------------------------------------------------------------------------------------------------


def test_every_method_that_is_no_closed_form_says_how_many_steps_it_takes():
    assert set(STEPPED) == set(NAMES) - set(CLOSED_FORM)


@pytest.mark.parametrize("name", [name for name in STEPPED if name in ADAPTING])
def test_without_a_step_every_method_is_the_source_model_bitwise(name, table, small_bundle, rows, probe):
    fresh = small_bundle(table.without("s05"), {"pretrain.epochs": 0}, methods=[name])
    expected = adapted("source-only", fresh, target_of(rows)).predict_proba(probe)
    model = adapted(name, fresh, target_of(rows), **{STEPPED[name]: 0})
    assert np.array_equal(model.predict_proba(probe), expected)
    assert (model.iterations, model.history) == (0, ())


def test_without_a_step_the_oracle_is_the_neutral_shift(bundle, rows, probe):
    shifted = adapted("neutral-shift", bundle, target_of(rows)).predict_proba(probe)
    model = adapted("oracle", bundle, target_of(rows), iterations=0)
    np.testing.assert_allclose(model.predict_proba(probe), shifted, atol=1e-6)


def test_source_only_does_nothing(bundle, rows, probe):
    model = adapted("source-only", bundle, target_of(rows))
    assert (model.iterations, model.trainable, model.history, model.warnings) == (0, 0, (), ())
    with torch.no_grad():
        expected = torch.softmax(bundle.head(bundle.projection(torch.from_numpy(probe))), dim=1).numpy()
    assert np.array_equal(model.predict_proba(probe), expected)


# --- what stays as it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_adapting_changes_no_tensor_of_the_bundle(name, bundle, rows):
    before = {key: tensor.clone() for key, tensor in tensors_of(bundle).items()}
    adapted(name, bundle, target_of(rows))
    after = tensors_of(bundle)
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key]), key
    for module in (bundle.head, bundle.translator):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_method_changes_the_parts_that_it_says_and_no_other_buffers_included(name, bundle, rows):
    """B is its linear layer and BatchNorm, running statistics among it; C is weight-normalised."""
    assert set(get_method(name).updates) <= set(PARTS)
    model = adapted(name, bundle, target_of(rows)).model
    untouched = set(PARTS) - set(get_method(name).updates)
    if "translator" in untouched:
        assert type(model.translator) is torch.nn.Identity
    head, expected = model.head.state_dict(), bundle.head.state_dict()
    for key, tensor in expected.items():
        part = "classifier" if key.startswith("classifier") else "bottleneck"
        if part in untouched:
            assert torch.equal(head[key], tensor), key
        elif not {"bottleneck", "classifier"} & untouched:
            break


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(get_method(name).config_type(), "bn_mode")])
def test_with_batch_norm_in_evaluation_mode_its_statistics_stay_bitwise(name, bundle, rows):
    model = adapted(name, bundle, target_of(rows), bn_mode="eval").model
    head = model.head.state_dict()
    for buffer in ("norm.running_mean", "norm.running_var"):
        if buffer in head:
            assert torch.equal(head[buffer], bundle.head.state_dict()[buffer])


@pytest.mark.parametrize("name", NAMES)
def test_an_adapted_model_is_frozen_in_evaluation_mode_and_not_the_bundles_own_where_it_differs(name, bundle, rows):
    model = adapted(name, bundle, target_of(rows)).model
    assert not any(part.training for part in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_adapting_leaves_the_global_generators_alone(name, bundle, rows):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    adapted(name, bundle, target_of(rows))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_target_has_no_label_and_no_name():
    assert {field.name for field in dataclasses.fields(Target)} == {
        "embeddings",
        "video",
        "frame",
        "landmarks",
        "layers",
    }


@pytest.mark.parametrize("name", [name for name in NAMES if get_method(name).needs_labels])
def test_a_method_that_needs_labels_refuses_to_adapt_without(name, bundle, rows, refused):
    with refused(InputError, "labels", "featlab evaluate"):
        make_method(name).adapt(bundle, target_of(rows))


@pytest.mark.parametrize("name", [name for name in NAMES if get_method(name).needs_source])
def test_a_method_with_source_access_refuses_to_adapt_without_and_is_marked(name, bundle, rows, refused):
    with refused(InputError, name, "source rows", "featlab benchmark"):
        make_method(name).adapt(bundle, target_of(rows))
    assert make_method(name).selection == "source-access"
    assert get_method(name).setting == "UDA (source access)"


@pytest.mark.parametrize("name", NAMES)
def test_what_tuning_searches_are_options_with_values_that_fit(name):
    method = get_method(name)
    for option, values in method.space:
        assert len(set(values)) > 1
        for value in values:
            assert getattr(make_method(name, {name: {option: value}}).config, option) == value


# --- targets of every size and kind -----------------------------------------------------------------------------------


def assert_probabilities(values, rows):
    assert values.shape == (rows, CLASSES)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, CLASSES, CLASSES + 1])
def test_a_target_of_a_few_rows_is_enough_or_refused_in_one_line(name, count, bundle, rows, probe, refused):
    least = get_method(name).minimum_rows(CLASSES)
    if count < least:
        with refused(InputError, name, f"needs {least} target rows or more, got {count}"):
            adapted(name, bundle, target_of(rows.take(slice(count))))
        return
    model = adapted(name, bundle, target_of(rows.take(slice(count))))
    assert_probabilities(model.predict_proba(probe), len(probe))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["constant", "duplicated", "zero", "large", "float16"])
def test_odd_rows_give_finite_probabilities(name, kind, bundle, rows, probe):
    own = rows.embeddings
    odd = {
        "constant": np.repeat(own[:1], 16, axis=0),
        "duplicated": np.concatenate([own, own]),
        "zero": np.zeros_like(own),
        "large": own * np.float32(1e4),
        "float16": own.astype(np.float16).astype(np.float32),
    }[kind]
    assert_probabilities(adapted(name, bundle, target(odd)).predict_proba(probe), len(probe))


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_rows_given_twice_change_nothing(name, bundle, rows, probe):
    twice = np.concatenate([rows.embeddings, rows.embeddings])
    once = adapted(name, bundle, target_of(rows)).predict_proba(probe)
    np.testing.assert_allclose(adapted(name, bundle, target(twice)).predict_proba(probe), once, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHUFFLING])
def test_the_order_of_the_rows_changes_nothing(name, bundle, rows, probe):
    order = np.random.default_rng(0).permutation(len(rows))
    straight = adapted(name, bundle, target_of(rows)).predict_proba(probe)
    np.testing.assert_allclose(adapted(name, bundle, target_of(rows, order)).predict_proba(probe), straight, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name, bundle, rows, probe):
    first, again = (adapted(name, bundle, target_of(rows), seed=3).predict_proba(probe) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("name", sorted(SHUFFLING))
def test_another_seed_draws_other_batches(name, bundle, rows, probe):
    first, other = (adapted(name, bundle, target_of(rows), seed=seed, batch=2).predict_proba(probe) for seed in (0, 1))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused(value, rows, refused):
    damaged = rows.embeddings.copy()
    damaged[2, 3] = value
    with refused(InputError, "NaN or infinity", "extract"):
        target(damaged)


@pytest.mark.parametrize("shape", [(0, 12), (12,), (2, 3, 4)])
def test_a_target_without_rows_is_refused(shape, refused):
    with refused(InputError, "n ≥ 1", str(shape)):
        target(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_of_another_width_is_refused(name, bundle, rows, refused):
    with refused(InputError, "11", "12"):
        adapted(name, bundle, target(rows.embeddings[:, :11]))


@pytest.mark.parametrize("shape", [(4, 11), (12,), (2, 2, 12)])
def test_rows_of_another_width_are_not_predicted(shape, bundle, rows, refused):
    model = adapted("source-only", bundle, target_of(rows))
    with refused(InputError, str(shape), "(n, 12)"):
        model.predict_proba(np.zeros(shape, dtype=np.float32))


def test_no_rows_give_no_probabilities_and_blocks_change_nothing(bundle, rows, probe):
    model = adapted("neutral-shift", bundle, target_of(rows))
    assert_probabilities(model.predict_proba(probe[:0]), 0)
    np.testing.assert_allclose(model.predict_proba(probe, block=5), model.predict_proba(probe), atol=1e-6)


# --- what a bundle has to hold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_without_a_style_bank_is_refused_by_the_methods_that_need_one(name, bundle, rows, refused):
    bare = replace(bundle, bank=None)
    if get_method(name).needs_style_bank:
        with refused(InputError, name, "style bank", "pretrain.style_bank = true"):
            adapted(name, bare, target_of(rows))
    else:
        adapted(name, bare, target_of(rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_without_extras_is_refused_by_the_methods_that_need_them(name, bundle, rows, refused):
    bare = replace(bundle, extras={})
    if get_method(name).needs_extras:
        with refused(InputError, name, "prepared at the source", f"--methods {name}"):
            adapted(name, bare, target_of(rows))
    else:
        adapted(name, bare, target_of(rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_method_carries_extras_exactly_when_it_says_so(name, bundle):
    carries = get_method(name).carries
    assert carries or not get_method(name).needs_extras
    assert (name in bundle.extras) == bool(carries)
    assert bundle.declared.get(name, "") == carries
    if carries:
        assert f"`{name}`: {carries}" in bundle_card(bundle)
        assert bundle.extras[name]


# --- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_what_it_is(name):
    method = get_method(name)
    assert method.name == name
    assert all((method.title, method.setting, method.published, method.__doc__))
    assert dataclasses.is_dataclass(method.config_type)
    assert method.config_type.__dataclass_params__.frozen
    assert make_method(name).config == method.config_type()


def test_the_built_in_methods_come_in_the_order_of_the_tables():
    assert NAMES[0] == "source-only"
    assert "oracle" in NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert len({get_method(name).title for name in NAMES}) == len(NAMES)


def test_an_unknown_method_names_the_closest(refused):
    with refused(ConfigError, "'pft-postr'", "did you mean 'pft-poster'", "source-only"):
        make_method("pft-postr")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name, refused):
    with refused(ConfigError, f"adapt.{name}.iteratoins"):
        make_method(name, {name: {"iteratoins": 3}})


def test_an_unknown_option_names_the_closest(refused):
    with refused(ConfigError, "adapt.pft.iteratoins", "did you mean 'iterations'"):
        make_method("pft", {"pft": {"iteratoins": 3}})


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("value", ["many", 1.5, float("nan"), True])
def test_an_option_that_does_not_fit_is_refused(name, value, refused):
    with refused(ConfigError, f"adapt.{name}.{STEPPED[name]}"):
        make_method(name, {name: {STEPPED[name]: value}})


@pytest.mark.parametrize("name", STEPPED)
def test_an_option_out_of_range_is_refused_under_its_own_methods_name(name, refused):
    with refused(ConfigError, f"adapt.{name}.{STEPPED[name]} = -1"):
        make_method(name, {name: {STEPPED[name]: -1}})


def test_only_a_methods_own_options_are_read():
    assert make_method("oracle", {"pft": {"iterations": 7}}).config == get_method("oracle").config_type()
    assert make_method("pft", {"pft": {"iterations": "7"}}).config.iterations == 7


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(METHODS, "found", dict(METHODS.found))


def plug_in(name="source-only"):
    class SourceOnly(Method):
        pass

    SourceOnly.name = name
    return SourceOnly


@pytest.mark.usefixtures("own_registry")
def test_registering_a_class_again_is_silent_and_a_new_name_comes_last():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register(get_method("source-only"))
        register(plug_in("mine"))
    assert method_names() == (*NAMES, "mine")


@pytest.mark.usefixtures("own_registry")
def test_another_class_under_a_known_name_warns_even_when_it_is_called_the_same():
    other = plug_in()
    other.__qualname__ = "SourceOnly"
    with pytest.warns(UserWarning, match="'source-only' of featlab.methods.source_only is replaced"):
        register(other)
    assert get_method("source-only") is other


def test_a_plug_in_that_does_not_load_or_brings_nothing_is_named(monkeypatch, refused):
    points = [
        EntryPoint(name, value, METHODS.group) for name, value in (("broken", "nowhere:Broken"), ("empty", "json"))
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    methods = Registry("method", METHODS.built_in, METHODS.group)
    assert methods.names() == (*METHODS.built_in, "broken", "empty")
    with refused(ConfigError, "'broken'", "nowhere:Broken", "can't be loaded"):
        methods.get("broken")
    with refused(ConfigError, "'empty' (json) registers no method of that name"):
        methods.get("empty")


def test_one_method_imports_one_module():
    """Of the methods alone; asking for the names imports not even torch."""
    script = """
        import sys
        from featlab.methods import get_method, method_names
        names = method_names()
        assert len(names) == 29 and "torch" not in sys.modules
        places = {name: get_method(name).__module__ for name in sys.argv[1:]}
        print(*(module for module in sys.modules if module in set(places.values()) | set(sys.argv)), sep=",")
        print(*sorted(module for module in sys.modules if module.startswith("featlab.methods.")), sep=",")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "adabn"]
    asked, imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert asked == "featlab.methods.adabn"
    homes = {place.partition(":")[0] for place in METHODS.built_in.values()}
    assert homes & set(imported.split(",")) == {asked}


PLUG_IN = """
    import numpy as np
    import torch

    from featlab.methods import AdaptedModel, Affine, Method, register, target_features
    from featlab.model.networks import PersonalModel


    @register
    class Median(Method):
        name = "median-shift"
        title = "Median shift"
        setting = "Baselines"
        published = "A test."

        def adapt(self, bundle, target, *, seed=0):
            self.check(bundle, target)
            shift = Affine.shift(-target_features(bundle, target).median(dim=0).values)
            return AdaptedModel(PersonalModel(bundle.projection, shift, bundle.head))
"""


def test_a_method_of_another_package_comes_by_an_entry_point(tmp_path):
    (tmp_path / "my_methods.py").write_text(textwrap.dedent(PLUG_IN))
    info = tmp_path / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featlab.methods]\nmedian-shift = my_methods:Median\n")
    script = (
        # Whoever imports one method by itself changes no order.
        "import featlab.methods.oracle\n"
        "from featlab.methods import make_method, method_names\n"
        "print(*method_names(), make_method('median-shift').title, sep='|')"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip().split("|") == [*NAMES, "median-shift", "Median shift"]

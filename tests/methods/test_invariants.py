"""What holds for every registered method. A new method is tested once it is registered."""

import dataclasses
import functools
import inspect
import warnings
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featlab.bundle.files import load_adaptation, save_adaptation
from featlab.cache.table import LARGEST
from featlab.errors import InputError
from featlab.methods import get_method, make_method, method_names
from featlab.methods.registry import PARTS
from featlab.protocol.splits import Target, target_of

NAMES = method_names()
CLOSED_FORM = ("source-only", "neutral-shift", "adabn", "coral", "referenced", "referenced-mlp")
OPTIONS = {name: get_method(name).config_type() for name in NAMES}
# What the number of steps is called in a configuration.
STEPPED = {name: step for name in NAMES for step in ("iterations", "epochs") if hasattr(OPTIONS[name], step)}
MODES = {name: ("train", "eval") if hasattr(OPTIONS[name], "bn_mode") else () for name in NAMES}
SOURCE_ACCESS = [name for name in NAMES if get_method(name).needs_source]
PARTS_OF_PFT = ("pft-linear", "pft-mlp", "pft")
CERTAIN = {*CLOSED_FORM, *PARTS_OF_PFT, "oracle"}
"""Methods in which nothing is drawn: a seed changes nothing."""
VARIANTS = {"dsfda": [{"gaussians": "none"}], "clup-swav": [{"start": "source"}]}
"""Options with which a method has to stand odd rows, too."""
ALONE = ("shot-im", "shot", "nrc", "tpds", "dsfda", "sfda-it")
"""Methods that learn nothing from a single row, and say so."""
SMALL = dict.fromkeys(("iterations", "steps", "ssl_iterations"), 3)
SMALL |= dict.fromkeys(("epochs", "teacher_epochs", "retrain_epochs"), 2)
CLASSES = 3

every_method = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def table(people):
    """One person more than the bundle knows: s05 is the target. `pft` looks at itself with 8 source people or more."""
    return people(subjects=9, frames=8, classes=CLASSES)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=NAMES)


@pytest.fixture(scope="module")
def adapt(source):
    """Adapt a method in a few steps."""

    def run(name, bundle, target, *, seed=0, source=source, **options):
        known = {field.name for field in dataclasses.fields(OPTIONS[name])}
        method = make_method(name, {name: {key: value for key, value in SMALL.items() if key in known} | options})
        given = {"labels": np.full(len(target), bundle.neutral_code, np.int16)} if method.needs_labels else {}
        return method.adapt(bundle, target, seed=seed, **given, **({"source": source} if method.needs_source else {}))

    return run


@pytest.fixture(scope="module")
def adapted(adapt, bundle, rows):
    """Every method, adapted once: most invariants look at these."""
    return functools.cache(lambda name: adapt(name, bundle, target_of(rows)))


def target(embeddings):
    count = len(embeddings)
    return Target(embeddings, np.zeros(count, dtype=np.int32), np.arange(count, dtype=np.int32))


def source_probabilities(bundle, probe):
    with torch.no_grad():
        return torch.softmax(bundle.head(bundle.projection(torch.from_numpy(probe))), dim=1).numpy()


def tensors_of(bundle):
    parts = {part: getattr(bundle, part).state_dict() for part in ("projection", "head", "translator")}
    parts |= {f"bank {layer}": dict(enumerate(pair)) for layer, pair in bundle.bank.layers.items()}
    return {(part, key): value for part, all_of in (parts | bundle.extras).items() for key, value in all_of.items()}


def assert_frozen(*modules):
    for module in modules:
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())


def assert_probabilities(model, rows):
    values = model.predict_proba(rows)
    assert values.shape == (len(rows), CLASSES)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def fresh(table, small_bundle):
    """Bundles whose T has not learnt; one for all methods that prepare nothing."""
    return functools.cache(lambda *names: small_bundle(table.without("s05"), {"pretrain.epochs": 0}, methods=names))


@pytest.mark.parametrize("name", ["source-only", *(name for name in STEPPED if name not in ("oracle", "pft-poster"))])
def test_without_a_step_every_method_is_the_source_model_bitwise(name, adapt, fresh, rows, probe):
    fresh = fresh(*([name] if get_method(name).carries or get_method(name).prepared_by else []))
    for mode in MODES[name] or (None,):
        options = ({STEPPED[name]: 0} if name in STEPPED else {}) | ({"bn_mode": mode} if mode else {})
        model = adapt(name, fresh, target_of(rows), **options)
        assert np.array_equal(model.predict_proba(probe), source_probabilities(fresh, probe))
        assert (model.iterations, model.history) == (0, ())


@every_method
def test_adapting_changes_no_tensor_of_the_bundle_and_no_global_generator(name, adapt, bundle, rows, probe):
    before = {key: tensor.clone() for key, tensor in tensors_of(bundle).items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = adapt(name, bundle, target_of(rows), seed=3).predict_proba(probe)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    after = tensors_of(bundle)
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert_frozen(bundle.head, bundle.translator)
    # The state of the global generator changes nothing, and the same seed gives the same bits.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert np.array_equal(adapt(name, bundle, target_of(rows), seed=3).predict_proba(probe), first)
    other = adapt(name, bundle, target_of(rows), seed=4).predict_proba(probe)
    assert name in CERTAIN or not np.array_equal(other, first)


@every_method
def test_a_method_changes_the_parts_that_it_says_and_no_other_buffers_included(name, adapt, adapted, bundle, rows):
    """B is its linear layer and BatchNorm, running statistics among it; C is weight-normalised."""
    assert set(get_method(name).updates) <= set(PARTS)
    model = adapted(name).model
    assert_frozen(model)
    # The translator of a student is an option.
    optional = {"translator"} if hasattr(OPTIONS[name], "trunk") else set()
    moved = set() if type(model.translator) is torch.nn.Identity else {"translator"}
    if moved:
        with torch.no_grad():
            features = bundle.projection(torch.from_numpy(rows.embeddings))
            assert not torch.equal(model.translator(features), features)
    head = getattr(model.head, "head", model.head).state_dict()
    for key, tensor in bundle.head.state_dict().items():
        # A head of another kind is another bottleneck and another classifier.
        if key not in head or not torch.equal(head[key], tensor):
            moved.add("classifier" if key.startswith("classifier") else "bottleneck")
    assert moved <= set(get_method(name).updates) <= moved | optional
    if MODES[name]:
        still = adapt(name, bundle, target_of(rows), bn_mode="eval").model.head
        norm = getattr(still, "head", still).norm
        assert torch.equal(norm.running_mean, bundle.head.norm.running_mean)
        assert torch.equal(norm.running_var, bundle.head.norm.running_var)


@every_method
def test_every_step_is_logged_and_its_terms_add_up(name, adapted):
    """Every method that is no closed form says how many steps it takes."""
    assert (name in STEPPED) == (name not in CLOSED_FORM)
    model = adapted(name)
    for entry in model.history:
        terms = sum(value for term, value in entry.items() if term not in ("loss", "neutral"))
        assert entry["loss"] == pytest.approx(terms, rel=1e-4, abs=1e-6)
        assert np.isfinite(entry["loss"])
    assert name not in STEPPED or (model.iterations <= len(model.history) and model.trainable > 0)


@every_method
def test_labels_and_source_rows_are_in_reach_of_those_only_that_say_so(
    name, adapt, adapted, bundle, rows, probe, refused
):
    assert {field.name for field in dataclasses.fields(Target)} == {"embeddings", "video", "frame"}
    method = make_method(name)
    takes = set(inspect.signature(method.adapt).parameters) - {"self", "bundle", "target", "seed"}
    assert takes == ({"labels"} if method.needs_labels else {"source"} if method.needs_source else set())
    wrong = replace(rows, label=np.full(len(rows), 2, dtype=np.int16))
    assert np.array_equal(
        adapt(name, bundle, target_of(wrong)).predict_proba(probe), adapted(name).predict_proba(probe)
    )
    if takes:
        with refused(InputError, name, "labels" if method.needs_labels else "source rows", "featlab evaluate"):
            method.adapt(bundle, target_of(rows))
        assert method.selection == ("oracle" if method.needs_labels else "source-access")
        assert method.needs_labels or method.setting == "UDA (source access)"


@every_method
def test_a_target_of_few_rows_is_enough_or_refused_and_of_another_width_refused(
    name, adapt, bundle, rows, probe, refused
):
    with refused(InputError, "11", "12"):
        adapt(name, bundle, target(rows.embeddings[:, :11]))
    minimum = get_method(name).minimum_rows(CLASSES)
    for count in (1, 2, CLASSES, CLASSES + 1):
        few = target_of(rows.take(slice(count)))
        if count < minimum:
            with refused(InputError, name, f"needs {minimum} target rows or more, got {count}"):
                adapt(name, bundle, few)
            continue
        for options in ({}, *({"bn_mode": mode} for mode in MODES[name]), *VARIANTS.get(name, ())):
            model = adapt(name, bundle, few, **options)
            assert_probabilities(model, probe)
            # In training mode one row is no batch; NRC and TPDS need another row in either mode.
            alone = ALONE if options.get("bn_mode", "train") == "train" else ("nrc", "tpds", "sfda-it")
            if count == 1 and name in alone:
                assert np.array_equal(model.predict_proba(probe), source_probabilities(bundle, probe))
                assert (model.iterations, model.history, len(model.warnings)) == (0, (), 1)
                assert all(words in model.warnings[0] for words in ("one row", "nothing was learnt"))


@every_method
def test_odd_rows_give_finite_probabilities(name, adapt, adapted, bundle, rows, probe, refused):
    own = rows.embeddings
    twice = np.concatenate([own, own])
    for values in (np.repeat(own[:1], 16, axis=0), twice, 0 * own, own * np.float32(1e4), np.float32(np.float16(own))):
        for options in ({}, *VARIANTS.get(name, ())):
            assert_probabilities(adapt(name, bundle, target(values), **options), probe)
    third = np.arange(own.shape[1]) == 3
    large = own * np.float32(LARGEST / np.abs(own).max()), np.where(third, np.float32(LARGEST), own)
    for values in (*large, own * np.float32(1e-30)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Where steps diverge, one line says what to do.
            with suppress(InputError) if name in ("agra", "clup-swav") else nullcontext():
                assert_probabilities(adapt(name, bundle, target(values)), probe)
    for value in (np.nan, np.inf, -np.inf, 1e30):
        with refused(InputError, "NaN or infinity"):
            target(np.where(third, np.float32(value), own))
        with refused(InputError, "leave such rows out"):
            adapted(name).predict_proba(np.full_like(probe, value))
    if name in CLOSED_FORM:
        again = adapt(name, bundle, target(twice)).predict_proba(probe)
        np.testing.assert_allclose(again, adapted(name).predict_proba(probe), atol=1e-4)


@every_method
def test_the_order_of_the_rows_changes_nothing(name, adapt, bundle, rows, probe):
    order = np.random.default_rng(0).permutation(len(rows))
    options = {"batch": 4} if hasattr(OPTIONS[name], "batch") and name not in PARTS_OF_PFT else {}
    straight, mixed = (
        adapt(name, bundle, part, **options).predict_proba(probe) for part in (target_of(rows), target_of(rows, order))
    )
    np.testing.assert_allclose(mixed, straight, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in STEPPED if not name.startswith("pft")])
def test_a_rate_that_is_far_too_high_is_refused_in_one_line(name, adapt, bundle, rows, refused):
    options = {"bn_mode": "eval"} if MODES[name] else {}
    for rate in ("lr", "teacher_lr", "retrain_lr"):
        if hasattr(OPTIONS[name], rate):
            with refused(InputError, "diverged", f"adapt.{name}.{rate}"):
                adapt(name, bundle, target_of(rows), **{rate: 1e30, STEPPED[name]: 30}, **options)


@every_method
def test_a_bundle_without_a_style_bank_or_extras_is_refused_by_the_methods_that_need_them(
    name, adapt, bundle, rows, refused
):
    for bare, needed, words in (
        (replace(bundle, bank=None), get_method(name).needs_style_bank, ("style bank", "pretrain.style_bank = centre")),
        (replace(bundle, extras={}), get_method(name).needs_extras, ("prepared at the source", f"--methods {name}")),
    ):
        with refused(InputError, name, *words) if needed else nullcontext():
            adapt(name, bare, target_of(rows))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SOURCE_ACCESS])
def test_an_adaptation_comes_back_bitwise_and_holds_only_what_differs_from_the_bundle(
    name, tmp_path, adapted, bundle, probe
):
    model = adapted(name)
    folder = save_adaptation(tmp_path / "s05", bundle, model, {"method": name})
    before = {key: tensor.clone() for key, tensor in bundle.head.state_dict().items()}
    state = torch.get_rng_state()
    loaded, meta = load_adaptation(folder, bundle)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, bundle.head.state_dict()[key]) for key, tensor in before.items())
    assert np.array_equal(loaded.predict_proba(probe), model.predict_proba(probe))
    assert (loaded.iterations, loaded.trainable, loaded.warnings) == (model.iterations, model.trainable, model.warnings)
    assert [dict(entry) for entry in loaded.history] == [dict(entry) for entry in model.history]
    assert meta["method"] == name
    assert_frozen(loaded.model)
    stored = load_file(folder / "adaptation.safetensors")
    assert not any(key.startswith("projection.") for key in stored)
    if name in ("source-only", "pft"):
        assert set(stored) - {"temperature"} == ({"translator.offset"} if name == "pft" else set())
    if not {"bottleneck", "classifier"} & set(get_method(name).updates):
        assert not any(key.startswith("head.") for key in stored)

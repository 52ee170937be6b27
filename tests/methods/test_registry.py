"""Methods by name, and their options; nothing in a bundle is somebody's row or mean, whatever methods prepared."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featlab.bundle.bundle import bundle_card, save_bundle
from featlab.errors import ConfigError
from featlab.methods import Method, get_method, make_method, method_names, register
from featlab.methods.registry import METHODS
from featlab.model.style_bank import SourceRows

CLASSES = 3


def stored_rows(folder, width):
    """Every vector of that width in a bundle's tensors, whichever way they lie, as (n, width)."""
    stored = [tensor for tensor in load_file(folder / "model.safetensors").values() if tensor.ndim in (1, 2)]
    lying = [*stored, *(tensor.T for tensor in stored if tensor.ndim == 2)]
    return torch.cat([tensor.reshape(-1, width).double() for tensor in lying if tensor.shape[-1] == width])


def of_one(source, bundle, table):
    """Rows and means of single people at every layer; a mean a person, of all, of neutral rows and of each class."""
    features = source.features
    with torch.no_grad():
        translated = bundle.translator(features)
        offset = bundle.share.value * (source.centre - source.subject_mean())
        aligned = bundle.translator(features + offset[source.row_subject])
        layers = [torch.from_numpy(table.embeddings), features, translated, aligned]
        layers += [bundle.head.bottleneck(values) for values in (features, translated, aligned)]
    shown = [table.label >= 0, *(table.label == code for code in range(CLASSES))]
    for values in layers:
        found = [values]
        for rows in shown:
            mine = [(table.subject == who) & rows for who in np.unique(table.subject)]
            means = torch.stack([values[torch.from_numpy(own)].mean(dim=0) for own in mine if own.any()])
            # Where a person's whole offset is taken away, everyone's resting mean is the common one: nobody's own.
            if len(means) == 1 or means.std(dim=0).max() > 1e-3:
                found.append(means)
        yield torch.cat(found).double()


@pytest.mark.parametrize(("clips", "frames"), [(1, 1), (2, 1), (2, 4)])
def test_no_vector_of_a_bundle_is_a_row_or_a_mean_of_one_person(clips, frames, people, small_bundle, tmp_path):
    table = people(subjects=9, clips=clips, frames=frames, dim=11, classes=CLASSES)
    # One of them alone shows a class.
    table = table.take((table.label != 2) | (table.subject == 4))
    bundle = small_bundle(table, methods=method_names())
    folder = save_bundle(tmp_path / "bundle", bundle)
    source = SourceRows.of(table, bundle.projection.of_rows(table.embeddings))
    for values in of_one(source, bundle, table):
        stored = stored_rows(folder, values.shape[1])
        near = torch.cdist(stored, values).min(dim=1).values / values.std()
        assert near.min() >= 1e-3


NAMES = method_names()


def test_methods_are_called_differently_and_read_their_own_options_only(refused):
    assert (NAMES[0], NAMES[-1]) == ("source-only", "oracle")
    assert len({get_method(name).title for name in NAMES}) == len(set(NAMES)) == len(NAMES)
    assert make_method("oracle", {"pft": {"iterations": 7}}).config == get_method("oracle").config_type()
    assert make_method("pft", {"pft": {"iterations": "7"}}).config.iterations == 7
    with refused(ConfigError, "adapt.pft.iteratoins", "did you mean 'iterations'"):
        make_method("pft", {"pft": {"iteratoins": 3}})
    with refused(ConfigError, "'pft-postr'", "did you mean 'pft-poster'", "source-only"):
        make_method("pft-postr")


def test_a_class_again_is_silent_a_new_name_comes_last_and_another_class_under_a_known_name_warns(monkeypatch):
    monkeypatch.setattr(METHODS, "found", dict(METHODS.found))
    own, other = (type("SourceOnly", (Method,), {"name": name}) for name in ("mine", "source-only"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register(get_method("source-only"))
        register(own)
    assert method_names() == (*NAMES, "mine")
    with pytest.warns(UserWarning, match="'source-only' of featlab.methods.baselines is replaced"):
        register(other)
    assert get_method("source-only") is other


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_checked_under_its_own_methods_name(name, refused):
    cases, config = [("iteratoins", 3)], get_method(name).config_type()
    options = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    for option, value in options.items():
        if isinstance(value, str | bool):
            cases.append((option, "nonsense"))
        elif isinstance(value, int | float):
            cases += [(option, wrong) for wrong in (float("nan"), "many", -1, True)]
        if option in ("keep", "threshold") and isinstance(value, float):
            cases.append((option, 1.5))
        if option in ("batch", "ssl_batch", "retrain_batch") and not name.startswith("pft"):
            cases.append((option, 1))
    for option, wrong in cases:
        with refused(ConfigError, f"adapt.{name}.{option}"):
            make_method(name, {name: {option: wrong}})
    for option, values in get_method(name).space:
        assert 2 <= len(set(values)) == len(values)
        assert getattr(config, option) in values
        for value in values:
            assert getattr(make_method(name, {name: {option: value}}).config, option) == value


def test_what_was_an_option_says_what_it_is_now(refused):
    for name, option, word in (
        ("shot", "momentum", "always 0.9"),
        ("nrc", "weight_decay", "always 0.0005"),
        ("agra", "dropout", "no more: the discriminator is the published one"),
    ):
        with refused(ConfigError, f"adapt.{name}.{option}", word):
            make_method(name, {name: {option: 1}})


def test_a_method_says_what_it_is_and_carries_extras_exactly_when_it_says_so(people, small_bundle):
    bundle = small_bundle(people(subjects=8, classes=CLASSES), methods=NAMES)
    for name in NAMES:
        method = get_method(name)
        assert method.name == name
        assert all((method.title, method.setting, method.published, method.__doc__))
        assert make_method(name).config == method.config_type()
        assert method.carries or not method.needs_extras
        carrier = method.prepared_by or name
        assert bool(bundle.extras.get(carrier)) == bool(method.carries)
        assert bundle.declared.get(carrier, "") == method.carries
        assert not method.carries or f"`{carrier}`: {method.carries}" in bundle_card(bundle)

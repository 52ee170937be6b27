"""Methods by name: order, replacement, lazy imports; one of another package is in tests/cli/test_cli_benchmark.py."""

import warnings

import pytest

from featlab.errors import ConfigError
from featlab.methods import Method, get_method, make_method, method_names, register
from featlab.methods.registry import METHODS

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

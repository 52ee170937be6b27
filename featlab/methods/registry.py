"""Methods by name: a decorator registers a class, an entry point brings one from another package."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from featlab.bundle.bundle import Bundle
from featlab.config.options import with_options
from featlab.errors import ConfigError, closest
from featlab.methods.base import Method
from featlab.model.pretrain import SourceRows

__all__ = ["get_method", "make_method", "method_names", "prepare_extras", "register"]

ENTRY_POINTS = "featlab.methods"
_BUILT_IN = (
    "source_only",
    "neutral_shift",
    "adabn",
    "coral",
    "referenced",
    "shot_im",
    "shot",
    "nrc",
    "tpds",
    "sfda_de",
    "dsfda.method",
    "clup",
    "sfit",
    "sfda_it",
    "pft.method",
    "icid",
    "dfa",
    "lpl",
    "detn",
    "ftdnn",
    "ecan",
    "cada",
    "safn",
    "swd",
    "agra",
    "oracle",
)
_REGISTRY: dict[str, type[Method]] = {}

M = TypeVar("M", bound=type[Method])


def register(method: M) -> M:
    """Class decorator: add a method under its ``name``. Registering another class under a known name warns."""
    known = _REGISTRY.get(method.name)
    if known is not None and (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        warnings.warn(f"method {method.name!r} of {known.__module__} is replaced by {method.__module__}", stacklevel=2)
    _REGISTRY[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Return every registered name: the built-in ones in the order of the tables, then the plug-ins."""
    _load()
    # Not the order of registration: whoever imports a method's module by itself registers it first.
    place = {f"featlab.methods.{module}": number for number, module in enumerate(_BUILT_IN)}
    return tuple(sorted(_REGISTRY, key=lambda name: place.get(_REGISTRY[name].__module__, len(place))))


def get_method(name: str) -> type[Method]:
    """Return a method's class.

    Raises:
        ConfigError: No such name; names the closest.
    """
    _load()
    if name not in _REGISTRY:
        known = method_names()
        raise ConfigError(f"unknown method {name!r}, known: {', '.join(known)}{closest(name, known)}")
    return _REGISTRY[name]


def make_method(name: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> Method:
    """Return a method with its options set.

    Args:
        name: Registry name.
        options: Method name to options (`AdaptConfig.options`); only this method's are read.

    Raises:
        ConfigError: No such method, no such option, or a value that doesn't fit.
    """
    method = get_method(name)
    return method(with_options(method.config_type(), (options or {}).get(name, {}), f"adapt.{name}"))


def prepare_extras(bundle: Bundle, source: SourceRows, methods: Iterable[str]) -> Bundle:
    """Return the bundle with what the named methods prepare at the source; those that carry nothing are passed over.

    Args:
        bundle: Complete but for its extras.
        source: Source rows.
        methods: Registry names.
    """
    preparing = [get_method(name) for name in methods if get_method(name).carries]
    made = {method.name: method.prepare(source, bundle) for method in preparing}
    # A method that can do without may find too few subjects to make anything of.
    extras = {name: tensors for name, tensors in made.items() if tensors}
    return replace(bundle, extras=extras, declared={name: get_method(name).carries for name in extras})


@cache
def _load() -> None:
    for module in _BUILT_IN:
        import_module(f"featlab.methods.{module}")
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise ConfigError(f"the method plug-in {point.name!r} ({point.value}) can't be loaded: {error}") from error

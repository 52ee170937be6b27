"""Methods by name; a method's module is imported when the method is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from featlab.config.load import FLAGS, Config
from featlab.config.options import Option, options_of, refuse_inert, with_options
from featlab.config.sections import ON_PAIRS
from featlab.errors import ConfigError
from featlab.registry import Registry

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.methods.base import Method
    from featlab.model.style_bank import SourceRows

_PLACES = {
    "source-only": "baselines:SourceOnly",
    "neutral-shift": "baselines:NeutralShift",
    "adabn": "baselines:AdaBN",
    "coral": "baselines:Coral",
    "referenced": "referenced:Referenced",
    "referenced-mlp": "referenced:ReferencedMLP",
    "shot-im": "shot:ShotIM",
    "shot": "shot:Shot",
    "nrc": "neighbourhood:NRC",
    "tpds": "neighbourhood:TPDS",
    "sfda-de": "sfda_de:SFDADE",
    "dsfda": "dsfda:DSFDA",
    "clup-swav": "clup:CluPSwAV",
    "clup-deepcluster": "clup:CluPDeepCluster",
    "sfit": "sfit:SFIT",
    "sfit-T": "sfit:RetrainedSFIT",
    "sfda-it": "sfda_it:SFDAIT",
    "pft-poster": "pft.poster:PosterPFT",
    "pft-linear": "pft.method:LinearPFT",
    "pft-mlp": "pft.method:MLPPFT",
    "pft": "pft.method:PFT",
    "icid": "source_side:ICID",
    "dfa": "moment_matching:DFA",
    "lpl": "source_side:LPL",
    "detn": "moment_matching:DETN",
    "ftdnn": "source_side:FTDNN",
    "ecan": "moment_matching:ECAN",
    "cada": "adversarial:CADA",
    "safn": "moment_matching:SAFN",
    "swd": "adversarial:SWD",
    "agra": "agra:AGRA",
    "oracle": "baselines:Oracle",
}
METHODS: Registry[type[Method]] = Registry(
    "method", {name: f"featlab.methods.{place}" for name, place in _PLACES.items()}, group="featlab.methods"
)

M = TypeVar("M", bound="type[Method]")


def register(method: M) -> M:
    """Class decorator for a method of another package: add it under its ``name``.

    The package names its module in the entry-point group ``featlab.methods``, under the method's name. Registering
    another class under a known name warns.
    """
    known = METHODS.get(method.name) if method.name in {*METHODS.built_in, *METHODS.found} else method
    if (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        warnings.warn(f"method {method.name!r} of {known.__module__} is replaced by {method.__module__}", stacklevel=2)
    METHODS.add(method.name, method)
    return method


def method_names() -> tuple[str, ...]:
    """Return every name, without importing a method: the built-in ones in the order of the tables, then plug-ins."""
    return METHODS.names()


def get_method(name: str) -> type[Method]:
    """Return a method's class.

    Raises:
        ConfigError: No such name (names the closest), or a plug-in that can't be loaded.
    """
    return METHODS.get(name)


def make_method(name: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> Method:
    """Return a method with its options set.

    Args:
        name: Registry name.
        options: Method name to options (`AdaptConfig.options`); only this method's are read.

    Raises:
        ConfigError: No such method, no such option, a value that doesn't fit, or an option that the others make inert.
    """
    method = get_method(name)
    given, section = (options or {}).get(name, {}), f"adapt.{name}"
    config = with_options(method.config_type(), given, section)
    refuse_inert(config, given, section)
    return method(config)


def prepare_extras(bundle: Bundle, source: SourceRows, methods: Iterable[str]) -> Bundle:
    """Return the bundle with what the named methods prepare at the source; those that carry nothing are passed over."""
    preparing = [get_method(name) for name in preparers(methods)]
    made = {method.name: method.prepare(source, bundle) for method in preparing}
    # A method that can do without may find too few subjects to make anything of.
    extras = {name: tensors for name, tensors in made.items() if tensors}
    bundle = replace(bundle, extras=extras, declared={name: get_method(name).carries for name in extras})
    for method in preparing:
        bundle = method.adopt(source, bundle)
    return bundle


def preparers(methods: Iterable[str]) -> list[str]:
    """Return the methods that prepare what these carry, each once, sorted; methods that carry nothing have none."""
    classes = [get_method(name) for name in methods]
    return sorted({method.prepared_by or method.name for method in classes if method.carries})


PAIR_KEYS = ("pair.strategy", "pair.label_rule", "pair.neighbours", "pair.index")


def reads_pairs(config: Config, methods: Iterable[str]) -> bool:
    """Return whether the source stage trains on pairs, for T itself or for one of the methods."""
    return config.pretrain.paired or _reads(PAIR_KEYS[0], methods)


def refuse_unread(config: Config, methods: Sequence[str], variants: Sequence[Config] = ()) -> None:
    """Raise a ConfigError when the user set a key that nothing in a run of ``methods`` reads.

    A file serves many runs, so its keys may be for any method that it names; a flag is for this run. ``variants`` are
    the configurations that it runs with, where it changes some keys itself.
    """
    for key, where in config.given.items():
        if "." not in key or key.startswith("adapt."):
            continue
        run = methods if where == FLAGS else (*methods, *config.protocol.methods, config.adapt.method)
        if _reads(key, run) or any(_is_read(key, item) for item in variants or (config,)):
            continue
        declared, _, section = _declared(key, config)
        owners = [f"the method {name}" for name in method_names() if _reads(key, [name])]
        belongs = " or ".join([declared.belongs_to(section), *owners])
        raise ConfigError(f"{where}: {key} has no effect here: it belongs to {belongs}")


def _reads(key: str, methods: Iterable[str]) -> bool:
    return any(key in get_method(name).reads for name in methods)


def _is_read(key: str, config: Config) -> bool:
    declared, part, _ = _declared(key, config)
    return declared.is_read(part)


def _declared(key: str, config: Config) -> tuple[Option, Any, str]:
    """Return what is declared of a key, and the section, with its name, on which it depends whether it is read."""
    section, _, name = key.partition(".")
    if section == "pair":
        return Option(only=ON_PAIRS), config.pretrain, "pretrain"
    part = getattr(config, section)
    return options_of(type(part))[name], part, section

"""Methods by name: what lists say of each, and its class, whose module is imported when the method is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from featlab.config.load import FLAGS, Config
from featlab.config.options import Option, Registry, options_of, refuse_inert, with_options
from featlab.config.sections import ON_PAIRS
from featlab.errors import ConfigError

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.methods.base import Method
    from featlab.model.style_bank import SourceRows

PARTS = ("translator", "bottleneck", "classifier")
"""What a method can change: what stands in T's place, B, C."""
PAIR_KEYS = ("pair.strategy", "pair.label_rule", "pair.neighbours", "pair.index")


@dataclass(frozen=True)
class Facts:
    """What lists say of a method without importing its module: its class has the same as class attributes."""

    place: str  # Module and class, within this package.
    title: str  # Name in tables.
    setting: str = "Baselines"  # Group in tables.
    needs_style_bank: bool = False  # For these flags see `featlab.methods.base.Method`.
    needs_extras: bool = False
    needs_labels: bool = False
    needs_source: bool = False
    needs_neutral: bool = False
    supports_single_class: bool = True
    updates: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


_T, _B, _BC = ("translator",), ("bottleneck",), ("bottleneck", "classifier")
_clip = partial(Facts, needs_neutral=True)
_sfda = partial(Facts, setting="SFDA (model-based)", supports_single_class=False)
_images = partial(Facts, setting="SFDA (data-based)", supports_single_class=False)
_pft = partial(_clip, setting="SFDA-PFT", updates=_T)
_uda = partial(Facts, setting="UDA (source access)", needs_source=True, updates=_BC)

_BUILT_IN = {
    "source-only": Facts("baselines:SourceOnly", "Source model (no adaptation)", "Source-only"),
    "neutral-shift": _clip("baselines:NeutralShift", "Neutral-mean shift", needs_style_bank=True, updates=_T),
    "adabn": Facts("baselines:AdaBN", "AdaBN", updates=_B),
    "coral": _clip("baselines:Coral", "CORAL on neutral", needs_style_bank=True, needs_extras=True, updates=_T),
    "referenced": _clip("baselines:Referenced", "Neutral-referenced classifier", needs_extras=True, updates=PARTS),
    "referenced-mlp": _clip("baselines:ReferencedMLP", "Neutral-referenced MLP", needs_extras=True, updates=PARTS),
    "shot-im": _sfda("shot:ShotIM", "SHOT-IM (Liang et al., 2020)", updates=("translator", "bottleneck")),
    "shot": _sfda("shot:Shot", "SHOT (Liang et al., 2020)", updates=("translator", "bottleneck")),
    "nrc": _sfda("neighbourhood:NRC", "NRC (Yang et al., 2021)", updates=PARTS),
    "tpds": _sfda("neighbourhood:TPDS", "TPDS (Tang et al., 2023)", updates=PARTS),
    "sfda-de": _sfda("sfda_de:SFDADE", "SFDA-DE (Ding et al., 2022)", updates=_B),
    "dsfda": _sfda(
        "dsfda:DSFDA", "DSFDA (Sharafi et al., 2025)", needs_extras=True, supports_single_class=True, updates=_BC
    ),
    "clup-swav": _sfda("clup:CluPSwAV", "CluP, SwAV (Conti et al., 2022)", updates=PARTS),
    "clup-deepcluster": _sfda("clup:CluPDeepCluster", "CluP, DeepClusterV2 (Conti et al., 2022)", updates=PARTS),
    "sfit": _images("translation:SFIT", "SFIT (Hou & Zheng, 2021b)", updates=_T),
    "sfit-T": _images("translation:RetrainedSFIT", "SFIT, retrained T", updates=_B),
    "sfda-it": _images("translation:SFDAIT", "SFDA-IT (Hou & Zheng, 2021a)", needs_extras=True, updates=_T),
    "pft-poster": _pft("pft.poster:PosterPFT", "SFDA-PFT (poster)", needs_extras=True, reads=PAIR_KEYS),
    "pft-linear": _pft("pft.method:LinearPFT", "SFDA-PFT, linear part", needs_style_bank=True),
    "pft-mlp": _pft("pft.method:MLPPFT", "SFDA-PFT, MLP part", needs_style_bank=True),
    "pft": _pft("pft.method:PFT", "SFDA-PFT", needs_style_bank=True),
    "icid": _uda("source_side:ICID", "ICID (Ji et al., 2019)"),
    "dfa": _uda("moment_matching:DFA", "DFA (Zhu et al., 2016)", supports_single_class=False),
    "lpl": _uda("source_side:LPL", "LPL (Li et al., 2017)"),
    "detn": _uda("moment_matching:DETN", "DETN (Li & Deng, 2018)"),
    "ftdnn": _uda("source_side:FTDNN", "FTDNN (Zavarez et al., 2017)"),
    "ecan": _uda("moment_matching:ECAN", "ECAN (Li & Deng, 2020)"),
    "cada": _uda("adversarial:CADA", "CADA (Long et al., 2018)", supports_single_class=False),
    "safn": _uda("moment_matching:SAFN", "SAFN (Xu et al., 2019)", supports_single_class=False),
    "swd": _uda("adversarial:SWD", "SWD (Lee et al., 2019)", supports_single_class=False),
    "agra": _uda("adversarial:AGRA", "AGRA (Chen et al., 2021)", supports_single_class=False),
    "oracle": Facts("baselines:Oracle", "Supervised fine-tuning", "Oracle", needs_labels=True, updates=PARTS),
}
METHODS: Registry[type[Method]] = Registry(
    "method", {name: f"featlab.methods.{facts.place}" for name, facts in _BUILT_IN.items()}, group="featlab.methods"
)


def facts_of(name: str) -> Facts | type[Method]:
    """Return what lists say of a method; of this package's without importing it, of another's its class."""
    return _BUILT_IN[name] if name in _BUILT_IN and name not in METHODS.found else METHODS.get(name)


def declared(method: type[Method]) -> dict[str, Any]:
    """Return the class attributes that the table above has for a class of this package."""
    facts = _BUILT_IN.get(vars(method).get("name", ""))
    if facts is None or METHODS.built_in[method.name] != f"{method.__module__}:{method.__qualname__}":
        return {}
    return {item.name: getattr(facts, item.name) for item in fields(facts) if item.name != "place"}


def needs(method: Facts | type[Method]) -> list[str]:
    """Return in words what a method can not do without, beside the source model and the target's rows."""
    wanted = {
        "the style bank": method.needs_style_bank,
        "tensors prepared at the source": method.needs_extras,
        "labelled source rows (not source-free)": method.needs_source,
        "the target's labels (an oracle)": method.needs_labels,
        "one person's neutral clip": method.needs_neutral,
    }
    return [name for name, needed in wanted.items() if needed]


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
    """Return the method of a registry name with its options set; of ``options``, by method name, only its own are read.

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
        found = [_declared(key, item) for item in variants or (config,)]
        if _reads(key, run) or any(option.is_read(part) for option, part, _ in found):
            continue
        declared, _, section = _declared(key, config)
        owners = [f"the method {name}" for name in method_names() if _reads(key, [name])]
        belongs = " or ".join([declared.belongs_to(section), *owners])
        raise ConfigError(f"{where}: {key} has no effect here: it belongs to {belongs}")


def _reads(key: str, methods: Iterable[str]) -> bool:
    return any(key in facts_of(name).reads for name in methods)


def _declared(key: str, config: Config) -> tuple[Option, Any, str]:
    """Return what is declared of a key, and the section, with its name, on which it depends whether it is read."""
    section, _, name = key.partition(".")
    if section == "pair":
        return Option(only=ON_PAIRS), config.pretrain, "pretrain"
    part = getattr(config, section)
    return options_of(type(part))[name], part, section

"""Which keys a run reads: some belong to one form of T, some to a method that trains a T of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from featlab.config.load import FLAGS, Config
from featlab.config.options import Option, options_of
from featlab.config.sections import ON_PAIRS
from featlab.errors import ConfigError
from featlab.methods.registry import get_method, method_names

PAIR_KEYS = ("pair.strategy", "pair.label_rule", "pair.neighbours")


def reads_pairs(config: Config, methods: Iterable[str]) -> bool:
    """Return whether the source stage trains on pairs, for T itself or for one of the methods."""
    return not config.pretrain.linear or _reads(PAIR_KEYS[0], methods)


def refuse_unread(config: Config, methods: Sequence[str], variants: Sequence[Config] = ()) -> None:
    """Raise a ConfigError when the user set a key that nothing in a run reads.

    A file serves many runs, so its keys may be for any method that it names; a flag is for this run.

    Args:
        config: Of the run, as `load_config` gives it.
        methods: What the run runs.
        variants: The configurations that it runs with, where it changes some keys itself.
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

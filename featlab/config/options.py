"""Values of settings: checked, converted from TOML or from the command line, put into a frozen dataclass."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from featlab.errors import ConfigError, closest

__all__ = ["check_at_least", "check_choice", "check_share", "convert", "with_options"]


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError that names the closest known value when ``value`` is not one of ``known``."""
    if value not in known:
        raise ConfigError(f"{name} = {value!r} is not one of {', '.join(known)}{closest(value, known)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise a ConfigError when ``value`` is below ``least``."""
    if not value >= least:
        raise ConfigError(f"{name} = {value} must be at least {least}")


def check_share(name: str, value: float) -> None:
    """Raise a ConfigError when ``value`` is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} = {value} must be between 0 and 1")


def with_options(config: Any, options: Mapping[str, Any], where: str) -> Any:
    """Return a copy of one frozen dataclass config with ``options`` replaced.

    Args:
        config: Any frozen dataclass instance (a method's config, say).
        options: Field name to value; strings are converted to the field's type.
        where: Prefix of the key in a message, e.g. ``adapt.pft``.

    Raises:
        ConfigError: An unknown key, or a value of the wrong type or range.
    """
    hints = typing.get_type_hints(type(config))
    known = [item.name for item in fields(config)]
    values = {}
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"unknown key {where}.{key}{closest(key, known)}; known: {', '.join(known)}")
        values[key] = convert(f"{where}.{key}", hints[key], value)
    return replace(config, **values)


def convert(key: str, kind: Any, value: Any) -> Any:
    """Convert a TOML value or a command line string to a field's type."""
    if typing.get_origin(kind) is types.UnionType:
        kinds = [item for item in typing.get_args(kind) if item is not type(None)]
        if value is None or value == "none":
            return None
        kind = kinds[0]
    if typing.get_origin(kind) is tuple:
        item_kind = typing.get_args(kind)[0]
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ConfigError(f"{key} = {value!r} must be a list")
        return tuple(convert(key, item_kind, part) for part in parts)
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise ConfigError(f"{key} = {value!r} must be true or false")
    if kind in (int, float):
        if isinstance(value, bool):
            raise ConfigError(f"{key} = {value!r} must be a number")
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{key} = {value!r} must be {'a whole number' if kind is int else 'a number'}") from None
        if kind is int and isinstance(value, float) and value != number:
            raise ConfigError(f"{key} = {value!r} must be a whole number")
        if not math.isfinite(number):
            raise ConfigError(f"{key} = {value!r} must be finite")
        return number
    if kind is str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise ConfigError(f"{key} = {value!r} must be text")
        return value
    raise ConfigError(f"{key} can't be set from a file or a flag")

"""Declare an option once: its default, what it is, its bounds, the values that tuning tries, and what reads it.

    @dataclass(frozen=True)
    class ShotConfig(Options):
        lr: float = option(1e-2, "Learning rate.", minimum=0, search=(1e-3, 1e-2))

From this come the default, the check, the comments of `featlab.toml`, the docs page and the space of `featlab tune`.
What the name of a method, a layout or a network stands for is in a `Registry`.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from featlab.errors import ConfigError, closest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is declared of an option beside its type and default; ``None`` is inherited from the base class's field."""

    help: str | None = None  # What it is, in a sentence.
    minimum: float | None = None  # Smallest value, or smallest item of a list.
    maximum: float | None = None  # Largest one.
    choices: Sequence[str] | None = None  # The values, or items of a list, that there are.
    required: bool | None = None  # Whether a list may not be empty: where its default isn't.
    search: tuple[Any, ...] | None = None  # Values that `featlab tune` tries.
    # With which other options of the section it is read, e.g. ``form = mlp or objective = poster``; always where it
    # is empty. ``and`` binds closer than ``or``.
    only: str | None = None

    def check(self, key: str, value: Any) -> None:
        """Raise a ConfigError when the value, or an item of it, is not one of the choices or out of bounds."""
        if self.required and not value:
            known = f"; choose from {', '.join(self.choices)}" if self.choices else "; give it at least one value"
            raise ConfigError(f"{key} is empty{known}")
        for item in value if isinstance(value, tuple) else (value,):
            if self.choices is not None:
                check_choice(key, item, self.choices)
            if self.minimum is not None and self.maximum is not None:
                if not self.minimum <= item <= self.maximum:
                    raise ConfigError(f"{key} = {item} must be between {self.minimum:g} and {self.maximum:g}")
            elif self.minimum is not None and not item >= self.minimum:
                raise ConfigError(f"{key} = {item} must be at least {self.minimum}")

    def is_read(self, config: Any) -> bool:
        """Return whether anything reads the option, the others being what they are."""
        if not self.only:
            return True
        cases = [[term.split(" = ") for term in case.split(" and ")] for case in self.only.split(" or ")]
        return any(all(str(getattr(config, name)) == value for name, value in case) for case in cases)

    def belongs_to(self, section: str) -> str:
        """Return ``only`` with the options as the user writes them."""
        return re.sub(r"(\w+) = ", rf"{section}.\1 = ", self.only or "")


def option(default: Any, help: str | None = None, **declared: Any) -> Any:
    """Declare a field of an `Options` dataclass; the keywords are those of `Option`.

    A class as the default is called for it, since a dict or another dataclass can't be shared.
    """
    made: Any = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**made, metadata={"option": Option(help, **declared)})


@dataclass(frozen=True)
class Options:
    """Base of a frozen dataclass of options: every field is checked when one is made.

    ``where`` is the section that it is read from, such as ``adapt.pft``; messages then name ``adapt.pft.lr``. A plain
    class attribute is a value that can't be set, and is refused under its name.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of options, each with the one that it has now."""
    removed: ClassVar[Mapping[str, str]] = {}
    """Options that were, each with what is there instead."""
    where: InitVar[str] = field(default="", kw_only=True)

    def __post_init__(self, where: str) -> None:
        # Kept, so that dataclasses.replace hands it on.
        object.__setattr__(self, "where", where)
        for name, declared in options_of(type(self)).items():
            value = getattr(self, name)
            if value is not None:
                declared.check(self.key(name), value)
        self.check_together()

    @property
    def section(self) -> str:
        """The section that it is read from; empty where nobody said."""
        return str(vars(self)["where"])

    def key(self, name: str) -> str:
        """Return an option's name as the user writes it."""
        return f"{self.section}.{name}" if self.section else name

    def check_together(self) -> None:
        """Raise a ConfigError when values that are fine alone don't go together."""


_KNOWN: dict[type[Any], Mapping[str, Option]] = {}


def options_of(config_type: type[Any]) -> Mapping[str, Option]:
    """Return what is declared of each option of a dataclass; a field that says nothing takes the base class's word."""
    if config_type in _KNOWN:  # It is asked for whenever one is made.
        return _KNOWN[config_type]
    listed = [item.name for item in fields(config_type) if isinstance(item.default, tuple) and item.default]
    found = {item.name: Option(required=item.name in listed) for item in fields(config_type)}
    for kind in reversed(config_type.__mro__):
        for item in getattr(kind, "__dataclass_fields__", {}).values():
            declared = item.metadata.get("option")
            if declared is not None and item.name in found:
                said = {name: value for name, value in vars(declared).items() if value is not None}
                found[item.name] = replace(found[item.name], **said)
    return _KNOWN.setdefault(config_type, found)


def search_values(config: Any) -> dict[str, tuple[Any, ...]]:
    """Return the options that `featlab tune` searches with the values to try, but for those that nothing reads."""
    declared = options_of(type(config)).items()
    return {name: entry.search for name, entry in declared if entry.search and entry.is_read(config)}


def refuse_inert(config: Any, given: Iterable[str], where: str) -> None:
    """Raise a ConfigError when one of the given options has no effect with the rest of the configuration."""
    declared = options_of(type(config))
    for name in given:
        if not declared[name].is_read(config):
            raise ConfigError(f"{where}.{name} has no effect here: it belongs to {declared[name].belongs_to(where)}")


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError that names the closest known value when ``value`` is not one of ``known``."""
    if value not in known:
        raise ConfigError(f"{name} = {value!r} is not one of {', '.join(known)}{closest(value, known)}")


def with_options(config: Any, options: Mapping[str, Any], where: str) -> Any:
    """Return a copy of one frozen dataclass config with ``options`` replaced, strings converted to the field's type.

    ``where`` is the prefix of the key in a message, e.g. ``adapt.pft``.
    """
    hints = typing.get_type_hints(type(config)) if options else {}
    known = [item.name for item in fields(config)]
    values = {}
    for key, value in options.items():
        if key not in known:
            now = getattr(config, "renamed", {}).get(key)
            if now is not None:
                raise ConfigError(f"{where}.{key} is called {where}.{now} now")
            gone = getattr(config, "removed", {}).get(key)
            if gone is not None:
                raise ConfigError(f"{where}.{key} is no more: {gone}")
            fixed = getattr(type(config), key, None)
            if isinstance(fixed, str | int | float) and not key.startswith("_"):
                raise ConfigError(f"{where}.{key} can't be set: it is always {fixed}")
            raise ConfigError(f"unknown key {where}.{key}{closest(key, known)}; known: {', '.join(known) or 'none'}")
        if isinstance(value, bool) and options_of(type(config))[key].choices:
            # Some were switches once: the message then names what there is now.
            value = str(value).lower()
        values[key] = convert(f"{where}.{key}", hints[key], value)
    return replace(config, **values, **({"where": where} if isinstance(config, Options) else {}))


_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def convert(key: str, kind: Any, value: Any) -> Any:
    """Convert a TOML value or a command line string to a field's type."""
    inner = next((item for item in typing.get_args(kind) if item is not type(None)), None)
    if typing.get_origin(kind) is types.UnionType:
        return None if value is None or value == "none" else convert(key, inner, value)
    if typing.get_origin(kind) is tuple:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ConfigError(f"{key} = {value!r} must be a list")
        return tuple(convert(key, inner, part) for part in parts)
    if kind is bool:
        if (switch := _SWITCHES.get(str(value).lower())) is None:
            raise ConfigError(f"{key} = {value!r} must be true or false")
        return switch
    if kind in (int, float):
        return _number(key, kind, value)
    if kind is str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{key} = {value!r} must be text")
        return str(value)
    raise ConfigError(f"{key} can't be set from a file or a flag")


def _number(key: str, kind: Any, value: Any) -> Any:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = kind(value)
        if kind is int and isinstance(value, float) and value != number:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key} = {value!r} must be {'a whole number' if kind is int else 'a number'}") from None
    if not math.isfinite(number):
        raise ConfigError(f"{key} = {value!r} must be finite")
    return number


def value_text(value: Any) -> str:
    """Return a value as ``--set`` and ``featlab.toml`` understand it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class Registry(Generic[T]):
    """What the names that an option may have stand for, found lazily: a module is imported when its name is asked for.

    Args:
        kind: What one of them is called in messages.
        built_in: Name to ``module:attribute``, in the order of lists; a ``module`` alone adds the thing itself.
        group: Entry-point group of others' plug-ins, each under the name that it brings; empty for none.
    """

    def __init__(self, kind: str, built_in: Mapping[str, str], group: str = "") -> None:
        self.kind = kind
        self.built_in = built_in
        self.group = group
        self.found: dict[str, T] = {}

    @cached_property
    def plugins(self) -> dict[str, EntryPoint]:
        """Entry points by name, those of built-in names left out."""
        from importlib.metadata import entry_points

        points = entry_points(group=self.group) if self.group else ()
        return {point.name: point for point in points if point.name not in self.built_in}

    def names(self) -> tuple[str, ...]:
        """Return the built-in names in their order, then all others, sorted. Imports none of them."""
        return (*self.built_in, *sorted({*self.found, *self.plugins} - set(self.built_in)))

    def add(self, name: str, value: T) -> None:
        """Make something known under a name."""
        self.found[name] = value

    def check(self, name: str) -> None:
        """Raise a ConfigError that names the closest when nothing has a name. Imports none of them."""
        known = self.names()
        if name not in known:
            raise ConfigError(f"unknown {self.kind} {name!r}, known: {', '.join(known)}{closest(name, known)}")

    def get(self, name: str) -> T:
        """Return what has a name; a ConfigError names the closest, or the plug-in that can't be loaded."""
        if name not in self.found:
            if name in self.built_in:
                module, _, attribute = self.built_in[name].partition(":")
                value = import_module(module)
                if attribute:
                    self.add(name, getattr(value, attribute))
            elif name in self.plugins:
                self._load(self.plugins[name])
            else:
                self.check(name)
        return self.found[name]

    def _load(self, point: EntryPoint) -> None:
        plugin = f"the {self.kind} plug-in {point.name!r} ({point.value})"
        try:
            point.load()
        except Exception as error:
            raise ConfigError(f"{plugin} can't be loaded: {error}") from error
        if point.name not in self.found:
            raise ConfigError(f"{plugin} registers no {self.kind} of that name")

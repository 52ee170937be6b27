"""What tuning searches: options of a method with the values to try, and the configurations that are tried."""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from featlab.config.options import convert, options_of
from featlab.errors import ConfigError, closest
from featlab.methods.base import Method
from featlab.methods.registry import get_method, make_method
from featlab.seeding import generator

Values = tuple[tuple[str, Any], ...]
"""A value for each searched option, in the order of the space."""

_TRIES = 100
"""Draws a wanted candidate: enough to find nearly every point of a space that hardly exceeds what is wanted."""


@dataclass(frozen=True)
class SearchSpace:
    """Options of one method with the values to try."""

    method: str  # Registry name.
    options: tuple[tuple[str, tuple[Any, ...]], ...]  # Searched options, each with its values in their own type.
    fixed: Mapping[str, Any]  # Options that the command line fixes; part of what is chosen.
    kept: Mapping[str, Any]  # All options that are set and not searched: ``fixed``, and what the file says.
    current: Mapping[str, Any]  # What the file says of searched options.

    @property
    def size(self) -> int:
        """Points of the full grid."""
        return math.prod(len(values) for _, values in self.options)

    def make(self, values: Values | Mapping[str, Any] = ()) -> Method:
        """Return the method with these values and what is kept."""
        return make_method(self.method, {self.method: {**self.kept, **dict(values)}})

    def values_of(self, method: Method) -> Values:
        """Return what a method's configuration says of the searched options."""
        return tuple((name, getattr(method.config, name)) for name, _ in self.options)


@dataclass(frozen=True)
class Candidate:
    """One configuration."""

    number: int  # From 1; 1 is the default.
    values: Values  # Of the searched options.
    changed: int  # How many of them differ from the default.


def search_space(
    method: str, *, options: Mapping[str, Any] | None = None, fixed: Collection[str] = (), items: Sequence[str] = ()
) -> SearchSpace:
    """Return what is searched: the method's declared space as the command line changes it.

    ``options`` are the method's settings; those that are ``fixed`` are not searched. ``items`` such as
    ``["lr=0.001,0.01", …]`` give an option that is declared these values instead, or add one. In an option that is
    itself a list, the items of one value are joined with ``+``.
    """
    kind = get_method(method)
    if kind.needs_labels:
        raise ConfigError(f"{method} is given the target's labels: it is a ceiling, not a method to tune")
    asked = _parse(items)
    both = sorted(set(asked) & set(fixed))
    if both:
        raise ConfigError(f"--space {both[0]} and --set adapt.{method}.{both[0]} are both given; leave out one of them")
    given = dict(options or {})
    config, declared = make_method(method, {method: given}).config, options_of(kind.config_type)
    known = {name: values for name, values in kind.space if name in asked or declared[name].is_read(config)}
    searched = {name: values for name, values in {**known, **asked}.items() if name not in fixed}
    if not searched:
        why = "every option of its space is fixed by --set" if known else "it declares no search space"
        raise ConfigError(f"nothing to tune in {method}: {why}; name values to try, for example --space lr=0.001,0.01")
    space = SearchSpace(
        method=method,
        options=tuple((name, _typed(kind, name, values)) for name, values in searched.items()),
        fixed={name: value for name, value in given.items() if name in fixed},
        kept={name: value for name, value in given.items() if name not in searched},
        current={name: value for name, value in given.items() if name in searched},
    )
    for name in asked:
        for value in dict(space.options)[name]:
            # What was typed must work at least on its own; a declared value may not go with what is fixed.
            space.make({name: value})
    return space


def choose_candidates(space: SearchSpace, trials: int, seed: int) -> tuple[Candidate, ...]:
    """Return the configurations to try: the full grid if it is small enough, else a random sample of it.

    The default, and what the file sets, are always among them. Points whose values don't go together are left out. A
    sample doesn't depend on ``trials``: more of them are the same ones and others.
    """
    if trials < 2:
        raise ConfigError(f"--trials {trials}: there is nothing to choose from; give 2 or more")
    default = space.values_of(space.make())
    found = dict.fromkeys([default, space.values_of(space.make(space.current))])
    whole = space.size <= trials
    for values in _grid(space) if whole else _sample(space, seed, _TRIES * trials):
        if not whole and len(found) >= trials:
            break
        if values not in found and _goes_together(space, values):
            found[values] = None
    if len(found) < 2:
        raise ConfigError(f"the space of {space.method} holds nothing but the default; give --space other values")
    base = dict(default)
    return tuple(
        Candidate(number, values, sum(value != base[name] for name, value in values))
        for number, values in enumerate(found, start=1)
    )


def value_text(value: Any) -> str:
    """Return a value as ``--set`` and ``featlab.toml`` understand it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parse(items: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    asked = {}
    for item in items:
        name, equals, text = item.partition("=")
        values = tuple(word.strip() for word in text.split(",") if word.strip())
        if not equals or not name.strip() or not values:
            raise ConfigError(f"--space {item}: expected option=value,value,…, for example --space lr=0.001,0.01")
        if name.strip() in asked:
            raise ConfigError(f"--space {name.strip()} is given twice; name all its values at once")
        asked[name.strip()] = values
    return asked


def _typed(method: type[Method], name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return an option's values in its own type, each once."""
    hints = typing.get_type_hints(method.config_type)
    known = [item.name for item in fields(method.config_type)]
    if name not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"--space {name}: {method.name} has no such option{closest(name, known)}; known: {names}")
    if typing.get_origin(hints[name]) is tuple:
        values = [value.split("+") if isinstance(value, str) else value for value in values]
    return tuple(dict.fromkeys(convert(f"--space {name}", hints[name], value) for value in values))


def _grid(space: SearchSpace) -> Iterator[Values]:
    names = [name for name, _ in space.options]
    for point in itertools.product(*(values for _, values in space.options)):
        yield tuple(zip(names, point, strict=True))


def _sample(space: SearchSpace, seed: int, tries: int) -> Iterator[Values]:
    """Draw points of the grid one by one, each equally likely, with repetition."""
    rng = generator("tuning sample", seed, space.method, space.options)
    for _ in range(tries):
        yield tuple((name, values[int(rng.integers(len(values)))]) for name, values in space.options)


def _goes_together(space: SearchSpace, values: Values) -> bool:
    try:
        space.make(values)
    except ConfigError:
        return False
    return True

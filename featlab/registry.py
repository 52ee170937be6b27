"""Things by name, found lazily: a module is imported when its name is asked for, and not before.

Built-in names stand in a table. A package of someone else's brings more by entry points.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar

from featlab.errors import ConfigError, closest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: What one of them is called in messages.
        built_in: Name to ``module:attribute``, in the order of lists; a ``module`` alone adds the thing itself.
        group: Entry-point group of the plug-ins, each under the name that it brings; empty for none.
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

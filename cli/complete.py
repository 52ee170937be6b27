"""Shell completion of values. Quick, and silent when something is missing: it runs at every press of Tab."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import typer


def complete_subject(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the subjects of the cache that the flags so far name."""
    with suppress(Exception):
        from featlab.cache.reader import open_cache
        from featlab.config.load import load_config

        root = Path(ctx.params.get("workspace") or ".")
        named = ctx.params.get("cache")
        path = Path(named) if named else root / load_config(root / "featlab.toml").cache
        with open_cache(path) as cache:
            return [name for name in cache.subjects if name.startswith(incomplete)]
    return []


def _names(module: str, attribute: str) -> list[str]:
    """Return the names that something of a module holds, or returns."""
    with suppress(Exception):
        found = attrgetter(attribute)(import_module(f"featlab.{module}"))
        return list(found() if callable(found) else found)
    return []


def _one_of(module: str, attribute: str, *more: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in (*more, *_names(module, attribute)) if name.startswith(incomplete)]


# The names of methods and plug-ins are known without importing any of them.
complete_method = _one_of("methods.registry", "method_names")
complete_ablation = _one_of("config.analysis", "GRIDS")
complete_strategy = _one_of("config.sections", "STRATEGIES", "auto")
complete_backbone = _one_of("extraction.backbones", "BACKBONES.names")
complete_layout = _one_of("extraction.layouts", "LAYOUTS.names", "auto")
complete_table = _one_of("analysis.paper", "published_tables")


def complete_methods(incomplete: str) -> list[str]:
    """Return the names of methods as the next item of a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_method(last) if name not in before.split(",")]

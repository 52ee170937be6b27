"""Shell completion of values. Quick, and silent when something is missing: it runs at every press of Tab."""

from __future__ import annotations

from contextlib import suppress
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


def complete_method(incomplete: str) -> list[str]:
    """Return the names of methods."""
    return [name for name in _methods() if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Return the names of methods as the next item of a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    chosen = before.split(",")
    return [f"{before}{comma}{name}" for name in _methods() if name.startswith(last) and name not in chosen]


def complete_ablation(incomplete: str) -> list[str]:
    """Return the names of ablations."""
    from featlab.config.analysis import GRIDS

    return [name for name in GRIDS if name.startswith(incomplete)]


def complete_strategy(incomplete: str) -> list[str]:
    """Return the pairing strategies."""
    from featlab.config.sections import STRATEGIES

    return [name for name in ("auto", *STRATEGIES) if name.startswith(incomplete)]


def complete_backbone(incomplete: str) -> list[str]:
    """Return the prefixes of backbones."""
    with suppress(Exception):
        from featlab.extraction.backbones import BACKBONES

        return [name for name in BACKBONES.names() if name.startswith(incomplete)]
    return []


def complete_layout(incomplete: str) -> list[str]:
    """Return the names of layouts."""
    with suppress(Exception):
        from featlab.extraction.layouts import LAYOUTS

        return [name for name in ("auto", *LAYOUTS.names()) if name.startswith(incomplete)]
    return []


def complete_table(incomplete: str) -> list[str]:
    """Return the names of published tables."""
    from featlab.analysis.paper import published_tables

    return [name for name in published_tables() if name.startswith(incomplete)]


def _methods() -> list[str]:
    """Return the methods' names; none of them is imported."""
    with suppress(Exception):
        from featlab.methods.registry import method_names

        return list(method_names())
    return []

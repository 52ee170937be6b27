"""Names of methods in figures: marked where a method was given source rows, folded where they are long."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

__all__ = ["ACCESS_NOTE", "figure_name", "folded"]

_MARK = "\u00a0†"
ACCESS_NOTE = "†\u00a0with\u00a0source\u00a0access"


def figure_name(method: str, selection: str, names: Mapping[str, str] | None = None) -> str:
    """Return the name to show; that of a method with source access ends in a dagger, explained by `ACCESS_NOTE`.

    Args:
        method: Registry name.
        selection: One of `featlab.evaluation.results.SELECTIONS`.
        names: Method to display name; a method it does not name keeps its registry name.
    """
    return (names or {}).get(method, method) + (_MARK if selection == "source-access" else "")


def folded(name: str, most: int) -> str:
    """Return a name in lines of at most ``most`` letters; broken before its last bracket where that is enough."""
    start, bracket, rest = name.rpartition(" (")
    if len(name) > most and bracket and max(len(start), len(rest) + 1) <= most:
        return f"{start}\n({rest}"
    long_word = any(len(word) > most for word in name.split())
    return textwrap.fill(name, most, break_on_hyphens=long_word)

"""What a table is, whoever makes or renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MISSING", "Settings", "Table"]

MISSING = "–"

Settings = Mapping[str, tuple[str, str]]
"""Method name to (setting, display name), e.g. ``{"shot": ("SFDA (model-based)", "SHOT (Liang et al., 2020)")}``."""


@dataclass(frozen=True)
class Table:
    """Text cells and which of them are the best; how it looks is the business of `featlab.analysis.render`.

    Attributes:
        title: One line above it; may be empty.
        columns: Column names.
        rows: Cells, one tuple a row, each as long as ``columns``.
        bold: Same shape as ``rows``.
        notes: Lines beneath it.
        text_columns: How many columns on the left are words; the rest are numbers and go to the right.
        grouped: Whether rows with the same first cell belong together (shown once, ruled off from the next).
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[tuple[bool, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1
    grouped: bool = False

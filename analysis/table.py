"""Tables: columns declared once, numbers formatted in one place; `featlab.analysis.render` turns them into text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

MISSING = "–"
FAILED = "failed"  # The cell of what could not be run; a note says why.


@dataclass(frozen=True)
class Table:
    """Text cells and which of them are the best."""

    title: str  # One line above it; may be empty.
    columns: tuple[str, ...]  # Column names.
    rows: tuple[tuple[str, ...], ...]  # Cells, one tuple a row, each as long as ``columns``.
    bold: tuple[tuple[bool, ...], ...]  # Same shape as ``rows``.
    notes: tuple[str, ...] = ()  # Lines beneath it.
    text_columns: int = 1  # How many columns on the left are words; the rest are numbers and go to the right.
    # Whether rows with the same first cell belong together (shown once, ruled off from the next).
    grouped: bool = False
    # Places of the columns that a terminal shows without ``--wide``; empty for all. Files have every column.
    narrow: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column, declared: its head, and the cell of an item."""

    head: str  # Its name.
    cell: Callable[[Item], str]  # Item to text; see `number_text` and the others below.
    text: bool = False  # Words, which stand on the left; number columns follow.
    best: bool = False  # The largest number is bold.
    wide: bool = False  # A terminal shows it with ``--wide`` only.


def make_table(
    title: str,
    columns: Sequence[Column[Item]],
    items: Sequence[Item],
    *,
    notes: Sequence[str] = (),
    competes: Callable[[Item], bool] = lambda item: True,
    grouped: bool = False,
) -> Table:
    """Return one line an item."""
    cells = tuple(tuple(column.cell(item) for column in columns) for item in items)
    may_win = [tuple(column.best and competes(item) for column in columns) for item in items]
    narrow = tuple(place for place, column in enumerate(columns) if not column.wide)
    return Table(
        title=title,
        columns=tuple(column.head for column in columns),
        rows=cells,
        bold=bold_largest(cells, may_win),
        notes=tuple(notes),
        text_columns=sum(column.text for column in columns),
        grouped=grouped,
        narrow=narrow if len(narrow) < len(columns) else (),
    )


def narrowed(table: Table) -> Table:
    """Return the columns that a terminal shows without ``--wide``, and the notes but those on the other columns."""
    if not table.narrow:
        return table
    hidden = {table.columns[place] for place in range(len(table.columns)) if place not in table.narrow}

    def kept(line: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(line[place] for place in table.narrow)

    return replace(
        table,
        columns=kept(table.columns),
        rows=tuple(map(kept, table.rows)),
        bold=tuple(map(kept, table.bold)),
        text_columns=sum(place < table.text_columns for place in table.narrow),
        grouped=table.grouped and 0 in table.narrow,
        # "Rank: what it is" is on the column Rank.
        notes=tuple(note for note in table.notes if note.partition(":")[0] not in hidden),
        narrow=(),
    )


def bold_largest(cells: Sequence[Sequence[str]], competing: Sequence[Sequence[bool]]) -> tuple[tuple[bool, ...], ...]:
    """Mark the largest number of each column as it is shown, so that what looks equal is equal."""
    bold = [[False] * len(line) for line in cells]
    for column in range(len(cells[0]) if cells else 0):
        values = {
            row: value
            for row, line in enumerate(cells)
            if competing[row][column] and (value := number_of(line[column])) is not None
        }
        for row, value in values.items():
            bold[row][column] = value == max(values.values())
    return tuple(map(tuple, bold))


def score_text(value: float) -> str:
    """Return 78.31 for 0.7831."""
    return number_text(100.0 * value, 2)


def interval_text(bounds: tuple[float, float], text: Callable[[float], str] = score_text) -> str:
    """Return [70.12, 81.50]."""
    return MISSING if any(map(math.isnan, bounds)) else f"[{text(bounds[0])}, {text(bounds[1])}]"


def share_text(share: float) -> str:
    """Return 78.3 % for 0.783, for a sentence; NaN is a dash."""
    return f"{number_text(100 * share, 1)} %"


def number_text(value: float, decimals: int) -> str:
    """Return a number with so many decimals, what rounds to nothing without a sign; NaN is a dash."""
    return MISSING if math.isnan(value) else f"{value:z.{decimals}f}"


def flops_text(flops: float) -> str:
    """Return millions of operations, with three decimals below a hundred of them."""
    millions = flops / 1e6
    return number_text(millions, 0 if millions >= 100 else 3)


def p_text(value: float) -> str:
    """Return a p value, the smallest as a bound."""
    return "<0.001" if value < 0.001 else number_text(value, 3)


def p_words(value: float) -> str:
    """Return it for a sentence: p < 0.001 or p = 0.012."""
    return "p < 0.001" if value < 0.001 else f"p = {number_text(value, 3)}"


def count_text(number: int, thing: str) -> str:
    """Return ``1 draw`` or ``1,200 draws``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def columns_of(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return lines as columns, as figures take and save them."""
    every = list(lines)
    return {name: [line[place] for line in every] for place, name in enumerate(names)}


def number_of(cell: str) -> float | None:
    """Return the number that a cell shows; ``None`` for words, dashes, stars and bounds."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

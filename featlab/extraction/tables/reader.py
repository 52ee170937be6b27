"""One pass over a table: its names, its features and landmarks as float32, and the rows that don't count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.engine import OnProgress
from featlab.errors import InputError, listed
from featlab.extraction.columns import (
    Columns,
    all_numbers,
    is_list,
    is_missing,
    is_text,
    kind_of,
    lists,
    names,
    numbers,
    zeros,
)
from featlab.extraction.faces import as_points
from featlab.extraction.tables.rows import INDEX_COLUMNS, WORDS, ReadRows, Roles, Selection, roles_of


class _Values:
    """The numbers of a column, or its lists of numbers, as they are read: all of its cells decide which it is."""

    def __init__(
        self, name: str, numbers: NDArray[np.float32], where: Callable[[int], str], held: NDArray[np.float32] | None
    ) -> None:
        self.name, self.numbers, self.where, self.held = name, numbers, where, held
        self.kind = ""  # "number", "list" or "other"; nothing while all cells are missing
        self.lists: NDArray[np.float32] | None = None
        self.good = 0
        self.bad: dict[int, str] = {}
        self.text: list[NDArray[np.intp]] = []

    def add(self, cells: Any, start: int) -> None:
        """Take the cells (n,) of the rows from ``start`` on."""
        stop = start + len(cells)
        self.kind = self.kind or _kind(cells)
        if self.kind == "list":
            width = 0 if self.lists is None else self.lists.shape[1]
            block, text = lists(cells, width, lambda place: self.where(start + place))
            if self.lists is None and block.shape[1]:
                self.lists = self.held
                if self.lists is None:
                    self.lists = np.empty((len(self.numbers), block.shape[1]), dtype=np.float32)
                    self.lists[:start] = np.nan
            if self.lists is not None and self.lists is not self.held:
                self.lists[start:stop] = block
            self.good += int((~np.isnan(block)).any(axis=1).sum())
        elif self.kind == "number":
            block, text = numbers(cells)
            self.numbers[start:stop] = block
            self.good += int((~np.isnan(block)).sum())
        else:
            self.numbers[start:stop] = np.nan
            return
        if len(text):
            if not self.text:
                said = cells[int(text[0])].as_py().strip()
                self.bad[start + int(text[0])] = f"{self.name} is {said[:40]!r}, not a number"
            self.text.append(start + text)

    @property
    def width(self) -> int:
        """How many values a row has."""
        return 1 if self.lists is None else self.lists.shape[1]

    @property
    def is_number(self) -> bool:
        """Whether at least half of the cells that say something are numbers: a text among them is a mistake."""
        return self.kind == "number" and self.good > 0 and self.good >= sum(map(len, self.text))

    def why_bad(self) -> dict[int, str]:
        """Return the rows whose cell is text, and what it is."""
        return {row: f"{self.name} isn't a number" for part in self.text for row in part.tolist()} | self.bad


def _add(columns: Sequence[_Values], buffer: NDArray[np.float32], cells: Sequence[Any], start: int) -> None:
    """Give each column its cells, those of numbers together: a call has its price."""
    together = [
        place
        for place, (column, each) in enumerate(zip(columns, cells, strict=True))
        if column.kind in ("", "number") and not column.text and each.type == "string" and not is_text(each)
    ]
    block = all_numbers([cells[place] for place in together]) if together else None
    if block is None:
        together = []
    else:
        buffer[together, start : start + block.shape[1]] = block
        for place, good in zip(together, (~np.isnan(block)).sum(axis=1).tolist(), strict=True):
            columns[place].kind = "number" if good else columns[place].kind
            columns[place].good += good
    for place in sorted({*range(len(columns))} - {*together}):
        columns[place].add(cells[place], start)


def _kind(cells: Any) -> str:
    """Return what a column is by its first cell that says something; empty where none does."""
    kind = kind_of(cells.type)
    if kind != "text":
        return kind
    for cell in cells:
        text = (cell.as_py() or "").strip()
        if not is_missing(text):
            return "list" if is_list(text) else "number"
    return ""


def read_rows(
    table: Columns, selection: Selection, *, neutral: str = "", on_progress: OnProgress | None = None
) -> ReadRows:
    """Read a table once, batch by batch; ``neutral`` is a label even where it is a word for a missing one ("none")."""
    roles = roles_of(table, selection)
    header = table.header
    signs = [place for place, _ in roles.signs]
    wanted = sorted({*roles.names.values(), *roles.features, *roles.landmarks, *signs, *roles.face})
    numeric = (*roles.features, *roles.landmarks)
    # Pages of an empty array are only used once they are written: neither a bound on the rows costs memory, nor a
    # column that turns out to hold no numbers.
    buffer = np.empty((len(numeric), table.most), dtype=np.float32)
    columns = [_Values(header[place], row, table.where, table.held) for place, row in zip(numeric, buffer, strict=True)]
    said: dict[str, list[str]] = {name: [] for name in roles.names}
    unknown: set[str] = set()
    faces: list[str] = []
    signed: list[list[NDArray[np.bool_]]] = [[] for _ in signs]
    rows = 0
    for batch in table.batches(wanted):
        cells = dict(zip(wanted, batch, strict=True))
        with np.errstate(over="ignore"):
            _add(columns, buffer, [cells[place] for place in numeric], rows)
        for name, place in roles.names.items():
            is_label = name == "label"
            said[name] += names(cells[place], neutral if is_label else "", unknown if is_label else None)
        for place in roles.face:
            faces += names(cells[place])
        for found, (place, kind) in zip(signed, roles.signs, strict=True):
            found.append(zeros(cells[place]) if kind != "empty" else np.array(names(cells[place])) == "")
        rows += len(batch[0])
        if on_progress is not None:
            on_progress(rows, table.most)
    if not rows:
        raise InputError(f"{table.path} has a header and no rows")
    taken = _taken(table, roles, columns[: len(roles.features)])
    landmarks = table.landmarks
    if roles.landmarks:
        points = buffer[len(roles.features) :, :rows].T
        landmarks = as_points(points, f"{table.path}, x_0, y_0, …")
    notes = [*table.notes, *_notes(table, roles, taken)]
    if unknown:
        notes.append(f"labels taken as unknown: {', '.join(map(repr, sorted(unknown)))}")
    return ReadRows(
        features=_features(buffer, taken, rows),
        names=said,
        where=table.where,
        name_of=lambda row: f"{table.path.name}#row={row}",
        header=header,
        columns=tuple(column.name for column in taken if column.kind != "list"),
        landmarks=landmarks,
        face="".join(header[place] for place in roles.face),
        faces=faces,
        failed=_failed(header, roles, [np.concatenate(found) for found in signed]),
        bad={row: why for column in (*taken, *columns[len(roles.features) :]) for row, why in column.why_bad().items()},
        notes=tuple(notes),
    )


def _taken(table: Columns, roles: Roles, columns: Sequence[_Values]) -> list[_Values]:
    """Return the columns that are the features: those that were chosen, one of lists, or all of numbers."""
    taken, of_lists = list(columns), [column for column in columns if column.kind == "list"]
    if roles.chosen:
        for column in columns:
            if column.kind == "other" or (column.kind == "list" and len(columns) > 1):
                raise InputError(
                    f"{table.path}: the column {column.name!r} doesn't hold one number a row; --columns chooses others"
                )
    else:
        numbers = [column for column in columns if column.is_number]
        if len(of_lists) > 1 or (of_lists and len(numbers) >= of_lists[0].width):
            several = listed([column.name for column in of_lists])
            raise InputError(
                f"{table.path}: the features may be lists ({several}) or {len(numbers)} columns of numbers; "
                "choose with --columns"
            )
        taken = of_lists or numbers
    if not taken:
        raise InputError(f"{table.path} has no column of numbers beside {', '.join(INDEX_COLUMNS)}: no features")
    if taken[0].kind == "list" and taken[0].lists is None:
        raise InputError(f"{table.where(0)}: there are no values in its list, and in no other row")
    return taken


def _features(buffer: NDArray[np.float32], taken: Sequence[_Values], rows: int) -> NDArray[np.float32]:
    """Return (rows, D) without a copy: the columns that were taken move to the front of the buffer."""
    if taken[0].lists is not None:
        return taken[0].lists[:rows]
    for place, column in enumerate(taken):
        buffer[place, :rows] = column.numbers[:rows]
    return buffer[: len(taken), :rows].T


def _failed(header: Sequence[str], roles: Roles, signed: Iterable[NDArray[np.bool_]]) -> dict[int, str]:
    """Return the rows that their own tool calls failed, and how it says so."""
    failed: dict[int, str] = {}
    for (place, kind), found in zip(roles.signs, signed, strict=True):
        if kind == "zero_of_some" and found.all():
            continue
        why = f"{header[place]} is {'missing' if kind == 'empty' else '0'}: no face was found"
        failed = dict.fromkeys(np.flatnonzero(found).tolist(), why) | failed
    return failed


def _notes(table: Columns, roles: Roles, taken: Sequence[_Values]) -> list[str]:
    """Say which columns were taken, and which weren't."""
    count = sum(column.width for column in taken)
    if roles.group is not None:
        word = WORDS.get(roles.group, roles.group)
        others = [group for group in roles.preset.groups_in(table.header) if group != roles.group]
        also = f"; --features chooses another group: {', '.join(others)}" if others else ""
        return [f"taken as {roles.preset.title}'s table: {count} {word}{also}"]
    if roles.chosen:
        return []
    used = {table.header[place] for place in (*roles.names.values(), *roles.landmarks)} | {each.name for each in taken}
    left = [name or "(without a name)" for name in table.header if name not in used]
    notes = [f"not features: {listed(left)}"] if left else []
    if spelled := [name for name in left if name.lower() in INDEX_COLUMNS]:
        notes.append(f"not read: {listed(spelled)}; names of columns are in lower case")
    if roles.landmarks:
        notes.append(f"x_0, y_0, … are taken as {len(roles.landmarks) // 2} landmarks")
    return notes

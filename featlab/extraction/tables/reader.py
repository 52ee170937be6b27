"""One pass over a table: its names, its features and landmarks as float32, and the rows that don't count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.engine import OnProgress
from featlab.errors import InputError, listed
from featlab.extraction.columns import (
    Columns,
    is_list,
    is_missing,
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

    def __init__(self, name: str, numbers: NDArray[np.float32], table: Columns) -> None:
        self.name, self.numbers, self.table = name, numbers, table
        self.kind = ""  # "number", "list" or "other"; nothing while all cells are missing
        self.lists: NDArray[np.float32] | None = None
        self.good = 0  # How many cells are numbers
        self.text: list[NDArray[np.intp]] = []  # The rows whose cell is text
        self.said = ""  # What the first of them says

    def add(self, cells: Any, start: int) -> None:
        """Take the cells (n,) of the rows from ``start`` on."""
        stop = start + len(cells)
        self.kind = self.kind or _kind(cells)
        if self.kind == "list":
            known = 0 if self.lists is None else self.width
            values, text = lists(cells, known, lambda place: self.table.where(start + place))
            if self.lists is None and values.shape[1]:
                self.lists = self.table.held
                if self.lists is None:
                    self.lists = np.empty((len(self.numbers), values.shape[1]), dtype=np.float32)
                    self.lists[:start] = np.nan
            if self.lists is not None and self.lists is not self.table.held:
                self.lists[start:stop] = values
        elif self.kind == "number":
            self.numbers[start:stop], text = numbers(cells)
            self.good += int((~np.isnan(self.numbers[start:stop])).sum())
        else:
            self.numbers[start:stop] = np.nan
            return
        if len(text):
            self.said = self.said or cells[int(text[0])].as_py().strip()
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
        """Return the rows whose cell is text, and, for the first, what it is."""
        rows = [row for part in self.text for row in part.tolist()]
        first = dict.fromkeys(rows[:1], f"{self.name} is {self.said[:40]!r}, not a number")
        return dict.fromkeys(rows, f"{self.name} isn't a number") | first


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
    columns = [_Values(header[place], row, table) for place, row in zip(numeric, buffer, strict=True)]
    said: dict[str, list[str]] = {name: [] for name in roles.names}
    unknown: set[str] = set()
    faces: list[str] = []
    signed: list[list[NDArray[np.bool_]]] = [[] for _ in signs]
    rows = 0
    for batch in table.batches(wanted):
        cells = dict(zip(wanted, batch, strict=True))
        with np.errstate(over="ignore"):
            for place, column in zip(numeric, columns, strict=True):
                column.add(cells[place], rows)
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
    unknown_labels = f"labels taken as unknown: {', '.join(map(repr, sorted(unknown)))}" if unknown else ""
    # No copy: the columns that were taken move to the front of the buffer.
    for place, column in enumerate(taken):
        buffer[place, :rows] = column.numbers[:rows]
    features = buffer[: len(taken), :rows].T if taken[0].lists is None else taken[0].lists[:rows]
    return ReadRows(
        features=features,
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
        notes=(*table.notes, *_notes(table, roles, taken), *filter(None, [unknown_labels])),
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

"""Tables as text, .csv or .tsv: a header, then one row a line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from featlab.errors import InputError
from featlab.extraction.tables.rows import (
    INDEX_COLUMNS,
    OnProgress,
    ReadRows,
    Selection,
    as_points,
    check_subject_column,
    choose_columns,
    is_openface,
)

_SAMPLE = 100
"""Rows that are looked at to tell columns of numbers from columns of text."""
_TELL_EVERY = 2000
_MISSING = frozenset(["", "na", "n/a", "nan", "-nan", "null", "none"])

Line = tuple[int, list[str]]


def read_delimited(
    path: Path,
    selection: Selection,
    *,
    extra: Sequence[str] = (),
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> ReadRows:
    """Read a table of features line by line, holding only its features, landmarks and index columns."""
    most = _count_lines(path)
    lines = read_cells(path)
    _, header = next(lines)
    sample = list(islice(lines, _SAMPLE))
    if not sample:
        raise InputError(f"{path} has a header and no rows")
    chosen = choose_columns(header, selection, lambda place: _is_number(sample, place), path)
    called = name or path.name
    success = header.index("success") if is_openface(header) and "success" in header else None
    # Pages of an empty array are only used once they are written: the bound on the rows costs no memory.
    features = np.empty((most, len(chosen.features)), dtype=np.float32)
    points = np.empty((most, len(chosen.landmarks)), dtype=np.float32)
    filled = [(features, chosen.features)] + ([(points, chosen.landmarks)] if chosen.landmarks else [])
    names: dict[str, list[str]] = {column: [] for column in (*INDEX_COLUMNS, *extra) if column in header}
    places_of = [(values, header.index(column)) for column, values in names.items()]
    numbers: list[int] = []
    failed: dict[int, str] = {}
    with np.errstate(over="ignore"):
        for row, (number, cells) in enumerate(chain(sample, lines)):
            if success is not None and _number(cells[success]) == 0:
                failed[row] = "success is 0: no face was found"
            for array, places in filled:
                array[row] = np.nan if row in failed else _values(cells, places, header, path, number)
            for values, place in places_of:
                values.append(cells[place].strip())
            numbers.append(number)
            if on_progress is not None and row % _TELL_EVERY == _TELL_EVERY - 1:
                on_progress(row + 1, most)
    rows = len(numbers)
    return ReadRows(
        features=features[:rows],
        names=names,
        where=lambda row: f"{path}, line {numbers[row]}",
        name_of=lambda row: f"{called}#row={row}",
        header=tuple(header),
        columns=tuple(header[place] for place in chosen.features),
        landmarks=as_points(points[:rows], rows, f"{path}, x_0, y_0, …") if chosen.landmarks else None,
        failed=failed,
        notes=chosen.notes,
    )


def read_manifest(path: Path) -> tuple[dict[str, list[str]], Callable[[int], str]]:
    """Read the index columns of a manifest as text, and return what says where a row is; other columns are ignored."""
    lines = read_cells(path)
    _, header = next(lines)
    check_subject_column(header, path, "a manifest has the columns subject,label,video,frame")
    names: dict[str, list[str]] = {name: [] for name in INDEX_COLUMNS if name in header}
    places_of = [(values, header.index(name)) for name, values in names.items()]
    numbers: list[int] = []
    for number, cells in lines:
        for values, place in places_of:
            values.append(cells[place].strip())
        numbers.append(number)
    if not numbers:
        raise InputError(f"{path} has a header and no rows")
    return names, lambda row: f"{path}, line {numbers[row]}"


def read_cells(path: Path) -> Iterator[Line]:
    """Yield (line number, cells) of the header, its names stripped, and then of every row, as wide as the header."""
    line = 0
    header: list[str] | None = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    cells = header = [cell.strip() for cell in cells]
                    _check_header(header, path)
                elif len(cells) != len(header):
                    raise InputError(
                        f"{path}, line {line}: {len(cells)} values under {len(header)} columns; quote a value that has "
                        "the separator in it"
                    )
                yield line, cells
    except UnicodeDecodeError:
        raise InputError(f"{path} isn't UTF-8 text (after line {line}); save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise InputError(f"{path}, line {line + 1}: not valid csv: {error}") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    if header is None:
        raise InputError(f"{path} is empty; its first line names the columns: subject,label,video,frame,…")


def _check_header(header: Sequence[str], path: Path) -> None:
    if any("\0" in name for name in header):
        raise InputError(f"{path} has NUL characters, so it isn't a text file; save it as 'CSV UTF-8'")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t,"):
        right = "tabs" if path.suffix.lower() == ".tsv" else "commas"
        raise InputError(f"{path}, line 1: one column ({header[0][:40]!r}); separate the columns with {right}")
    for name, count in Counter(header).items():
        if name and count > 1:
            raise InputError(f"{path}, line 1: the column {name!r} appears twice")


def _count_lines(path: Path) -> int:
    """Return a bound on the rows: line ends, one more for a last line without."""
    try:
        with path.open("rb") as file:
            blocks = iter(lambda: file.read(1 << 20), b"")
            # A pair that is cut in two by the end of a block counts twice, which a bound may.
            return 1 + sum(block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n") for block in blocks)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def _is_number(sample: Sequence[Line], place: int) -> bool:
    """Whether half of a column's cells are numbers: a text among numbers is a mistake, a column of text is none."""
    cells = [cells[place].strip() for _, cells in sample]
    present = [cell for cell in cells if cell.lower() not in _MISSING]
    return bool(present) and 2 * sum(_number(cell) is not None for cell in present) >= len(present)


def _values(cells: Sequence[str], places: Sequence[int], header: Sequence[str], path: Path, number: int) -> list[float]:
    try:
        return [float(cells[place]) for place in places]
    except ValueError:
        return [_value(cells[place].strip(), header[place], path, number) for place in places]


def _value(cell: str, name: str, path: Path, number: int) -> float:
    if cell.lower() in _MISSING:
        return float("nan")
    value = _number(cell)
    if value is None:
        raise InputError(
            f"{path}, line {number}: {name} is {cell[:40]!r}, not a number; --columns chooses the columns of features"
        )
    return value


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None

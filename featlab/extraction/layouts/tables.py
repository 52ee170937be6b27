"""Small text files of annotations: lines, and tables with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featlab.errors import InputError, closest

_MARKS = "\t;,"
_LOOKED_AT = 4096


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    where: str  # File and line, for messages
    values: dict[str, str]  # Column name to text


def read_text(path: Path) -> str:
    """Read a text file, UTF-8 with or without a byte order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise InputError(f"{path} has NUL characters, so it isn't a text file")
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that aren't empty, each with its number from 1."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    filled = [(number, line) for number, line in lines if line]
    if not filled:
        raise InputError(f"{path} is empty")
    return filled


def first_line(path: Path) -> str:
    """Return the beginning of a file's first line, without line end; empty when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.readline(_LOOKED_AT).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    except OSError:
        return ""


def header(path: Path) -> list[str]:
    """Return the column names in a table's first line, in lower case; empty when the file can't be read."""
    line = first_line(path)
    return [name.strip().strip('"').lower() for name in line.strip().split(_mark(line))]


def read_table(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a table with a header, its columns apart by tabs, semicolons or commas."""
    text = read_text(path)
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_mark(first), strict=True)
    names: list[str] | None = None
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _names(cells, required, path)
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(names):
                raise InputError(f"{where}: {len(cells)} values under {len(names)} columns")
            rows.append(Row(where, {name: cell.strip() for name, cell in zip(names, cells, strict=True)}))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a valid table: {error}") from None
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def _names(cells: Sequence[str], required: Sequence[str], path: Path) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    for name in required:
        if names.count(name) > 1:
            raise InputError(f"{path}: the column {name!r} appears twice")
        if name not in names:
            raise InputError(f"{path}: no column {name!r} (found: {', '.join(names)}){closest(name, names)}")
    return names


def _mark(line: str) -> str:
    return max(_MARKS, key=line.count)


NEUTRAL, ANGER, DISGUST, FEAR = "neutral", "anger", "disgust", "fear"
HAPPINESS, SADNESS, SURPRISE, OTHER = "happiness", "sadness", "surprise", "other"

FER2013 = (ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, NEUTRAL)
"""By FER2013's and ExpW's own number, from 0."""
RAF_DB = (SURPRISE, FEAR, DISGUST, HAPPINESS, SADNESS, ANGER, NEUTRAL)
"""By RAF-DB's own number, from 1."""
AFF_WILD2 = (NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, OTHER)
"""By Aff-Wild2's own number, from 0; earlier releases have the first seven."""

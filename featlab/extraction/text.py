"""Text files that people bring: how they are found and read; tables: a header, then one row a line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from featlab.errors import InputError, closest, listed

if TYPE_CHECKING:
    from featlab.extraction.columns import Columns


def file_in(folder: Path, name: str) -> Path:
    """Return where a file of that name is, in whichever Unicode form its own name is."""
    path = folder / name
    if name.isascii() or path.exists():
        return path
    others = (folder / normalize(form, name) for form in ("NFC", "NFD"))
    return next((other for other in others if other.exists()), path)


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
            return file.readline(4096).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    except OSError:
        return ""


def first_names(path: Path) -> list[str]:
    """Return the column names in a table's first line, in lower case; empty when the file can't be read."""
    line = first_line(path)
    return [name.strip().strip('"').lower() for name in line.strip().split(_likely_mark(line))]


def _likely_mark(line: str) -> str:
    return max("\t;,", key=line.count)


def read_columns(
    path: Path, required: Sequence[str], wanted: Sequence[str], *, filled: bool = False, neutral: str = "none"
) -> tuple[dict[str, list[str]], Callable[[int], str]]:
    """Read a list's columns (the wanted ones that are there), apart by tabs, semicolons or commas, and where rows are.

    Names of columns are in lower case. What is missing is empty, and refused in required columns that must be
    ``filled``; a label "none" is one where it may be the neutral one.
    """
    from featlab.extraction.columns import names

    table = open_delimited(path, _likely_mark(first_line(path)))
    check_columns([name.lower() for name in table.header], required, str(path))
    places = {name.lower(): place for place, name in enumerate(table.header) if name.lower() in wanted}
    columns: dict[str, list[str]] = {name: [] for name in places}
    for batch in table.batches([*places.values()]):
        for name, cells in zip(columns, batch, strict=True):
            columns[name] += names(cells, neutral if name == "label" else "")
    if not columns[required[0]]:
        raise InputError(f"{path} has a header and no rows")
    for name in required if filled else ():
        if "" in columns[name]:
            empty = f"{table.where(columns[name].index(''))}: the {name} is empty"
            raise InputError(f"{empty}, or a word for nothing (NA, None, nan, …); write it otherwise")
    return columns, table.where


_MARKS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class _Scan:
    """What the bytes of a table tell."""

    lines: int = 1  # At least as many as there are
    longest: int = 0  # Bytes of a line
    may_be_blank: bool = False  # Whether a row may consist of blank cells
    quotes: int = 0

    @property
    def block(self) -> int:
        """Bytes to read at a time: few, to stay in the processor's cache, but some hundred rows, a call a column."""
        return max(min(2048 * self.longest, 64 << 20), 2 * self.longest, (8 if self.quotes else 1) << 20)


def open_delimited(path: Path, mark: str | None = None) -> Columns:
    """Open a table whose cells are apart by ``mark``, by default a comma, or a tab in a .tsv; every cell is text."""
    # Not above: a list of layouts needs no NumPy.
    from featlab.extraction.columns import Columns

    mark = mark or _MARKS.get(path.suffix.lower(), ",")
    line, header = next(read_cells(path, mark))
    scan = _scan(path, mark)
    if scan.quotes % 2:
        _explain(path, mark, "a quote is not closed")

    @cache
    def lines() -> list[int]:
        return [number for number, _ in islice(read_cells(path, mark), 1, None)]

    return Columns(
        path=path,
        header=tuple(header),
        most=scan.lines,
        batches=lambda places: _batches(path, mark, scan, line, len(header), places),
        where=lambda row: f"{path}, line {lines()[row]}",
    )


def read_cells(path: Path, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of the header, its names stripped, and of every row: slowly, and strict about form."""
    from featlab.cache.schema import from_cell  # To list layouts takes no NumPy.

    line = 0
    header: list[str] | None = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=mark, strict=True)
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    cells = header = [from_cell(cell.strip()) for cell in cells]
                    _check_header(header, path, mark)
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
        raise InputError(f"{path} is empty and has no rows; line 1 names the columns: subject,label,video,frame,…")


def has_rows(path: Path) -> bool:
    """Whether a text table has a row below its header; any other has."""
    mark = _MARKS.get(path.suffix.lower())
    return mark is None or sum(1 for _ in islice(read_cells(path, mark), 2)) == 2


def _batches(
    path: Path, mark: str, scan: _Scan, header_line: int, width: int, places: Sequence[int]
) -> Iterator[list[Any]]:
    """Yield the columns at these places, as Arrow arrays of text, batch by batch; rows of blank cells are left out."""
    import pyarrow as arrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    columns = [str(place) for place in range(width)]
    read = columns if scan.may_be_blank else [str(place) for place in places]
    parse = ParseOptions(delimiter=mark, newlines_in_values=scan.quotes > 0)
    if scan.may_be_blank:
        parse.invalid_row_handler = lambda row: "error" if row.text.strip() else "skip"
    try:
        batches = open_csv(
            path,
            ReadOptions(column_names=columns, skip_rows=header_line, block_size=scan.block),
            parse,
            ConvertOptions(column_types=dict.fromkeys(read, arrow.string()), include_columns=read),
        )
        for batch in batches:
            if scan.may_be_blank:
                batch = _without_blank_rows(batch)
            yield [batch.column(str(place)) for place in places]
    except (arrow.ArrowException, OSError) as error:
        _explain(path, mark, str(error))


def _without_blank_rows(batch: Any) -> Any:
    import pyarrow.compute as compute

    blank: Any = True
    for column in batch.columns:
        blank = compute.and_(blank, compute.equal(compute.utf8_trim_whitespace(column), ""))
        if not compute.any(blank).as_py():
            return batch
    return batch.filter(compute.invert(blank))


def _explain(path: Path, mark: str, error: str) -> None:
    """Raise the error of a table with rows that can't be read, with its line."""
    if sum(1 for _ in read_cells(path, mark)) > 1:
        raise InputError(f"{path} can't be read: {' '.join(error.split())}")


def _check_header(header: Sequence[str], path: Path, mark: str) -> None:
    if len(header) == 1 and any(other in header[0] for other in ";\t,"):
        right = "tabs" if mark == "\t" else "commas"
        raise InputError(f"{path}, line 1: one column ({header[0][:40]!r}); separate the columns with {right}")
    check_once(header, f"{path}, line 1")


def check_columns(names: Sequence[str], needed: Sequence[str], where: str, remedy: str = "") -> None:
    """Refuse a table without one of the needed columns, naming the closest one, or with two of its name."""
    for name in needed:
        if name not in names:
            raise InputError(f"{where}: no column {name!r} (found: {listed(names)}){closest(name, names)}{remedy}")
        if names.count(name) > 1:
            raise InputError(f"{where}: the column {name!r} appears twice")


def check_once(header: Sequence[str], where: str) -> None:
    """Refuse two columns of one name."""
    for name, count in Counter(header).items():
        if name and count > 1:
            raise InputError(f"{where}: the column {name!r} appears twice")


def _scan(path: Path, mark: str) -> _Scan:
    import numpy as np

    scan = _Scan()
    blank_starts = np.frombuffer(f'{mark} "'.encode(), dtype=np.uint8)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20) + file.readline(), b""):
            codes = np.frombuffer(block, dtype=np.uint8)
            ends = np.flatnonzero((codes == ord("\n")) | (codes == ord("\r")))
            starts = np.append(0, ends + 1)
            if not codes.all():
                raise InputError(f"{path} has NUL characters, so it isn't a text file; save it as 'CSV UTF-8'")
            scan = _Scan(
                lines=scan.lines + len(ends),
                longest=max(scan.longest, int(np.diff(starts, append=len(codes)).max())),
                may_be_blank=scan.may_be_blank or bool(np.isin(codes[starts[starts < len(codes)]], blank_starts).any()),
                quotes=scan.quotes + int((codes == ord('"')).sum()),
            )
    return scan

"""What a command found: one `Result`, one writer for its folder, one reader for `featlab report`.

docs/formats.md says what is in a folder of results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.render import FORMATS
from featlab.analysis.table import Table
from featlab.cache.atomic import SUMS, atomic_path, atomic_write_text, check_sum, folders_synced_last, sum_of, sums_of
from featlab.compute import stable_hash
from featlab.config.analysis import FIGURE_FORMATS
from featlab.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_FILE = "page.json"
PAGE_FORMAT = 1


@dataclass(frozen=True)
class PageFigure:
    """A figure that was written: its file name without ending, a few words, and what it shows in a sentence or two."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True, eq=False)
class DrawnFigure(PageFigure):
    """A figure that is still to be written, and the numbers that it is drawn from, column by column."""

    drawn: Figure
    data: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Result:
    """What a command found, ready to be written and shown."""

    # Which command: ``evaluate``, ``benchmark``, ``tune``, ``ablate``, ``plot``, ``complexity``, ``branches``.
    kind: str
    title: str  # One line.
    summary: Sequence[str]  # What the numbers say, a sentence each.
    tables: Mapping[str, Table]  # By name, in order.
    figures: Sequence[DrawnFigure] = ()  # In order.
    # JSON-ready: what `featlab.evaluation.results.run_facts` gives.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    # What ``--json`` prints besides metadata, summary and names of files.
    data: Mapping[str, Any] = field(default_factory=dict)
    # Further files: name to text. ``None`` for one that an earlier run may have left and this one does not.
    files: Mapping[str, str | None] = field(default_factory=dict)
    printed: Sequence[str] | None = None  # Names of the tables that a terminal shows; ``None`` for all of them.
    notes: Sequence[str] = ()  # What the user should know, a line each, for stderr.

    def shown(self) -> list[Table]:
        """Return the tables that a terminal shows."""
        return [self.tables[name] for name in (self.tables if self.printed is None else self.printed)]


@dataclass(frozen=True)
class Page:
    """A result as its folder tells of it; see `Result`."""

    kind: str  # Which command.
    title: str  # One line.
    summary: tuple[str, ...]  # What the numbers say, a sentence each.
    command: str  # What was typed; empty where it was called from Python.
    tables: tuple[str, ...]  # Their names, in order.
    figures: tuple[PageFigure, ...]  # In order.
    metadata: Mapping[str, Any]  # Of the run.


@folders_synced_last()
def write_result(folder: Path, result: Result, command: str = "") -> list[Path]:
    """Write a result, ``page.json`` last: a page that is there is complete. What an earlier run left is removed."""
    if result.figures:
        from featlab.analysis.style import save_plot

    for path in _left_over(folder, result):
        path.unlink(missing_ok=True)
    # The page of an earlier run is about figures and tables that are about to change.
    (folder / PAGE_FILE).unlink(missing_ok=True)
    written: list[Path] = []
    for name, text in result.files.items():
        if text is not None:
            written.append(folder / name)
            atomic_write_text(written[-1], text)
    for figure in result.figures:
        written += save_plot(folder, figure.name, figure.drawn, figure.data, figure_endings(result.metadata))
    for name, table in result.tables.items():
        for ending, render in FORMATS.items():
            written.append(folder / f"table_{name}.{ending}")
            atomic_write_text(written[-1], render(table))
    page = {
        "format": PAGE_FORMAT,
        "kind": result.kind,
        "title": result.title,
        "words": list(result.summary),
        "command": command,
        "tables": list(result.tables),
        "figures": [{"name": item.name, "title": item.title, "caption": item.caption} for item in result.figures],
        "facts": result.metadata,
    }
    # The digests of all files come before the page: where there is a page, they are of its files.
    with atomic_path(folder / PAGE_FILE) as partial:
        partial.write_text(json.dumps(page, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        atomic_write_text(folder / SUMS, f"{sums_of(written)}{sum_of(partial)}  {PAGE_FILE}\n")
    return [*written, folder / PAGE_FILE, folder / SUMS]


def figure_endings(facts: Mapping[str, Any]) -> list[str]:
    """Return the endings of each figure's files, by the configuration that the facts of a run tell of."""
    asked = facts.get("config", {}).get("plot", {}).get("formats", ())
    return ["svg", *(ending for ending in FIGURE_FORMATS if ending in asked), "csv"]


def read_page(folder: Path) -> Page:
    """Read what `write_result` wrote."""
    path = folder / PAGE_FILE
    with _readable(path):
        check_sum(path, InputError)
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] > PAGE_FORMAT:
            newer = f"its format {data['format']} is newer than this featlab's"
            raise InputError(f"{path}: {newer}; update featlab, or run the command again")
        figures = tuple(PageFigure(**item) for item in data["figures"])
        page = Page(
            kind=data["kind"],
            title=data["title"],
            summary=tuple(data["words"]),
            command=data["command"],
            tables=tuple(data["tables"]),
            figures=figures,
            metadata=data["facts"],
        )
        names = [*page.tables, *(figure.name for figure in figures)]
        captions = [text for figure in figures for text in (figure.title, figure.caption)]
        text = [page.kind, page.title, page.command, *page.summary, *names, *captions]
        if not (isinstance(page.metadata, dict) and all(isinstance(item, str) for item in text)):
            raise TypeError("text is text, and metadata is an object")
        if not all(name and name == Path(name).name for name in names):
            raise ValueError("tables and figures are files of the folder")
    return page


def read_table(folder: Path, name: str) -> Table:
    """Read a table that `write_result` wrote."""
    path = folder / f"table_{name}.json"
    with _readable(path):
        check_sum(path, InputError)
        data = json.loads(path.read_text(encoding="utf-8"))
        rows, bold = (tuple(tuple(line) for line in data[key]) for key in ("rows", "bold"))
        narrow = tuple(data.get("narrow", ()))
        columns, notes = tuple(data["columns"]), tuple(data["notes"])
        table = Table(data["title"], columns, rows, bold, notes, data["text_columns"], data["grouped"], narrow)
        lines = (columns, *rows)
        if any(len(line) != len(columns) for line in (*lines, *bold)) or len(rows) != len(bold):
            raise ValueError("every line has a cell a column")
        text = (cell for line in (*lines, notes, (table.title,)) for cell in line)
        if not (isinstance(table.text_columns, int) and all(isinstance(cell, str) for cell in text)):
            raise TypeError("cells are text")
        if not set(narrow) <= set(range(len(columns))):
            raise ValueError("narrow has places of columns")
    return table


def json_lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of a .jsonl file, an entry a line."""
    return "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)


def safe_name(subject: str) -> str:
    """Return a subject's name, or a hash where it is no safe name of a file."""
    # Imports torch, which most of what writes a page has no need of.
    from featlab.bundle.files import adaptation_folder

    return adaptation_folder(Path(), subject).name


def folder_name(command: str, subjects: Sequence[str]) -> str:
    """Return the folder of a command's results on some subjects: the same subjects give the same."""
    if len(subjects) == 1:
        return f"{command}-{safe_name(subjects[0])}"
    return f"{command}-{len(subjects)}-targets-{stable_hash(*sorted(subjects))[:8]}"


def run_folder(command: str, facts: Mapping[str, Any]) -> str:
    """Return the folder of a run, by `run_facts`: the same configuration on the same cache gives the same."""
    # Grids of ablations and looks of pictures change nothing in an evaluation.
    config = {name: part for name, part in facts["config"].items() if name not in ("ablate", "plot")}
    return f"{command}-{stable_hash(json.dumps({**facts, 'config': config}, sort_keys=True))[:12]}"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line which file can't be read and what to do, whatever is wrong with it."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); run the command again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged; delete {path.parent} and run the command again") from error


def _left_over(folder: Path, result: Result) -> list[Path]:
    """Return the files of an earlier run that this one has no more."""
    gone = [folder / name for name, text in result.files.items() if text is None]
    try:
        before = read_page(folder)
    except InputError:
        return gone
    tables = set(before.tables) - set(result.tables)
    figures = {item.name for item in before.figures} - {item.name for item in result.figures}
    gone += [folder / f"table_{name}.{ending}" for name in sorted(tables) for ending in FORMATS]
    if result.figures:
        gone += [folder / f"{name}.{ending}" for name in sorted(figures) for ending in (*FIGURE_FORMATS, "csv")]
    return gone

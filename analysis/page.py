"""What every command that shows results leaves in its folder: `featlab report` puts a page together from it.

page.json           title, words, the command that was typed, names of tables and figures, facts about the run
table_<name>.*      each table as .json, .jsonl, .csv, .md and .tex
<figure>.*          each figure as .svg, .pdf and .png, and the numbers behind it as .csv
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.render import write_table
from featlab.analysis.table import Table
from featlab.cache import atomic_write_text
from featlab.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PAGE_FILE",
    "TABLE_ENDINGS",
    "DrawnFigure",
    "PageFigure",
    "ResultPage",
    "read_page",
    "read_table",
    "write_page",
]

PAGE_FILE = "page.json"
PAGE_FORMAT = 1
TABLE_ENDINGS = ("json", "jsonl", "csv", "md", "tex")


@dataclass(frozen=True)
class PageFigure:
    """One figure of a page.

    Attributes:
        name: File name without ending.
        title: A few words.
        caption: What it shows, a sentence or two.
    """

    name: str
    title: str
    caption: str


@dataclass(frozen=True, eq=False)
class DrawnFigure:
    """A figure that is still to be written.

    Attributes:
        page: Its name, title and caption.
        drawn: The figure.
        data: The numbers behind it, column by column.
    """

    page: PageFigure
    drawn: Figure
    data: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class ResultPage:
    """Results of one command, as they are shown.

    Attributes:
        kind: Which command: ``evaluate``, ``benchmark``, ``ablate``, ``plot``, ``complexity`` or ``branches``.
        title: One line.
        words: What the numbers say, a sentence each.
        command: What was typed; empty where it was called from Python.
        tables: Names of the tables, in order.
        figures: In order.
        facts: JSON-ready: what `featlab.evaluation.results.run_facts` gives.
    """

    kind: str
    title: str
    words: tuple[str, ...]
    command: str
    tables: tuple[str, ...]
    figures: tuple[PageFigure, ...]
    facts: Mapping[str, Any]


def write_page(
    folder: Path,
    *,
    kind: str,
    title: str,
    words: Sequence[str],
    command: str,
    tables: Mapping[str, Table],
    figures: Sequence[DrawnFigure],
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write figures, tables and at last ``page.json``: a page that is there is complete.

    Args:
        folder: Where; made if missing.
        kind: See `ResultPage`, as the others.
        title: One line.
        words: A sentence each.
        command: What was typed.
        tables: By name.
        figures: To be saved.
        facts: JSON-ready.

    Returns:
        The files, those to look at first.
    """
    from featlab.analysis.style import save_plot

    folder.mkdir(parents=True, exist_ok=True)
    # The page of an earlier run is about figures and tables that are about to change.
    (folder / PAGE_FILE).unlink(missing_ok=True)
    written: list[Path] = []
    for figure in figures:
        written += save_plot(folder, figure.page.name, figure.drawn, figure.data)
    for name, table in tables.items():
        for ending in TABLE_ENDINGS:
            written.append(folder / f"table_{name}.{ending}")
            write_table(written[-1], table)
    shown = tuple(figure.page for figure in figures)
    page = ResultPage(kind, title, tuple(words), command, tuple(tables), shown, facts)
    written.append(folder / PAGE_FILE)
    text = json.dumps({"format": PAGE_FORMAT, **asdict(page)}, indent=2, ensure_ascii=False)
    atomic_write_text(written[-1], text + "\n")
    return written


def read_page(folder: Path) -> ResultPage:
    """Read what `write_page` wrote.

    Raises:
        InputError: No page there, a damaged one, or one of a later version.
    """
    path = folder / PAGE_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != PAGE_FORMAT:
            raise InputError(f"{path}: written by another version of featlab; run the command again")
        data |= {name: tuple(data[name]) for name in ("words", "tables")}
        data["figures"] = tuple(PageFigure(**item) for item in data["figures"])
        return ResultPage(**data)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); run the command again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged; delete {folder} and run the command again") from error


def read_table(folder: Path, name: str) -> Table:
    """Read a table that `write_page` wrote.

    Raises:
        InputError: It isn't there, or is damaged.
    """
    path = folder / f"table_{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows, bold = (tuple(tuple(line) for line in data[key]) for key in ("rows", "bold"))
        columns, notes = tuple(data["columns"]), tuple(data["notes"])
        return Table(data["title"], columns, rows, bold, notes, data["text_columns"], data["grouped"])
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); run the command again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged; delete {folder} and run the command again") from error

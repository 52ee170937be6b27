"""A `Table` as terminal, Markdown, CSV, LaTeX, JSON or JSON Lines text."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from featlab.analysis.table import MISSING, Table, narrowed, number_of

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_READABLE = 90  # Letters on a line of running text.
_UNBROKEN = 50  # Letters of a name up to which it is never broken.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # a row that starts with a bracket would be read as the argument of the \\ before it
    "]": "{]}",
    "–": "--",
    "…": r"\ldots{}",
}


def to_rich(table: Table, *, wide: bool = False) -> RichTable:
    """Return it for a terminal; names are folded at spaces and hyphens, no word and no number is cut."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = table if wide else narrowed(table)
    # Text, not str: a subject named "[s1]" is a name, not markup.
    rich = RichTable(
        title=Text(table.title) if table.title else None,
        caption=Text("\n".join(table.notes)) if table.notes else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for place, column in enumerate(table.columns):
        # Rich takes width from every column alike: heads are folded here, so that no number is cut.
        widest = max((len(row[place]) for row in table.rows), default=0)
        head = textwrap.fill(column, max(widest, 8), break_long_words=False, break_on_hyphens=False)
        justify: Literal["left", "right"] = "left" if place < table.text_columns else "right"
        whole = place >= table.text_columns
        # Names to be typed again stay in one piece, where a line has room for them.
        words = [len(word) for row in table.rows for word in row[place].split() if len(word) <= _UNBROKEN]
        size: dict[str, Any] = {
            "min_width": widest if whole else max(words, default=0),
            "max_width": None if whole else _READABLE,
        }
        rich.add_column(Text(head), justify=justify, no_wrap=whole, overflow="fold", **size)
    for row, bold, ends in zip(_shown(table), table.bold, _group_ends(table), strict=True):
        cells = [Text(cell, style="bold" if strong else "") for cell, strong in zip(row, bold, strict=True)]
        rich.add_row(*cells, end_section=ends)
    return rich


def to_markdown(table: Table) -> str:
    """Return a GitHub table; the best in ``**``."""
    from featlab.cache.schema import as_markdown

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = ["---" if place < table.text_columns else "---:" for place in range(len(table.columns))]
    lines = [line([as_markdown(column) for column in table.columns]), line(rule)]
    for row, bold in zip(_shown(table), table.bold, strict=True):
        lines.append(
            line([_marked(as_markdown(cell), strong, "**", "**") for cell, strong in zip(row, bold, strict=True)])
        )
    title = [f"**{as_markdown(table.title)}**", ""] if table.title else []
    notes = ["", *(f"- {as_markdown(note)}" for note in table.notes)] if table.notes else []
    return "\n".join([*title, *lines, *notes]) + "\n"


def to_csv(table: Table) -> str:
    """Return the columns and rows alone, every cell filled: for a program or a spreadsheet."""
    return csv_text((table.columns, *table.rows))


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Return lines as csv; a spreadsheet takes no cell for a formula."""
    from featlab.cache.schema import as_cell

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(as_cell, line) for line in lines)
    return text.getvalue()


def to_latex(table: Table) -> str:
    r"""Return a ``table`` environment with booktabs rules; needs ``\usepackage{booktabs}`` and nothing else."""

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    body = [line([_latex(column) for column in table.columns]), r"    \midrule"]
    ends = _group_ends(table)
    for place, (row, bold) in enumerate(zip(_shown(table), table.bold, strict=True)):
        body.append(
            line([_marked(_latex(cell), strong, r"\textbf{", "}") for cell, strong in zip(row, bold, strict=True)])
        )
        if ends[place] and place + 1 < len(table.rows):
            body.append(r"    \midrule")
    alignment = "l" * table.text_columns + "r" * (len(table.columns) - table.text_columns)
    caption = [rf"  \caption{{{_latex(table.title)}}}"] if table.title else []
    notes = [rf"  \par\smallskip\footnotesize {_latex(note)}" for note in table.notes]
    head = [r"\begin{table}", r"  \centering", *caption, rf"  \begin{{tabular}}{{{alignment}}}", r"    \toprule"]
    return "\n".join([*head, *body, r"    \bottomrule", r"  \end{tabular}", *notes, r"\end{table}"]) + "\n"


def to_json(table: Table) -> str:
    """Return all of it as one object: title, columns, rows (every cell filled, as shown), bold, notes and layout."""
    return json.dumps(vars(table), ensure_ascii=False, indent=2) + "\n"


def to_jsonl(table: Table) -> str:
    """Return one object a row, column to cell: numbers as shown, a dash as null; JSON Lines for a program."""

    def value(cell: str) -> str | float | None:
        number = number_of(cell)
        if number is None:
            return None if cell == MISSING else cell
        return int(cell) if cell.isdigit() else number

    lines = [
        {
            column: value(cell) if place >= table.text_columns else cell
            for place, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        }
        for row in table.rows
    ]
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "json": to_json,
    "jsonl": to_jsonl,
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
}
"""How the files of a table end, and what is in them."""


def _shown(table: Table) -> list[tuple[str, ...]]:
    """Return the rows with a group's name only on its first row, as on paper."""
    if not table.grouped:
        return list(table.rows)
    shown, before = [], None
    for row in table.rows:
        shown.append(("", *row[1:]) if row[0] == before else row)
        before = row[0]
    return shown


def _group_ends(table: Table) -> list[bool]:
    """Return for each row whether the next one, if any, starts a new group."""
    names = [row[0] for row in table.rows]
    return [table.grouped and names[place : place + 2] != [name, name] for place, name in enumerate(names)]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _marked(cell: str, strong: bool, start: str, end: str) -> str:
    return f"{start}{cell}{end}" if strong else cell

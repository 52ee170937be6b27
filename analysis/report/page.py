"""A report as one HTML file: no network, no script or style but its own, plain tables and pictures without a script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from featlab.analysis.render import to_csv, to_latex
from featlab.analysis.report.collect import SVG, Report, ReportFigure, ReportPage
from featlab.analysis.report.provenance import (
    changed_settings,
    commands,
    configurations,
    origins,
    protocol_summary,
    sources_of,
)
from featlab.analysis.table import Table
from featlab.cache.atomic import atomic_write_text

_SCREEN = 96.0 * 1.5  # Pixels of an inch of a figure: letters of 7 points are read like letters of 10.
_LARGE = 4.5  # Inches from which on a figure is not squeezed onto a phone: it scrolls in its box.
_WIDE = 12  # Columns from which on a table is printed on a page that lies on its side.
_BREAKS = re.compile(r"(?<=[_/])|(?<=\.)(?=[A-Za-z_])")  # Where a name may be broken; a number is never.
_TOGETHER = re.compile(r"\[[-\d., ]+\]|\bp [<=] [\d.]+|\d %")
_MEDIA = {"pdf": "application/pdf", "csv": "text/csv;charset=utf-8", "tex": "text/plain;charset=utf-8"}
_SAFE_IN_SVG = " /:;,=()+-_.?&*!@~$"
"""Letters that a data URI takes as they are, so that an SVG grows by a twentieth in place of a third."""
_SAID = {"svg": "SVG", "pdf": "PDF", "csv": "CSV", "tex": "LaTeX"}


@dataclass(frozen=True)
class _File:
    """A file that can be saved: what the link says, how it is called when it is saved, and the file."""

    said: str
    name: str
    uri: str


@dataclass(frozen=True, eq=False)
class _TableView:
    """A table as the template takes it."""

    table: Table
    id: str
    title: str
    files: tuple[_File, ...]

    @property
    def wide(self) -> bool:
        """Whether it needs a page on its side."""
        return len(self.table.columns) > _WIDE

    @property
    def name_column(self) -> int:
        """The column that says what a row is about: the first, after that of the groups; -1 where all are numbers."""
        return min(1 if self.table.grouped else 0, self.table.text_columns - 1)


@dataclass(frozen=True, eq=False)
class _FigureView:
    """A figure as the template takes it."""

    figure: ReportFigure
    id: str
    uri: str
    drawing: str
    files: tuple[_File, ...]
    left_out: tuple[str, ...]

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height on a screen that has room for them."""
        width, height = self.figure.size
        return round(width * _SCREEN), round(height * _SCREEN)

    @property
    def large(self) -> bool:
        """Whether it scrolls on a phone."""
        return self.figure.size[0] >= _LARGE


@dataclass(frozen=True, eq=False)
class _PageView:
    """Results of one command as the template takes them."""

    item: ReportPage
    id: str
    title: str
    tables: tuple[_TableView, ...]
    figures: tuple[_FigureView, ...]
    origin: str

    @property
    def summary(self) -> tuple[str, ...]:
        """What the numbers say, a sentence each."""
        return self.item.page.summary


def write_report(path: Path, report: Report) -> int:
    """Write a report as one HTML file, whole or not at all; the same pages give the same bytes."""
    text = render_report(report)
    atomic_write_text(path, text)
    return len(text.encode("utf-8"))


def render_report(report: Report) -> str:
    """Return a report as HTML."""
    pages = [item.page for item in report.pages]
    found = origins(pages)
    # Where all come from one place, the end of the report says so once.
    short = {place: origin.short() for origin, places in found for place in places} if len(found) > 1 else {}
    top = report.evaluation
    views = []
    for place, item in enumerate(report.pages):
        # The same command on two data sets gives two pages of one title.
        alike = [page.title for page in pages].count(item.page.title) > 1
        title = f"{item.page.title} ({item.folder.name})" if alike else item.page.title
        views.append(_page_view(item, f"page-{place + 1}", title, short.get(place, "")))
    style, script, template = (_resource(name) for name in ("report.css", "report.js", "template.html"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = _breakable
    environment.filters["kept"] = _kept
    environment.filters["sections"] = _sections_text
    environment.filters["numbers"] = _numbers
    return environment.from_string(template).render(
        report=report,
        top=None if top is None else views[top],
        views=views,
        sources=sources_of(pages),
        changed=changed_settings(pages),
        configurations=configurations(pages),
        protocol=protocol_summary(pages[top or 0]),
        commands=commands(pages),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _page_view(item: ReportPage, name: str, title: str, origin: str) -> _PageView:
    tables = tuple(
        _TableView(table, f"{name}-table-{place}", table.title or key, _table_files(f"{item.folder.name}_{key}", table))
        for place, (key, table) in enumerate(item.tables.items(), start=1)
    )
    figures = tuple(
        _figure_view(item.folder.as_posix(), figure, f"{name}-figure-{place}")
        for place, figure in enumerate(item.figures, start=1)
    )
    return _PageView(item, name, title, tables, figures, origin)


def _table_files(name: str, table: Table) -> tuple[_File, ...]:
    texts = {"csv": to_csv(table), "tex": to_latex(table)}
    return tuple(_file(f"{name}.{ending}", ending, text.encode("utf-8")) for ending, text in texts.items())


def _figure_view(folder: str, figure: ReportFigure, name: str) -> _FigureView:
    saved = f"{folder.rpartition('/')[2]}_{figure.page.name}"
    files = tuple(_file(f"{saved}.{ending}", ending, data) for ending, data in figure.files.items())
    drawn = figure.media == SVG
    uri = svg_uri(figure.shown) if drawn else data_uri(figure.media, figure.shown)
    drawing = f"{saved}.svg" if drawn else ""
    left_out = tuple(f"{folder}/{figure.page.name}.{ending}" for ending in figure.left_out)
    return _FigureView(figure, name, uri, drawing, files, left_out)


def _file(name: str, ending: str, data: bytes) -> _File:
    return _File(_SAID[ending], name, data_uri(_MEDIA[ending], data))


def data_uri(kind: str, data: bytes) -> str:
    """Return a file of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def svg_uri(svg: bytes) -> str:
    """Return an SVG as a data URI that is read back byte by byte."""
    return f"data:{SVG},{quote(svg, safe=_SAFE_IN_SVG)}"


def _resource(name: str) -> str:
    return files("featlab.analysis.report").joinpath(name).read_text(encoding="utf-8")


def _breakable(text: str) -> Markup:
    """Return a name that may go onto another line after an underscore, a slash or a dot."""
    return Markup(_BREAKS.sub("<wbr>", str(escape(text))))


def _kept(text: str) -> str:
    """Return a sentence whose intervals and p values stay on one line each."""
    return _TOGETHER.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def _sections_text(places: Sequence[int]) -> str:
    """Return ``sections 1–3, 5`` for the pages 0, 1, 2 and 4."""
    return f"section{'' if len(places) == 1 else 's'} {_numbers(places)}"


def _numbers(places: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in (place + 1 for place in places):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing is loaded, and no style or script runs but the two of this file."""

    def only(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; img-src data:; style-src {only(style)}; script-src {only(script)}; "
        "base-uri 'none'; form-action 'none'"
    )

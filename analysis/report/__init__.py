"""A report as one HTML file: no network, no script or style but its own, plain tables and pictures without a script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from featlab.analysis.page import Page
from featlab.analysis.render import to_csv, to_latex
from featlab.analysis.report import collect
from featlab.analysis.table import Table
from featlab.cache.atomic import atomic_write_text

_SCREEN = 96.0 * 1.5  # Pixels of an inch of a figure: letters of 7 points are read like letters of 10.
_LARGE = 4.5  # Inches from which on a figure is not squeezed onto a phone: it scrolls in its box.
_WIDE = 12  # Columns from which on a table is printed on a page that lies on its side.
_BREAKS = re.compile(r"(?<=[_/])|(?<=\.)(?=[A-Za-z_])")  # Where a name may be broken; a number is never.
_TOGETHER = re.compile(r"\[[-\d., ]+\]|\bp [<=] [\d.]+|\d %")
_FILES = {
    "pdf": ("PDF", "application/pdf"),
    "csv": ("CSV", "text/csv;charset=utf-8"),
    "tex": ("LaTeX", "text/plain;charset=utf-8"),
}
"""Ending to what the link says, and the media type."""
_SAFE_IN_SVG = " /:;,=()+-_.?&*!@~$"
"""Letters that a data URI takes as they are, so that an SVG grows by a twentieth in place of a third."""


View = dict[str, Any]  # What the template takes of a page, a table, a figure or a file that can be saved.


def write_report(path: Path, report: collect.Report) -> int:
    """Write a report as one HTML file, whole or not at all; the same pages give the same bytes."""
    text = render_report(report)
    atomic_write_text(path, text)
    return len(text.encode("utf-8"))


def render_report(report: collect.Report) -> str:
    """Return a report as HTML."""
    pages = [item.page for item in report.pages]
    top = report.evaluation
    views = []
    for number, item in enumerate(report.pages, start=1):
        # The same command on two data sets gives two pages of one title.
        alike = [page.title for page in pages].count(item.page.title) > 1
        view: View = {
            "id": f"page-{number}",
            "title": f"{item.page.title} ({item.folder.name})" if alike else item.page.title,
            "summary": item.page.summary,
            "tables": [_table_view(item.folder, key, table) for key, table in item.tables.items()],
            "figures": [_figure_view(item.folder, figure) for figure in item.figures],
        }
        for kind in ("table", "figure"):
            for place, part in enumerate(view[f"{kind}s"], start=1):
                part["id"] = f"page-{number}-{kind}-{place}"
        views.append(view)
    resources = [files("featlab.analysis.report") / name for name in ("report.css", "report.js", "template.html")]
    style, script, template = (resource.read_text(encoding="utf-8") for resource in resources)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": _breakable, "kept": _kept, "numbers": _numbers}
    return environment.from_string(template).render(
        report=report,
        top=None if top is None else views[top],
        views=views,
        sources=collect.places_of([collect.facts_of(page) for page in pages]),
        changed=collect.changed_settings(pages),
        configurations=configurations(pages),
        protocol=collect.protocol_summary(pages[top or 0]),
        commands=commands(pages),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def configurations(pages: Sequence[Page]) -> list[tuple[str, list[int]]]:
    """Return each whole configuration, a setting a line, and the pages that have it, counted from 0."""
    settings = [collect.settings_of(page) for page in pages]
    texts = ["\n".join(f"{key} = {value}" for key, value in part.items()) for part in settings]
    return [(text, places) for text, places in collect.places_of(texts) if text]


def commands(pages: Sequence[Page]) -> list[str]:
    """Return what reproduces the pages, each command once; a page that no command made is a comment."""
    lines = [page.command or f"# {page.title}: called from Python" for page in pages]
    return list(dict.fromkeys(" ".join(line.splitlines()) for line in lines))


def _table_view(folder: Path, key: str, table: Table) -> View:
    texts = {"csv": to_csv(table), "tex": to_latex(table)}
    return {
        "table": table,
        "title": table.title or key,
        "files": [_file(f"{folder.name}_{key}", ending, text.encode("utf-8")) for ending, text in texts.items()],
        "wide": len(table.columns) > _WIDE,
        # What a row is about: the first column, after that of the groups; -1 where all are numbers.
        "name_column": min(1 if table.grouped else 0, table.text_columns - 1),
    }


def _figure_view(folder: Path, figure: collect.ReportFigure) -> View:
    saved = f"{folder.name}_{figure.page.name}"
    drawn = figure.media == collect.SVG
    return {
        "page": figure.page,
        "uri": (
            f"data:{collect.SVG},{quote(figure.shown, safe=_SAFE_IN_SVG)}"
            if drawn
            else data_uri(figure.media, figure.shown)
        ),
        "drawing": f"{saved}.svg" if drawn else "",
        "files": [_file(saved, ending, data) for ending, data in figure.files.items()],
        # Width and height on a screen that has room for them; a large one scrolls on a phone.
        "pixels": [round(inches * _SCREEN) for inches in figure.size],
        "large": figure.size[0] >= _LARGE,
    }


def _file(name: str, ending: str, data: bytes) -> View:
    said, media = _FILES[ending]
    return {"said": said, "name": f"{name}.{ending}", "uri": data_uri(media, data)}


def data_uri(kind: str, data: bytes) -> str:
    """Return a file of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _breakable(text: str) -> Markup:
    """Return a name that may go onto another line after an underscore, a slash or a dot."""
    return Markup(_BREAKS.sub("<wbr>", str(escape(text))))


def _kept(text: str) -> str:
    """Return a sentence whose intervals and p values stay on one line each."""
    return _TOGETHER.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def _numbers(places: Sequence[int]) -> str:
    """Return ``1, 2, 5`` for the pages 0, 1 and 4."""
    return ", ".join(str(place + 1) for place in places)


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing is loaded, and no style or script runs but the two of this file."""

    def only(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; img-src data:; style-src {only(style)}; script-src {only(script)}; "
        "base-uri 'none'; form-action 'none'"
    )

"""The demo as one page: tables, pictures and commands in a single file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from featlab.analysis.demo.figures import DemoFigure
from featlab.analysis.demo.html_parts import BASE_STYLE, data_uri, jpeg_of
from featlab.analysis.table import Table

__all__ = ["render_page"]

_VECTOR = ("subjects", "summary", "projection")
"""Figures without photographs: sharp at any size, and smaller as .svg."""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>featlab demo</title>
<style>
{{ base_style | safe }}
figure img { display: block; width: 100%; height: auto; background: #fff; padding: .6rem; }
@media (max-width: 40rem) {
  body { padding-top: 1rem; }
  figure img { min-width: 40rem; }
  .setting { display: none; }
  .words:not(.setting) { position: sticky; left: 0; background: var(--back); white-space: normal; min-width: 8.5rem; }
}
</style>
</head>
<body>
<h1>featlab demo</h1>
<p class="lead">Personalise expression recognition to one new person from a short neutral clip, on cached features,
without the source data.</p>
<p class="note">{{ note }}</p>
{% for line in words %}<p>{{ line }}</p>
{% endfor %}
{% for table in tables %}
<h2>{{ table.title }}</h2>
{% macro words(table, place) %}{% if place < table.text_columns %} class="words\
{% if table.grouped and place == 0 %} setting{% endif %}"{% endif %}{% endmacro %}
<div class="scroll"><table>
<thead><tr>{% for column in table.columns %}\
<th{{ words(table, loop.index0) }}>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}{% set bold = table.bold[loop.index0] %}\
{% set again = table.grouped and loop.previtem is defined and loop.previtem[0] == row[0] %}\
<tr{% if table.grouped and not again %} class="group"{% endif %}>{% for cell in row %}\
<td{{ words(table, loop.index0) }}>\
{% if loop.first and again %}{% elif bold[loop.index0] %}<b>{{ cell }}</b>{% else %}{{ cell }}{% endif %}</td>\
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for line in table.notes %}<p class="under">{{ line }}</p>
{% endfor %}{% endfor %}
{% for figure in figures %}
<h2>{{ figure.title }}</h2>
<figure><div class="scroll"><img src="{{ images[figure.name] }}" alt="{{ figure.title }}"></div>
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
<h2>What was done</h2>
<pre>{{ steps | join("\\n") }}</pre>
<h2>What to type next</h2>
<pre>{{ commands | join("\\n") }}</pre>
<h2>From what</h2>
<dl>{% for name, value in facts.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</body>
</html>
"""


def render_page(
    *,
    note: str,
    words: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[DemoFigure],
    folder: Path,
    steps: Sequence[str],
    commands: Sequence[str],
    facts: Mapping[str, Any],
) -> str:
    """Return the page as HTML.

    Args:
        note: What these numbers are not.
        words: What they say, a sentence each.
        tables: Shown as they are.
        figures: Embedded, in this order.
        folder: Where the figures' files are.
        steps: What was done, a line each.
        commands: What to type next, a line each.
        facts: Versions and digests.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False).from_string(_PAGE)
    images = {figure.name: _embedded(folder, figure.name) for figure in figures}
    return page.render(
        base_style=BASE_STYLE,
        note=note,
        words=words,
        tables=tables,
        figures=figures,
        images=images,
        steps=steps,
        commands=commands,
        facts=facts,
    )


def _embedded(folder: Path, name: str) -> str:
    """Return a figure as a data URI: drawings as they are, photographs as JPEG, a tenth of the .png."""
    if name in _VECTOR:
        return data_uri("image/svg+xml", (folder / f"{name}.svg").read_bytes())
    return data_uri("image/jpeg", jpeg_of(folder / f"{name}.png"))

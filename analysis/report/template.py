"""The HTML of a report, as jinja2 takes it."""

from __future__ import annotations

__all__ = ["TEMPLATE"]

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{{ report.title }}</title>
<style>{{ style }}</style>
</head>
<body>
{% macro files(said, items) %}
{% for item in items %}
<a href="{{ item.uri }}" download="{{ item.name }}">{{ item.said }}<span class="unseen"> of {{ said }}</span></a>
{% endfor %}
{% endmacro %}
{% macro cells(view, row, bold) %}
{% for cell in row %}
{% set at = loop.index0 %}
{% set words = at < view.table.text_columns %}
{% set name = at == view.name_column %}
<{{ "th scope=row" if name else "td" }}\
{% if words %} class="words{{ " name" if name }}{{ " setting" if view.table.grouped and not name and at == 0 }}"\
{% endif %}{% if name and view.table.grouped and at > 0 %} data-group="{{ row[0] }}"{% endif %}>\
{% if bold[at] %}<b>{% endif %}{{ cell | breakable if words else cell }}{% if bold[at] %}</b>{% endif %}\
</{{ "th" if name else "td" }}>
{% endfor %}
{% endmacro %}
{% macro table(view) %}
<div{% if view.wide %} class="wide"{% endif %}>
<div class="scroll" role="region" aria-labelledby="{{ view.id }}" tabindex="0">
<table class="sorts{{ " grouped" if view.table.grouped }}">
<caption><h3 id="{{ view.id }}">{{ view.title }}</h3></caption>
<thead><tr>
{% for column in view.table.columns %}
{% set at = loop.index0 %}
<th scope="col"{% if at < view.table.text_columns %} class="words{{ " name" if at == view.name_column }}\
{{ " setting" if view.table.grouped and at == 0 and at != view.name_column }}"{% endif %}>{{ column | breakable }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in view.table.rows %}
{% set again = view.table.grouped and loop.previtem is defined and loop.previtem[0] == row[0] %}
<tr{% if view.table.grouped %} class="{{ "again" if again else "group" }}"{% endif %}>
{{ cells(view, row, view.table.bold[loop.index0]) }}</tr>
{% endfor %}
</tbody>
</table></div>
{% for line in view.table.notes %}
<p class="under">{{ line | kept }}</p>
{% endfor %}
<p class="files">Save as:
{{ files(view.title, view.files) }}</p>
</div>
{% endmacro %}
{% macro picture(view) %}
<figure>
<h3 id="{{ view.id }}">{{ view.figure.page.title }}</h3>
<div class="picture{{ " large" if view.large }}"{% if view.large %} role="region" aria-labelledby="{{ view.id }}" \
tabindex="0"{% endif %}>
<img id="{{ view.id }}-drawing" src="{{ view.uri }}" alt="{{ view.figure.page.title }}" \
width="{{ view.pixels[0] }}" height="{{ view.pixels[1] }}"></div>
<figcaption>{{ view.figure.page.caption }}</figcaption>
<p class="files">Save as:
{% if view.drawing %}
<a class="scripted" data-drawing="{{ view.id }}-drawing" download="{{ view.drawing }}">SVG\
<span class="unseen"> of {{ view.figure.page.title }}</span></a>
{% endif %}
{{ files(view.figure.page.title, view.files) }}\
{% if view.left_out %}Too large to be in here: {{ view.left_out | join(", ") }}{% endif %}</p>
</figure>
{% endmacro %}
<a class="skip" href="#main">Skip to the results</a>
<header>
<h1>{{ report.title }}</h1>
<p class="lead">Numbers, pictures and how they were made, in one file that loads nothing.\
<span class="scripted"> Tables are sorted by a click on the head of a column.</span></p>
</header>
<div class="layout">
<nav aria-label="Contents"><details open><summary>Contents</summary>
<ol>
{% if top %}<li><a href="#summary">Summary</a></li>{% endif %}
{% for view in views %}
<li><a href="#{{ view.id }}">{{ loop.index }}. {{ view.title }}</a></li>
{% endfor %}
<li><a href="#made">How it was made</a></li>
</ol></details></nav>
<main id="main">
{% if report.warnings() %}
<div class="note" role="note"><ul>{% for line in report.warnings() %}<li>{{ line | kept }}</li>{% endfor %}</ul></div>
{% endif %}
{% if top %}
<section id="summary">
<h2>Summary</h2>
<ul>{% for line in top.item.page.summary %}<li>{{ line | kept }}</li>{% endfor %}</ul>
<p class="from">Of <a href="#{{ top.id }}">{{ top.title }}</a>.</p>
</section>
{% endif %}
{% for view in views %}
<section id="{{ view.id }}">
<h2>{{ loop.index }}. {{ view.title }}</h2>
{% if view.origin %}<p class="from">From {{ view.origin }}.</p>{% endif %}
{% if view.words %}<ul>{% for line in view.words %}<li>{{ line | kept }}</li>{% endfor %}</ul>{% endif %}
{% if view is sameas top %}<p class="from">In words: see the <a href="#summary">summary</a>.</p>{% endif %}
{% if view.tables | length + view.figures | length > 2 %}
<p class="jump">{% for item in view.tables %}<a href="#{{ item.id }}">{{ item.title }}</a>{% endfor %}
{% for item in view.figures %}<a href="#{{ item.id }}">{{ item.figure.page.title }}</a>{% endfor %}</p>
{% endif %}
{% for item in view.tables %}{{ table(item) }}{% endfor %}
{% for item in view.figures %}{{ picture(item) }}{% endfor %}
</section>
{% endfor %}
<section id="made">
<h2>How it was made</h2>
{% if protocol %}
<h3>Protocol</h3>
<ul>{% for line in protocol %}<li>{{ line | kept }}</li>{% endfor %}</ul>
{% endif %}
<h3>Commands</h3>
<div class="copied"><button type="button" class="scripted" aria-live="polite">Copy</button>
<pre tabindex="0">{{ commands | join("\\n") }}</pre></div>
<h3>From what</h3>
{% for facts, places in sources %}
{% if places | length < views | length %}<p>Of {{ places | sections }}:</p>{% endif %}
<dl>{% for name, value in facts.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% endfor %}
{% if configurations %}
<h3 id="settings">Settings that differ from the defaults</h3>
{% if changed %}
<div class="scroll" role="region" aria-labelledby="settings" tabindex="0"><table class="settings">
<thead><tr><th scope="col" class="words name">Setting</th><th scope="col" class="words">Default</th>\
<th scope="col" class="words">Here</th>\
{% if views | length > 1 %}<th scope="col" class="words">Sections</th>{% endif %}</tr></thead>
<tbody>
{% for item in changed %}
<tr><th scope="row" class="words name">{{ item.key | breakable }}</th>\
<td class="words">{{ item.default | breakable }}</td><td class="words">{{ item.value | breakable }}</td>\
{% if views | length > 1 %}<td class="words">\
{{ "all" if item.pages | length == views | length else item.pages | numbers }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>None.</p>
{% endif %}
{% for text, places in configurations %}
<details><summary>The whole configuration\
{% if configurations | length > 1 %} of {{ places | sections }}{% endif %}</summary>
<pre tabindex="0">{{ text }}</pre></details>
{% endfor %}
{% endif %}
</section>
</main>
</div>
<script>{{ script }}</script>
</body>
</html>
"""

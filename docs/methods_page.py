"""Write the pages of all methods from their registry: an overview, and a page for each family.

python docs/methods_page.py docs
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featlab.config.options import options_of
from featlab.methods.base import Method
from featlab.methods.registry import get_method, method_names, needs

_COMMAND = "python docs/methods_page.py docs"


def methods_pages(names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the pages by their place: an overview, then of each setting what its methods need, change, and offer."""
    groups: dict[str, list[type[Method]]] = {}
    for name in method_names() if names is None else names:
        groups.setdefault(get_method(name).setting, []).append(get_method(name))
    lines = [
        "# Methods",
        "",
        "What each needs and changes. Its family's page has its options, and where it departs from its paper.",
        "",
    ]
    lines += [f"Made from the registry by `{_COMMAND}`: edit the methods, not these pages.", ""]
    lines += ["| name | method | needs | changes |", "|---|---|---|---|"]
    pages = {}
    for setting, methods in groups.items():
        place = f"methods/{re.sub(r'[^a-z]+', '-', setting.lower()).strip('-')}.md"
        lines.append(f"| **[{_cell(setting)}]({place})** | | | |")
        page, told = [f"# {setting}"], dict[str, str]()
        for method in methods:
            wanted = ", ".join(needs(method)) or "–"
            lines.append(f"| `{method.name}` | {_cell(method.title)} | {_cell(wanted)} | {_changes(method)} |")
            page += ["", *_method(method, told)]
        pages[place] = "\n".join(page) + "\n"
    return {"methods.md": "\n".join(lines) + "\n", **pages}


def _method(method: type[Method], told: dict[str, str]) -> list[str]:
    lines = [
        f"## `{method.name}`: {method.title}",
        "",
        _first_paragraph(method),
        "",
        " ".join(method.published.split()),
    ]
    bank = "statistics of the source subjects (the style bank)" if method.needs_style_bank else ""
    facts = {
        "Needs": ", ".join(needs(method)) or "nothing but the source model and the target's rows",
        "Leaves the source site": ", ".join(filter(None, [bank, method.carries])),
        "Changes": _changes(method),
        "Fewest target rows": f"{method.minimum_rows(2)} for 2 classes, {method.minimum_rows(7)} for 7",
        "Target of one class": "supported"
        if method.supports_single_class
        else "runs, but the objective expects all classes",
    }
    lines += ["", *(f"- {name}: {text}" for name, text in facts.items() if text)]
    return lines + _options(method, told)


def _options(method: type[Method], told: dict[str, str]) -> list[str]:
    config, space = method.config_type(), dict(method.space)
    declared = options_of(method.config_type)
    if not declared:
        return ["- Options: none"]
    rows, same = [], []
    for name, option in declared.items():
        tuned = ", ".join(f"`{_value(value)}`" for value in space.get(name, ())) or "–"
        only = f"Only with {option.only}." if option.only else ""
        text = " ".join(filter(None, [option.help, only])) or "–"
        row = f"| `{name}` | `{_value(getattr(config, name))}` | {tuned} | {_cell(text)} |"
        # What a page has told last of an option it does not tell again.
        if told.get(text) == row:
            same.append(f"`{name}`")
        else:
            rows.append(row if text not in told else row.replace(_cell(text), "as above"))
        told[text] = row
    table = ["", "| option | default | tuned over | what it is |", "|---|---|---|---|", *rows] if rows else []
    return [*([f"- Options as above: {', '.join(same)}"] if same else []), *table]


def _changes(method: type[Method]) -> str:
    return ", ".join(method.updates) or "nothing"


def _first_paragraph(method: type[Method]) -> str:
    # Not inspect.getdoc, which falls back on the base class.
    return " ".join(inspect.cleandoc(method.__doc__ or "").split("\n\n")[0].split())


def _value(value: Any) -> str:
    """Return a value as it is given to ``--set``."""
    if isinstance(value, tuple):
        return ",".join(map(_value, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Where methods.md and methods/ are written.")
    folder = parser.parse_args().folder
    for place, text in methods_pages().items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main()

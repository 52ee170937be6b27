"""Write the page of all methods from their registry.

python docs/methods_page.py docs/methods.md
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featlab.config.options import options_of
from featlab.methods.base import Method
from featlab.methods.registry import get_method, method_names, needs

_COMMAND = "python docs/methods_page.py docs/methods.md"


def methods_page(names: Sequence[str] | None = None) -> str:
    """Return the page: an overview, then the methods of each setting with what they need, change and can be set to."""
    groups: dict[str, list[type[Method]]] = {}
    for name in method_names() if names is None else names:
        groups.setdefault(get_method(name).setting, []).append(get_method(name))
    lines = ["# Methods", "", f"Made from the registry by `{_COMMAND}`; edit the methods, not this page.", ""]
    lines += ["| name | method | needs | changes |", "|---|---|---|---|"]
    for setting, methods in groups.items():
        lines.append(f"| **{_cell(setting)}** | | | |")
        for method in methods:
            wanted = ", ".join(needs(method)) or "–"
            lines.append(f"| `{method.name}` | {_cell(method.title)} | {_cell(wanted)} | {_changes(method)} |")
    for setting, methods in groups.items():
        lines += ["", f"## {setting}"]
        for method in methods:
            lines += ["", *_method(method)]
    return "\n".join(lines) + "\n"


def _method(method: type[Method]) -> list[str]:
    lines = [
        f"### `{method.name}`: {method.title}",
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
    return lines + _options(method)


def _options(method: type[Method]) -> list[str]:
    config, space = method.config_type(), dict(method.space)
    declared = options_of(method.config_type)
    if not declared:
        return ["- Options: none"]
    lines = ["", "| option | default | tuned over | what it is |", "|---|---|---|---|"]
    for name, option in declared.items():
        tuned = ", ".join(f"`{_value(value)}`" for value in space.get(name, ())) or "–"
        only = f"Only with {option.only}." if option.only else ""
        text = " ".join(filter(None, [option.help, only])) or "–"
        lines.append(f"| `{name}` | `{_value(getattr(config, name))}` | {tuned} | {_cell(text)} |")
    return lines


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
    parser.add_argument("page", type=Path, help="Markdown file to write.")
    parser.parse_args().page.write_text(methods_page(), encoding="utf-8")


if __name__ == "__main__":
    _main()

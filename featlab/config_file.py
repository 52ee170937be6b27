"""A `featlab.toml` with every setting, written from the docstrings of the configuration so that it stays true."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from dataclasses import fields, is_dataclass
from typing import Any

from featlab.config import Config

__all__ = ["config_template", "described"]

_WIDTH = 100
_ENTRY = re.compile(r"    (\w+): (.*)")
_HEAD = """\
## The workspace's settings. A line like "# key = value" shows a default: take its "# " away and change it.
## A flag beats this file (--set section.key=value sets any of these), this file beats the default.
"""


def config_template() -> str:
    """Return the text of a `featlab.toml`: every section, every default as a comment, what it means above it."""
    config = Config()
    top = [_entry(name, text, getattr(config, name)) for name, text in described(Config).items()]
    sections = [
        _section(item.name, getattr(config, item.name))
        for item in fields(config)
        if is_dataclass(getattr(config, item.name))
    ]
    return "\n".join([_HEAD, *top, *sections])


def described(config: type[Any]) -> dict[str, str]:
    """Return what the class docstring's ``Attributes`` section says of each field, on one line each."""
    found: dict[str, str] = {}
    name = ""
    lines = inspect.getdoc(config) or ""
    for line in lines.partition("Attributes:\n")[2].splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry:
            name = entry[1]
            found[name] = entry[2]
        elif line.startswith("        ") and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return {key: text.replace("``", "") for key, text in found.items()}


def _section(name: str, part: Any) -> str:
    texts = described(type(part))
    summary = (inspect.getdoc(type(part)) or "").partition("\n")[0].replace("``", "")
    lines = [*_comment(summary), f"[{name}]"]
    for item in fields(part):
        value = getattr(part, item.name)
        if isinstance(value, dict):
            # A table of tables has no default to show, and an empty one would hide what it is for.
            lines += [*_comment(texts[item.name])]
        else:
            lines.append(_entry(item.name, texts[item.name], value).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _entry(name: str, text: str, value: Any) -> str:
    return "\n".join([*_comment(text), f"# {name} = {_toml(value)}"]) + "\n"


def _comment(text: str) -> list[str]:
    """Return comment lines; two signs, so that a comment is never taken for a setting to be uncommented."""
    return [f"## {line}" for line in textwrap.wrap(text, _WIDTH)]


def _toml(value: Any) -> str:
    """Return a TOML value; JSON's text is the same for words, truth, numbers and lists of them."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)

"""A `featlab.toml` with every option, written from their declarations, and keys set in one that is there."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from featlab.config.load import SECTIONS, Config
from featlab.config.options import Option, options_of
from featlab.errors import ConfigError

_WIDTH = 100
_HEAD = """\
## The workspace's settings. A line like "# key = value" shows a default: take its "# " away and change it.
## A flag beats this file (--set section.key=value sets any of these), this file beats the default.
"""


def config_template() -> str:
    """Return the text of a `featlab.toml`: every section, every default as a comment, what it means above it."""
    config = Config()
    top = [*_entry("cache", options_of(Config)["cache"], config.cache), ""]
    return "\n".join([_HEAD, *top, *(line for name in SECTIONS for line in _section(name, getattr(config, name)))])


def _section(name: str, part: Any) -> list[str]:
    """Return the lines of a section; options that are read only with others stand in groups, below the rest."""
    lines = [*_comment(inspect.getdoc(type(part)) or ""), f"[{name}]"]
    groups: dict[str, list[str]] = {"": []}
    for key, declared in options_of(type(part)).items():
        group = groups.setdefault(declared.only or "", [])
        value = getattr(part, key)
        # A table of tables has no default to show, and an empty one would hide what it is for.
        group += _comment(declared.help or "") if isinstance(value, dict) else _entry(key, declared, value)
    for only, group in groups.items():
        lines += [*(["##", *_comment(f"Only with {only}:")] if only else []), *group]
    return [*lines, ""]


def _entry(name: str, declared: Option, value: Any) -> list[str]:
    return [*_comment(declared.help or ""), f"# {name} = {toml_value(value)}"]


def _comment(text: str) -> list[str]:
    """Return comment lines; two signs, so that a comment is never taken for a setting to be uncommented."""
    return [f"## {line}" for line in textwrap.wrap(text.replace("`", ""), _WIDTH)]


def toml_value(value: Any) -> str:
    """Return a setting as TOML; an option without a value is the word that the configuration reads as none."""
    # JSON's text is the same for words, truth, numbers and lists of them.
    return json.dumps(_plain(value), ensure_ascii=False)


def section_text(section: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a section of its own: the header and a line for each value."""
    lines = [
        f"[{tomlkit.key(section).as_string()}]",
        *(f"{key} = {toml_value(value)}" for key, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def set_in_section(text: str, section: Sequence[str], values: Mapping[str, Any], where: str) -> str:
    """Return a TOML text with some keys of a section set and all else as it was; a missing section goes to the end.

    The section is a path such as ``("adapt", "shot")``; ``where`` is the file's name, for the message.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    body = text.removeprefix(mark).replace("\r\n", "\n")
    document = _parsed(body, f"{where}: not valid TOML")
    part: Any = document
    for name in section:
        part = part.get(name) if isinstance(part, dict) else None
    if isinstance(part, dict):
        for key, value in values.items():
            if key not in part or part[key] != _plain(value):
                part[key] = _plain(value)
        body = tomlkit.dumps(document)
    else:
        body = f"{body.rstrip()}\n\n{section_text(section, values)}".lstrip("\n")
        _parsed(body, f"{where}: there is no place for a section [{'.'.join(section)}]; change it by hand")
    return mark + body.replace("\n", newline)


def _parsed(text: str, refusal: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"{refusal} ({error})") from error


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    return list(value) if isinstance(value, tuple) else value

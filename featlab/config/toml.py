"""A `featlab.toml` with every setting, written from the docstrings of the configuration so that it stays true."""

from __future__ import annotations

import copy
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from featlab.config.load import Config
from featlab.errors import ConfigError

__all__ = [
    "config_template",
    "described",
    "section_text",
    "set_in_section",
    "toml_value",
]

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


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_value(value: Any) -> str:
    """Return a setting as TOML; an option without a value is the word that the configuration reads as none."""
    if value is None:
        return '"none"'
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def section_text(section: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a section of its own: the header and a line a value."""
    header = ".".join(name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in section)
    lines = [f"[{header}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def set_in_section(text: str, section: Sequence[str], values: Mapping[str, Any], where: str) -> str:
    """Return the text with some keys of a section set; the section is added at the end where there is none.

    Args:
        text: A TOML file.
        section: Path of the section, e.g. ``("adapt", "shot")``.
        values: Key to value, as `toml_value` takes it.
        where: The file's name, for the message.

    Raises:
        ConfigError: The text is no TOML, or has the section or one of the keys in a form that can't be changed line by
            line: an inline table, dotted keys, a value over several lines.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    name = ".".join(section)
    try:
        before = tomllib.loads(body)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    edited = _edited(body, section, values)
    if _parsed(edited) != _wanted(before, section, values):
        raise ConfigError(
            f"{where}: {name} is written in a way that can't be changed safely; write it as a section [{name}] with "
            "one key a line, or change it by hand"
        )
    return mark + edited


def _edited(text: str, section: Sequence[str], values: Mapping[str, Any]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    # Not splitlines: that also breaks lines at letters that are part of a TOML string.
    lines = text.split("\n")
    header = next((place for place, line in enumerate(lines) if _header(line) == tuple(section)), None)
    if header is None:
        gap = "" if not text or text.endswith("\n") else newline
        return text + gap + (newline if text else "") + section_text(section, values).replace("\n", newline)
    end = next((place for place in range(header + 1, len(lines)) if _header(lines[place])), len(lines))
    missing = dict(values)
    last = header
    for place in range(header + 1, end):
        line = lines[place].rstrip("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        last = place
        key = next(iter(_parsed(line) or {}), None)
        if key in missing:
            lines[place] = _with_value(line, missing.pop(key)) + lines[place][len(line) :]
    added = [f"{key} = {toml_value(value)}" for key, value in missing.items()]
    if added and last == len(lines) - 1:
        # The file ends without a newline; the lines that follow need one before them.
        lines[last] += newline[:-1]
        return "\n".join([*lines, newline.join(added) + newline])
    return "\n".join([*lines[: last + 1], *(line + newline[:-1] for line in added), *lines[last + 1 :]])


def _with_value(line: str, value: Any) -> str:
    """Return a ``key = value`` line with another value; what stands around it stays, a comment too."""
    parsed = _parsed(line)
    content = next((line[: at.start()] for at in re.finditer("#", line) if _parsed(line[: at.start()]) == parsed), line)
    found = next(iter((parsed or {}).values()))
    if toml_value(found) == toml_value(value):
        return line
    start = content.index("=") + 1
    old = content[start:]
    indent, trail = old[: len(old) - len(old.lstrip())], old[len(old.rstrip()) :]
    return content[:start] + indent + toml_value(value) + trail + line[len(content) :]


def _header(line: str) -> tuple[str, ...]:
    """Return the path of a line that is a section's header, in whatever way it is spelled; empty for another line."""
    if not line.lstrip().startswith("["):
        return ()
    data: Any = _parsed(line.rstrip("\r"))
    path = []
    while isinstance(data, dict) and data:
        ((key, data),) = data.items()
        path.append(key)
    return tuple(path)


def _wanted(data: Mapping[str, Any], section: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parsed text as it should be after the edit."""
    wanted = copy.deepcopy(dict(data))
    part: Any = wanted
    for name in section:
        part = part.setdefault(name, {}) if isinstance(part, dict) else {}
    if isinstance(part, dict):
        part.update((key, _parsed(f"v = {toml_value(value)}")["v"]) for key, value in values.items())
    return wanted


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None

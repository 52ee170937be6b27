"""Set values in one section of a TOML text; every other byte of it stays as it is.

There is no writer in the standard library, and one that parses and prints would lose comments and order. Lines are
changed in place instead, and the result is parsed again: an edit that did anything else than what was asked is refused.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from featlab.errors import ConfigError

__all__ = ["section_text", "set_in_section", "toml_value"]

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

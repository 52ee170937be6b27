"""The configuration of a run: frozen dataclasses, `featlab.toml` as it is read and written, and `--set`.

A flag beats the file, the file beats the default, and an unknown key is an error that names the closest known one.
"""

from __future__ import annotations

import inspect
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.config.analysis import AblateConfig, EngineConfig, PlotConfig
from featlab.config.options import Option, convert, option, options_of, with_options
from featlab.config.sections import AdaptConfig, FeatureConfig, HeadConfig, PairConfig, PretrainConfig, ProtocolConfig
from featlab.errors import ConfigError, closest

if TYPE_CHECKING:
    import tomlkit

FLAGS = "command line"
"""Where a key was set that no file sets, in messages."""


@dataclass(frozen=True)
class Config:
    """Every section of `featlab.toml`."""

    cache: str = option("cache.h5", "The cache file, relative to the workspace.")
    features: FeatureConfig = field(default_factory=FeatureConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    pair: PairConfig = field(default_factory=PairConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    ablate: AblateConfig = field(default_factory=AblateConfig)
    plot: PlotConfig = field(default_factory=PlotConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    given: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The keys that the user set, each with the file's name or `FLAGS`; no part of what is recorded."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts that JSON and TOML can hold; where work runs is no part of what is recorded."""
        values = asdict(self)
        del values["given"], values["engine"]
        return values

    def with_values(self, values: Mapping[str, Any], where: str) -> Config:
        """Return a copy with some values replaced, ``{"section.key": value}``; text is converted to the key's type.

        ``where`` is who gave them, for the message: a file name, or ``--set``.
        """
        config = self
        for key, value in values.items():
            config = _replaced(config, key, value, where)
        return config


SECTIONS = tuple(item.name for item in fields(Config) if item.name not in ("cache", "given"))


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read `featlab.toml`, then apply flags.

    Args:
        path: The file; ``None`` or a missing file gives the defaults.
        overrides: ``{"section.key": value}`` from flags and ``--set``; they beat the file.

    Returns:
        The resolved configuration.

    Raises:
        ConfigError: A file that can't be read, broken TOML, an unknown key, a value of the wrong type or range.
    """
    config = Config()
    given: dict[str, str] = {}
    if path is not None and path.exists():
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: can't be read ({error.strerror}); it should be a TOML file") from error
        except (ValueError, RecursionError) as error:
            # Also what its parser doesn't foresee: numbers of thousands of digits, brackets without end.
            raise ConfigError(f"{path}: not valid TOML: {error}") from error
        for key in data:
            # An empty table sets nothing, so its name would never be looked at again.
            _check_section(key, str(path))
        values = dict(_flatten(data))
        config = config.with_values(values, str(path))
        given |= dict.fromkeys(values, str(path))
    given |= dict.fromkeys(overrides or {}, FLAGS)
    return replace(config.with_values(overrides or {}, FLAGS), given=given)


def flat_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"section.key": value}`` of what `Config.to_dict` gave, as `Config.with_values` takes it."""
    return {key.replace("adapt.options.", "adapt.", 1): value for key, value in _flatten(data)}


def parse_settings(settings: Sequence[str], flag: str = "--set", example: str = "head.lr=0.01") -> dict[str, str]:
    """Turn ``["head.lr=0.01", …]`` into a dict; ``flag`` gave them, for the message."""
    values = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag} {item}: expected key=value, for example {flag} {example}")
        values[key.strip()] = value.strip()
    return values


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_section(key: str, where: str) -> None:
    section = key.partition(".")[0]
    sections = ("cache", *SECTIONS)
    if section not in sections:
        raise ConfigError(f"{where}: unknown key {key!r}{closest(section, sections)}; sections: {', '.join(sections)}")


def _replaced(config: Config, key: str, value: Any, where: str) -> Config:
    _check_section(key, where)
    section, dot, name = key.partition(".")
    part = getattr(config, section)
    try:
        if section == "cache" and dot:
            raise ConfigError(f"unknown key {key!r}; cache is a file name, not a section")
        if section != "cache" and not name:
            raise ConfigError(f"{section} is a section; write {section}.key = value")
        if section == "cache":
            part = convert("cache", str, value)
        elif section == "adapt" and "." in name:
            part = _with_method_option(part, name, value)
        else:
            part = with_options(part, {name: value}, section)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return replace(config, **{section: part})


def _with_method_option(adapt: AdaptConfig, name: str, value: Any) -> AdaptConfig:
    """Keep a method's option as it came: only the method knows its own keys, and checks them when it is made."""
    method, _, option = name.partition(".")
    if not method or not option or "." in option:
        raise ConfigError(f"unknown key adapt.{name}; a method's option is adapt.<method>.<option>")
    mine = {**adapt.options.get(method, {}), option: value}
    return replace(adapt, options={**adapt.options, method: mine})


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
    import tomlkit

    lines = [f"[{tomlkit.key(section).as_string()}]", *(f"{key} = {toml_value(item)}" for key, item in values.items())]
    return "\n".join(lines) + "\n"


def set_in_section(text: str, section: Sequence[str], values: Mapping[str, Any], where: str) -> str:
    """Return a TOML text with some keys of a section set and all else as it was; a missing section goes to the end.

    The section is a path such as ``("adapt", "shot")``; ``where`` is the file's name, for the message.
    """
    import tomlkit

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
    import tomlkit

    try:
        return tomlkit.parse(text)
    except tomlkit.exceptions.TOMLKitError as error:
        raise ConfigError(f"{refusal} ({error})") from error


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    return list(value) if isinstance(value, tuple) else value

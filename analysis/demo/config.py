"""What the demo draws and runs, and the folder that it takes for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featlab.cache import atomic_write_text
from featlab.config.load import Config
from featlab.config.toml import config_template
from featlab.errors import InputError
from featlab.extraction.drawn_faces import FacesConfig
from featlab.workspace.workspace import CONFIG_FILE

__all__ = ["DemoConfig", "claim_folder"]

_MARK = "demo.json"


@dataclass(frozen=True)
class DemoConfig:
    """What the demo draws and runs.

    Attributes:
        faces: The people; their seed is the root of every seed.
        targets: How many of them are target subjects.
        settings: ``{"section.key": value}`` that the workspace's ``featlab.toml`` gets besides, any but a method's own.
    """

    faces: FacesConfig = field(default_factory=lambda: FacesConfig(people=48, clips=4, frames=10))
    targets: int = 10
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def sized(
        cls, *, people: int | None = None, expressions: int = 2, seed: int = 0, quick: bool = False
    ) -> DemoConfig:
        """Return the demo of about a minute, or a quick one of a few seconds.

        Args:
            people: How many to draw; 48, or 24 when quick.
            expressions: How many classes, 2 to 7.
            seed: Root of every seed.
            quick: Fewer and shorter clips, shorter training, 6 targets in place of 10.

        Raises:
            ConfigError: A number out of range.
            InputError: Fewer than two people would be left as source subjects.
        """
        people = people or (24 if quick else 48)
        clips, frames, targets = (2, 6, 6) if quick else (4, 10, 10)
        if people < targets + 2:
            raise InputError(
                f"--people {people}: {targets} become targets, and 2 must stay sources; draw {targets + 2}"
            )
        faces = FacesConfig(people=people, expressions=expressions, clips=clips, frames=frames, seed=seed)
        return cls(faces, targets, {"head.epochs": 15, "pretrain.epochs": 10} if quick else {})

    def values(self) -> dict[str, Any]:
        """Return the workspace's settings that the demo makes.

        Raises:
            ConfigError: An unknown key, or a value of the wrong type or range.
        """
        values = {"protocol.targets": str(self.targets), "protocol.seed": self.faces.seed} | dict(self.settings)
        Config().with_values(values, "demo")
        return values


def claim_folder(folder: Path, config: DemoConfig) -> None:
    """Mark the folder as this demo's and write its ``featlab.toml``; one that is there is kept.

    Raises:
        InputError: The folder holds something else, or a demo made with other settings.
        ConfigError: A setting that isn't one.
    """
    values = config.values()
    mark = folder / _MARK
    wanted = json.loads(json.dumps(asdict(config)))
    if mark.is_file():
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != wanted:
            raise InputError(f"{folder} holds a demo made with other settings; choose another folder with --out")
    else:
        _make_folder(folder)
        atomic_write_text(mark, json.dumps(wanted, indent=2) + "\n")
    if not (folder / CONFIG_FILE).exists():
        atomic_write_text(folder / CONFIG_FILE, _with_settings(config_template(), values))


def _make_folder(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there and holds no demo; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error.strerror}); choose another folder with --out") from error


def _with_settings(template: str, values: Mapping[str, Any]) -> str:
    """Uncomment settings in the text of a `featlab.toml`."""
    section, lines = "", []
    for line in template.splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        key = section + line.removeprefix("# ").partition(" = ")[0]
        if line.startswith("# ") and key in values:
            line = f"{key.removeprefix(section)} = {json.dumps(values[key], ensure_ascii=False)}"
        lines.append(line)
    return "\n".join(lines) + "\n"

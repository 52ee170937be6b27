"""Change one setting, see what it does to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]  # ``{"section.key": value}``.


@dataclass(frozen=True)
class Setting:
    """One setting of an ablation: what it sets, under a label that no other of its group (a panel each) has."""

    label: str
    values: Values
    group: str = ""
    at: tuple[Any, ...] = ()  # Where it stands: the weights in a surface, the terms that are on, the mode.


@dataclass(frozen=True)
class Grid:
    """The settings to run on one data set, in the order of the figure."""

    title: str
    axis: str
    settings: Sequence[Setting]
    reference: str  # Label of the setting that the others are compared with.
    caption: str
    figure: str = "lines"  # Or bars, dots, surface, modes.
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("source-only", "neutral-shift", "referenced", "pft")
    base: Values = field(default_factory=dict)  # What every setting sets that does not set it itself.
    retrains: bool = False  # Every setting has a bundle of its own: validated only on demand.
    weighs: bool = True  # pft aligns in closed form, and so weighs the frames of a clip.
    name: str = ""

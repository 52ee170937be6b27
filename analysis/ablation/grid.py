"""What an ablation is: settings to run on one data set, beside everything else that the workspace says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featlab.workspace.workspace import Workspace

__all__ = ["MAIN", "Grid", "Setting", "based", "new_grid", "unvalidated", "with_values"]

MAIN = ("source-only", "neutral-shift", "referenced", "pft")
"""Methods of an ablation that is about none in particular."""


@dataclass(frozen=True)
class Setting:
    """One setting of an ablation.

    Attributes:
        label: How it is shown, unlike any other of its group.
        values: What it sets, ``{"section.key": value}``.
        group: What belongs together: one panel a group. Empty where there is one.
        at: Where it stands: weights in a surface, the terms that are on, the mode of BatchNorm.
    """

    label: str
    values: Mapping[str, Any]
    group: str = ""
    at: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Grid:
    """Settings to be run on one data set.

    Attributes:
        name: One of `featlab.analysis.ablation.grids.ABLATIONS`.
        title: One line.
        axis: What the settings are.
        methods: Registry names.
        settings: In the order of the figure.
        reference: Label of the setting that the others are compared with.
        notes: What was left out, and what else differs from the workspace's settings.
    """

    name: str
    title: str
    axis: str
    methods: tuple[str, ...]
    settings: tuple[Setting, ...]
    reference: str
    notes: tuple[str, ...] = ()


def new_grid(
    workspace: Workspace,
    name: str,
    title: str,
    axis: str,
    settings: Sequence[Setting],
    reference: str,
    notes: Sequence[str] = (),
    *,
    methods: tuple[str, ...] = MAIN,
) -> Grid:
    """Return a grid, with the methods that ``ablate.methods`` names, or else ``methods``; see `Grid` for the others."""
    chosen = workspace.config.ablate.methods or methods
    return based(
        Grid(name, title, axis, chosen, tuple(settings), reference, tuple(notes)), {"protocol.methods": chosen}
    )


def unvalidated(grid: Grid, workspace: Workspace, *, weighs: bool = True) -> Grid:
    """Return a grid of which every setting makes a bundle of its own: these are not validated unless asked for.

    Args:
        grid: Of the workspace.
        workspace: Says whether they are.
        weighs: Whether `pft` aligns in closed form, and so weighs the frames of a clip.
    """
    validation = workspace.config.ablate.validation
    if weighs and not validation and "pft" in grid.methods:
        note = (
            "Bundles are not validated on source people here, so that pft weighs the frames of every clip by how "
            "neutral C calls them (ablate.validation = true: as featlab evaluate does, in about five times the time)."
        )
        grid = replace(grid, notes=(*grid.notes, note))
    return based(grid, {"pretrain.validation": validation and workspace.config.pretrain.validation})


def based(grid: Grid, base: Mapping[str, Any]) -> Grid:
    """Return the grid with something set in every setting that doesn't set it itself."""
    return replace(grid, settings=tuple(replace(item, values={**base, **item.values}) for item in grid.settings))


def with_values(workspace: Workspace, values: Mapping[str, Any]) -> Workspace:
    """Return the workspace with other settings."""
    return replace(workspace, config=workspace.config.with_values(values, "ablation"))

"""What the commands share: the flags, and how flags become a configuration and an open workspace."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.complete import complete_method, complete_methods, complete_strategy, complete_subject
from featlab.cli.output import Output, StageProgress

if TYPE_CHECKING:
    from featlab.cache import ExtractorInfo
    from featlab.workspace.workspace import Workspace

__all__ = [
    "BundleOption",
    "CacheOption",
    "ContaminationOption",
    "DeviceOption",
    "FramesOption",
    "JobsOption",
    "JsonOption",
    "LabelRuleOption",
    "MethodOption",
    "MethodsOption",
    "Output",
    "PoolOption",
    "QuietOption",
    "SeedOption",
    "SetOption",
    "SmoothOption",
    "SourcesOption",
    "StageProgress",
    "StrategyOption",
    "SubjectOption",
    "SubjectsOption",
    "TargetsOption",
    "WideOption",
    "WorkspaceOption",
    "cpu_count",
    "flag_values",
    "held_out",
    "names_in",
    "open_workspace",
    "warn_of_seen",
]

COMMON = "Common"
"""Help panel of the flags that every command has."""

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-C", metavar="DIR", help="The workspace folder.", rich_help_panel=COMMON)
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="FILE", help="The embedding cache.", rich_help_panel=COMMON)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Any setting of featlab.toml; repeatable.", rich_help_panel=COMMON
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="S", help="Root of every seed.", rich_help_panel=COMMON)
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to train.", rich_help_panel=COMMON)
]
JobsOption = Annotated[
    int,
    typer.Option("--jobs", "-j", min=0, metavar="N", help="Processes; 0 takes every core.", rich_help_panel=COMMON),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=COMMON)]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel=COMMON)]

WideOption = Annotated[
    bool, typer.Option("--wide", help="Every column of the tables; the files have them always.", rich_help_panel=COMMON)
]

SubjectOption = Annotated[
    str, typer.Option("--subject", metavar="ID", help="The target subject.", autocompletion=complete_subject)
]
SubjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--subject", metavar="ID", help="Keep a subject out of the source; repeatable.", autocompletion=complete_subject
    ),
]
TargetsOption = Annotated[
    str | None,
    typer.Option(
        "--targets", metavar="N|ID,ID,…|FILE", help="Target subjects: a number drawn at random, ids, a file of ids."
    ),
]
PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="ID,ID,…|FILE",
        help="Whom a number of targets is drawn from; everyone outside is always source. Default: everyone.",
    ),
]
SmoothOption = Annotated[
    int | None,
    typer.Option(
        "--smooth",
        min=0,
        metavar="N",
        help="Second number of the tables: probabilities averaged over N (odd) frames; 0 switches it off.",
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", min=0, metavar="N", help="Adapt on the first N frames of the neutral clip; 0 takes all."),
]
ContaminationOption = Annotated[
    float | None,
    typer.Option(
        "--contamination", metavar="SHARE", help="Replace that share of the clip by frames of other classes; 0 to 1."
    ),
]
SourcesOption = Annotated[
    str | None, typer.Option("--sources", metavar="ID,ID,…", help="Source subjects; default: all who are no target.")
]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", help="See `featlab methods`.", autocompletion=complete_method),
]
MethodsOption = Annotated[
    str | None,
    typer.Option("--methods", metavar="NAME,…", help="See `featlab methods`.", autocompletion=complete_methods),
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="landmark|cosine|random",
        help="How a row finds its reference.",
        autocompletion=complete_strategy,
    ),
]
LabelRuleOption = Annotated[
    str | None, typer.Option("--label-rule", metavar="any|same|different", help="Which labels a reference may have.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="FOLDER", help="A model bundle; no source stage runs.")
]


def flag_values(
    workspace: Path,
    *,
    cache: Path | None = None,
    caches: Sequence[Path] = (),
    settings: Sequence[str] | None = None,
    seed: int | None = None,
    targets: str | None = None,
    pool: str | None = None,
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return ``{"section.key": value}`` of everything that was said on the command line.

    Files named there are relative to the current folder, those named in ``featlab.toml`` to the workspace.

    Args:
        workspace: The workspace folder.
        cache: ``--cache``.
        caches: ``--cache`` of a command that takes several; the first is the workspace's.
        settings: ``--set`` items.
        seed: ``--seed``.
        targets: ``--targets``.
        pool: ``--pool``.
        flags: Others by configuration key; those of None were not given. A flag of its own beats ``--set``.

    Raises:
        ConfigError: A ``--set`` item without ``=``.
    """
    from featlab.config.load import parse_settings

    values: dict[str, Any] = dict(parse_settings(settings or ()))
    names = tuple(_from_here(str(path), workspace) for path in (caches or ([] if cache is None else [cache])))
    given = {
        "cache": names[0] if names else None,
        "ablate.caches": names if caches else None,
        "protocol.seed": seed,
        "protocol.targets": _people_from_here(targets, workspace),
        "protocol.pool": _people_from_here(pool, workspace),
        **(flags or {}),
    }
    return values | {key: value for key, value in given.items() if value is not None}


def open_workspace(
    workspace: Path,
    values: Mapping[str, Any],
    output: Output,
    *,
    device: str = "auto",
    on_epoch: StageProgress | None = None,
) -> Workspace:
    """Open the workspace; its stages speak through ``output``.

    Args:
        workspace: The folder.
        values: From `flag_values`.
        output: Where notes go.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_epoch: Progress of training.
    """
    import torch

    from featlab.workspace.workspace import Workspace

    # Batches are small: a second thread makes a step slower, on a busy machine many times slower.
    torch.set_num_threads(1)
    if not workspace.is_dir():
        from featlab.errors import InputError

        raise InputError(f"{workspace}: no such folder; make a workspace there with `featlab init {workspace}`")
    return Workspace.open(workspace, values, device=device, notify=output.note, on_epoch=on_epoch)


def held_out(workspace: Workspace, subjects: Sequence[str] = (), *, targets_given: bool = False) -> tuple[str, ...]:
    """Return the subjects that the source stages must not see.

    Those named by ``--subject`` and those that ``protocol.targets`` lists. A bare number in the file is a matter of
    `featlab evaluate`, which draws them; it holds nobody out here unless it was given as ``--targets``.

    Args:
        workspace: An open workspace.
        subjects: ``--subject``.
        targets_given: Whether ``--targets`` was given.
    """
    listed = workspace.targets() if targets_given or not workspace.config.protocol.targets.strip().isdecimal() else ()
    return tuple(sorted({*subjects, *listed}))


def names_in(text: str | None) -> list[str]:
    """Return the names in a text with commas; none of no text."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def warn_of_seen(output: Output, extractor: ExtractorInfo, targets: Sequence[str]) -> None:
    """Warn when targets are among the people whose images trained the backbone: it has seen them, with labels."""
    seen = sorted(set(targets) & set(extractor.trained_on))
    if seen:
        names = ", ".join(seen[:8]) + (", …" if len(seen) > 8 else "")
        output.warn(
            f"the backbone was trained on images of {len(seen)} of the {len(targets)} targets ({names}): their scores "
            "say nothing about new people; train it with them held out (featlab backbone train --targets …)"
        )


def cpu_count(jobs: int) -> int:
    """Return ``jobs``, or the number of cores that this process may use for 0."""
    from featlab.extraction.worker import usable_cores

    return jobs or usable_cores()


def _people_from_here(spec: str | None, workspace: Path) -> str | None:
    """Return a text that names people; where it is a file, so that it means the same in the workspace."""
    return _from_here(spec, workspace) if spec and os.path.isfile(spec) else spec


def _from_here(name: str, workspace: Path) -> str:
    """Return a name that means in the workspace what ``name`` means in the current folder."""
    return name if workspace.resolve() == Path.cwd() else str(Path(name).absolute())

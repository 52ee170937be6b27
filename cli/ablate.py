"""`featlab ablate …`: the protocol again with one setting changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.common import (
    CacheOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    MethodsOption,
    Output,
    QuietOption,
    SeedOption,
    SetOption,
    SourcesOption,
    TargetsOption,
    WorkspaceOption,
    cpu_count,
    flag_values,
    open_workspace,
)
from featlab.cli.group import FAILED, SKIPPED

__all__ = ["ablate_app", "dims"]

ablate_app = typer.Typer(
    name="ablate", no_args_is_help=True, help="Ablations: change one setting, see what it does to the score."
)


@ablate_app.callback()
def ablate() -> None:
    """Ablations: change one setting, see what it does to the score."""


@ablate_app.command()
def dims(
    dimensions: Annotated[
        str, typer.Option("--dims", metavar="D,D,…", help="Dimensions of the features; 0 or full keeps them all.")
    ] = "64,128,256,512,full",
    targets: TargetsOption = None,
    draws: Annotated[int | None, typer.Option("--draws", min=1, metavar="K", help="Random draws of targets.")] = None,
    methods: MethodsOption = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, metavar="K", help="Seeds within a draw.")] = None,
    sources: SourcesOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Accuracy against the dimension of the features, reduced on source rows only."""
    from featlab.analysis.ablations import METHODS, ablate_dims, dims_table, write_dims

    wanted = _dimensions(dimensions)
    output = Output(json_mode=json_mode, quiet=quiet)
    flags = {"protocol.draws": draws, "protocol.seeds": seeds, "protocol.sources": sources}
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags=flags)
    names = [name.strip() for name in methods.split(",") if name.strip()] if methods else METHODS
    with output.progress() as bars:
        opened = open_workspace(workspace, values, output, device=device)
        protocol = opened.config.protocol
        output.note(
            f"ablate dims: {', '.join(str(dim) if dim else 'full' for dim in wanted)}; {len(names)} methods, "
            f"{protocol.draws} draws x {protocol.seeds} seeds"
        )
        bar = bars.add_task("ablate dims", total=None)
        report = ablate_dims(
            opened,
            wanted,
            methods=names,
            jobs=cpu_count(jobs),
            on_task=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    folder = workspace / "results" / "ablate-dims"
    files = write_dims(folder, report)
    output.json(report.to_dict() | {"files": files})
    output.table(dims_table(report))
    output.show(f"{folder}: {', '.join(path.name for path in files)}")
    rows = [row for point in report.points for row in point.rows]
    failed = [row for row in rows if row.error]
    if failed:
        output.warn(f"{len(failed)} of {len(rows)} runs failed, the first: {failed[0].error}")
        raise typer.Exit(FAILED if len(failed) == len(rows) else SKIPPED)


def _dimensions(text: str) -> list[int]:
    from featlab.errors import ConfigError

    words = [word.strip() for word in text.split(",") if word.strip()]
    bad = [word for word in words if word != "full" and not word.isdecimal()]
    if bad or not words:
        raise ConfigError(f"--dims {text}: expected whole numbers with commas, for example 64,128,full")
    return [0 if word == "full" else int(word) for word in words]

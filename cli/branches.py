"""`featlab branches`: what T and DSFDA's two branches do to identity and to expression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.common import (
    CacheOption,
    DeviceOption,
    JsonOption,
    Output,
    PoolOption,
    QuietOption,
    SeedOption,
    SetOption,
    SourcesOption,
    TargetsOption,
    WorkspaceOption,
    flag_values,
    open_workspace,
    warn_of_seen,
)
from featlab.cli.group import typed_command

__all__ = ["branches"]


def branches(
    targets: TargetsOption = None,
    draws: Annotated[int | None, typer.Option("--draws", min=1, metavar="K", help="Random draws of targets.")] = None,
    pool: PoolOption = None,
    sources: SourcesOption = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Folder under results/.")] = "branches",
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Does only identity change? How alike rows are by expression and by subject, and what linear probes read off.

    Before and after pft has adapted T to each target, and in DSFDA's two branches. Labels only score, never adapt.
    """
    from featlab.analysis.inside.branches import compare_branches
    from featlab.analysis.inside.branches_figure import branches_result
    from featlab.evaluation.results import run_facts

    output = Output(json_mode=json_mode, quiet=quiet)
    flags = {"protocol.draws": draws, "protocol.sources": sources}
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, pool=pool, flags=flags)
    with output.progress() as bars:
        opened = open_workspace(workspace, values, output, device=device)
        bar = bars.add_task("branches", total=None)
        report = compare_branches(opened, on_step=lambda done, total: bars.update(bar, completed=done, total=total))
    warn_of_seen(output, opened.extractor, sorted({person for draw in report.draws for person in draw}))
    output.result(workspace / "results" / name, branches_result(report, run_facts(opened)), typed_command())

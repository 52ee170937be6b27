"""`featlab complexity`: what adapting to one person costs, method by method."""

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
    WorkspaceOption,
    flag_values,
    names_in,
    open_workspace,
)
from featlab.cli.complete import complete_methods
from featlab.cli.group import FAILED, SKIPPED, typed_command

__all__ = ["complexity"]

_FEW = 3
"""Targets that are measured where ``--targets`` isn't given: neutral clips are alike, and seconds add up."""


def complexity(
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="NAME,…", help="Default: every method there is.", autocompletion=complete_methods
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            metavar="N|ID,ID,…|FILE",
            help=f"Target subjects, all of them measured. Default: the first {_FEW} of the workspace's.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, metavar="R", help="Timed adaptations a subject.")] = 5,
    batch: Annotated[int, typer.Option("--batch", min=2, metavar="B", help="Rows of the batch that is timed.")] = 64,
    pool: PoolOption = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Folder under results/.")] = "complexity",
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Parameters, operations, iterations and seconds of adapting to one person, for every method.

    Adaptations are timed one after the other, in this process, with one thread: leave the machine alone meanwhile.
    """
    from featlab.analysis.cost import measure_complexity
    from featlab.analysis.cost_figure import complexity_result
    from featlab.evaluation.results import run_facts
    from featlab.methods import method_names

    output = Output(json_mode=json_mode, quiet=quiet)
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, pool=pool)
    names = names_in(methods) if methods else list(method_names())
    with output.progress() as bars:
        opened = open_workspace(workspace, values, output, device=device)
        subjects = opened.targets()
        measured = len(subjects) if targets else min(_FEW, len(subjects))
        output.note(
            f"complexity: {len(names)} methods x {measured} of {len(subjects)} targets x {repeat} runs, one thread"
        )
        bar = bars.add_task("complexity", total=len(names))
        report = measure_complexity(
            opened,
            subjects,
            names,
            measured=measured,
            repeat=repeat,
            batch=batch,
            on_method=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    output.result(workspace / "results" / name, complexity_result(report, run_facts(opened)), typed_command())
    failures = [(f"{cost.method} on {where}", why) for cost in report.costs for where, why in cost.failures]
    output.warn_of_failures(failures, "runs failed; the table's notes list them")
    if failures:
        raise typer.Exit(SKIPPED if any(cost.subjects for cost in report.costs) else FAILED)

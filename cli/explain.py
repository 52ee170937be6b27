"""`featlab complexity` and `featlab branches`: what adapting to one person costs, and what it does to identity."""

from __future__ import annotations

from typing import Annotated

import typer

from featlab.cli.session import FAILED, SKIPPED, Session, names_in, typed_command, workspace_command

_FEW = 3
"""Targets that are measured where ``--targets`` isn't given: neutral clips are alike, and seconds add up."""


@workspace_command("methods", "targets", "pool", "device")
def complexity(
    session: Session,
    repeat: Annotated[int, typer.Option("--repeat", min=1, metavar="R", help="Timed adaptations a subject.")] = 5,
    batch: Annotated[int, typer.Option("--batch", min=2, metavar="B", help="Rows of the batch that is timed.")] = 64,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Folder under results/.")] = "complexity",
) -> None:
    """Parameters, operations, iterations and seconds of adapting to one person, for every method.

    Adaptations are timed one after the other, in this process, with one thread: leave the machine alone meanwhile.
    """
    from featlab.analysis.cost import measure_complexity
    from featlab.analysis.cost_figure import complexity_result
    from featlab.evaluation.results import run_facts
    from featlab.methods.registry import get_method, method_names

    output = session.output
    names = names_in(session["methods"]) or list(method_names())
    for method in names:
        # A typing error is told before a cache is read.
        get_method(method)
    with output.progress() as bars:
        opened = session.open()
        subjects = opened.targets()
        measured = len(subjects) if session["targets"] else min(_FEW, len(subjects))
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
    output.result(session.workspace / "results" / name, complexity_result(report, run_facts(opened)), typed_command())
    failures = [(f"{cost.method} on {where}", why) for cost in report.costs for where, why in cost.failures]
    output.warn_of_failures(failures, "runs failed; the table's notes list them")
    if failures:
        raise typer.Exit(SKIPPED if any(cost.subjects for cost in report.costs) else FAILED)


@workspace_command("draws", "targets", "pool", "sources", "device")
def branches(
    session: Session,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Folder under results/.")] = "branches",
) -> None:
    """Does only identity change? How alike rows are by expression and by subject, and what linear probes read off.

    Before and after pft has adapted T to each target, and in DSFDA's two branches. Labels only score, never adapt.
    """
    from featlab.analysis.inside.branches import compare_branches
    from featlab.analysis.inside.branches_figure import branches_result
    from featlab.evaluation.results import run_facts

    output = session.output
    with output.progress() as bars:
        opened = session.open()
        bar = bars.add_task("branches", total=None)
        report = compare_branches(opened, on_step=lambda done, total: bars.update(bar, completed=done, total=total))
    session.warn_of_seen(opened.extractor, sorted({person for draw in report.draws for person in draw}))
    output.result(session.workspace / "results" / name, branches_result(report, run_facts(opened)), typed_command())

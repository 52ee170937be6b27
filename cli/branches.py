"""`featlab branches`: what T and DSFDA's two branches do to identity and to expression."""

from __future__ import annotations

from typing import Annotated

import typer

from featlab.cli.group import typed_command
from featlab.cli.session import Session, workspace_command


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

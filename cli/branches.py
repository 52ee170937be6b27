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
    from featlab.analysis.inside.branches_page import branch_table, branch_words, write_branches
    from featlab.evaluation.results import run_facts

    output = session.output
    with output.progress() as bars:
        opened = session.open()
        bar = bars.add_task("branches", total=None)
        report = compare_branches(opened, on_step=lambda done, total: bars.update(bar, completed=done, total=total))
    session.warn_of_seen(opened.extractor, sorted({person for draw in report.draws for person in draw}))
    facts, words = run_facts(opened), branch_words(report)
    folder = session.workspace / "results" / name
    files = write_branches(folder, report, command=typed_command(), facts=facts)
    output.json({**facts, **report.to_dict(), "words": words, "files": files})
    output.results([branch_table(report)], words, folder, files)

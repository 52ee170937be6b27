"""`featlab paper`: a published table's protocol on one's own cache, and its numbers beside ours."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer
from typer import Argument

from featlab.analysis.published import published_tables
from featlab.cli.session import FAILED, SKIPPED, Session, names_in, workspace_command


def _complete(incomplete: str) -> list[str]:
    return [name for name in published_tables() if name.startswith(incomplete)]


@workspace_command(
    *("targets", "pool", "sources", "draws", "seeds", "methods"),
    *("device", "jobs", "engine", "share", "collect", "wide"),
)
def paper(
    session: Session,
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="Which table; without it, all are listed.", autocompletion=_complete),
    ] = None,
) -> None:
    """Run a published table's protocol on your cache: its numbers beside yours, and every difference. Resumable."""
    output, tables = session.output, published_tables()
    if name is None:
        output.json({"tables": [asdict(table) for table in tables.values()]})
        listed = [(key, table.title, table.source["of"]) for key, table in tables.items()]
        output.columns(("Name", "Table", "Of"), listed, text_columns=3)
        session.then = "featlab paper NAME runs the protocol of one on the workspace's cache"
        return
    from featlab.analysis import paper as compare
    from featlab.config.options import check_choice
    from featlab.errors import InputError
    from featlab.evaluation.runner import UnfinishedError, plan, refuse_unfinished, run_tasks
    from featlab.methods.registry import refuse_unread

    check_choice("NAME", name, tuple(tables))
    table, names = tables[name], names_in(session["methods"])
    if table.kind != "branches":
        names = names or list(dict.fromkeys(run.split()[0] for run in table.runs))
    elif names or session["collect"] or session["share"] != "1/1":
        raise InputError("branches is one comparison within one model; leave out --methods, --share and --collect")
    with output.progress() as bars:
        opened = compare.fitted(session.open({"protocol.methods": names or None, "protocol.scope": table.scope}), table)
        refuse_unread(opened.config, names or ["pft"])
        made = compare.methods_of(table, names, opened.config.adapt.options)
        tasks = [replace(task, methods=made) for task in plan(opened)]
        people, targets = sorted({who for task in tasks for who in task.targets}), tasks[0].targets
        session.warn_of_seen(opened.extractor, people)
        session.warn_of_untested(opened, people, table.scope)
        sizes = f"{len(targets)} targets, {len(tasks[0].source.subjects)} source subjects"
        say = output.warn if len(targets) < table.targets else output.note
        say(f"paper {name}: {sizes}" + (f"; published: {table.targets} and {table.sources}" if table.targets else ""))
        try:
            done = run_tasks(tasks, **session.where(opened, bars.of("evaluate")))
            refuse_unfinished(tasks, done)
        except UnfinishedError as error:
            session.tell_unfinished(error)
            return
        rows = {run: [row for part in done for key, row in part.items() if key.method == run] for run in made}
        lines = compare.lines_of(table, made, compare.found_in(table, opened, rows, bars.of(table.kind)))
    session.result(f"paper-{name}", compare.paper_result(table, opened, people, lines, rows))
    errors = [row.error for mine in rows.values() for row in mine]
    if any(errors):
        output.warn("some runs failed; the notes of the table say why")
        raise typer.Exit(FAILED if all(errors) else SKIPPED)

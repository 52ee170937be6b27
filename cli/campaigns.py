"""Run a campaign and show it: what `evaluate` and `benchmark` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from featlab.cli.group import FAILED, SKIPPED, typed_command
from featlab.cli.output import Output
from featlab.cli.session import Session

if TYPE_CHECKING:
    from featlab.evaluation.results import EvaluationRow
    from featlab.workspace.workspace import Workspace


def run_and_show(
    session: Session,
    command: str,
    values: Mapping[str, Any],
    *,
    name: str | None,
    plots: bool,
    share: tuple[int, int] = (1, 1),
    collect: bool = False,
) -> None:
    """Run what is missing, write the result files and print the tables.

    Args:
        session: The flags.
        command: ``evaluate`` or ``benchmark``.
        values: Configuration values of the command line.
        name: Folder under ``results/``; ``None`` takes a key of the run.
        plots: Draw the figures.
        share: (i, n), see `featlab.evaluation.runner.run_tasks`.
        collect: Run nothing.

    Raises:
        typer.Exit: Some runs failed (3) or all of them did (1).
    """
    from featlab.analysis.evaluation.result import evaluation_result
    from featlab.evaluation.results import run_facts
    from featlab.evaluation.runner import count_finished, plan, run_tasks
    from featlab.evaluation.summary import summarise
    from featlab.methods.reads import refuse_unread

    output = session.output
    with output.progress() as bars:
        opened = session.open(values)
        protocol = opened.config.protocol
        refuse_unread(opened.config, protocol.methods)
        tasks = plan(opened)
        cells = sum(len(task.targets) for task in tasks) * len(protocol.methods)
        reused = count_finished(tasks)
        session.warn_of_seen(opened.extractor, sorted({name for task in tasks for name in task.targets}))
        output.note(_what_runs(command, share, opened, len(tasks[0].targets), cells, reused))
        bar = bars.add_task(command, total=cells)
        done = run_tasks(
            tasks,
            jobs=session.jobs,
            share=share,
            collect=collect,
            on_step=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    rows = [row for part in done for row in part.values()]
    if not rows:
        from featlab.errors import InputError

        raise InputError(f"no cell of this {command} has been run yet; run it without --collect first")
    summaries = summarise(rows)
    facts = run_facts(opened)
    folder = session.workspace / "results" / (name or _run_key(command, facts))
    failed = [row for row in rows if row.error]
    missing = cells - len(rows)
    result = evaluation_result(
        rows,
        summaries,
        metadata=facts,
        kind=command,
        plots=plots,
        classes=opened.table.classes,
        smoothing=protocol.smoothing,
        data={
            "results": [row.to_dict() for row in rows],
            "summary": [item.to_dict() for item in summaries],
            "cells": {"all": cells, "reused": reused, "failed": len(failed), "missing": missing},
        },
    )
    output.result(folder, result, typed_command())
    output.show(
        f"{cells} cells: {reused} reused, {len(failed)} failed" + (f", {missing} not run yet" if missing else "")
    )
    _tell_failures(output, failed, folder)
    if missing:
        output.warn(f"{missing} of {cells} cells have not been run: the tables are of the others")
    if failed:
        raise typer.Exit(FAILED if len(failed) == len(rows) else SKIPPED)


def _what_runs(command: str, shares: tuple[int, int], opened: Workspace, targets: int, cells: int, reused: int) -> str:
    protocol = opened.config.protocol
    clip = f"at most {protocol.frames} frames of a neutral clip" if protocol.frames else "a neutral clip"
    clip += f", {100 * protocol.contamination:g} % of it other classes" if protocol.contamination else ""
    unit = f"each from {clip}" if protocol.scope == "person" else "together, as one unlabelled data set"
    share = "" if shares == (1, 1) else f", share {shares[0]} of {shares[1]}"
    return (
        f"{command}: {len(protocol.methods)} methods on {targets} targets ({unit}), "
        f"{protocol.draws} draws x {protocol.seeds} seeds{share}; {reused} of {cells} cells are there already"
    )


def _run_key(command: str, facts: Mapping[str, Any]) -> str:
    """Return the folder name of a run: the same configuration on the same cache gives the same."""
    import json

    from featlab.seeding import stable_hash

    # Grids of ablations and looks of pictures change nothing in an evaluation.
    config = {name: part for name, part in facts["config"].items() if name not in ("ablate", "plot")}
    return f"{command}-{stable_hash(json.dumps({**facts, 'config': config}, sort_keys=True))[:12]}"


def _tell_failures(output: Output, failed: Sequence[EvaluationRow], folder: Path) -> None:
    from featlab.evaluation.scores import failure_reasons

    for reason, rows in failure_reasons(failed).items():
        runs = [f"{row.method} on {row.subject}" for row in rows]
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        output.warn(f"failed: {', '.join(runs[:3])}{more}: {reason}")
    if failed:
        output.warn(f"{len(failed)} cells failed; all of them are listed in {folder / 'failures.jsonl'}")

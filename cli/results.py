"""Commands about results: evaluate methods over target subjects, list the methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.common import (
    CacheOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    LabelRuleOption,
    MethodsOption,
    Output,
    QuietOption,
    SeedOption,
    SetOption,
    SourcesOption,
    StrategyOption,
    TargetsOption,
    WorkspaceOption,
    cpu_count,
    flag_values,
    open_workspace,
    warn_of_seen,
)
from featlab.cli.group import FAILED, SKIPPED

if TYPE_CHECKING:
    from featlab.methods import Method
    from featlab.results import EvaluationRow

__all__ = ["evaluate", "methods"]

_WIDEST = 12
"""Target subjects up to which the per-subject table is printed; the file has it always."""


def evaluate(
    targets: TargetsOption = None,
    draws: Annotated[int | None, typer.Option("--draws", min=1, metavar="K", help="Random draws of targets.")] = None,
    methods: MethodsOption = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, metavar="K", help="Seeds within a draw.")] = None,
    sources: SourcesOption = None,
    strategy: StrategyOption = None,
    label_rule: LabelRuleOption = None,
    dim: Annotated[
        int | None, typer.Option("--dim", min=0, metavar="D", help="Features kept; 0 keeps them all.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Folder under results/; default: a key of the run.")
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the figures.")] = True,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt to target subjects with every method and score them. Finished cells are kept and reused."""
    from featlab.analysis.evaluation_files import evaluation_tables, write_evaluation
    from featlab.campaign import finished_cells, plan, run_campaign, versions
    from featlab.summary import summarise

    output = Output(json_mode=json_mode, quiet=quiet)
    flags = {
        "protocol.draws": draws,
        "protocol.methods": methods,
        "protocol.seeds": seeds,
        "protocol.sources": sources,
        "pair.strategy": strategy,
        "pair.label_rule": label_rule,
        "features.dim": dim,
    }
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags=flags)
    with output.progress() as bars:
        opened = open_workspace(workspace, values, output, device=device)
        config = opened.config
        tasks = plan(opened)
        cells = sum(len(task.targets) for task in tasks) * len(config.protocol.methods)
        reused = finished_cells(opened, tasks)
        warn_of_seen(output, opened.extractor, sorted({name for task in tasks for name in task.targets}))
        output.note(
            f"evaluate: {len(config.protocol.methods)} methods on {len(tasks[0].targets)} targets, "
            f"{config.protocol.draws} draws x {config.protocol.seeds} seeds; "
            f"{reused} of {cells} cells are there already"
        )
        bar = bars.add_task("evaluate", total=len(tasks))
        rows = run_campaign(
            opened, tasks, jobs=cpu_count(jobs), on_task=lambda done, total: bars.update(bar, completed=done)
        )
    summaries = summarise(rows)
    names = _names(config.protocol.methods)
    facts = {"config": config.to_dict(), "cache_digest": opened.cache_digest, "versions": versions()}
    folder = workspace / "results" / (name or _run_key(facts))
    files = write_evaluation(folder, rows, summaries, settings=names, facts=facts, plots=plots)
    failed = [row for row in rows if row.error]
    output.json(
        {
            **facts,
            "results": [row.to_dict() for row in rows],
            "summary": [item.to_dict() for item in summaries],
            "cells": {"all": cells, "reused": reused, "failed": len(failed)},
            "files": files,
        }
    )
    per_subject, summary = evaluation_tables(rows, summaries, names, full=False)
    if config.protocol.draws == 1 and len(tasks[0].targets) <= _WIDEST:
        output.table(per_subject)
    output.table(summary)
    output.show(
        f"{cells} cells: {reused} reused, {len(failed)} failed", f"{folder}: {', '.join(path.name for path in files)}"
    )
    _tell_failures(output, failed, folder)
    if failed:
        raise typer.Exit(FAILED if len(failed) == len(rows) else SKIPPED)


def methods(json_mode: JsonOption = False) -> None:
    """List the methods: what each is, what it needs, where it comes from."""
    from dataclasses import asdict

    from featlab.methods import get_method, method_names

    output = Output(json_mode=json_mode)
    classes = [get_method(name) for name in method_names()]
    output.json(
        {
            "methods": [
                {
                    "name": item.name,
                    "title": item.title,
                    "setting": item.setting,
                    "needs": _needs(item),
                    "published": item.published,
                    "updates": list(item.updates),
                    "supports_single_class": item.supports_single_class,
                    "options": asdict(item.config_type()),
                }
                for item in classes
            ]
        }
    )
    lines = [(item.name, item.title, item.setting, ", ".join(_needs(item)) or "–", item.published) for item in classes]
    output.columns(("Name", "Title", "Setting", "Needs", "Published"), lines, text_columns=5)


def _needs(method: type[Method]) -> list[str]:
    needs = {
        "style bank": method.needs_style_bank,
        "source extras": method.needs_extras,
        "target labels": method.needs_labels,
    }
    return [name for name, needed in needs.items() if needed]


def _names(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return method name to (setting, title), as the tables take it."""
    from featlab.methods import get_method

    return {name: (get_method(name).setting, get_method(name).title) for name in methods}


def _run_key(facts: dict[str, Any]) -> str:
    """Return the folder name of a run: the same configuration on the same cache gives the same."""
    import json

    from featlab.seeding import stable_hash

    return f"evaluate-{stable_hash(json.dumps(facts, sort_keys=True))[:12]}"


def _tell_failures(output: Output, failed: Sequence[EvaluationRow], folder: Path) -> None:
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in failed:
        reasons[row.error].append(f"{row.method} on {row.subject}")
    for reason, runs in reasons.items():
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        output.warn(f"failed: {', '.join(runs[:3])}{more}: {reason}")
    if failed:
        output.warn(f"{len(failed)} cells failed; all of them are listed in {folder / 'failures.jsonl'}")

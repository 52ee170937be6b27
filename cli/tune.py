"""`featlab tune`: choose a method's options on source subjects."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from featlab.cli.complete import complete_method
from featlab.cli.output import Output
from featlab.cli.session import FAILED, SKIPPED, Session, names_in, typed_command, workspace_command

if TYPE_CHECKING:
    from featlab.evaluation.tuning import TuningPlan
    from featlab.evaluation.tuning_report import TuningReport

_TOP = 10
"""Candidates that are printed; the files have all of them."""


@workspace_command(
    *("targets", "draws", "scope", "sources", "device", "jobs", "engine", "share", "collect", "wide"),
    then="featlab evaluate{at} with the flags above; the same with --apply writes them into featlab.toml",
)
def tune(
    session: Session,
    method: Annotated[str, Argument(metavar="METHOD", help="See `featlab methods`.", autocompletion=complete_method)],
    trials: Annotated[int, Option(min=2, metavar="N", help="Most candidates; a larger space is sampled.")] = 24,
    folds: Annotated[int, Option(min=2, metavar="F", help="Folds in which source subjects play targets.")] = 4,
    space: Annotated[
        list[str] | None, Option(metavar="OPTION=V,V,…", help="Values to try in place of the declared; repeatable.")
    ] = None,
    apply: Annotated[bool, Option("--apply", help="Write the choice into featlab.toml.")] = False,
) -> None:
    """Choose a method's options on source subjects who play targets; no target subject is loaded. Resumable."""
    import torch

    from featlab.analysis.evaluation.result import tuning_result
    from featlab.analysis.page import write_result
    from featlab.config.load import parse_settings
    from featlab.evaluation.runner import count_finished
    from featlab.evaluation.tuning import open_sources, plan_tuning, run_tuning, search_space
    from featlab.evaluation.tuning_report import report_tuning
    from featlab.methods.registry import refuse_unread

    # Batches are small: a second thread makes a step slower, on a busy machine many times slower.
    torch.set_num_threads(1)
    output = session.output
    prefix = f"adapt.{method}."
    fixed = [key.removeprefix(prefix) for key in parse_settings(session["settings"] or ()) if key.startswith(prefix)]
    command = typed_command()
    with output.progress() as bars:
        workspace, reported = open_sources(
            session.workspace,
            session.values(),
            sources=names_in(session["sources"]),
            device=session["device"],
            notify=output.note,
        )
        refuse_unread(workspace.config, [method])
        options = workspace.config.adapt.options.get(method)
        searched = search_space(method, options=options, fixed=fixed, items=space or ())
        plan = plan_tuning(workspace, reported, searched, trials=trials, folds=folds)
        if apply:
            # Refused now rather than after hours.
            _edited(session.workspace, method, {**searched.fixed, **dict(plan.candidates[0].values)})
        reused, runs = count_finished(plan.tasks), len(plan.candidates) * len(plan.subjects)
        _tell_plan(plan, reused, runs, output)
        rows = run_tuning(plan, **session.where(workspace, bars.of("tune")))
    report = report_tuning(plan, rows, command)
    whole = workspace.config.protocol.scope == "dataset"
    folder = session.workspace / "results" / f"tune-{method}{'-dataset' if whole else ''}"
    files = write_result(folder, tuning_result(report), command)
    applied = _apply(session.workspace, report, plan.subjects) if apply and report.chosen is not None else None
    counts = {"all": runs, "reused": reused, "failed": report.failed}
    output.json(report.to_dict() | {"runs": counts, "applied": applied, "files": files})
    _show(report, output)
    output.show(f"{runs} runs: {reused} reused, {report.failed} failed")
    output.files(folder, files)
    if applied is not None:
        output.show(f"{applied}: [adapt.{method}] has the chosen values")
        session.then = "featlab evaluate{at}"
    _end(report, output)


def _tell_plan(plan: TuningPlan, reused: int, runs: int, output: Output) -> None:
    space = plan.space
    sample = "" if space.size <= len(plan.candidates) else f", a sample of {space.size:,} points"
    output.note(
        f"tune {space.method}: {len(plan.candidates)} candidates{sample} on {len(plan.subjects)} source subjects in "
        f"{len(plan.folds)} folds; {reused} of {runs} runs are there already"
    )
    output.note(f"{len(plan.reported)} target subjects are left out: no row of theirs is loaded")
    if plan.bystanders:
        first = next(iter(plan.bystanders.values()))
        output.note(f"{len(plan.bystanders)} source subjects can't play a target and are trained on only: {first}")
    seen = set(plan.subjects) & set(plan.workspace.extractor.trained_on)
    if seen:
        output.warn(
            f"the backbone was trained on images of {len(seen)} of the {len(plan.subjects)} subjects who play targets: "
            "their scores are too high, and other options may be better for people whom it hasn't seen"
        )


def _show(report: TuningReport, output: Output) -> None:
    from featlab.analysis.evaluation.result import trials_table

    output.table(trials_table(report, top=_TOP))
    if report.chosen is None:
        return
    score, default = report.chosen, report.default
    against = "" if score.number == default.number else f", the default {100 * default.macro_f1:.2f}"
    output.show(f"Chosen: candidate {score.number}, macro F1 {100 * score.macro_f1:.2f}{against}", report.verdict)
    output.show(shlex.join(report.flags))


def _end(report: TuningReport, output: Output) -> None:
    """Say what failed, and leave with the exit code that it calls for."""
    for trial in report.trials:
        if trial.failed:
            output.warn(f"candidate {trial.number} failed on {trial.failed} subjects: {'; '.join(trial.reasons)}")
    for reason in report.unscored.values():
        output.warn(f"every candidate failed on a subject: {reason}")
    if report.chosen is None:
        output.warn(report.verdict)
        raise typer.Exit(FAILED)
    if report.failed:
        raise typer.Exit(SKIPPED)


def _edited(workspace: Path, method: str, options: Mapping[str, Any]) -> tuple[Path, str]:
    """Return ``featlab.toml`` and its text with the options set."""
    from featlab.config.load import set_in_section
    from featlab.workspace.workspace import CONFIG_FILE

    path = workspace / CONFIG_FILE
    text = path.read_bytes().decode("utf-8") if path.exists() else ""
    return path, set_in_section(text, ("adapt", method), options, str(path))


def _apply(workspace: Path, report: TuningReport, people: Sequence[str]) -> Path:
    from featlab.cache.atomic import atomic_write_text
    from featlab.workspace.workspace import add_tuned

    path, text = _edited(workspace, report.method, report.options)
    # First on whom: a choice is never there without it.
    add_tuned(workspace, report.method, people)
    atomic_write_text(path, text)
    return path

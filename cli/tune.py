"""`featlab tune`: choose a method's options on source subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from featlab.cli.complete import complete_method
from featlab.cli.output import Output
from featlab.cli.session import Session, leave, names_in, typed_command, workspace_command

if TYPE_CHECKING:
    from featlab.evaluation.tuning import TuningPlan
    from featlab.evaluation.tuning_report import TuningReport


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
    from featlab.config.load import parse_settings
    from featlab.evaluation.runner import count_finished
    from featlab.evaluation.tuning import open_sources, plan_tuning, run_tuning, search_space
    from featlab.evaluation.tuning_report import report_tuning
    from featlab.methods.registry import refuse_unread

    # Batches are small: a second thread makes a step slower, on a busy machine many times slower.
    torch.set_num_threads(1)
    output, root, prefix = session.output, session.workspace, f"adapt.{method}."
    fixed = [key.removeprefix(prefix) for key in parse_settings(session["settings"] or ()) if key.startswith(prefix)]
    sources = names_in(session["sources"])
    with output.progress() as bars:
        workspace, reported = open_sources(
            root, session.values(), sources=sources, device=session["device"], notify=output.note
        )
        config = workspace.config
        refuse_unread(config, [method])
        searched = search_space(method, options=config.adapt.options.get(method), fixed=fixed, items=space or ())
        plan = plan_tuning(workspace, reported, searched, trials=trials, folds=folds)
        if apply:
            # Refused now rather than after hours.
            _edited(root, method, {**searched.fixed, **dict(plan.candidates[0])})
        reused, runs = count_finished(plan.tasks), len(plan.candidates) * len(plan.subjects)
        _tell_plan(plan, reused, runs, output)
        rows = run_tuning(plan, **session.where(workspace, bars.of("tune")))
    report = report_tuning(plan, rows, typed_command())
    applied = _apply(root, report, plan.subjects) if apply and report.chosen is not None else None
    output.show(f"{runs} runs: {reused} reused, {report.failed} failed")
    result, counts = tuning_result(report), {"all": runs, "reused": reused, "failed": report.failed}
    result = replace(result, data={**result.data, "runs": counts, "applied": applied})
    session.result(f"tune-{method}{'-dataset' if config.protocol.scope == 'dataset' else ''}", result)
    if applied is not None:
        output.show(f"{applied}: [adapt.{method}] has the chosen values")
        session.then = "featlab evaluate{at}"
    failed = [(f"candidate {trial.number}", "; ".join(trial.reasons)) for trial in report.trials if trial.failed]
    output.warn_of_failures(failed, "candidates failed; the table's notes say on how many subjects")
    output.warn(*(f"every candidate failed on a subject: {reason}" for reason in report.unscored.values()))
    leave(failed=report.failed, runs=report.failed if report.chosen is None else 0)


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

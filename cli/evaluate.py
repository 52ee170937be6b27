"""`featlab evaluate`, `benchmark` and `methods`: run methods on target subjects and show the tables; list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from featlab.analysis.table import count_text
from featlab.cli.complete import complete_method
from featlab.cli.flags import FLAGS, PlotsOption
from featlab.cli.output import Output
from featlab.cli.session import TO_REPORT, Session, command, leave, typed_command, workspace_command
from featlab.errors import InputError, listed

if TYPE_CHECKING:
    from featlab.evaluation.results import EvaluationRow
    from featlab.methods.base import Method
    from featlab.workspace.workspace import Workspace

NameOption = Annotated[
    str | None, Option("--name", metavar="NAME", help="Folder under results/; default: a key of the run.")
]
_FLAGS = (
    *("targets", "draws", "seeds", "methods", "sources", "pool", "smooth", "frames", "contamination"),
    *("strategy", "label_rule", "device", "jobs", "engine", "share", "collect", "wide"),
)


@workspace_command(*_FLAGS, "dim", then=TO_REPORT)
def evaluate(session: Session, name: NameOption = None, plots: PlotsOption = True) -> None:
    """Adapt to target subjects with the main methods and score them. Finished runs are kept and reused."""
    _run_and_show(session, "evaluate", session["methods"], name, plots)


@workspace_command(*_FLAGS, "scope", then=TO_REPORT)
def benchmark(session: Session, name: NameOption = None, plots: PlotsOption = True) -> None:
    """Run every method on every target and seed, into one table. Resumable: finished runs are kept, failed retried."""
    from featlab.methods.registry import method_names

    _run_and_show(session, "benchmark", session["methods"] or method_names(), name, plots)


@command(
    "json_mode",
    then="featlab methods NAME says where it comes from, how it departs from its paper, and its options",
)
def methods(
    session: Session,
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="Say all about this one.", autocompletion=complete_method)
    ] = None,
) -> None:
    """List the methods and what each needs; with a name, where it comes from, how it departs, and its options."""
    from featlab.methods.registry import facts_of, get_method, method_names, needs

    output = session.output
    names = method_names() if name is None else (name,)
    if output.json_mode:
        output.json({"methods": [_facts(get_method(item)) for item in names]})
        return
    if name is not None:
        _show_method(output, get_method(name))
        session.then = "featlab evaluate --methods source-only,{name}"
        return
    known = [(item, facts_of(item)) for item in names]
    lines = [
        (item, facts.title, facts.setting, ", ".join(needs(facts)) or "–", ", ".join(facts.updates) or "nothing")
        for item, facts in known
    ]
    output.columns(("Name", "Title", "Setting", "Needs", "Changes"), lines, text_columns=5)


def _facts(method: type[Method]) -> dict[str, Any]:
    from featlab.methods.registry import needs

    plain = ("name", "title", "setting", "published", "carries", "supports_single_class")
    return {name: getattr(method, name) for name in plain} | {
        "needs": needs(method),
        "updates": list(method.updates),
        "options": asdict(method.config_type()),
        "space": {option: list(values) for option, values in method.space},
    }


def _show_method(output: Output, method: type[Method]) -> None:
    import inspect

    facts = _facts(method)
    shown = {
        "setting": method.setting,
        "needs": facts["needs"] or "nothing but the source model and the target's rows",
        "changes": method.updates or "nothing",
        "leaves the source": method.carries or None,
        "meant for one class": "yes" if method.supports_single_class else "no: its objective expects every class",
    }
    output.facts(f"{method.name}: {method.title}", shown)
    output.show("", inspect.cleandoc(method.__doc__ or ""), "", method.published)
    lines = [
        (f"adapt.{method.name}.{option}", value, ", ".join(map(str, facts["space"].get(option, "–"))))
        for option, value in facts["options"].items()
    ]
    if lines:
        output.columns(("Option", "Default", "featlab tune tries"), lines, text_columns=3)


def _run_and_show(
    session: Session, command: str, methods: str | Sequence[str] | None, name: str | None, plots: bool
) -> None:
    """Run what is missing, write the result files and print the tables; exit code 3 where runs failed, 1 where all.

    An evaluation that lies there, whole, is shown without what runs methods.
    """
    from featlab.analysis.evaluation.stored import read_finished
    from featlab.analysis.page import run_folder
    from featlab.evaluation.results import run_facts
    from featlab.workspace.workspace import Workspace, tuned_on

    if name is not None and (name in ("", ".", "..") or name != Path(name).name):
        raise InputError(f"--name {name}: is the name of one folder under results/; give it without slashes")
    output, root, values = session.output, session.workspace, session.values({"protocol.methods": methods})
    # Names alone: rows are read when it is known whose.
    known, tuned = Workspace.open(root, values, subjects=()), tuned_on(root)
    protocol, facts = known.config.protocol, run_facts(known)
    draws = [known.targets(draw) for draw in range(protocol.draws)]
    runs = sum(map(len, draws)) * protocol.seeds * len(protocol.methods)
    folder = root / "results" / (name or run_folder(command, facts))
    whole = session["share"] == FLAGS["share"].default and not session["collect"]
    finished = read_finished(folder, facts, runs, plots=plots) if whole and not tuned else None
    if finished is not None:
        everyone = sorted({subject for draw in draws for subject in draw})
        _begin(session, command, Workspace.open(root, values, subjects=everyone), draws, runs, runs)
        result, files = finished
        counts = {"all": runs, "reused": runs, "failed": 0, "missing": 0}
        output.show(f"{runs} runs: {runs} reused, 0 failed")
        output.result(folder, replace(result, data={**result.data, "runs": counts}), "", files)
        return
    from featlab.analysis.evaluation.result import evaluation_result
    from featlab.evaluation.results import failure_reasons
    from featlab.evaluation.runner import count_finished, plan, run_tasks
    from featlab.methods.registry import refuse_unread

    with output.progress() as bars:
        opened = session.open(values)
        refuse_unread(opened.config, protocol.methods)
        tasks, where = plan(opened), session.where(opened, bars.of(command))
        reused = count_finished(tasks)
        _begin(session, command, opened, draws, runs, reused)
        done = run_tasks(tasks, **where)
    rows = [row for part in done for row in part.values()]
    if not rows:
        raise InputError(f"no run of this {command} has been made yet; run it without --collect first")
    failed = [row for row in rows if row.error]
    missing = runs - len(rows)
    result = evaluation_result(
        rows,
        metadata=facts,
        kind=command,
        plots=plots,
        classes=opened.table.classes,
        smoothing=protocol.smoothing,
        runs={"all": runs, "reused": reused, "failed": len(failed), "missing": missing},
    )
    output.show(f"{runs} runs: {reused} reused, {len(failed)} failed" + (f", {missing} not run yet" if missing else ""))
    result = replace(result, summary=(*result.summary, *_tuned(tuned, rows)))
    output.result(folder, result, typed_command())
    for reason, of in failure_reasons(failed).items():
        output.warn(f"failed: {listed([f'{row.method} on {row.subject}' for row in of], 3)}: {reason}")
    if missing:
        output.warn(f"{missing} of {runs} runs have not been made: the tables are of the others")
    if failed:
        output.warn(f"{len(failed)} runs failed; all of them are listed in {folder / 'failures.jsonl'}")
    leave(failed=len(failed), runs=len(rows))


def _begin(
    session: Session, command: str, opened: Workspace, draws: Sequence[Sequence[str]], runs: int, reused: int
) -> None:
    """Say what runs, and what is wrong with these targets."""
    protocol, share = opened.config.protocol, session["share"]
    targets = sorted({subject for draw in draws for subject in draw})
    session.warn_of_seen(opened.extractor, targets)
    session.warn_of_untested(opened, targets, protocol.scope)
    clip = f"at most {protocol.frames} frames of a neutral clip" if protocol.frames else "a neutral clip"
    clip += f", {100 * protocol.contamination:g} % of it other classes" if protocol.contamination else ""
    unit = f"each from {clip}" if protocol.scope == "person" else "together, as one unlabelled data set"
    session.output.note(
        f"{command}: {len(protocol.methods)} methods on {len(draws[0])} targets ({unit}), "
        f"{count_text(protocol.draws, 'draw')} x {count_text(protocol.seeds, 'seed')}"
        + ("" if share == FLAGS["share"].default else f", share {share.replace('/', ' of ')}")
        + f"; {reused} of {runs} runs are there already"
    )


def _tuned(tuned: Mapping[str, Sequence[str]], rows: Sequence[EvaluationRow]) -> list[str]:
    """Say how many of the people that a method is scored on were tuned on."""
    lines = []
    for method, people in tuned.items():
        scored = {row.subject for row in rows if row.method == method}
        both = scored & set(people)
        if both:
            lines.append(
                f"{method}: its options were chosen on {len(both)} of these {len(scored)} subjects (featlab tune): its "
                "score is too high; keep the people of featlab tune out with --pool"
            )
    return lines

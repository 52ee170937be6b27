"""`featlab ablate`, `complexity`, `branches`, `paper`, `report`, `demo`: what results mean, one page, all at once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from featlab.analysis.table import count_text
from featlab.cli.complete import complete_ablation, complete_table
from featlab.cli.session import TO_REPORT, Session, command, leave, names_in, workspace_command
from featlab.config.analysis import GRIDS
from featlab.errors import InputError


@command(
    *("targets", "pool", "draws", "methods", "seeds", "images", "workspace", "caches", "settings", "seed"),
    *("device", "jobs", "engine", "share", "collect", "json_mode", "quiet"),
    then=TO_REPORT,
)
def ablate(
    session: Session,
    what: Annotated[
        str,
        Argument(
            metavar="|".join(GRIDS),
            help="dims: dimension of the features. pairing: how source rows are paired. losses: each term on and off. "
            "lambda: weights of the losses. layers: which layers of T adapt. share: how much of the offset at rest is "
            "taken. neutral: frames of the clip. sources: source subjects. contamination: a clip that is not all "
            "neutral. bn: BatchNorm's mode.",
            autocompletion=complete_ablation,
        ),
    ],
    grid: Annotated[
        str | None,
        Option("--values", metavar="V,V,…", help="The settings to run; default: what \\[ablate] in the file says."),
    ] = None,
    reduce: Annotated[
        str | None,
        Option(metavar="NAME,…", help="dims: within, pca, truncate, random; a panel each. Default: features.reduce."),
    ] = None,
) -> None:
    """Change one setting, see what it does to the score. Resumable: what is finished is kept."""
    from featlab.analysis.ablation.report import ablation_result, example_figures
    from featlab.analysis.ablation.run import ablate as run_ablation

    output = session.output
    more: dict[str, object] = {"ablate.methods": session["methods"], "ablate.reductions": reduce}
    if grid is not None:
        zero = ("full", "all") if what in ("dims", "neutral", "sources") else ()
        values = ",".join("0" if word in zero else word for word in names_in(grid))
        more |= dict.fromkeys((f"ablate.{key}" for key in GRIDS.get(what, ())), values)
    with output.progress() as bars:
        opened = session.open(more)
        protocol = opened.config.protocol
        targets = sorted({name for draw in range(protocol.draws) for name in opened.targets(draw)})
        session.warn_of_untested(opened, targets, protocol.scope)
        output.note(f"ablate {what}: {count_text(protocol.draws, 'draw')} x {count_text(protocol.seeds, 'seed')}")
        report = run_ablation(what, opened, **session.where(opened, bars.of(f"ablate {what}")))
    examples = example_figures(opened, session["images"], output.note) if what == "pairing" else []
    session.result(f"ablate-{what}", ablation_result(report, examples))
    errors = [row.error for point in report.points for row in point.rows]
    failed = [error for error in errors if error]
    if failed:
        output.warn(f"{len(failed)} of {len(errors)} runs failed, the first: {failed[0]}")
    leave(failed=len(failed), runs=len(errors))


@workspace_command("methods", "targets", "pool", "device", "wide", then=TO_REPORT)
def complexity(
    session: Session,
    repeat: Annotated[int, Option(min=1, metavar="R", help="Timed adaptations a subject.")] = 5,
    batch: Annotated[int, Option(min=2, metavar="B", help="Rows of the batch that is timed.")] = 64,
    name: Annotated[str, Option(metavar="NAME", help="Folder under results/.")] = "complexity",
) -> None:
    """Parameters, operations, iterations and seconds of adapting to one person, for every method.

    Adaptations are timed one after the other, in this process, with one thread: leave the machine alone meanwhile.
    """
    from featlab.analysis.cost import measure_complexity
    from featlab.analysis.cost_figure import complexity_result
    from featlab.methods.registry import method_names

    output = session.output
    names = names_in(session["methods"]) or list(method_names())
    with output.progress() as bars:
        opened = session.open()
        subjects = opened.targets()
        # Neutral clips are alike, and seconds add up.
        measured = len(subjects) if session["targets"] else min(3, len(subjects))
        output.note(
            f"complexity: {len(names)} methods x {measured} of {len(subjects)} targets x {repeat} runs, one thread"
        )
        report = measure_complexity(
            opened, subjects, names, measured=measured, repeat=repeat, batch=batch, on_method=bars.of("complexity")
        )
    session.result(name, complexity_result(report), opened, subjects)
    failures = [(f"{cost.method} on {where}", why) for cost in report.costs for where, why in cost.failures]
    output.warn_of_failures(failures, "runs failed; the table's notes list them")
    leave(failed=len(failures), runs=len(names) * measured)


@workspace_command("draws", "targets", "pool", "sources", "device", "wide", then=TO_REPORT)
def branches(
    session: Session, name: Annotated[str, Option(metavar="NAME", help="Folder under results/.")] = "branches"
) -> None:
    """Does only identity change? How alike rows are by expression and by subject, and what linear probes read off.

    Before and after pft has adapted T to each target, and in DSFDA's two branches. Labels only score, never adapt.
    """
    from featlab.analysis.inside.branches import compare_branches
    from featlab.analysis.inside.branches_figure import branches_result

    with session.output.progress() as bars:
        opened = session.open()
        report = compare_branches(opened, on_step=bars.of("branches"))
    people = sorted({person for draw in report.draws for person in draw})
    session.warn_of_seen(opened.extractor, people)
    session.result(name, branches_result(report), opened, people)


@workspace_command(
    *("targets", "pool", "sources", "draws", "seeds", "methods"),
    *("device", "jobs", "engine", "share", "collect", "wide"),
    then=TO_REPORT,
)
def paper(
    session: Session,
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="Which table; without it, all are listed.", autocompletion=complete_table),
    ] = None,
) -> None:
    """Run a published table's protocol on your cache: its numbers beside yours, and every difference. Resumable."""
    from featlab.analysis import paper as compare

    output, tables = session.output, compare.published_tables()
    if name is None:
        output.json({"tables": [asdict(table) for table in tables.values()]})
        listed = [(key, table.title, table.source["of"]) for key, table in tables.items()]
        output.columns(("Name", "Table", "Of"), listed, text_columns=3)
        session.then = "featlab paper NAME runs the protocol of one on the workspace's cache"
        return
    from featlab.analysis.page import run_folder
    from featlab.config.options import check_choice
    from featlab.evaluation.runner import plan, refuse_unfinished, run_tasks
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
        done = run_tasks(tasks, **session.where(opened, bars.of("evaluate")))
        refuse_unfinished(tasks, done)
        rows = {run: [row for part in done for key, row in part.items() if key.method == run] for run in made}
        lines = compare.lines_of(table, made, compare.found_in(table, opened, rows, bars.of(table.kind)))
    result = compare.paper_result(table, opened, people, lines, rows)
    session.result(run_folder(f"paper-{name}", result.metadata), result)
    errors = [bool(row.error) for mine in rows.values() for row in mine]
    if any(errors):
        output.warn("some runs failed; the notes of the table say why")
    leave(failed=sum(errors), runs=len(errors))


@command("workspace", "json_mode", "quiet")
def report(
    session: Session,
    folders: Annotated[
        list[Path] | None,
        Argument(
            metavar="FOLDER",
            help="Folders that evaluate, benchmark, ablate, plot, complexity, branches or paper wrote, in order of the "
            "report. Default: of each command the newest under results/.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", metavar="FILE", help="Default: report.html in the workspace.", show_default=False),
    ] = None,
    title: Annotated[str, Option(metavar="TEXT", help="Of the report.")] = "featlab report",
) -> None:
    """Put results into one HTML file that needs no network: words, tables, figures, and how they were made.

    Tables can be sorted, tables and figures saved; it reads on a phone and in print. The same results, the same bytes.
    """
    from featlab.analysis.report import write_report
    from featlab.analysis.report.collect import find_pages, read_report

    output = session.output
    path = out or session.workspace / "report.html"
    if not folders:
        folders, older = find_pages(session.workspace / "results")
        if older:
            output.note(f"older runs of the same commands are left out: {', '.join(item.name for item in older)}")
    made = read_report(folders, title)
    size = write_report(path, made)
    sections = [{"folder": item.folder, "kind": item.page.kind, "title": item.page.title} for item in made.pages]
    skipped = [{"folder": folder, "reason": reason} for folder, reason in made.skipped]
    output.json({"file": path, "bytes": size, "title": title, "sections": sections, "skipped": skipped})
    output.columns(("Section", "Folder"), [(item.page.title, item.folder) for item in made.pages], text_columns=2)
    output.show(f"{path}: {count_text(len(made.pages), 'section')}, {size / 1e6:.1f} MB; open it in a browser")
    output.warn(*made.warnings())
    leave(failed=len(made.skipped))


@command("jobs", "json_mode", "quiet")
def demo(
    session: Session,
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="The workspace to make, or to finish.")] = Path(
        "featlab-demo"
    ),
    people: Annotated[int | None, Option(min=2, metavar="N", help="People to draw.  [default: 48]")] = None,
    expressions: Annotated[int, Option(min=2, max=7, metavar="2..7", help="Classes, neutral among them.")] = 2,
    seed: Annotated[int, Option(min=0, metavar="S", help="Other people, other targets.")] = 0,
    quick: Annotated[bool, Option("--quick", help="Fewer people, shorter training.")] = False,
) -> None:
    """Draw people, extract, train, adapt to 10 new people with every method, compare: tables, pictures, one page."""
    from featlab.analysis.demo import NO_CLAIM, DemoConfig, run_demo

    output = session.output
    config = DemoConfig.sized(people=people, expressions=expressions, seed=seed, quick=quick)
    output.note(NO_CLAIM)
    with output.progress() as bars:
        result, made = run_demo(out, config, jobs=session.jobs, notify=output.note, on_progress=bars)
    output.json({**result.metadata, **result.data, "words": result.summary, **made})
    for table in result.shown():
        output.table(table)
    output.show(*result.summary, "")
    output.show(f"all of it on one page: {made['page']}", "", "what to type next:")
    output.show(*(f"  {line}" for line in made["next"]))
    output.note(f"done in {made['seconds']:.0f} s")

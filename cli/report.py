"""`featlab report` and `featlab demo`: results as one page; everything once, on drawn people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from featlab.cli.session import SKIPPED, Session, command


@command("workspace", "json_mode", "quiet")
def report(
    session: Session,
    folders: Annotated[
        list[Path] | None,
        Argument(
            metavar="FOLDER",
            help="Folders that evaluate, benchmark, ablate, plot, complexity or branches wrote, in the order of the "
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
    from featlab.analysis.report.collect import find_pages, read_report
    from featlab.analysis.report.page import write_report

    output = session.output
    path = out or session.workspace / "report.html"
    if not folders:
        found = find_pages(session.workspace / "results")
        folders = list(found.shown)
        if found.older:
            output.note(f"older runs of the same commands are left out: {', '.join(item.name for item in found.older)}")
    made = read_report(folders, title)
    size = write_report(path, made)
    sections = [{"folder": item.folder, "kind": item.page.kind, "title": item.page.title} for item in made.pages]
    skipped = [{"folder": folder, "reason": reason} for folder, reason in made.skipped]
    output.json({"file": path, "bytes": size, "title": title, "sections": sections, "skipped": skipped})
    output.columns(("Section", "Folder"), [(item.page.title, item.folder) for item in made.pages], text_columns=2)
    output.show(f"{path}: {len(made.pages)} section{'' if len(made.pages) == 1 else 's'}, {size / 1e6:.1f} MB")
    for line in made.warnings():
        output.warn(line)
    if made.skipped:
        raise typer.Exit(SKIPPED)


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
        report = run_demo(out, config, jobs=session.jobs, notify=output.note, on_progress=bars)
    output.json(report.to_dict())
    for table in report.result.shown():
        output.table(table)
    output.show(*report.result.summary, "")
    output.show(f"all of it on one page: {report.page}", "", "what to type next:")
    output.show(*(f"  {line}" for line in report.next_steps))
    output.note(f"done in {report.seconds:.0f} s")

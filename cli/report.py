"""`featlab report`: results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.group import SKIPPED
from featlab.cli.session import Session, command

__all__ = ["report"]


@command("workspace", "json_mode", "quiet")
def report(
    session: Session,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="Folders that evaluate, benchmark, ablate, plot, complexity or branches wrote, in the order of the "
            "report. Default: of each command the newest under results/.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: report.html in the workspace.", show_default=False),
    ] = None,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="Of the report.")] = "featlab report",
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

"""`featlab merge`: caches of one extractor, of several data sets, in one file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.output import Output
from featlab.cli.session import Session, command

if TYPE_CHECKING:
    from featlab.cache.merge import MergeReport


@command("json_mode", "quiet")
def merge(
    session: Session,
    caches: Annotated[list[Path], typer.Argument(metavar="CACHE CACHE…", help="Two or more, of one extractor.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The cache to make.")],
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Rename a class in every cache first; repeatable."),
    ] = None,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Put the cache's name before every subject: fer/s01.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Put caches of several data sets into one, to compare them."""
    from featlab.cache.merge import merge_caches

    output = session.output
    renames = _renames(rename or ())
    with output.progress() as bars:
        task = bars.add_task("merge", total=None)
        report = merge_caches(
            caches,
            out,
            rename=renames,
            prefix=prefix,
            force=force,
            on_progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    _tell(output, report)


def _renames(items: Sequence[str]) -> dict[str, str]:
    from featlab.errors import InputError

    renames: dict[str, str] = {}
    for item in items:
        old, _, new = (part.strip() for part in item.partition("="))
        if not old or not new:
            raise InputError(f"--rename {item}: expected OLD=NEW, for example happy=joy")
        if old in renames:
            raise InputError(f"--rename {item}: {old!r} is renamed twice; give it one new name")
        renames[old] = new
    return renames


def _tell(output: Output, report: MergeReport) -> None:
    from featlab.cache.reader import inspect_cache

    for note in report.notes:
        output.note(f"merge: {note}")
    summary = inspect_cache(report.path)
    *_, target = report.inputs
    words = ["featlab", "benchmark", "--scope", "dataset", "--cache", report.path, "--targets", target.subjects_file]
    step = shlex.join(map(str, words))
    output.json(
        {
            "path": report.path,
            "rows": summary.rows,
            "subjects": len(summary.subjects),
            "videos": summary.videos,
            "classes": summary.classes,
            "neutral": summary.neutral,
            "dim": summary.dim,
            "dtype": summary.dtype,
            "landmarks": summary.landmarks,
            "has_paths": summary.has_paths,
            "digest": summary.digest,
            "inputs": [
                {
                    "path": item.path,
                    "name": item.name,
                    "rows": item.rows,
                    "subjects": len(item.subjects),
                    "subjects_file": item.subjects_file,
                }
                for item in report.inputs
            ],
            "notes": report.notes,
            "next": step,
        }
    )
    output.facts(
        str(report.path),
        {
            "rows": f"{summary.rows:,}",
            "subjects": len(summary.subjects),
            "classes": ", ".join(summary.classes),
            "neutral class": summary.neutral,
            "embeddings": f"{summary.dim} values, {summary.dtype}",
            "digest": summary.digest[:12],
        },
    )
    lines = [(str(item.path), str(item.subjects_file), f"{item.rows:,}", len(item.subjects)) for item in report.inputs]
    output.columns(("Cache", "List of its subjects", "Rows", "Subjects"), lines, text_columns=2)
    output.show(f"{target.name} as the target, the rest as the source:", f"  {step}")

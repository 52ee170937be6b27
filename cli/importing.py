"""`featlab import` and `featlab merge`: features that somebody else computed; caches of several data sets in one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from featlab.cli.flags import WRITE_FLAGS
from featlab.cli.output import Output
from featlab.cli.session import SKIPPED, Session, command

if TYPE_CHECKING:
    from featlab.cache.merge import MergeReport
    from featlab.extraction.tables import ImportReport


@command(*WRITE_FLAGS, "workspace", "json_mode", "quiet")
def import_features(
    session: Session,
    source: Annotated[
        Path, Argument(help="Features: .csv, .tsv, .npy, .npz, .parquet, or a folder of OpenFace's csv files.")
    ],
    manifest: Annotated[
        Path | None, Option(metavar="FILE", help="A csv that says what the rows are: subject,label,video,frame.")
    ] = None,
    neutral: Annotated[str, Option(metavar="NAME", help="The neutral label.")] = "neutral",
    columns: Annotated[
        str | None,
        Option(
            metavar="NAMES|REGEX",
            help="Features: names and beginnings of names with commas, or an expression; default: all numbers.",
        ),
    ] = None,
    features: Annotated[
        str | None, Option(metavar="au|au-r|au-c|pose|gaze|all", help="Columns of OpenFace's by group; default: au-r.")
    ] = None,
    landmarks: Annotated[
        Path | None, Option(metavar="FILE", help="Landmarks, a row each; default: what the source has.")
    ] = None,
    extractor: Annotated[
        str, Option(metavar="NAME", help="What made the features; two names never meet.")
    ] = "imported",
    skip_bad: Annotated[
        bool, Option("--skip-bad", help="Leave out rows with missing or infinite values, and list them.")
    ] = False,
) -> None:
    """Write features that you already have into a cache."""
    from featlab.extraction.tables import ImportConfig
    from featlab.extraction.tables import import_features as run_import
    from featlab.extraction.tables.rows import Selection

    output = session.output
    config = ImportConfig(
        neutral=neutral,
        manifest=manifest,
        landmarks=landmarks,
        selection=Selection(columns, features),
        extractor=extractor,
        dtype=session["dtype"],
        skip_bad=skip_bad,
        if_exists=session["if_exists"],
    )
    with output.progress() as bars:
        report = run_import(source, session.cache_file(session["out"]), config, on_progress=bars.of("import"))
    _show_import(output, report)
    if report.failures:
        raise typer.Exit(SKIPPED)


def _show_import(output: Output, report: ImportReport) -> None:
    from featlab.cache.reader import inspect_cache
    from featlab.extraction.shards import failures_path

    for note in report.notes:
        output.note(f"import: {note}")
    listed = failures_path(report.path)
    summary = inspect_cache(report.path)
    facts = {
        "rows": report.rows,
        "subjects": len(summary.subjects),
        "videos": summary.videos,
        "classes": list(summary.classes),
        "dim": report.dim,
        "landmarks": summary.landmarks,
        "extractor": report.extractor.id,
        "was_there": report.was_there,
        "failures": len(report.failures),
        "float16_error": report.storage_error,
        "seconds": round(report.seconds, 3),
        "digest": report.digest,
    }
    output.json({"path": report.path, **facts, "failures_file": listed if report.failures else None})
    shown: dict[str, Any] = {name.replace("_", " "): value for name, value in facts.items()}
    shown |= {
        "classes": ", ".join(summary.classes),
        "landmarks": summary.landmarks and f"{summary.landmarks} points",
        "extractor": f"{report.extractor.id}: {report.extractor.preprocessing}",
        "float16 error": report.storage_error and f"{report.storage_error:.1e} of a row's length at most",
        "seconds": f"{report.seconds:.1f}",
        "digest": report.digest[:12],
    }
    for name in ("landmarks", "was there", "float16 error"):
        if not shown[name]:
            del shown[name]
    output.facts(str(report.path), shown)
    failures = [(failure.path, failure.reason) for failure in report.failures]
    output.warn_of_failures(failures, f"rows or files are left out; they are listed in {listed}")


@command("json_mode", "quiet")
def merge(
    session: Session,
    caches: Annotated[list[Path], Argument(metavar="CACHE CACHE…", help="Two or more, of one extractor.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The cache to make.")],
    rename: Annotated[
        list[str] | None, Option(metavar="OLD=NEW", help="Rename a class in every cache first; repeatable.")
    ] = None,
    prefix: Annotated[bool, Option("--prefix", help="Put the cache's name before every subject: fer/s01.")] = False,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Put caches of several data sets into one, to compare them."""
    from featlab.cache.merge import merge_caches

    output = session.output
    renames = _renames(rename or ())
    with output.progress() as bars:
        report = merge_caches(caches, out, rename=renames, prefix=prefix, force=force, on_progress=bars.of("merge"))
    _show_merge(output, report)


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


def _show_merge(output: Output, report: MergeReport) -> None:
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

"""Commands about data: start a workspace, look at a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.group import REFUSED
from featlab.cli.output import print_error
from featlab.cli.session import Session, command

__all__ = ["init", "inspect", "verify"]


@command("json_mode")
def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; made when it isn't there.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace a featlab.toml that is there.")] = False,
) -> None:
    """Start a workspace: write a featlab.toml that shows every setting."""
    from featlab.cache import atomic_write_text
    from featlab.config.load import Config
    from featlab.config.toml import config_template
    from featlab.errors import InputError

    path = folder / "featlab.toml"
    if path.exists() and not force:
        raise InputError(f"{path} exists; --force replaces it with the defaults")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error.strerror})") from error
    atomic_write_text(path, config_template())
    output = session.output
    cache = folder / Config().cache
    output.json({"path": path, "cache": cache, "cache_exists": cache.exists()})
    where = "" if folder.resolve() == Path.cwd() else f" -C {folder}"
    steps = [] if cache.exists() else [f"featlab extract SOURCE --backbone hog --out {cache}"]
    steps += [f"featlab adapt --subject ID{where}", f"featlab evaluate{where}"]
    output.show(f"wrote {path}; next:", *(f"  {step}" for step in steps))


@command("cache", "workspace", "json_mode", "quiet")
def inspect(
    session: Session,
    file: Annotated[Path | None, typer.Argument(metavar="[CACHE]", help="Default: the workspace's cache.")] = None,
) -> None:
    """Show what a cache holds."""
    from featlab.cache import inspect_cache

    summary = inspect_cache(_cache(file or session["cache"], session.workspace))
    output = session.output
    output.json(summary.to_dict())
    rows = sorted(summary.subjects.values())
    extractor = summary.extractor
    output.facts(
        summary.path,
        {
            "rows": f"{summary.rows:,}",
            "subjects": f"{len(rows)}, {rows[0]} to {rows[-1]} rows each (median {rows[len(rows) // 2]})",
            "videos": f"{summary.videos:,}",
            "neutral class": summary.neutral,
            "embeddings": f"{summary.dim} values, {summary.dtype}",
            "landmarks": f"{summary.landmarks} points" if summary.landmarks else "none",
            "extractor": f"{extractor.id}: {extractor.preprocessing}",
            "fingerprint": extractor.fingerprint[:12],
            "digest": summary.digest[:12],
            "size": f"{summary.file_bytes / 1e6:.1f} MB",
        },
    )
    classes = [(name, f"{count:,}", f"{100 * count / summary.rows:.1f} %") for name, count in summary.classes.items()]
    if summary.unknown_labels:
        unknown = summary.unknown_labels
        classes.append(("unknown", f"{unknown:,}", f"{100 * unknown / summary.rows:.1f} %"))
    output.columns(("Class", "Rows", "Share"), classes)


@command("cache", "workspace", "json_mode", "quiet")
def verify(
    session: Session,
    file: Annotated[Path | None, typer.Argument(metavar="[CACHE]", help="Default: the workspace's cache.")] = None,
) -> None:
    """Read all of a cache and check it: checksums, finiteness, digest. Exit code 2 when something is wrong."""
    from featlab.cache import CacheError, verify_cache

    path = _cache(file or session["cache"], session.workspace)
    output = session.output
    try:
        findings = verify_cache(path)
    except CacheError as error:
        findings = [str(error)]
    output.json({"path": path, "ok": not findings, "findings": findings})
    for finding in findings:
        print_error(finding)
    if findings:
        raise typer.Exit(REFUSED)
    output.show(f"{path}: all is well")


def _cache(named: Path | None, workspace: Path) -> Path:
    from featlab.config.load import load_config
    from featlab.errors import InputError

    path = named if named is not None else workspace / load_config(workspace / "featlab.toml").cache
    if not path.exists():
        raise InputError(f"{path}: no such cache; make one with `featlab extract SOURCE --out {path}`")
    return path

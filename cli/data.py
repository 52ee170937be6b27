"""Commands about data: start a workspace, embed images, look at a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.common import CacheOption, JobsOption, JsonOption, Output, QuietOption, WorkspaceOption
from featlab.cli.complete import complete_backbone
from featlab.cli.group import REFUSED, SKIPPED
from featlab.cli.output import print_error

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from featlab.extraction.pipeline import ExtractionReport
    from featlab.extraction.progress import Progress

__all__ = ["extract", "init", "inspect", "verify"]

_SHOWN = 5
"""Failures that are spelled out; the file beside the cache has all of them."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; made when it isn't there.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace a featlab.toml that is there.")] = False,
    json_mode: JsonOption = False,
) -> None:
    """Start a workspace: write a featlab.toml that shows every setting."""
    from featlab.cache import atomic_write_text
    from featlab.config import Config
    from featlab.config_file import config_template
    from featlab.errors import InputError

    path = folder / "featlab.toml"
    if path.exists() and not force:
        raise InputError(f"{path} exists; --force replaces it with the defaults")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error.strerror})") from error
    atomic_write_text(path, config_template())
    output = Output(json_mode=json_mode)
    cache = folder / Config().cache
    output.json({"path": path, "cache": cache, "cache_exists": cache.exists()})
    where = "" if folder.resolve() == Path.cwd() else f" -C {folder}"
    steps = [] if cache.exists() else [f"featlab extract SOURCE --backbone hog --out {cache}"]
    steps += [f"featlab adapt --subject ID{where}", f"featlab evaluate{where}"]
    output.show(f"wrote {path}; next:", *(f"  {step}" for step in steps))


def extract(
    source: Annotated[Path, typer.Argument(help="A manifest (.csv), or a folder subject/label/[video/]image.")],
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="NAME", help="Who embeds.", autocompletion=complete_backbone)
    ] = "hog",
    landmarks: Annotated[
        str, typer.Option("--landmarks", metavar="FILE|auto|none", help="auto: found beside the source.")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", "--cache", metavar="FILE", help="Default: the workspace's cache.")
    ] = None,
    neutral: Annotated[str, typer.Option("--neutral", metavar="NAME", help="The neutral label.")] = "neutral",
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="An option of the backbone, e.g. cell=6; repeatable."),
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", metavar="float32|float16", help="As stored.")] = "float32",
    if_exists: Annotated[
        str, typer.Option("--if-exists", metavar="resume|skip|error|overwrite", help="When the cache is there.")
    ] = "resume",
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Images handed over at once.")] = 64,
    workspace: WorkspaceOption = Path("."),
    jobs: JobsOption = 0,
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Embed images once into a cache. A killed run goes on where it stopped."""
    from featlab.config import load_config
    from featlab.extraction.backbones import make_backbone
    from featlab.extraction.landmarks import find_landmarks, read_landmarks
    from featlab.extraction.pipeline import ExtractConfig
    from featlab.extraction.pipeline import extract as run_extract
    from featlab.extraction.sources import names_by_row, read_source

    output = Output(json_mode=json_mode, quiet=quiet)
    config = ExtractConfig(jobs=jobs, batch=batch, dtype=dtype)
    made = make_backbone(backbone, **_options(options or []))
    path = out if out is not None else workspace / load_config(workspace / "featlab.toml").cache
    manifest = source / "manifest.csv"
    if source.is_dir() and manifest.is_file():
        output.note(f"extract: reading {manifest}")
        source = manifest
    items = read_source(source)
    points = None
    if landmarks != "none":
        found = find_landmarks(source) if landmarks == "auto" else Path(landmarks)
        if found is not None:
            points = read_landmarks(found, max(item.row for item in items) + 1, names_by_row(items))
        output.note(f"extract: landmarks {f'from {found}' if found else 'not found beside the source, none stored'}")
    with output.progress("{task.fields[rates]}") as bars:
        report = run_extract(
            items,
            made,
            path,
            neutral=neutral,
            landmarks=points,
            config=config,
            if_exists=if_exists,  # type: ignore[arg-type]  # checked there, with a line for the user
            on_progress=_Bar(bars),
        )
    _tell(output, report)
    if report.failures:
        raise typer.Exit(SKIPPED)


def inspect(
    cache: Annotated[Path | None, typer.Argument(metavar="[CACHE]", help="Default: the workspace's cache.")] = None,
    cache_option: CacheOption = None,
    workspace: WorkspaceOption = Path("."),
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what a cache holds."""
    from featlab.cache import inspect_cache

    summary = inspect_cache(_cache(cache or cache_option, workspace))
    output = Output(json_mode=json_mode, quiet=quiet)
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
            "layers": ", ".join(f"{name} ({width})" for name, width in summary.layers.items()) or "none",
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


def verify(
    cache: Annotated[Path | None, typer.Argument(metavar="[CACHE]", help="Default: the workspace's cache.")] = None,
    cache_option: CacheOption = None,
    workspace: WorkspaceOption = Path("."),
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read all of a cache and check it: checksums, finiteness, digest. Exit code 2 when something is wrong."""
    from featlab.cache import CacheError, verify_cache

    path = _cache(cache or cache_option, workspace)
    output = Output(json_mode=json_mode, quiet=quiet)
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


class _Bar:
    """Shows an extraction's progress: how far, how fast its stages are, how long it will take."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("extract", total=None, rates="")

    def __call__(self, now: Progress) -> None:
        rates = f"read {now.read_rate:.0f}/s embed {now.embed_rate:.0f}/s write {now.write_rate:.0f}/s"
        if now.failed:
            rates += f", {now.failed} failed"
        if now.seconds_left is not None:
            minutes, seconds = divmod(round(now.seconds_left), 60)
            rates += f", {minutes}:{seconds:02} left"
        self._bars.update(self._task, completed=now.done, total=now.total, rates=rates)


def _tell(output: Output, report: ExtractionReport) -> None:
    from featlab.cache import inspect_cache
    from featlab.extraction.failures import failures_path

    listed = failures_path(report.path)
    summary = inspect_cache(report.path)
    facts = {
        "rows": report.rows,
        "subjects": len(summary.subjects),
        "classes": list(summary.classes),
        "dim": report.dim,
        "extractor": report.extractor.id,
        "resumed_rows": report.resumed_rows,
        "failures": len(report.failures),
        "seconds": round(report.seconds, 3),
        "digest": report.digest,
    }
    output.json({"path": report.path, **facts, "failures_file": listed if report.failures else None})
    shown: dict[str, Any] = {name.replace("_", " "): value for name, value in facts.items()}
    shown |= {"classes": ", ".join(summary.classes), "seconds": f"{report.seconds:.1f}", "digest": report.digest[:12]}
    if not report.resumed_rows:
        del shown["resumed rows"]
    output.facts(str(report.path), shown)
    for failure in report.failures[:_SHOWN]:
        output.warn(f"{failure.path}: {failure.reason}")
    if report.failures:
        output.warn(f"{len(report.failures)} images have no row; they are listed in {listed}")


def _cache(named: Path | None, workspace: Path) -> Path:
    from featlab.config import load_config
    from featlab.errors import InputError

    path = named if named is not None else workspace / load_config(workspace / "featlab.toml").cache
    if not path.exists():
        raise InputError(f"{path}: no such cache; make one with `featlab extract SOURCE --out {path}`")
    return path


def _options(items: list[str]) -> dict[str, Any]:
    from featlab.errors import ConfigError

    options: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--option {item}: expected key=value, for example --option cell=6")
        options[key.strip()] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

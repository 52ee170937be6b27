"""`featlab extract`: embed images and videos once into a cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featlab.cli.complete import complete_backbone
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS
from featlab.cli.output import Output
from featlab.cli.session import SKIPPED, Session, command

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from featlab.extraction.embed import Progress
    from featlab.extraction.extract import ExtractionReport
    from featlab.extraction.inputs import Inputs


@command(*INPUT_FLAGS, *NETWORK_FLAGS, "batch", "workspace", "device", "jobs", "json_mode", "quiet")
def extract(
    session: Session,
    source: Annotated[
        Path,
        typer.Argument(help="A manifest (.csv), a folder subject/label/[video/]image, or a data set's own folder."),
    ],
    neutral: Annotated[
        str | None, typer.Option("--neutral", metavar="NAME", help="The neutral label; default: the layout's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", "--cache", metavar="FILE", help="Default: the workspace's cache.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", metavar="float32|float16", help="As stored.")] = "float32",
    if_exists: Annotated[
        str, typer.Option("--if-exists", metavar="resume|skip|error|overwrite", help="When the cache is there.")
    ] = "resume",
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="hog, geometry, resnet18, torchvision:NAME, timm:NAME, hf:FOLDER, pt2:FILE, onnx:FILE, "
            "python:MODULE:FACTORY.",
            autocompletion=complete_backbone,
            rich_help_panel="Backbone",
        ),
    ] = "hog",
) -> None:
    """Embed images or video frames once into a cache. A killed run goes on where it stopped."""
    from featlab.config.load import load_config
    from featlab.extraction.extract import ExtractConfig
    from featlab.extraction.extract import extract as run_extract
    from featlab.extraction.inputs import read_inputs, with_face_crop

    output = session.output
    config = ExtractConfig(jobs=session["jobs"], batch=session["batch"], dtype=dtype)
    wanted = session.input_config()
    path = out if out is not None else session.workspace / load_config(session.workspace / "featlab.toml").cache
    made = session.backbone(backbone, session["device"])
    with output.progress() as bars:
        inputs = read_inputs(
            source, wanted, beside=path, jobs=session["jobs"], notify=output.note, on_progress=StageBars(bars)
        )
    made = with_face_crop(made, wanted, inputs)
    with output.progress("{task.fields[rates]}") as bars:
        report = run_extract(
            inputs.items,
            made,
            path,
            neutral=neutral if neutral is not None else inputs.neutral,
            landmarks=inputs.landmarks,
            failures=inputs.failures,
            config=config,
            if_exists=if_exists,  # type: ignore[arg-type]  # checked there, with a line for the user
            on_progress=ExtractionBar(bars),
        )
    _tell(output, report, inputs)
    if report.failures:
        raise typer.Exit(SKIPPED)


class StageBars:
    """Shows the stages before the embedding, a bar each: probing videos, finding faces."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage; the first call makes it."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


class ExtractionBar:
    """Shows an extraction's progress: how far, how fast its stages are, how long it will take."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("extract", total=None, rates="")

    def __call__(self, now: Progress) -> None:
        """Move the bar."""
        rates = f"read {now.read_rate:.0f}/s embed {now.embed_rate:.0f}/s write {now.write_rate:.0f}/s"
        if now.failed:
            rates += f", {now.failed} failed"
        if now.seconds_left is not None:
            minutes, seconds = divmod(round(now.seconds_left), 60)
            rates += f", {minutes}:{seconds:02} left"
        self._bars.update(self._task, completed=now.done, total=now.total, rates=rates)


def _tell(output: Output, report: ExtractionReport, inputs: Inputs) -> None:
    from featlab.cache.reader import inspect_cache
    from featlab.extraction.faces.detect import no_face_path
    from featlab.extraction.shards import failures_path

    listed = failures_path(report.path)
    summary = inspect_cache(report.path)
    facts = {
        "rows": report.rows,
        "subjects": len(summary.subjects),
        "classes": list(summary.classes),
        "dim": report.dim,
        "layers": list(report.extractor.layers),
        "landmarks": inputs.landmark_source,
        "no_face": len(inputs.no_face),
        "extractor": report.extractor.id,
        "resumed_rows": report.resumed_rows,
        "failures": len(report.failures),
        "storage_error": asdict(report.storage_error) if report.storage_error.rows else None,
        "seconds": round(report.seconds, 3),
        "digest": report.digest,
    }
    output.json({"path": report.path, **facts, "failures_file": listed if report.failures else None})
    shown: dict[str, Any] = {name.replace("_", " "): value for name, value in facts.items()}
    shown |= {"classes": ", ".join(summary.classes), "seconds": f"{report.seconds:.1f}", "digest": report.digest[:12]}
    shown["layers"] = ", ".join(report.extractor.layers)
    shown["landmarks"] = inputs.landmark_source or "none"
    lost = report.storage_error
    shown["storage error"] = f"{lost.median:.1e} of a row's length, {lost.max:.1e} at most" if lost.rows else None
    for name in ("resumed rows", "no face", "layers", "storage error"):
        if not shown[name]:
            del shown[name]
    output.facts(str(report.path), shown)
    failures = [(failure.path, failure.reason) for failure in report.failures]
    output.warn_of_failures(failures, f"images have no row; they are listed in {listed}")
    if inputs.no_face:
        output.warn(
            f"no face was found in {len(inputs.no_face)} images; they are listed in {no_face_path(report.path)}"
        )

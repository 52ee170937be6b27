"""Commands for one new person: adapt to their neutral clip, then predict."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.complete import complete_backbone
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS
from featlab.cli.output import Output
from featlab.cli.person import bundle_for, open_person, predict_from_images, refuse_without_images, tell_predictions
from featlab.cli.session import Session, workspace_command

if TYPE_CHECKING:
    from featlab.evaluation.metrics import SubjectMetrics
    from featlab.workspace.adapt import Adapted


@workspace_command("subject", "method", "bundle", "targets", "device")
def adapt(
    session: Session,
    force: Annotated[
        bool, typer.Option("--force", help="Adapt to a clip that looks too short, or not neutral.")
    ] = False,
) -> None:
    """Adapt to one person from their neutral frames, without labels. Runs the source stages that are missing."""
    from featlab.evaluation.metrics import before_and_after
    from featlab.workspace.adapt import adapt_subject

    subject = session["subject"]
    with session.output.stages() as progress:
        opened = session.open(on_epoch=progress)
        model, folder = bundle_for(opened, session, subject)
    done = adapt_subject(model, folder, opened.table, opened.extractor, subject, opened.config, force=force)
    rows = opened.table.rows_of(subject)
    scores = before_and_after(model, rows, done.model.model, opened.config.protocol.gap)
    _report(session.output, done, folder, scores)


@workspace_command("subject", "method", "bundle", *INPUT_FLAGS, *NETWORK_FLAGS, "batch", "targets", "device", "jobs")
def predict(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The csv to write.")] = Path(
        "predictions.csv"
    ),
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="SOURCE",
            help="Predict these and not the cache's: an image, a video, a folder of them, a manifest.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="With --images: who embeds; default: the bundle's, where its name is enough.",
            autocompletion=complete_backbone,
            rich_help_panel="Backbone",
        ),
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(
            "--smooth", min=0, metavar="N", help="Average probabilities over N (odd) frames of a video; 0: as they are."
        ),
    ] = 0,
) -> None:
    """Predict every frame of one person with their adaptation; adapts first where that is missing."""
    from featlab.config.sections import check_window
    from featlab.evaluation.metrics import smooth_probabilities
    from featlab.workspace.predict import write_predictions

    subject = session["subject"]
    check_window("--smooth", smooth)
    if images is None:
        refuse_without_images(session, backbone)
    person = open_person(session, subject)
    if images is not None:
        predict_from_images(session, person, images, out, backbone, smooth)
        return
    rows = person.cached_rows(subject)
    probabilities = smooth_probabilities(person.model.predict_proba(rows.embeddings), rows.video, rows.frame, smooth)
    write_predictions(out, rows, probabilities, person.bundle.classes)
    tell_predictions(session.output, person, subject, out, rows, probabilities, smooth)


def _report(output: Output, done: Adapted, bundle: Path, scores: tuple[SubjectMetrics, SubjectMetrics] | None) -> None:
    facts = {
        "subject": done.subject,
        "method": done.method,
        "frames": done.frames,
        "videos": list(done.videos),
        "iterations": done.model.iterations,
        "seconds": done.seconds,
        "parameters": done.model.trainable,
        "bundle": bundle,
        "folder": done.folder,
    }
    before, after = (scores[0].macro_f1, scores[1].macro_f1) if scores else (None, None)
    warnings = list(done.model.warnings)
    if done.unlabelled:
        warnings.append(f"no row of {done.subject!r} has a label: all {done.frames} were taken to be neutral")
    scored = {"macro_f1_before": before, "macro_f1_after": after, "test_rows": scores[0].frames if scores else 0}
    report, gain = done.model.report, done.gain
    found = {"report": asdict(report) if report else None, "expected_gain": asdict(gain) if gain else None}
    output.json({**facts, **scored, **found, "warnings": warnings})
    shown = {
        "method": done.method,
        "adapted on": f"{done.frames} neutral frames of {_count(len(done.videos), 'video')}: {', '.join(done.videos)}",
        "iterations": f"{done.model.iterations} in {done.seconds:.2f} s",
        "parameters changed": f"{done.model.trainable:,}",
        "written to": done.folder,
    }
    if gain:
        seen = f"{gain.frames} other frames" if gain.frames else "source people alone"
        shown["expected gain"] = (
            f"{100 * gain.expected:+.0f} points of macro F1, four in five times {100 * gain.low:+.0f} to "
            f"{100 * gain.high:+.0f}; no loss in {gain.chance:.0%} of cases (from {seen}, no label used)"
        )
    if scores:
        shown["macro F1"] = (
            f"{100 * scores[0].macro_f1:.2f} before, {100 * scores[1].macro_f1:.2f} after, on {scores[0].frames} other "
            "frames (labels used for this line only, never by adapt)"
        )
    output.facts(f"adapt: {done.subject}", shown)
    for warning in warnings:
        output.warn(warning)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"

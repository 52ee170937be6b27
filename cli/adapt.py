"""`featlab adapt`: adapt to one new person's neutral clip."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.output import Output
from featlab.cli.session import Session, workspace_command

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.evaluation.metrics import SubjectMetrics
    from featlab.workspace.adapt import Adapted
    from featlab.workspace.workspace import Workspace


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


def bundle_for(workspace: Workspace, session: Session, subject: str) -> tuple[Bundle, Path]:
    """Return the bundle that was named, or the workspace's own for a person, made now if need be."""
    from featlab.bundle.bundle import load_bundle
    from featlab.errors import InputError, closest
    from featlab.methods.registry import get_method, refuse_unread
    from featlab.workspace.stages import bundle_stage

    get_method(workspace.config.adapt.method)
    if subject not in workspace.table.subjects:
        known = workspace.table.subjects
        raise InputError(f"unknown subject {subject!r}{closest(subject, known)}; the cache has {len(known)}")
    session.warn_of_seen(workspace.extractor, [subject])
    folder = session["bundle"]
    if folder is not None:
        bundle = load_bundle(folder)
        bundle.check_extractor(workspace.extractor, str(workspace.config.cache))
        return bundle, folder
    refuse_unread(workspace.config, [workspace.config.adapt.method])
    _check_can_adapt(workspace, subject)
    kept_out = session.held_out(workspace, [subject])
    bundle, made = bundle_stage(workspace.source(kept_out), [workspace.config.adapt.method])
    if made.reused:
        session.output.note(f"bundle: {made.folder}, of {len(bundle.source_subjects)} source subjects")
    return bundle, made.folder


def _check_can_adapt(workspace: Workspace, subject: str) -> None:
    """Fail before the source stages run, not after."""
    from featlab.methods.registry import make_method
    from featlab.workspace.adapt import adapt_rows

    config = workspace.config
    make_method(config.adapt.method, config.adapt.options)
    adapt_rows(workspace.table.rows_of(subject), config.protocol.gap)

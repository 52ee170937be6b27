"""Commands for one new person: adapt to their neutral clip, then predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.common import (
    BundleOption,
    CacheOption,
    DeviceOption,
    JsonOption,
    MethodOption,
    Output,
    QuietOption,
    SeedOption,
    SetOption,
    SubjectOption,
    TargetsOption,
    WorkspaceOption,
    flag_values,
    held_out,
    open_workspace,
)

if TYPE_CHECKING:
    from featlab.bundle import Bundle
    from featlab.metrics import SubjectMetrics
    from featlab.workspace import Adapted, Workspace

__all__ = ["adapt", "predict"]


def adapt(
    subject: SubjectOption,
    method: MethodOption = None,
    bundle: BundleOption = None,
    targets: TargetsOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt to one person from their neutral frames, without labels. Runs the source stages that are missing."""
    from featlab.evaluation import before_and_after
    from featlab.workspace import adapt_subject

    output = Output(json_mode=json_mode, quiet=quiet)
    values = flag_values(
        workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags={"adapt.method": method}
    )
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        model, folder = _bundle(opened, output, subject, bundle, targets)
    done = adapt_subject(model, folder, opened.table, opened.extractor, subject, opened.config)
    rows = opened.table.rows_of(subject)
    scores = before_and_after(model, rows, done.model.model, opened.config.protocol.gap)
    _report(output, done, folder, scores)


def predict(
    subject: SubjectOption,
    method: MethodOption = None,
    bundle: BundleOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The csv to write.")] = Path(
        "predictions.csv"
    ),
    targets: TargetsOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict every frame of one person with their adaptation; adapts first where that is missing."""
    from featlab.prediction import adapted_model, video_shares, write_predictions

    output = Output(json_mode=json_mode, quiet=quiet)
    values = flag_values(
        workspace, cache=cache, settings=settings, seed=seed, targets=targets, flags={"adapt.method": method}
    )
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        model, folder = _bundle(opened, output, subject, bundle, targets)
    adapted, reused = adapted_model(
        model, folder, opened.table, opened.extractor, subject, opened.config, notify=output.note
    )
    rows = opened.table.rows_of(subject)
    probabilities = adapted.predict_proba(rows.embeddings)
    write_predictions(out, rows, probabilities, model.classes)
    shares = video_shares(rows, probabilities)
    output.json(
        {
            "path": out,
            "subject": subject,
            "method": opened.config.adapt.method,
            "reused": reused,
            "rows": len(rows),
            "classes": list(model.classes),
            "videos": [
                {"video": video, "rows": count, **dict(zip(model.classes, share, strict=True))}
                for video, count, share in shares
            ],
        }
    )
    output.show(f"{out}: {len(rows)} rows of {subject}; share of frames predicted as each class, by video:")
    lines = [(video, count, *(f"{100 * value:.1f} %" for value in share)) for video, count, share in shares]
    output.columns(("Video", "Frames", *model.classes), lines)


def _bundle(
    workspace: Workspace, output: Output, subject: str, folder: Path | None, targets: str | None
) -> tuple[Bundle, Path]:
    """Return the bundle that was named, or the workspace's own, made now if need be."""
    from featlab.bundle import load_bundle
    from featlab.errors import InputError, closest
    from featlab.methods import get_method
    from featlab.stages import bundle_stage

    get_method(workspace.config.adapt.method)
    if subject not in workspace.table.subjects:
        known = workspace.table.subjects
        raise InputError(f"unknown subject {subject!r}{closest(subject, known)}; the cache has {len(known)}")
    if folder is not None:
        bundle = load_bundle(folder)
        bundle.check_extractor(workspace.extractor, str(workspace.config.cache))
        return bundle, folder
    _check_can_adapt(workspace, subject)
    kept_out = held_out(workspace, [subject], targets_given=targets is not None)
    bundle, made = bundle_stage(workspace.source(kept_out), [workspace.config.adapt.method])
    if made.reused:
        output.note(f"bundle: {made.folder}, of {len(bundle.source_subjects)} source subjects")
    return bundle, made.folder


def _check_can_adapt(workspace: Workspace, subject: str) -> None:
    """Fail before the source stages run, not after."""
    from featlab.methods import make_method
    from featlab.workspace import adapt_rows

    config = workspace.config
    make_method(config.adapt.method, config.adapt.options)
    adapt_rows(workspace.table.rows_of(subject), config.protocol.gap)


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
    output.json({**facts, **scored, "warnings": warnings})
    shown = {
        "method": done.method,
        "adapted on": f"{done.frames} neutral frames of {_count(len(done.videos), 'video')}: {', '.join(done.videos)}",
        "iterations": f"{done.model.iterations} in {done.seconds:.2f} s",
        "parameters changed": f"{done.model.trainable:,}",
        "written to": done.folder,
    }
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

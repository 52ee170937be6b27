"""`featlab predict --images`: new images of a person, embedded now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from featlab.cli.extract import StageBars
from featlab.cli.flags import PIXEL_FLAGS
from featlab.cli.group import SKIPPED
from featlab.cli.output import Output
from featlab.cli.person import Person
from featlab.cli.session import Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featlab.cache import FeatureTable


def refuse_without_images(session: Session, backbone: str | None) -> None:
    """Raise a ConfigError that names a flag which says nothing without ``--images``."""
    from featlab.errors import ConfigError

    given = [name for name in PIXEL_FLAGS if session[name] != PIXEL_FLAGS[name].default]
    for name in [*(["backbone"] if backbone is not None else []), *given]:
        flag = {"options": "option", "layout_options": "layout-option"}.get(name, name.replace("_", "-"))
        raise ConfigError(f"--{flag} says how images are read and embedded; name them with --images SOURCE")


def predict_from_images(
    session: Session, person: Person, images: Path, out: Path, backbone: str | None, smooth: int
) -> None:
    """Embed and predict; write the csv, and beside it the list of what could not be read (exit code 3).

    Args:
        session: The flags: who is predicted, how images are found and embedded.
        person: Their model.
        images: The source.
        out: The csv.
        backbone: Who embeds; None takes the bundle's own.
        smooth: Frames of a video that probabilities are averaged over; 0 for none.
    """
    from featlab.evaluation.metrics import smooth_probabilities
    from featlab.extraction.extract import ExtractConfig
    from featlab.extraction.shards import failures_path, write_failures
    from featlab.workspace.predict import write_predictions
    from featlab.workspace.predict_images import default_backbone, predict_source

    output, subject = session.output, session["subject"]
    name = backbone if backbone is not None else default_backbone(person.bundle)
    with output.progress() as bars:
        stages = StageBars(bars)
        predicted = predict_source(
            person.bundle,
            person.model,
            images,
            subject,
            session.backbone(name, network_device(name, session["device"])),
            session.input_config(),
            config=ExtractConfig(jobs=session["jobs"], batch=session["batch"]),
            notify=output.note,
            on_stage=stages,
            on_progress=lambda now: stages("embed", now.done, now.total),
        )
    rows = predicted.table
    probabilities = smooth_probabilities(predicted.probabilities, rows.video, rows.frame, smooth)
    write_predictions(out, rows, probabilities, person.bundle.classes)
    write_failures(out, predicted.failures)
    tell_predictions(output, person, subject, out, rows, probabilities, smooth, len(predicted.failures))
    failures = [(failure.path, failure.reason) for failure in predicted.failures]
    output.warn_of_failures(failures, f"images have no line; they are listed in {failures_path(out)}")
    if failures:
        raise typer.Exit(SKIPPED)


def network_device(backbone: str, device: str) -> str:
    """Return ``device``, or ``auto`` for a backbone that is no network and has no such option."""
    return "auto" if backbone.partition(":")[0] in ("hog", "geometry") else device


def tell_predictions(
    output: Output,
    person: Person,
    subject: str,
    out: Path,
    rows: FeatureTable,
    probabilities: NDArray[np.float32],
    smooth: int,
    failures: int = 0,
) -> None:
    """Print what was predicted, by video."""
    from featlab.workspace.predict import video_shares

    classes = person.bundle.classes
    shares = video_shares(rows, probabilities)
    output.json(
        {
            "path": out,
            "subject": subject,
            "method": person.method,
            "reused": person.reused,
            "rows": len(rows),
            "failures": failures,
            "smoothing": smooth,
            "classes": list(classes),
            "videos": [
                {"video": video, "rows": count, **dict(zip(classes, share, strict=True))}
                for video, count, share in shares
            ],
        }
    )
    over = f", averaged over {smooth} frames of a video" if smooth > 1 else ""
    output.show(f"{out}: {len(rows)} rows of {subject}{over}; share of frames predicted as each class, by video:")
    lines = [(video, count, *(f"{100 * value:.1f} %" for value in share)) for video, count, share in shares]
    output.columns(("Video", "Frames", *classes), lines)

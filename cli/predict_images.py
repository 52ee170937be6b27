"""`featlab predict --images`: new images of a person, embedded now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from featlab.cli.common import Output
from featlab.cli.extract import StageBars
from featlab.cli.group import SKIPPED
from featlab.cli.input_options import backbone_options, input_config
from featlab.cli.person import Person

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featlab.cache import FeatureTable

__all__ = ["ImageFlags", "network_device", "predict_from_images", "tell_predictions"]


@dataclass(frozen=True)
class ImageFlags:
    """What was said about how images are found and embedded; the defaults are those of the flags."""

    layout: str = "auto"
    layout_options: list[str] | None = None
    backbone: str | None = None
    weights: str | None = None
    layers: str | None = None
    options: list[str] | None = None
    amp: bool | None = None
    batch: int = 64
    landmarks: str = "auto"
    align: bool = False
    eye_distance: float | None = None
    no_face: str = "keep"
    fps: float | None = None
    window: str | None = None
    stride: int | None = None
    jobs: int = 0

    def refuse_without_images(self) -> None:
        """Raise a ConfigError that names a flag which says nothing without ``--images``."""
        from featlab.errors import ConfigError

        default = ImageFlags()
        for name in self.__dataclass_fields__:
            if name != "jobs" and getattr(self, name) != getattr(default, name):
                flag = {"options": "option", "layout_options": "layout-option"}.get(name, name.replace("_", "-"))
                raise ConfigError(f"--{flag} says how images are read and embedded; name them with --images SOURCE")


def predict_from_images(
    output: Output, person: Person, subject: str, images: Path, out: Path, flags: ImageFlags, device: str, smooth: int
) -> None:
    """Embed and predict; write the csv, and beside it the list of what could not be read (exit code 3).

    Args:
        output: Where words go.
        person: Who is predicted.
        subject: The person's name.
        images: The source.
        out: The csv.
        flags: How images are found and embedded.
        device: ``auto``, ``cpu`` or ``cuda``.
        smooth: Frames of a video that probabilities are averaged over; 0 for none.
    """
    from featlab.evaluation.metrics import smooth_probabilities
    from featlab.extraction.backbones import make_backbone
    from featlab.extraction.extract import ExtractConfig
    from featlab.extraction.shards import failures_path, write_failures
    from featlab.workspace.predict import write_predictions
    from featlab.workspace.predict_images import default_backbone, predict_source

    name = flags.backbone if flags.backbone is not None else default_backbone(person.bundle)
    where = network_device(name, device)
    backbone = make_backbone(
        name,
        **backbone_options(flags.options, weights=flags.weights, layers=flags.layers, device=where, amp=flags.amp),
    )
    inputs = input_config(
        flags.layout,
        flags.layout_options,
        flags.landmarks,
        flags.align,
        flags.eye_distance,
        flags.no_face,
        flags.fps,
        flags.window,
        flags.stride,
    )
    with output.progress() as bars:
        stages = StageBars(bars)
        predicted = predict_source(
            person.bundle,
            person.model,
            images,
            subject,
            backbone,
            inputs,
            config=ExtractConfig(jobs=flags.jobs, batch=flags.batch),
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

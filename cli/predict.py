"""`featlab predict`: a person's probabilities, for rows of the cache or for new images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from featlab.cli.complete import complete_backbone
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS, PIXEL_FLAGS
from featlab.cli.output import Output
from featlab.cli.session import SKIPPED, Session, workspace_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featlab.bundle.bundle import Bundle
    from featlab.cache.table import FeatureTable
    from featlab.model.networks import AdaptedModel


@dataclass(frozen=True, eq=False)
class Person:
    """One person's model."""

    bundle: Bundle  # The source model.
    model: AdaptedModel  # The person's.
    method: str  # Registry name of the method.
    reused: bool  # Whether the adaptation was stored.
    rows: FeatureTable | None  # The person's rows; ``None`` where no cache was needed.

    def cached_rows(self, subject: str) -> FeatureTable:
        """Return the person's rows, or say that there is no cache with them."""
        from featlab.errors import InputError

        if self.rows is None:
            raise InputError(
                f"there is no cache with rows of {subject}; name one with --cache, or images with --images"
            )
        return self.rows


def open_person(session: Session, subject: str) -> Person:
    """Return a person's model; adapts first where that is missing, and runs the source stages that are.

    A named bundle in which the person's adaptation is stored needs no cache: without one, what is stored is taken.
    """
    from featlab.workspace.adapt import bundle_for
    from featlab.workspace.predict import adaptation_of, stored_model

    bundle, method = session["bundle"], session["method"]
    if bundle is not None and session["cache"] is None and not session.cache_file(None).exists():
        from featlab.bundle.bundle import load_bundle
        from featlab.errors import InputError

        loaded = load_bundle(bundle)
        model, stored = stored_model(loaded, bundle, subject)
        if method is not None and method != stored:
            raise InputError(
                f"{subject} is adapted by {stored}, not {method}, and there is no cache to adapt on; name a --cache"
            )
        return Person(loaded, model, stored, True, None)
    with session.output.stages() as progress:
        opened = session.open(on_epoch=progress)
        session.warn_of_seen(opened.extractor, [subject])
        loaded, folder = bundle_for(opened, [subject], bundle, session.held_out(opened, [subject]))
    adapted, reused = adaptation_of(opened, loaded, folder, subject)
    return Person(loaded, adapted, opened.config.adapt.method, reused, opened.table.rows_of(subject))


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
    """Embed and predict; write the csv, and beside it the list of what could not be read (exit code 3)."""
    from featlab.evaluation.metrics import smooth_probabilities
    from featlab.extraction.extract import ExtractConfig
    from featlab.extraction.shards import list_path, write_list
    from featlab.workspace.predict import default_backbone, predict_source, write_predictions

    output, subject = session.output, session["subject"]
    name = backbone if backbone is not None else default_backbone(person.bundle)
    with output.progress() as bars:
        predicted = predict_source(
            person.bundle,
            person.model,
            images,
            subject,
            session.backbone(name, network_device(name, session["device"])),
            session.input_config(),
            config=ExtractConfig(jobs=session["jobs"], batch=session["batch"]),
            notify=output.note,
            on_stage=bars,
            on_progress=lambda now: bars("embed", now.done, now.total),
        )
    rows = predicted.table
    probabilities = smooth_probabilities(predicted.probabilities, rows.video, rows.frame, smooth)
    write_predictions(out, rows, probabilities, person.bundle.classes)
    write_list(out, predicted.failures)
    tell_predictions(output, person, subject, out, rows, probabilities, smooth, len(predicted.failures))
    output.warn_of_failures(predicted.failures, f"images have no line; they are listed in {list_path(out)}")
    if predicted.failures:
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


@workspace_command("subject", "method", "bundle", *INPUT_FLAGS, *NETWORK_FLAGS, "batch", "targets", "device", "jobs")
def predict(
    session: Session,
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The csv to write.")] = Path("predictions.csv"),
    images: Annotated[
        Path | None,
        Option(
            metavar="SOURCE", help="Predict these and not the cache's: an image, a video, a folder of them, a manifest."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="With --images: who embeds; default: the bundle's, where its name is enough.",
            autocompletion=complete_backbone,
            rich_help_panel="Backbone",
        ),
    ] = None,
    smooth: Annotated[
        int, Option(min=0, metavar="N", help="Average probabilities over N (odd) frames of a video; 0: as they are.")
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

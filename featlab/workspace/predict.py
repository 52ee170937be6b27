"""Predict one person: from their stored adaptation or a new one, for rows of the cache or for new images."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featlab.bundle.adaptation import adaptation_folder, load_adaptation
from featlab.bundle.bundle import Bundle
from featlab.cache.atomic import atomic_write_text
from featlab.cache.reader import open_cache
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.errors import BundleError, InputError, closest
from featlab.extraction.backbones import APPENDED, BACKBONES, Backbone
from featlab.extraction.embed import OnProgress
from featlab.extraction.extract import DEFAULTS, ExtractConfig, extract
from featlab.extraction.items import Failure, Item
from featlab.model.networks import AdaptedModel
from featlab.workspace.adapt import adapt_rows, adapt_subject, clip_digest, stored_adaptation
from featlab.workspace.workspace import Workspace

if TYPE_CHECKING:
    from featlab.extraction.inputs import InputConfig, OnStage


def adaptation_of(workspace: Workspace, bundle: Bundle, bundle_folder: Path, subject: str) -> tuple[AdaptedModel, bool]:
    """Return a subject's adaptation and whether it was stored.

    Adapts now where there is none, one of other settings, or one of another clip than the cache's. Of rows that hold no
    neutral clip, or have no labels to tell, the stored one is taken. The workspace is told which it is, and why.
    """
    config = workspace.config
    bundle.check_extractor(workspace.extractor, "cache")
    folder = adaptation_folder(bundle_folder, subject)
    why = f"{subject} is not adapted to yet"
    if (folder / "adaptation.json").exists():
        model, meta, why = stored_adaptation(folder, bundle, subject, config)
        if model is not None:
            rows = workspace.table.rows_of(subject)
            neutral, unlabelled = bool((rows.label == rows.neutral_code).any()), bool((rows.label < 0).all())
            clip = adapt_rows(rows, config.protocol.gap)[0] if neutral or unlabelled else None
            if clip is not None and meta.get("clip") in (None, clip_digest(clip)):
                return model, True
            if not neutral:
                told = f"{meta['frames']} neutral frames of {', '.join(meta['videos'])}"
                workspace.notify(f"adapt: the stored adaptation of {subject} is used; it was made from {told}")
                return model, True
            why = f"the stored adaptation of {subject} was made from another clip"
    workspace.notify(f"adapt: {why}; running {config.adapt.method}")
    done = adapt_subject(bundle, bundle_folder, workspace.table, workspace.extractor, subject, config)
    return done.model, False


def stored_model(bundle: Bundle, bundle_folder: Path, subject: str) -> tuple[AdaptedModel, str]:
    """Return a subject's adaptation as the bundle's folder has it, and the method's name. No cache is needed."""
    folder = adaptation_folder(bundle_folder, subject)
    model, meta = load_adaptation(folder, bundle)
    if meta.get("subject") != subject:
        raise BundleError(f"{folder}: is an adaptation to {meta.get('subject')!r}, not to {subject!r}")
    return model, str(meta.get("method", ""))


def write_predictions(
    path: str | os.PathLike[str], table: FeatureTable, probabilities: NDArray[np.float32], classes: Sequence[str]
) -> None:
    """Write one line a row as csv: path (if stored), subject, video, frame, predicted, and p_<class> of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stored = table.paths is not None
    writer.writerow(
        [*(["path"] if stored else []), "subject", "video", "frame", "predicted"] + [f"p_{c}" for c in classes]
    )
    winner = probabilities.argmax(axis=1)
    for row, line in enumerate(probabilities):
        names = [table.subjects[table.subject[row]], table.videos[table.video[row]], int(table.frame[row])]
        start = [table.paths[row]] if table.paths is not None else []
        writer.writerow([*start, *names, classes[winner[row]], *(f"{value:.6f}" for value in line)])
    atomic_write_text(path, text.getvalue())


def video_shares(table: FeatureTable, probabilities: NDArray[np.float32]) -> list[tuple[str, int, NDArray[np.float64]]]:
    """Return (video, frames, (K,) share of frames predicted as each class) of each video, in name order."""
    winner = probabilities.argmax(axis=1)
    shares = []
    for code in np.unique(table.video):
        votes = np.bincount(winner[table.video == code], minlength=probabilities.shape[1])
        shares.append((table.videos[code], int(votes.sum()), votes / votes.sum()))
    return shares


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """What was predicted."""

    # n rows, sorted by video and frame; their labels are unknown, their paths are the images' names.
    table: FeatureTable
    probabilities: NDArray[np.float32]  # (n, K), classes in the bundle's order.
    failures: tuple[Failure, ...]  # Images that could not be read or embedded.


def predict_source(
    bundle: Bundle,
    adapted: AdaptedModel,
    source: Path,
    subject: str,
    backbone: Backbone,
    inputs: InputConfig,
    *,
    config: ExtractConfig = DEFAULTS,
    notify: Callable[[str], None] | None = None,
    on_stage: OnStage | None = None,
    on_progress: OnProgress | None = None,
) -> ImagePredictions:
    """Predict a person's images in a source.

    A source without subjects in it (an image, a video, a folder of them: the layout ``loose``, which ``auto`` takes for
    it) is the person's as a whole. Of any other source the person's images are taken. The backbone, with the alignment
    of ``inputs`` before it, must be the bundle's extractor.
    """
    from featlab.extraction.faces.align import with_alignment
    from featlab.extraction.inputs import read_inputs, with_face_crop
    from featlab.extraction.layouts import detect_layout
    from featlab.extraction.layouts.plain import is_loose

    # Before videos are opened and faces are looked for.
    check_backbone(
        bundle.extractor, (with_alignment(backbone, inputs.align) if inputs.align is not None else backbone).info()
    )
    loose = inputs.layout == "loose"
    if inputs.layout == "auto" and is_loose(source):
        # A data set's folder may look like clips, and knows better whose they are.
        loose = source.is_file() or detect_layout(source) is None
    if loose:
        inputs = replace(inputs, layout="loose", layout_options={"subject": subject})
    with tempfile.TemporaryDirectory(prefix="featlab-") as folder:
        read = read_inputs(
            source, inputs, beside=Path(folder) / "images.h5", jobs=config.jobs, notify=notify, on_progress=on_stage
        )
        if notify is not None:
            for line in read.warnings:
                notify(line)
        predicted = predict_images(
            bundle,
            adapted,
            read.items if loose else _items_of(read.items, subject, source),
            with_face_crop(backbone, inputs, read),
            landmarks=read.landmarks,
            config=config,
            on_progress=on_progress,
        )
    return replace(predicted, failures=(*read.failures, *predicted.failures))


def predict_images(
    bundle: Bundle,
    adapted: AdaptedModel,
    items: Sequence[Item],
    backbone: Backbone,
    *,
    landmarks: NDArray[np.float32] | None = None,
    config: ExtractConfig = DEFAULTS,
    on_progress: OnProgress | None = None,
) -> ImagePredictions:
    """Embed images and predict them; ``landmarks`` are those of the whole source, by ``Item.row``.

    The embeddings go through a temporary cache, which is gone afterwards; what the items say about labels is not read.
    """
    check_backbone(bundle.extractor, backbone.info())
    with tempfile.TemporaryDirectory(prefix="featlab-") as folder:
        out = Path(folder) / "images.h5"
        report = extract(
            [replace(item, label=None) for item in items],
            backbone,
            out,
            neutral=bundle.neutral,
            landmarks=landmarks,
            config=config,
            on_progress=on_progress,
        )
        with open_cache(out) as cache:
            table = cache.read()
    return ImagePredictions(table, adapted.predict_proba(table.embeddings), report.failures)


def check_backbone(wanted: ExtractorInfo, made: ExtractorInfo) -> None:
    """Raise a BundleError that says in what a backbone differs from the one that a bundle was made for."""
    # An older featlab stored statistics of layers beside the embedding, which was what it is without layers.
    older = wanted if APPENDED in wanted.preprocessing else replace(wanted, layers=())
    if made.fingerprint in (wanted.fingerprint, older.fingerprint):
        return
    parts = []
    for name in ("id", "weights", "preprocessing"):
        theirs, ours = getattr(made, name), getattr(wanted, name)
        if ours != theirs:
            # A sha256 is told by its beginning.
            letters = 12 if name == "weights" else None
            parts.append(f"{name} {theirs[:letters]!r} for {ours[:letters]!r}")
    if made.layers != wanted.layers:
        parts.append(f"layers {','.join(made.layers) or 'none'} for {','.join(wanted.layers) or 'none'}")
    raise BundleError(f"the backbone isn't the one that the bundle was made for; it has {'; '.join(parts)}")


def default_backbone(bundle: Bundle) -> str:
    """Return the backbone's name that a bundle's extractor goes by; there it may still need weights and options."""
    name = bundle.extractor.id
    prefix = name.partition(":")[0]
    # The identity of a network in a file or folder has no path in it.
    if prefix not in BACKBONES.names() or prefix in ("pt2", "onnx", "hf"):
        raise InputError(
            f"the bundle's features come from {name!r} ({bundle.extractor.preprocessing}); say with --backbone (and "
            "--weights, --layers, --option) how to make them"
        )
    return name


def _items_of(items: Sequence[Item], subject: str, source: Path) -> list[Item]:
    mine = [item for item in items if item.subject == subject]
    if not mine:
        known = sorted({item.subject for item in items})
        few = ", ".join(known[:4]) + (", …" if len(known) > 4 else "")
        raise InputError(f"{source}: none of its images is of {subject!r} (subjects: {few}){closest(subject, known)}")
    return mine

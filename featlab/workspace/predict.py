"""Predict a person's frames with their adaptation: the one that is stored, or one made now."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.bundle.adaptation import adaptation_folder, load_adaptation
from featlab.bundle.bundle import Bundle
from featlab.cache.atomic import atomic_write_text
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.config.load import Config
from featlab.errors import BundleError
from featlab.methods.registry import make_method
from featlab.model.personal import AdaptedModel
from featlab.workspace.adapt import adapt_subject
from featlab.workspace.workspace import Notify


def adapted_model(
    bundle: Bundle,
    bundle_folder: Path,
    table: FeatureTable,
    extractor: ExtractorInfo,
    subject: str,
    config: Config,
    *,
    notify: Notify,
) -> tuple[AdaptedModel, bool]:
    """Return a subject's adaptation and whether it was stored; adapt now where there is none or one of other settings.

    ``notify`` is told when the adaptation is made now, and why.
    """
    bundle.check_extractor(extractor, "cache")
    folder = adaptation_folder(bundle_folder, subject)
    why = f"{subject} is not adapted to yet"
    if (folder / "adaptation.json").exists():
        model, why = _stored(folder, bundle, subject, config)
        if model is not None:
            return model, True
    notify(f"adapt: {why}; running {config.adapt.method}")
    return adapt_subject(bundle, bundle_folder, table, extractor, subject, config).model, False


def stored_model(bundle: Bundle, bundle_folder: Path, subject: str) -> tuple[AdaptedModel, str]:
    """Return a subject's adaptation as it is stored in the bundle's folder, and the method's name. No cache is needed.

    Raises:
        BundleError: None there, one of another bundle, or one of another subject.
    """
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


def _stored(folder: Path, bundle: Bundle, subject: str, config: Config) -> tuple[AdaptedModel | None, str]:
    """Return the stored adaptation, or why it is of no use."""
    try:
        model, meta = load_adaptation(folder, bundle)
        method, seed = str(meta["method"]), int(meta["seed"])
        same = meta["subject"] == subject and method == config.adapt.method and seed == config.protocol.seed
        options = {method: meta["options"]}
    except (BundleError, KeyError, TypeError, ValueError):
        return None, f"what is stored in {folder} can't be used"
    if same and make_method(method, options).config == make_method(method, config.adapt.options).config:
        return model, ""
    return None, f"the stored adaptation is {method} with seed {seed}, not what was asked for"

"""Predict people's rows of the cache: from the stored adaptation, or from a new one."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle
from featlab.bundle.files import adaptation_folder, has_adaptation, load_adaptation
from featlab.cache.atomic import atomic_path
from featlab.cache.schema import as_cell
from featlab.cache.table import FeatureTable
from featlab.errors import BundleError, FeatlabError
from featlab.model.networks import AdaptedModel
from featlab.workspace.adapt import Refused, adapt_rows, adapt_subject, clip_digest, stored_adaptation
from featlab.workspace.workspace import Workspace

_COLUMNS = ("path", "subject", "video", "frame", "adapted_on", "predicted")
_OPTIONAL = ("path", "adapted_on")


@dataclass(frozen=True, eq=False)
class Predicted:
    """What was predicted of one person."""

    subject: str
    rows: FeatureTable  # n rows.
    probabilities: NDArray[np.float32]  # (n, K), classes in the bundle's order.
    reused: bool  # Whether the adaptation was stored.
    adapted_on: NDArray[np.bool_] | None = None  # (n,) rows that the adaptation was made from; ``None`` if unknown.


def predict_people(
    workspace: Workspace, bundle: Bundle, folder: Path, subjects: Sequence[str]
) -> Iterator[Predicted | Refused]:
    """Predict the rows of one person after the other, as `predict_one`.

    Yields:
        A person's probabilities, or why there are none. The others go on.
    """
    quiet = replace(workspace, notify=lambda line: None)
    for subject in subjects:
        try:
            yield predict_one(quiet, bundle, folder, subject)
        except FeatlabError as error:
            yield Refused(subject, str(error))


def predict_one(workspace: Workspace, bundle: Bundle, folder: Path, subject: str) -> Predicted:
    """Predict the rows of one person; adapts first where that is missing, as `adaptation_of`."""
    model, reused = adaptation_of(workspace, bundle, folder, subject)
    rows = workspace.table.rows_of(subject)
    probabilities = model.predict_proba(rows.embeddings)
    return Predicted(subject, rows, probabilities, reused, _adapted_on(rows, workspace.config.protocol.gap))


def _adapted_on(rows: FeatureTable, gap: int) -> NDArray[np.bool_]:
    """Return (n,) which rows of one person `adaptation_of` adapts on; none where they hold no neutral clip."""
    taken = np.zeros(len(rows), dtype=np.bool_)
    if (rows.label < 0).all() or (rows.label == rows.neutral_code).any():
        taken[adapt_rows(rows, gap)[0]] = True
    return taken


def adaptation_of(workspace: Workspace, bundle: Bundle, bundle_folder: Path, subject: str) -> tuple[AdaptedModel, bool]:
    """Return a subject's adaptation and whether it was stored.

    Adapts now where there is none, one of other settings, or one of another clip than the cache's. Of rows that hold no
    neutral clip, or have no labels to tell, the stored one is taken. The workspace is told which it is, and why.
    """
    config = workspace.config
    bundle.check_extractor(workspace.extractor, "cache")
    folder = adaptation_folder(bundle_folder, subject)
    why = f"{subject} is not adapted to yet"
    if has_adaptation(folder):
        model, meta, why = stored_adaptation(folder, bundle, subject, config)
        if model is not None:
            rows = workspace.table.rows_of(subject)
            taken = _adapted_on(rows, config.protocol.gap)
            if taken.any() and meta.get("clip") in (None, clip_digest(rows.take(taken))):
                return model, True
            if not (rows.label == rows.neutral_code).any():
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


def write_predictions(path: str | os.PathLike[str], predicted: Iterable[Predicted], classes: Sequence[str]) -> None:
    """Write one line a row as csv, for all people or none: whole or not there, and not there without any rows.

    The columns: path (if stored), subject, video, frame, adapted_on (yes or no, if known), predicted, and p_<class> of
    each class. People are taken one after the other.
    """
    parts = iter(predicted)
    for first in parts:
        with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            lacking = {"path": first.rows.paths is None, "adapted_on": first.adapted_on is None}
            start = [name for name in _COLUMNS if not lacking.get(name)]
            writer.writerow([*start, *(f"p_{name}" for name in classes)])
            for done in chain([first], parts):
                table, winner = done.rows, done.probabilities.argmax(axis=1)
                for row, line in enumerate(done.probabilities):
                    names = [table.subjects[table.subject[row]], table.videos[table.video[row]], int(table.frame[row])]
                    whose = [table.paths[row], *names] if table.paths is not None else names
                    used = [] if done.adapted_on is None else ["yes" if done.adapted_on[row] else "no"]
                    named = map(as_cell, (*whose, *used, classes[winner[row]]))
                    writer.writerow([*named, *(f"{value:.6f}" for value in line)])


def holds_predictions(path: Path) -> bool:
    """Return whether a file has the head that `write_predictions` writes."""
    if path.suffix != ".csv":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.readline().rstrip().split(",")
    start = [name for name in _COLUMNS if name in head or name not in _OPTIONAL]
    return head[: len(start)] == start


def video_shares(table: FeatureTable, probabilities: NDArray[np.float32]) -> list[tuple[str, int, NDArray[np.float64]]]:
    """Return (video, frames, (K,) share of frames predicted as each class) of each video, in name order."""
    winner = probabilities.argmax(axis=1)
    shares = []
    for code in np.unique(table.video):
        votes = np.bincount(winner[table.video == code], minlength=probabilities.shape[1])
        shares.append((table.videos[code], int(votes.sum()), votes / votes.sum()))
    return shares

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
from featlab.bundle.files import adaptation_folder, load_adaptation
from featlab.cache.atomic import atomic_path
from featlab.cache.schema import as_cell
from featlab.cache.table import FeatureTable
from featlab.errors import BundleError, FeatlabError
from featlab.model.networks import AdaptedModel
from featlab.workspace.adapt import Refused, adapt_subject, adapted_on, stored_adaptation
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
    return Predicted(subject, rows, probabilities, reused, adapted_on(rows, workspace.config.protocol.gap))


def adaptation_of(workspace: Workspace, bundle: Bundle, bundle_folder: Path, subject: str) -> tuple[AdaptedModel, bool]:
    """Return a subject's adaptation and whether it was stored.

    Adapts now where there is none, one of other settings, or one of another clip than the cache's. Of rows that hold no
    neutral clip, or have no labels to tell, the stored one is taken. The workspace is told which it is, and why.
    """
    config, rows = workspace.config, workspace.table.rows_of(subject)
    stored, why = stored_adaptation(bundle, bundle_folder, rows, subject, config)
    if stored and why and not (rows.label == rows.neutral_code).any():
        told = f"{stored[1].frames} neutral frames of {', '.join(stored[1].videos)}"
        workspace.notify(f"adapt: the stored adaptation of {subject} is used; it was made from {told}")
        why = ""
    if stored and not why:
        return stored[0], True
    workspace.notify(f"adapt: {why}; running {config.adapt.method}")
    return adapt_subject(bundle, bundle_folder, rows, workspace.extractor, subject, config)[0], False


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

"""Adapt a bundle to one person: which rows, what is refused, what is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from featlab.bundle.adaptation import adaptation_folder, save_adaptation
from featlab.bundle.bundle import Bundle
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.config.load import Config
from featlab.errors import InputError, closest
from featlab.methods.registry import make_method
from featlab.model.personal import AdaptedModel, GainEstimate
from featlab.protocol.splits import check_disjoint, split_target, target_of
from featlab.seeding import run_seed
from featlab.workspace.stages import open_bundle
from featlab.workspace.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Adapted:
    """One person's adaptation.

    Attributes:
        model: Predicts for the person.
        folder: Where it was written.
        subject: The person.
        method: Registry name.
        frames: Neutral rows that were adapted on.
        videos: Where they come from.
        unlabelled: Whether they were taken to be neutral because none of the person's rows has a label.
        seconds: Wall time of the adaptation.
        gain: What adapting is expected to have done for the person, from their other rows without labels; ``None``
            where the method or the bundle can't tell.
    """

    model: AdaptedModel
    folder: Path
    subject: str
    method: str
    frames: int
    videos: tuple[str, ...]
    unlabelled: bool
    seconds: float
    gain: GainEstimate | None = None


def adapt_rows(table: FeatureTable, gap: int) -> tuple[FeatureTable, bool]:
    """Return the rows of one subject to adapt on, and whether they were taken to be neutral without a label.

    Labelled subjects follow the protocol's split. Of a subject without any label every row is taken: a new person's
    neutral clip has no labels.

    Raises:
        InputError: Labelled rows, none of them neutral.
    """
    if (table.label < 0).all():
        return table, True
    return table.take(split_target(table, gap).adapt), False


def adapt_subject(
    bundle: Bundle,
    bundle_folder: Path,
    table: FeatureTable,
    extractor: ExtractorInfo,
    subject: str,
    config: Config,
    *,
    force: bool = False,
) -> Adapted:
    """Adapt a bundle to one person and write what changed into the bundle's folder.

    Args:
        bundle: The source model.
        bundle_folder: Where it is; ``subjects/<id>/`` is written there.
        table: Rows that hold the person's.
        extractor: What made their embeddings.
        subject: The person.
        config: ``adapt`` and ``protocol`` are read.
        force: Adapt to a clip that the method would refuse.

    Raises:
        InputError: Unknown subject, a source subject, no neutral rows, or a clip that the method refuses: too short, or
            not neutral.
        BundleError: Features of another extractor.
    """
    if subject not in table.subjects:
        raise InputError(f"unknown subject {subject!r}{closest(subject, table.subjects)}")
    check_disjoint(bundle.source_subjects, [subject])
    bundle.check_extractor(extractor, "cache")
    rows, unlabelled = adapt_rows(table.rows_of(subject), config.protocol.gap)
    method = make_method(config.adapt.method, config.adapt.options)
    if force:
        method = method.forced()
    start = time.perf_counter()
    model = method.adapt(bundle, target_of(rows), seed=run_seed(bundle.seed, method.name, subject))
    seconds = time.perf_counter() - start
    if model.report is not None and model.report.refusal and not force:
        raise InputError(
            f"{subject}: {model.report.refusal}; give a longer or cleaner neutral clip, or run featlab adapt "
            f"--subject {subject} --force"
        )
    gain = None
    if model.report is not None:
        # From the person's rows of other videos than the adapted ones; their labels are not looked at.
        everything = table.rows_of(subject)
        others = np.isin(everything.video, rows.video, invert=True)
        gain = method.expected_gain(bundle, model.model, everything.embeddings[others])
    folder = adaptation_folder(bundle_folder, subject)
    videos = rows.video_names_present()
    meta = {
        "subject": subject,
        "method": method.name,
        "options": dict(config.adapt.options.get(method.name, {})),
        "seed": config.protocol.seed,
        "frames": len(rows),
        "videos": list(videos),
        "unlabelled": unlabelled,
        "seconds": seconds,
        "report": asdict(model.report) if model.report is not None else None,
        "gain": asdict(gain) if gain is not None else None,
    }
    save_adaptation(folder, bundle, model, meta)
    return Adapted(model, folder, subject, method.name, len(rows), videos, unlabelled, seconds, gain)


def bundle_for(workspace: Workspace, subject: str, folder: Path | None, kept_out: Sequence[str]) -> tuple[Bundle, Path]:
    """Return the bundle to adapt to a person, as `open_bundle`; fail before the source stages run, not after."""
    config = workspace.config
    make_method(config.adapt.method, config.adapt.options)
    known = workspace.table.subjects
    if subject not in known:
        raise InputError(f"unknown subject {subject!r}{closest(subject, known)}; the cache has {len(known)}")
    if folder is None:
        adapt_rows(workspace.table.rows_of(subject), config.protocol.gap)
    return open_bundle(workspace, folder, kept_out)

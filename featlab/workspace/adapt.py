"""Adapt a bundle to one person: which rows, what is refused, what is written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.bundle.bundle import Bundle, load_bundle
from featlab.bundle.files import adaptation_folder, has_adaptation, load_adaptation, save_adaptation
from featlab.cache.atomic import folders_synced_last
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.compute import run_seed
from featlab.config.load import Config
from featlab.errors import BundleError, FeatlabError, InputError
from featlab.methods.base import Method, base_model
from featlab.methods.registry import make_method, refuse_unread
from featlab.model.networks import AdaptedModel, GainEstimate, PersonalModel
from featlab.protocol.splits import Target, macro_f1, split_target, target_of
from featlab.workspace.workspace import Workspace, bundle_folder, load_made_bundle


@dataclass(frozen=True)
class Refused:
    """A person who was not adapted to, and why."""

    subject: str
    reason: str


@dataclass(frozen=True)
class Adapted:
    """What is told of one person's adaptation; the model is in the folder."""

    subject: str
    folder: Path
    method: str  # Registry name.
    frames: int  # Neutral rows that were adapted on.
    videos: tuple[str, ...]  # Where they come from.
    unlabelled: bool  # Whether they were taken to be neutral because none of the person's rows has a label.
    seconds: float  # Wall time of the adaptation.
    # What adapting is expected to have done for the person, from their other rows without labels; ``None`` where the
    # method or the bundle can't tell.
    expected_gain: GainEstimate | None
    warnings: tuple[str, ...]
    reused: bool = False  # Whether it was stored already, of the same clip by the same method.


def adapt_rows(table: FeatureTable, gap: int) -> tuple[NDArray[np.intp], bool]:
    """Return which rows of one subject to adapt on, and whether they were taken to be neutral without a label.

    Labelled subjects follow the protocol's split. Of a subject without any label every row is taken: a new person's
    neutral clip has no labels.

    Raises:
        InputError: Labelled rows, none of them neutral.
    """
    if (table.label < 0).all():
        return np.arange(len(table)), True
    return split_target(table, gap).adapt, False


def adapted_on(rows: FeatureTable, gap: int) -> NDArray[np.bool_]:
    """Return (n,) which rows of one person are adapted on; none where they hold no neutral clip."""
    taken = np.zeros(len(rows), dtype=np.bool_)
    if (rows.label < 0).all() or (rows.label == rows.neutral_code).any():
        taken[adapt_rows(rows, gap)[0]] = True
    return taken


def adapt_subject(
    bundle: Bundle,
    root: Path,
    table: FeatureTable,
    extractor: ExtractorInfo,
    subject: str,
    config: Config,
    *,
    force: bool = False,
) -> tuple[AdaptedModel, Adapted]:
    """Adapt a bundle to one person and write what changed into ``subjects/<id>/`` of its folder, ``root``.

    ``table`` holds the person's rows, whose embeddings the extractor made. ``adapt`` and ``protocol`` of the
    configuration are read; ``force`` adapts to a clip that the method would refuse.

    Raises:
        InputError: A source subject, no neutral rows, or a clip that the method refuses: too short, or not neutral.
        CacheError: Unknown subject.
        BundleError: Features of another extractor.
    """
    bundle.check_new([subject])
    bundle.check_extractor(extractor, "cache")
    everything = table.rows_of(subject)
    places, unlabelled = adapt_rows(everything, config.protocol.gap)
    rows = everything.take(places)
    method = make_method(config.adapt.method, config.adapt.options)
    how = f"run featlab adapt --subject {subject} --force"
    start = time.perf_counter()
    model = adapt_to_clip(bundle, method, target_of(rows), subject, force=force, how=how)
    seconds = time.perf_counter() - start
    # From the person's rows of other videos than the adapted ones; their labels are not looked at.
    others = np.isin(everything.video, rows.video, invert=True)
    gain = method.expected_gain(bundle, model.model, everything.embeddings[others])
    folder, videos = adaptation_folder(root, subject), rows.video_names_present()
    meta = {
        "subject": subject,
        "method": method.name,
        "options": dict(config.adapt.options.get(method.name, {})),
        "seed": config.protocol.seed,
        "frames": len(rows),
        "videos": list(videos),
        "unlabelled": unlabelled,
        "clip": clip_digest(rows),
        "seconds": seconds,
        "report": asdict(model.report) if model.report is not None else None,
        "gain": asdict(gain) if gain is not None else None,
    }
    save_adaptation(folder, bundle, model, meta)
    return model, Adapted(subject, folder, method.name, len(rows), videos, unlabelled, seconds, gain, model.warnings)


def adapt_to_clip(
    bundle: Bundle, method: Method, clip: Target, subject: str, *, force: bool = False, how: str = "--force"
) -> AdaptedModel:
    """Return a person's model of a neutral clip; nothing is written.

    Raises:
        InputError: A clip that the method refuses, which ``force`` adapts to all the same; ``how`` says how to.
    """
    method = method.forced() if force else method
    model = method.adapt(bundle, clip, seed=run_seed(bundle.seed, method.name, subject))
    if model.report is not None and model.report.refusal and not force:
        raise InputError(f"{subject}: {model.report.refusal}; give a longer or cleaner neutral clip, or {how}")
    return model


def before_and_after(
    bundle: Bundle, table: FeatureTable, model: PersonalModel, gap: int
) -> tuple[float, float, int] | None:
    """Return the macro F1 of the source model and of an adapted one on a subject's labelled test rows; their number.

    To look at, never to adapt by. Classes are matched by name; ``None`` where no test row has a label that both know.
    """
    if (table.label < 0).all():
        return None
    codes = [bundle.classes.index(name) if name in bundle.classes else -1 for name in table.classes]
    test = split_target(table, gap).test
    # An unknown label is -1, which picks the last of these.
    labels = np.array([*codes, -1])[table.label[test]]
    test, labels = test[labels >= 0], labels[labels >= 0]
    if not len(test):
        return None
    before, after = (
        macro_f1(labels, AdaptedModel(part).predict_proba(table.embeddings[test]).argmax(axis=1), len(bundle.classes))
        for part in (base_model(bundle), model)
    )
    return before, after, len(test)


def adapt_people(
    workspace: Workspace, root: Path, subjects: Sequence[str], *, force: bool = False, jobs: int = 1
) -> Iterator[Adapted | Refused]:
    """Adapt the bundle in ``root`` to many people, as `adapt_subject`; what is stored of the same clip is not redone.

    ``jobs`` and ``[engine]`` say where, see `featlab.engine.run_all`.

    Yields:
        What became of a person, or why there is no adaptation, as they finish. The others go on.
    """
    from featlab.engine import run_all

    # A worker of a cluster lives on, and a bundle may be replaced by another one.
    stamp = (root / "bundle.json").stat().st_mtime_ns
    logs = workspace.root / "engine"
    # Not relative: a worker process may have been started in another folder.
    work = partial(_adapt_one, workspace, root.resolve(), stamp, force)
    with folders_synced_last():
        for done in run_all(work, subjects, jobs=jobs, engine=workspace.config.engine, folder=logs, light=True):
            yield replace(done, folder=adaptation_folder(root, done.subject)) if isinstance(done, Adapted) else done


@lru_cache(maxsize=1)
def _loaded(root: Path, stamp: int, device: str) -> Bundle:
    """Return the bundle that was written at the time of ``stamp``, kept for the next person."""
    return load_bundle(root, device=device)


def _adapt_one(workspace: Workspace, root: Path, stamp: int, force: bool, subject: str) -> Adapted | Refused:
    extractor, config = workspace.extractor, workspace.config
    try:
        bundle, rows = _loaded(root, stamp, workspace.adapt_on), workspace.table.rows_of(subject)
        stored, why = (None, "") if force else stored_adaptation(bundle, root, rows, subject, config)
        if stored and not why:
            return stored[1]
        return adapt_subject(bundle, root, rows, extractor, subject, config, force=force)[1]
    except FeatlabError as error:
        return Refused(subject, str(error))


def stored_adaptation(
    bundle: Bundle, root: Path, rows: FeatureTable, subject: str, config: Config
) -> tuple[tuple[AdaptedModel, Adapted] | None, str]:
    """Return what is stored of a person, and why it isn't what `adapt_subject` would make of their rows.

    Nothing is returned where it is of another method, options or seed; that of another clip is.
    """
    folder = adaptation_folder(root, subject)
    if not has_adaptation(folder):
        return None, f"{subject} is not adapted to yet"
    try:
        model, meta = load_adaptation(folder, bundle)
        gain = None if meta["gain"] is None else GainEstimate(**meta["gain"])
        made = (str(meta["method"]), int(meta["frames"]), tuple(meta["videos"]), bool(meta["unlabelled"]))
        done = Adapted(subject, folder, *made, float(meta["seconds"]), gain, model.warnings, reused=True)
        seed, options, clip = int(meta["seed"]), meta["options"], meta["clip"]
        same = meta["subject"] == subject and done.method == config.adapt.method and seed == config.protocol.seed
    except (BundleError, KeyError, TypeError, ValueError):
        return None, f"what is stored in {folder} can't be used"
    method = done.method
    if not same or make_method(method, {method: options}).config != make_method(method, config.adapt.options).config:
        return None, f"the stored adaptation is {method} with seed {seed}, not what was asked for"
    if clip != clip_digest(rows.take(adapted_on(rows, config.protocol.gap))):
        return (model, done), f"the stored adaptation of {subject} was made from another clip"
    return (model, done), ""


def clip_digest(rows: FeatureTable) -> str:
    """Return the sha256 of the embeddings that were adapted on, in their order."""
    return hashlib.sha256(np.ascontiguousarray(rows.embeddings, dtype="<f4").data).hexdigest()


def bundle_for(
    workspace: Workspace, people: Sequence[str], folder: Path | None, kept_out: Sequence[str]
) -> tuple[Bundle, Path]:
    """Return the bundle to adapt to these people, as `open_bundle`; fail before the source stages run, not after.

    Of several people, those who can't be adapted to are no failure here: `adapt_people` tells of them.
    """
    config = workspace.config
    make_method(config.adapt.method, config.adapt.options)
    if folder is None and len(people) == 1:
        adapt_rows(workspace.table.rows_of(people[0]), config.protocol.gap)
    elif folder is None and not set(workspace.table.subjects) - set(kept_out):
        raise InputError(
            f"all {len(people)} subjects are to be adapted to, so nobody is left to train on; name a model bundle of "
            "other people with --bundle, or fewer subjects"
        )
    return open_bundle(workspace, folder, kept_out)


def open_bundle(workspace: Workspace, folder: Path | None, kept_out: Sequence[str]) -> tuple[Bundle, Path]:
    """Return the bundle that was named, or the workspace's own for its method, made now if need be; and its folder.

    ``kept_out`` are people whom the workspace's own bundle must not have seen.
    """
    if folder is not None:
        bundle = load_bundle(folder, device=workspace.adapt_on)
        bundle.check_extractor(workspace.extractor, str(workspace.config.cache))
        return bundle, folder
    method = workspace.config.adapt.method
    refuse_unread(workspace.config, [method])
    source = workspace.source(kept_out)
    folder = bundle_folder(source, [method])
    if (folder / "bundle.json").exists():
        bundle = load_made_bundle(folder, workspace.adapt_on)
        workspace.notify(f"bundle: {folder}, of {len(bundle.source_subjects)} source subjects")
        return bundle, folder
    # Pairing and training are imported where they run.
    from featlab.workspace.stages import bundle_stage

    return bundle_stage(source, [method])[0], folder

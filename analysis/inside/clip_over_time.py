"""One test video of one person, frame by frame: the probability of a class before and after adapting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featlab.cache import FeatureTable
from featlab.errors import InputError, closest
from featlab.evaluation.metrics import smooth_probabilities
from featlab.evaluation.run import adapted_model
from featlab.methods import AdaptedModel, base_model, get_method, make_method
from featlab.methods.base import SourceFeatures
from featlab.protocol.splits import Split, check_known, split_target
from featlab.seeding import run_seed
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace

__all__ = ["Clip", "choose_video", "class_probability", "clip_over_time", "is_shown", "video_rows"]


@dataclass(frozen=True, eq=False)
class Clip:
    """One video of a person, as the source model and the person's own model see it.

    Attributes:
        subject: Who.
        video: Its name.
        method: Registry name of what adapted.
        classes: The K class names.
        neutral: One of them.
        shown: The class whose probability is drawn; empty for everything but ``neutral``.
        rows: (n,) intp, indices into the workspace's table, in order of time.
        frame: (n,) int32, increasing.
        label: (n,) int16, -1 unknown: to look at, no model has met them.
        before: (n, K) float32 probabilities of the source model.
        after: (n, K) float32 of the adapted one.
        smoothing: Frames that both were averaged over; 0 for none.
        adapted_frames: Rows that were adapted on.
        adapted_videos: Names of the videos that they are from.
        warnings: What the user should know, a line each.
    """

    subject: str
    video: str
    method: str
    classes: tuple[str, ...]
    neutral: str
    shown: str
    rows: NDArray[np.intp]
    frame: NDArray[np.int32]
    label: NDArray[np.int16]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    smoothing: int
    adapted_frames: int
    adapted_videos: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def positive(self) -> str:
        """Name of what the probability is of: a class, or ``non-neutral`` for all but one."""
        return self.shown or _others(self.classes, self.neutral)


def clip_over_time(
    workspace: Workspace,
    subject: str,
    kept_out: Sequence[str],
    *,
    video: str = "",
    shown: str = "",
    smoothing: int = 0,
) -> Clip:
    """Adapt `adapt.method` to a person as `featlab adapt` does, and predict one of their test videos.

    Of a person without any label every row is adapted on, and any video can be shown; a warning says so.

    Args:
        workspace: Cache and configuration.
        subject: Who.
        kept_out: Who is no source subject, among them ``subject``.
        video: One of their test videos; by default the one that `choose_video` takes.
        shown: The class whose probability is wanted; by default everything but neutral.
        smoothing: Frames to average probabilities over, odd; 0 for none.

    Raises:
        InputError: An unknown subject, class or video, a video that was adapted on, or a method that is given labels.
        ConfigError: An unknown method or option, or an even window.
    """
    config, table = workspace.config, workspace.table
    name = config.adapt.method
    check_known([subject], table.subjects)
    if shown and shown not in table.classes:
        known = ", ".join(table.classes)
        raise InputError(f"--class {shown} is none of the classes, {known}{closest(shown, table.classes)}")
    if get_method(name).needs_labels:
        raise InputError(f"{name} is given the person's labels, so a clip can't show what it adapts to; take another")
    method = make_method(name, config.adapt.options)
    at = np.flatnonzero(table.subject == table.subjects.index(subject))
    mine = table.take(at)
    split, warnings = _split(mine, subject, config.protocol.gap)
    rows = video_rows(mine, split, video)
    source = workspace.source(tuple(kept_out))
    bundle, _ = bundle_stage(source, (name,))
    features = SourceFeatures.of(bundle, source.table) if method.needs_source else None
    model = adapted_model(bundle, mine, split, method, features, run_seed(bundle.seed, name, subject))
    part = mine.take(rows)
    before, after = (
        smooth_probabilities(who.predict_proba(part.embeddings), part.video, part.frame, smoothing)
        for who in (AdaptedModel(base_model(bundle)), model)
    )
    return Clip(
        subject=subject,
        video=part.videos[part.video[0]],
        method=name,
        classes=part.classes,
        neutral=part.neutral,
        shown=shown,
        rows=at[rows],
        frame=part.frame,
        label=part.label,
        before=before,
        after=after,
        smoothing=smoothing,
        adapted_frames=len(split.adapt),
        adapted_videos=mine.take(split.adapt).video_names_present(),
        warnings=(*warnings, *model.warnings),
    )


def choose_video(table: FeatureTable, test: NDArray[np.intp]) -> str:
    """Return the test video with the most frames of another class than neutral; of equal ones the first by name.

    Where there are none, unlabelled frames count, since they may show anything.

    Args:
        table: Rows of one subject.
        test: Its test rows.
    """

    def rank(code: int) -> tuple[int, int, str]:
        labels = table.label[test[table.video[test] == code]]
        expressive = (labels >= 0) & (labels != table.neutral_code)
        return -int(expressive.sum()), -int((labels < 0).sum()), table.videos[code]

    return table.videos[min(np.unique(table.video[test]).tolist(), key=rank)]


def video_rows(table: FeatureTable, split: Split, video: str = "") -> NDArray[np.intp]:
    """Return the test rows of one video in order of time.

    Args:
        table: Rows of one subject.
        split: Of them.
        video: Its name; by default `choose_video` chooses among those without an adapted frame, or, where every one has
            some, among all.

    Raises:
        InputError: No such video of the subject, or one without test rows.
    """
    adapted = np.isin(table.video[split.test], table.video[split.adapt])
    # A person with a single video has it split in time: what follows the adapted part is shown.
    candidates = split.test if adapted.all() else split.test[~adapted]
    name = video or choose_video(table, candidates)
    known = table.video_names_present()
    if name not in known:
        raise InputError(f"--video {name}: the subject has no such video{closest(name, known)}; it has {_some(known)}")
    rows = split.test[table.video[split.test] == table.videos.index(name)]
    if not len(rows):
        tested = table.take(split.test).video_names_present()
        raise InputError(f"--video {name}: its frames were adapted on, they are no test; take one of {_some(tested)}")
    ordered: NDArray[np.intp] = rows[np.argsort(table.frame[rows], kind="stable")]
    return ordered


def class_probability(
    probabilities: NDArray[np.float32], classes: Sequence[str], neutral: str, shown: str = ""
) -> NDArray[np.float32]:
    """Return (n,) the probability of a class in [0, 1]; without one, of everything but neutral.

    Args:
        probabilities: (n, K) float32, whose sum may miss 1 by a rounding error.
        classes: The K names.
        neutral: One of them.
        shown: One of them, or empty.
    """
    column = probabilities[:, classes.index(shown or neutral)]
    return np.clip(column if shown else 1.0 - column, 0.0, 1.0)


def is_shown(label: NDArray[np.int16], classes: Sequence[str], neutral: str, shown: str = "") -> NDArray[np.int64]:
    """Return (n,) 1 where a frame shows the class whose probability is drawn, 0 where not, -1 where nobody knows."""
    true = label == classes.index(shown) if shown else label != classes.index(neutral)
    return np.where(label < 0, -1, true).astype(np.int64)


def _split(table: FeatureTable, subject: str, gap: int) -> tuple[Split, tuple[str, ...]]:
    if (table.label >= 0).any():
        return split_target(table, gap), ()
    everything = np.arange(len(table))
    line = (
        f"no row of {subject!r} has a label: all {len(table)} were taken to be neutral and adapted on, those of this "
        "video too"
    )
    return Split(everything, everything), (line,)


def _others(classes: Sequence[str], neutral: str) -> str:
    others = [name for name in classes if name != neutral]
    return others[0] if len(others) == 1 else f"non-{neutral}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

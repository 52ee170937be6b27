"""One test video of one person, frame by frame: the probability of a class before and after adapting."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.table import Table, number_text
from featlab.cache import FeatureTable
from featlab.errors import InputError, closest
from featlab.evaluation.metrics import smooth_probabilities
from featlab.evaluation.run import adapted_model
from featlab.methods import AdaptedModel, base_model, get_method, make_method
from featlab.methods.base import SourceFeatures
from featlab.protocol.splits import Split, check_known, split_target
from featlab.seeding import run_seed, stable_hash
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Clip",
    "choose_video",
    "class_probability",
    "clip_columns",
    "clip_name",
    "clip_over_time",
    "clip_table",
    "clip_words",
    "draw_clip",
    "is_shown",
    "video_rows",
]


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


def clip_columns(clip: Clip) -> dict[str, list[Any]]:
    """Return the numbers of `draw_clip`, a line a frame.

    Columns: frame, label (the class; empty where unknown), shown (see `is_shown`), before and after (probabilities of
    ``clip.positive``), predicted_before and predicted_after (the most probable class).
    """
    kind = (clip.classes, clip.neutral, clip.shown)
    return {
        "frame": clip.frame.tolist(),
        "label": [clip.classes[code] if code >= 0 else "" for code in clip.label.tolist()],
        "shown": is_shown(clip.label, *kind).tolist(),
        "before": class_probability(clip.before, *kind).tolist(),
        "after": class_probability(clip.after, *kind).tolist(),
        "predicted_before": [clip.classes[code] for code in clip.before.argmax(axis=1).tolist()],
        "predicted_after": [clip.classes[code] for code in clip.after.argmax(axis=1).tolist()],
    }


def draw_clip(clip: Clip, images: Sequence[NDArray[np.uint8] | None]) -> Figure:
    """Draw `clip_columns` with frames beneath, if there are any; the line at 0.5 is drawn where it decides.

    With more than two classes the most probable one wins, whatever its probability.
    """
    from featlab.analysis.inside.strips import plot_clip

    data = clip_columns(clip)
    return plot_clip(
        images if any(image is not None for image in images) else None,
        np.array(data["before"]),
        np.array(data["after"]),
        np.array(data["shown"]),
        clip.video if clip.subject in clip.video else f"{clip.subject}, {clip.video}",
        positive=clip.positive,
        frame_numbers=clip.frame,
        threshold=0.5 if len(clip.classes) == 2 else None,
    )


def clip_table(clip: Clip) -> Table:
    """Return two lines, before and after: frames right, and the mean probability in frames that show it and others."""
    lines = []
    for name, probabilities in (("Before", clip.before), ("After", clip.after)):
        right = number_text(100 * _right(clip, probabilities), 1)
        lines.append((name, right, *(number_text(mean, 3) for mean in _means(clip, probabilities))))
    return Table(
        title=f"{clip.subject}, video {clip.video}: {int((clip.label >= 0).sum())} labelled of {len(clip.rows)} frames",
        columns=("", "Frames right (%)", f"Mean p({clip.positive}) where shown", "elsewhere"),
        rows=tuple(lines),
        bold=tuple((False,) * len(line) for line in lines),
    )


def clip_words(clip: Clip) -> tuple[str, ...]:
    """Return what the clip says, a sentence each; also where adapting made it worse."""
    frames, known = len(clip.rows), int((clip.label >= 0).sum())
    smoothed = f", smoothed over {clip.smoothing} of them" if clip.smoothing > 1 else ""
    words = [
        f"{clip.subject}, video {clip.video}: the probability of {clip.positive} over {_frames(frames)}{smoothed}, "
        f"before and after {clip.method} adapted to {_frames(clip.adapted_frames)} of "
        f"{', '.join(clip.adapted_videos)}."
    ]
    if known:
        before, after = (_right(clip, values) for values in (clip.before, clip.after))
        verdict = "better" if after > before else "worse" if after < before else "neither better nor worse"
        words.append(
            f"Of the {known} labelled frames {100 * before:.1f} % are recognised before adapting and {100 * after:.1f} "
            f"% after it: {verdict} here."
        )
        there, now = (_means(clip, values)[0] for values in (clip.before, clip.after))
        if not math.isnan(there):
            words.append(
                f"In the frames that show {clip.positive} its mean probability goes from {there:.3f} to {now:.3f}."
            )
    else:
        changed = int((clip.before.argmax(axis=1) != clip.after.argmax(axis=1)).sum())
        words.append(f"None of its frames has a label, so none is known to be right; {_frames(changed)} changed class.")
    return (*words, "One video of one person is an example; featlab evaluate has the numbers.")


def clip_name(clip: Clip) -> str:
    """Return a name for the clip's results that any file system takes, the same for the same clip and method."""
    said = "-".join(part for part in (clip.subject, clip.video, clip.method, clip.shown) if part)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", said)
    # What was replaced or cut off could have told two clips apart.
    return said if safe == said and len(said) <= 80 else f"{safe[:60]}-{stable_hash(said)[:8]}"


def _right(clip: Clip, probabilities: NDArray[np.float32]) -> float:
    """Return the share of labelled frames whose most probable class is their label; NaN without any."""
    known = clip.label >= 0
    return _mean((probabilities.argmax(axis=1) == clip.label)[known])


def _means(clip: Clip, probabilities: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean probability that is drawn in frames that show the class, and in those that show another."""
    shown = is_shown(clip.label, clip.classes, clip.neutral, clip.shown)
    drawn = class_probability(probabilities, clip.classes, clip.neutral, clip.shown)
    return _mean(drawn[shown == 1]), _mean(drawn[shown == 0])


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count:,} frames"

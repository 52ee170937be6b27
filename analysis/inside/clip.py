"""One test video of one person, frame by frame: the probability of a class before and after adapting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis.inside import adapt_people
from featlab.analysis.inside.faces import Faces, Image, plot_clip
from featlab.analysis.page import DrawnFigure, Result
from featlab.analysis.table import Column, Table, count_text, make_table, number_text, share_text
from featlab.cache.table import FeatureTable
from featlab.errors import InputError, closest, listed
from featlab.evaluation.statistics import mean
from featlab.methods.base import base_model
from featlab.methods.registry import get_method
from featlab.model.networks import AdaptedModel
from featlab.protocol.splits import Split, check_known, split_target
from featlab.workspace.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Clip:
    """One video of n frames of a person, as the source model and the person's own model see it."""

    subject: str
    video: str
    method: str
    classes: tuple[str, ...]  # K of them.
    neutral: str
    shown: str  # The class whose probability is drawn; empty for everything but neutral.
    rows: NDArray[np.intp]  # (n,) indices into the workspace's table, in order of time.
    frame: NDArray[np.int32]  # (n,) increasing.
    label: NDArray[np.int16]  # (n,) -1 unknown: to look at, no model has met them.
    before: NDArray[np.float32]  # (n, K) probabilities of the source model.
    after: NDArray[np.float32]  # (n, K) of the adapted one.
    adapted_frames: int
    adapted_videos: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def positive(self) -> str:
        """Name of what the probability is of: a class, or ``non-neutral`` for all but one."""
        others = [name for name in self.classes if name != self.neutral]
        return self.shown or (others[0] if len(others) == 1 else f"non-{self.neutral}")

    def probability(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n,) that of the class that is drawn, of (n, K)."""
        column = probabilities[:, self.classes.index(self.shown or self.neutral)]
        # The sum of a row may miss 1 by a rounding error.
        return np.clip(column if self.shown else 1.0 - column, 0.0, 1.0)

    @property
    def is_shown(self) -> NDArray[np.int64]:
        """(n,) 1 where a frame shows the class that is drawn, 0 where not, -1 where nobody knows."""
        true = (self.label == self.classes.index(self.shown or self.neutral)) == bool(self.shown)
        return np.where(self.label < 0, -1, true).astype(np.int64)


def clip_over_time(
    workspace: Workspace, subject: str, kept_out: Sequence[str], *, video: str = "", shown: str = ""
) -> Clip:
    """Adapt `adapt.method` to a person and predict one of their test videos; ``kept_out`` are no source subjects."""
    config, table = workspace.config, workspace.table
    name = config.adapt.method
    check_known([subject], table.subjects)
    if shown and shown not in table.classes:
        known = ", ".join(table.classes)
        raise InputError(f"--class {shown} is none of the classes, {known}{closest(shown, table.classes)}")
    if get_method(name).needs_labels:
        raise InputError(f"{name} is given the person's labels, so a clip can't show what it adapts to; take another")
    at = np.flatnonzero(table.subject == table.subjects.index(subject))
    mine = table.take(at)
    split, warnings = _split(mine, subject, config.protocol.gap)
    rows = video_rows(mine, split, video)
    adapted = adapt_people(workspace, [subject], [name], kept_out=kept_out, splits={subject: split})
    model, part = adapted.people[0].models[name], mine.take(rows)
    plain = AdaptedModel(base_model(adapted.bundle))
    before, after = (who.predict_proba(part.embeddings) for who in (plain, model))
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
        adapted_frames=len(split.adapt),
        adapted_videos=mine.take(split.adapt).video_names_present(),
        warnings=(*warnings, *model.warnings),
    )


def choose_video(table: FeatureTable, test: NDArray[np.intp]) -> str:
    """Return the test video with the most non-neutral frames, else the most unlabelled; of equal ones the first."""

    def rank(code: int) -> tuple[int, int, str]:
        labels = table.label[test[table.video[test] == code]]
        expressive = (labels >= 0) & (labels != table.neutral_code)
        return -int(expressive.sum()), -int((labels < 0).sum()), table.videos[code]

    return table.videos[min(np.unique(table.video[test]).tolist(), key=rank)]


def video_rows(table: FeatureTable, split: Split, video: str = "") -> NDArray[np.intp]:
    """Return the test rows of one video in order of time; without a name `choose_video` chooses one not adapted on."""
    adapted = np.isin(table.video[split.test], table.video[split.adapt])
    # A person with a single video has it split in time: what follows the adapted part is shown.
    candidates = split.test if adapted.all() else split.test[~adapted]
    name = video or choose_video(table, candidates)
    known = table.video_names_present()
    if name not in known:
        raise InputError(f"--video {name}: the subject has no such video{closest(name, known)}; it has {listed(known)}")
    rows = split.test[table.video[split.test] == table.videos.index(name)]
    if not len(rows):
        tested = table.take(split.test).video_names_present()
        raise InputError(f"--video {name}: its frames were adapted on, they are no test; take one of {listed(tested)}")
    ordered: NDArray[np.intp] = rows[np.argsort(table.frame[rows], kind="stable")]
    return ordered


def clip_result(clip: Clip, faces: Faces) -> Result:
    """Return curves, frames and a table."""
    data = clip_columns(clip)
    decides = " The dotted line is where the decision flips." if len(clip.classes) == 2 else ""
    shaded = f" Shaded: the frames that show {clip.positive}." if 1 in data["shown"] else ""
    caption = (
        f"The probability of {clip.positive} in video {clip.video} of {clip.subject}, before and after "
        f"{clip.method} adapted to {clip.adapted_frames:,} frames of {', '.join(clip.adapted_videos)}.{shaded}{decides}"
    )
    drawn = draw_clip(clip, [faces.image(row) for row in clip.rows.tolist()])
    title = f"One clip over time: {clip.subject}"
    said = {"subject": clip.subject, "video": clip.video, "method": clip.method, "class": clip.positive}
    return Result(
        kind="plot",
        title=title,
        summary=[clip_sentence(clip)],
        tables={"clip": clip_table(clip)},
        figures=[DrawnFigure("clip", title, caption, drawn, data)],
        data={**said, "frames": data, "warnings": clip.warnings},
        notes=[faces.note] if faces.note else [],
    )


def clip_columns(clip: Clip) -> dict[str, list[Any]]:
    """Return the numbers of the figure, a line a frame: labels, probabilities of ``clip.positive``, and predictions."""
    return {
        "frame": clip.frame.tolist(),
        "label": [clip.classes[code] if code >= 0 else "" for code in clip.label.tolist()],
        "shown": clip.is_shown.tolist(),
        "before": clip.probability(clip.before).tolist(),
        "after": clip.probability(clip.after).tolist(),
        "predicted_before": [clip.classes[code] for code in clip.before.argmax(axis=1).tolist()],
        "predicted_after": [clip.classes[code] for code in clip.after.argmax(axis=1).tolist()],
    }


def draw_clip(clip: Clip, images: Sequence[Image | None]) -> Figure:
    """Draw `clip_columns` with frames beneath, if there are any; the line at 0.5 is drawn where it decides."""
    return plot_clip(
        images,
        clip.probability(clip.before),
        clip.probability(clip.after),
        clip.is_shown,
        clip.video if clip.subject in clip.video else f"{clip.subject}, {clip.video}",
        positive=clip.positive,
        frame_numbers=clip.frame,
        threshold=0.5 if len(clip.classes) == 2 else None,
    )


def clip_table(clip: Clip) -> Table:
    """Return two lines, before and after: frames right, and the mean probability in frames that show it and others."""

    def mean_where(shown: int) -> Callable[[tuple[str, NDArray[np.float32]]], str]:
        return lambda side: number_text(mean(clip.probability(side[1])[clip.is_shown == shown].tolist()), 3)

    columns: list[Column[tuple[str, NDArray[np.float32]]]] = [
        Column("", lambda side: side[0], text=True),
        Column("Frames right (%)", lambda side: number_text(100 * _right(clip, side[1]), 1)),
        Column(f"Mean p({clip.positive}) where shown", mean_where(1)),
        Column("elsewhere", mean_where(0)),
    ]
    known = int((clip.label >= 0).sum())
    title = f"{clip.subject}, video {clip.video}: {known} labelled of {len(clip.rows)} frames"
    return make_table(title, columns, [("Before", clip.before), ("After", clip.after)])


def clip_sentence(clip: Clip) -> str:
    """Return how many frames change class, and how many are recognised before and after where labels say so."""
    changed = int((clip.before.argmax(axis=1) != clip.after.argmax(axis=1)).sum())
    said = f"{changed:,} of {count_text(len(clip.rows), 'frame')} change class"
    if (clip.label >= 0).any():
        before, after = (share_text(_right(clip, side)) for side in (clip.before, clip.after))
        said += f"; {before} of the labelled ones are recognised before adapting, {after} after"
    return f"{said}. One video of one person is an example: featlab evaluate has the numbers."


def _split(table: FeatureTable, subject: str, gap: int) -> tuple[Split, tuple[str, ...]]:
    if (table.label >= 0).any():
        return split_target(table, gap), ()
    everything = np.arange(len(table))
    line = (
        f"no row of {subject!r} has a label: all {len(table)} were taken to be neutral and adapted on, those of this "
        "video too"
    )
    return Split(everything, everything), (line,)


def _right(clip: Clip, probabilities: NDArray[np.float32]) -> float:
    """Return the fraction of labelled frames whose most probable class is their label; NaN without any."""
    return mean((probabilities.argmax(axis=1) == clip.label)[clip.label >= 0].tolist())

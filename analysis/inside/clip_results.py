"""What one clip over time says: its numbers, its figure, a table and words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featlab.analysis.inside.clip_over_time import Clip, class_probability, is_shown
from featlab.analysis.table import Table, number_text
from featlab.seeding import stable_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["clip_columns", "clip_name", "clip_table", "clip_words", "draw_clip"]


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
    from featlab.analysis.inside.plot_images import plot_clip

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

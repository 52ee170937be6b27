"""A page about one person's model: the clips, before and after, and whether it is likely to help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis.inside.faces import THUMBNAILS, Image, plot_clip, shrunk
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.report import write_report
from featlab.analysis.report.collect import read_report
from featlab.analysis.table import Column, Table, make_table, number_text
from featlab.bundle.bundle import Bundle
from featlab.evaluation.results import versions
from featlab.extraction.decode import read_pixels
from featlab.extraction.items import Item
from featlab.model.networks import GainEstimate, SourceGain


@dataclass(frozen=True, eq=False)
class SeenClip:
    """Frames of one source, as the source model and the person's own model see them."""

    name: str  # What the user called it.
    items: Sequence[Item]  # The image of each of n frames, in order of time.
    before: NDArray[np.float32]  # (n, K) probabilities of the source model.
    after: NDArray[np.float32]  # (n, K) of the person's.
    adapted: bool  # Whether the person's model was made of it.

    @property
    def sides(self) -> dict[str, NDArray[np.float32]]:
        """What the two models say, by when."""
        return {"before": self.before, "after": self.after}


@dataclass(frozen=True, eq=False)
class PersonPage:
    """What is known of a person's model."""

    subject: str  # The person's name.
    bundle: Bundle  # What was adapted.
    method: str  # How: a registry name.
    clips: Sequence[SeenClip]  # Those that were adapted on, then others.
    gain: GainEstimate | None  # What is expected for this person; ``None`` where the method can't tell.
    known: SourceGain | None  # What adapting gained on source people who were held out, likewise.
    warnings: Sequence[str]  # A line each.

    def verdict(self) -> str:
        """Return in a sentence whether this person's model is likely to be better."""
        gain = self.gain
        if gain is None:
            few = ": too few source people to learn it from, or a method that can't tell."
            return "Nothing is known of whether it helps" + (few if self.known is None else " this person.")
        likely = "likely" if gain.chance >= 0.8 else "as likely as not" if gain.chance >= 0.5 else "not likely"
        return f"It is {likely} to help: {gain.sentence()}."

    def summary(self) -> list[str]:
        """Return what was done, a sentence each."""
        shown = [clip for clip in self.clips if clip.adapted]
        frames = sum(len(clip.items) for clip in shown)
        names = ", ".join(clip.name for clip in shown)
        lines = [
            self.verdict(),
            f"{self.method} was adapted to {frames:,} frames of {self.subject} at rest ({names}), without labels and "
            f"without the {len(self.bundle.source_subjects)} people who taught the source model.",
        ]
        if self.known is not None:
            lines.append(f"Of {self.method} in general: {self.known.sentence()}.")
        for clip in self.clips:
            changed = int((clip.before.argmax(axis=1) != clip.after.argmax(axis=1)).sum())
            neutral = self.bundle.classes[self.bundle.neutral_code]
            rest = [
                100 * float((part.argmax(axis=1) == self.bundle.neutral_code).mean()) for part in clip.sides.values()
            ]
            lines.append(
                f"{clip.name}: {changed:,} of {len(clip.items):,} frames changed class; {rest[0]:.0f} % were taken for "
                f"{neutral} before, {rest[1]:.0f} % after."
            )
        return [*lines, *(f"Take care: {line}." for line in self.warnings), NO_DECISIONS]

    def result(self) -> Result:
        """Return the page's words, figures and table."""
        classes, neutral = self.bundle.classes, self.bundle.neutral
        others = [name for name in classes if name != neutral]
        positive = others[0] if len(others) == 1 else f"non-{neutral}"
        figures = []
        for number, clip in enumerate(self.clips, start=1):
            code = self.bundle.neutral_code
            curves = {name: np.float32(1) - part[:, code].clip(0, 1) for name, part in clip.sides.items()}
            role = "adapted on" if clip.adapted else "not adapted on"
            figures.append(
                DrawnFigure(
                    f"clip-{number}",
                    f"{clip.name}, {role}",
                    f"The probability of {positive} in each frame, before and after adapting.",
                    _drawn(clip, curves, positive, len(classes)),
                    {"frame": list(range(len(clip.items)))} | {name: curve.tolist() for name, curve in curves.items()},
                )
            )
        extractor = self.bundle.extractor
        facts = {
            "cache_digest": self.bundle.cache_digest,
            "extractor": {"id": extractor.id, "fingerprint": extractor.fingerprint},
            "versions": versions(),
        }
        title = f"A model for {self.subject}"
        return Result("personalise", title, self.summary(), {"classes": self._table()}, figures, metadata=facts)

    def write(self, path: Path, command: str) -> None:
        """Write the page as one HTML file that loads nothing."""
        with TemporaryDirectory(prefix="featlab-") as folder:
            result = self.result()
            write_result(Path(folder) / "person", result, command)
            write_report(path, read_report([Path(folder) / "person"], result.title))

    def _table(self) -> Table:
        def share(code: int) -> Callable[[tuple[str, str, NDArray[np.float32]]], str]:
            return lambda line: number_text(100 * float((line[2].argmax(axis=1) == code).mean()), 1)

        columns = [
            Column[tuple[str, str, NDArray[np.float32]]]("Clip", lambda line: line[0], text=True),
            Column("", lambda line: line[1], text=True),
            Column("Frames", lambda line: str(len(line[2]))),
            *(Column(f"{name} (%)", share(code)) for code, name in enumerate(self.bundle.classes)),
        ]
        lines = [(clip.name, *side) for clip in self.clips for side in clip.sides.items()]
        return make_table("Share of frames predicted as each class", columns, lines)


def together(clips: Sequence[SeenClip]) -> list[SeenClip]:
    """Return the clips with those of a single picture as one, which stands first."""
    pictures = [clip for clip in clips if len(clip.items) == 1]
    if len(pictures) < 2:
        return list(clips)
    before, after = (np.concatenate([clip.sides[side] for clip in pictures]) for side in ("before", "after"))
    items = [clip.items[0] for clip in pictures]
    one = SeenClip(f"{len(pictures)} pictures", items, before, after, pictures[0].adapted)
    return [one, *(clip for clip in clips if len(clip.items) != 1)]


NO_DECISIONS = "Not for decisions about a person's health, employment or education."


def _drawn(clip: SeenClip, curves: Mapping[str, NDArray[np.float32]], positive: str, classes: int) -> Figure:
    frames = np.arange(len(clip.items))
    images: list[Image | None] = [None] * len(frames)
    # Those that the figure has room for; it takes the nearest to each of its places.
    places = np.unique(((np.arange(THUMBNAILS) + 0.5) / THUMBNAILS * len(frames) - 0.5).round().astype(int))
    for place, pixels in zip(places, read_pixels([clip.items[place] for place in places]), strict=True):
        if isinstance(pixels, np.ndarray):
            images[place] = shrunk(pixels)
    return plot_clip(
        images,
        curves["before"],
        curves["after"],
        np.full(len(frames), -1),
        clip.name,
        positive=positive,
        frame_numbers=frames,
        threshold=0.5 if classes == 2 else None,
    )

"""Who a target looks like: over which source subjects the nearest source frames of its frames are spread."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import folded
from featlab.analysis.inside.views import EXTRACTED, UNADAPTED, View, person_views
from featlab.analysis.page import DrawnFigure, Result, safe_name, write_result
from featlab.analysis.people import AdaptedPeople, AdaptedPerson
from featlab.analysis.table import Table, number_text, share_text
from featlab.cache import FeatureTable
from featlab.errors import InputError, closest
from featlab.methods import get_method
from featlab.pairing.search import search

__all__ = [
    "KINDS",
    "OTHERS",
    "SHOWN",
    "SIDES",
    "Neighbours",
    "Spread",
    "neighbours_data",
    "neighbours_table",
    "neighbours_words",
    "plot_neighbours",
    "source_neighbours",
    "write_neighbours",
]

SHOWN = 20
"""Source subjects that are named."""
SIDES = ("before", "after")
KINDS = ("same", "other", "unknown")
"""Whether the nearest source frame shows the class of the target's frame."""
OTHERS = "others"
"""What the line of all other subjects ends in."""


@dataclass(frozen=True)
class Spread:
    """How the nearest source frames are spread over source subjects.

    Attributes:
        effective: Effective number of subjects, exp of the entropy of their shares: 1 when one has them all.
        found: Subjects that have any.
        largest: Name of the subject that has most (the first by name among equals).
        largest_share: Its share.
        same_class: Share of the frames whose nearest source frame shows their class, among those where both are known;
            NaN without any.
    """

    effective: float
    found: int
    largest: str
    largest_share: float
    same_class: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest source frames of one target's frames.

    Attributes:
        subject: The target.
        method: What translated it.
        frames: How many of its frames were looked at.
        reference: What was done to the source rows after translation.
        subjects: S source subjects.
        counts: int (2, S, 3): before and after, source subject, and kind (`KINDS`).
        before: The spread of features as extracted.
        after: That of translated ones.
    """

    subject: str
    method: str
    frames: int
    reference: str
    subjects: tuple[str, ...]
    counts: NDArray[np.int64]
    before: Spread
    after: Spread

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, the counts as columns."""
        facts = {name: getattr(self, name) for name in ("subject", "method", "frames", "reference")}
        sides = {"before": asdict(self.before), "after": asdict(self.after)}
        return facts | sides | {"counts": neighbours_data(self, len(self.subjects))}


def source_neighbours(people: AdaptedPeople, person: AdaptedPerson, method: str, classes: str = "all") -> Neighbours:
    """Find each frame's nearest source frame by cosine similarity of features, before and after a method.

    Looked at are the target's test rows: those that were adapted on are where they are by construction.

    Args:
        people: The source model and the source rows.
        person: The target.
        method: Registry name of one of its models.
        classes: ``all``, or class names with commas: only frames with these labels.

    Raises:
        InputError: An unknown class, or no frame that shows one.
    """
    views = {view.name: view for view in person_views(people, person) if view.name != UNADAPTED}
    table, source = person.table, people.source
    rows = person.split.test[_wanted(table, person.split.test, classes)]
    if not len(rows):
        raise InputError(f"no test frame of {person.subject} shows {classes}; choose other --classes")
    codes, place = np.unique(source.subject, return_inverse=True)
    subjects = tuple(source.subjects[code] for code in codes)
    counts = np.stack(
        [
            _counts(view, rows, table.label, source.label, place.reshape(-1), len(codes))
            for view in (views[EXTRACTED], views[method])
        ]
    )
    before, after = (_spread(side, subjects) for side in counts)
    return Neighbours(person.subject, method, len(rows), views[method].reference, subjects, counts, before, after)


def neighbours_data(found: Neighbours, shown: int = SHOWN) -> dict[str, list[Any]]:
    """Return the numbers of the figure: columns subject, then frames by side and kind (``before_same`` …).

    The subjects with the largest counts before or after come first, ordered by the count before, then after; the rest
    is one line, "N others". Who is nobody's neighbour counts among them.

    Args:
        found: From `source_neighbours`.
        shown: Subjects that are named, at most.
    """
    totals = found.counts.sum(axis=2)
    ranked = np.lexsort((np.arange(totals.shape[1]), -totals.sum(axis=0), -totals.max(axis=0)))
    named = np.array([place for place in ranked[:shown].tolist() if totals[:, place].any()], dtype=np.intp)
    named = named[np.lexsort((named, -totals[1, named], -totals[0, named]))]
    rest = np.setdiff1d(np.arange(totals.shape[1]), named)
    names = [found.subjects[place] for place in named.tolist()]
    counts = found.counts[:, named]
    if len(rest):
        names.append(f"{len(rest)} {OTHERS}")
        counts = np.concatenate([counts, found.counts[:, rest].sum(axis=1, keepdims=True)], axis=1)
    columns: dict[str, list[Any]] = {"subject": names}
    for side, name in enumerate(SIDES):
        for kind, what in enumerate(KINDS):
            columns[f"{name}_{what}"] = counts[side, :, kind].tolist()
    return columns


def _wanted(table: FeatureTable, rows: NDArray[np.intp], classes: str) -> NDArray[np.bool_]:
    if classes.strip() == "all":
        return np.ones(len(rows), dtype=bool)
    names = [name.strip() for name in classes.split(",") if name.strip()]
    for name in names:
        if name not in table.classes:
            known = ", ".join(table.classes)
            raise InputError(f"unknown class {name!r}; the classes are all, {known}{closest(name, table.classes)}")
    if not names:
        raise InputError("--classes names no class; give all, or names with commas")
    return np.isin(table.label[rows], [table.classes.index(name) for name in names])


def _counts(
    view: View,
    rows: NDArray[np.intp],
    target_label: NDArray[np.integer[Any]],
    source_label: NDArray[np.integer[Any]],
    subject: NDArray[np.intp],
    subjects: int,
) -> NDArray[np.int64]:
    """Return (S, 3) frames by the source subject of the nearest source frame, and by kind."""
    index = search(view.target[rows], view.source, 1).rows
    nearest = index[:, 0]
    ours, theirs = target_label[rows], source_label[nearest]
    kind = np.where((ours < 0) | (theirs < 0), 2, (ours != theirs).astype(np.intp))
    flat = np.bincount(subject[nearest] * len(KINDS) + kind, minlength=subjects * len(KINDS))
    return flat.reshape(subjects, len(KINDS)).astype(np.int64)


def _spread(counts: NDArray[np.int64], subjects: Sequence[str]) -> Spread:
    totals = counts.sum(axis=1)
    share = totals[totals > 0] / totals.sum()
    effective = float(np.exp(-(share * np.log(share)).sum()))
    known = int(counts[:, :2].sum())
    same = float(counts[:, 0].sum() / known) if known else math.nan
    top = int(totals.argmax())
    return Spread(effective, len(share), subjects[top], float(totals[top] / totals.sum()), same)


def neighbours_table(found: Neighbours) -> Table:
    """Return two lines: how the nearest source frames are spread before and after."""
    rows = tuple(
        (
            name,
            side.largest,
            number_text(side.effective, 2),
            str(side.found),
            number_text(100 * side.largest_share, 1),
            number_text(100 * side.same_class, 1),
        )
        for name, side in zip(SIDES, (found.before, found.after), strict=True)
    )
    return Table(
        title=f"The nearest source frames of {found.frames} frames of {found.subject}",
        columns=("", "Largest", "Effective subjects", "Subjects", "Largest share (%)", "Same class (%)"),
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=(
            f"Of {len(found.subjects)} source subjects. Effective subjects: exp of the entropy of their shares.",
            "Same class: the nearest source frame shows the class of the target's.",
        ),
        text_columns=2,
    )


def neighbours_words(found: Neighbours) -> list[str]:
    """Return what the numbers say, a sentence each."""
    before, after = found.before, found.after
    name = get_method(found.method).title
    words = [
        f"As extracted, the nearest source frames of {found.subject} are of {_subjects(before)} among "
        f"{len(found.subjects)}; {before.largest} has {share_text(before.largest_share)} of them.",
        f"After {name} they are of {_subjects(after)}; {after.largest} has {share_text(after.largest_share)}.",
    ]
    if math.isnan(before.same_class) or math.isnan(after.same_class):
        return [*words, "Without labels nothing says whether the nearest frame shows the same class."]
    change = 100 * (after.same_class - before.same_class)
    verdict = "as often as before" if abs(change) < 0.05 else "more often" if change > 0 else "less often"
    return [
        *words,
        f"The nearest source frame shows the class of the target's {verdict}: {share_text(before.same_class)} before, "
        f"{share_text(after.same_class)} after.",
    ]


def write_neighbours(folder: Path, found: Neighbours, command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write figure, table and words into a folder.

    Args:
        folder: Where; made if missing.
        found: From `featlab.analysis.inside.neighbours.source_neighbours`.
        command: What was typed.
        facts: From `featlab.evaluation.results.run_facts`.

    Returns:
        The files.
    """
    from featlab.analysis.inside.neighbours import plot_neighbours

    name = get_method(found.method).title
    after = "as extracted" if found.reference == EXTRACTED else found.reference
    caption = (
        f"Of {found.frames} test frames of {found.subject}, which were not adapted on, how many have their nearest "
        f"source frame (cosine similarity of features) in each source subject. Left: everyone as extracted. Right: the "
        f"target after {name}, the source rows {after}."
    )
    drawn = plot_neighbours(found, titles=("As extracted", f"After {name}"))
    return write_result(
        folder,
        Result(
            kind="plot",
            title=f"{found.subject} across the source subjects",
            summary=neighbours_words(found),
            tables={"spread": neighbours_table(found)},
            figures=[
                DrawnFigure(
                    f"neighbours-{safe_name(found.subject)}",
                    f"Whom {found.subject} is nearest to",
                    caption,
                    drawn,
                    neighbours_data(found),
                )
            ],
            metadata=facts,
        ),
        command,
    )


def _subjects(side: Spread) -> str:
    if side.found == 1:
        return "one subject alone"
    return f"{side.found} subjects ({side.effective:.1f} effective ones)"


_LETTERS = {style.COLUMN: 14, style.FULL: 34}
"""Longest line of a subject's name."""
_LETTER, _SMALL_LETTER = 0.075, 0.053
"""Width of a letter of a panel's title and of what is beneath it, inches."""
_WORDS = {"same": "same class", "other": "another class", "unknown": "label unknown"}
_LOOKS: Mapping[str, dict[str, Any]] = {
    "same": {"facecolor": style.COLOURS[0]},
    "other": {"facecolor": style.COLOURS[1], "hatch": "////", "edgecolor": "white"},
    "unknown": {"facecolor": style.MUTED},
}


def plot_neighbours(
    found: Neighbours, *, titles: Sequence[str] = ("As extracted", "Translated"), width: float = style.FULL
) -> Figure:
    """Draw the share of the target's frames whose nearest source frame is of each source subject, a panel a side.

    Args:
        found: From `featlab.analysis.inside.neighbours.source_neighbours`.
        titles: Of the two panels.
        width: Inches.
    """
    data = neighbours_data(found)
    most = _LETTERS.get(width, int(5 * width))
    names = _labels(data["subject"], most)
    places = np.arange(len(names))
    step = 0.03 + 0.115 * max(1 + name.count("\n") for name in names)
    kinds = [kind for kind in KINDS if any(sum(data[f"{side}_{kind}"]) for side in SIDES)]
    room = (width - 0.3 - 0.06 * max(len(line) for name in names for line in name.splitlines())) / 2
    heads = [folded(title, int(room / _LETTER)) for title in titles]
    notes = [folded(_note(spread), int(room / _SMALL_LETTER)) for spread in (found.before, found.after)]
    beneath = max(note.count("\n") + 1 for note in notes)
    lines = beneath + max(head.count("\n") + 1 for head in heads)
    with style.house_style():
        drawn = style.figure(width, 0.85 + 0.13 * lines + step * len(places))
        panels = drawn.subplots(1, 2, sharex=True, sharey=True)
        for panel, side, head, note in zip(panels, SIDES, heads, notes, strict=True):
            left = np.zeros(len(places))
            for kind in kinds:
                share = np.asarray(data[f"{side}_{kind}"]) / found.frames
                panel.barh(places, share, left=left, height=0.72, linewidth=0, label=f"_{kind}", **_LOOKS[kind])
                left += share
            panel.set_title(head, loc="left", fontweight="bold", pad=5 + 9 * beneath)
            panel.text(0.0, 1.01, note, transform=panel.transAxes, va="bottom", fontsize=6.5, color="#444444")
            _axis(panel, 5 if width >= style.FULL else 3)
        panels[0].set_yticks(places, names, linespacing=1.05)
        panels[0].set_ylim(len(places) - 0.4, -0.6)
        if names[-1].endswith(f" {OTHERS}"):
            panels[0].get_yticklabels()[-1].set_fontstyle("italic")
        drawn.supxlabel("Target frames whose nearest source frame is of the subject (%)", fontsize=7.5)
        handles = [Patch(**_LOOKS[kind] | {"linewidth": 0}, label=_WORDS[kind]) for kind in kinds]
        drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _note(spread: Spread) -> str:
    same = "" if math.isnan(spread.same_class) else f", {100 * spread.same_class:.0f} % same class"
    return f"{spread.effective:.1f} effective subjects{same}"


def _axis(panel: Axes, ticks: int) -> None:
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_locator(MaxNLocator(ticks))
    style.in_percent(panel.xaxis)


def _labels(names: Sequence[str], most: int) -> list[str]:
    """Return names of at most ``most`` letters a line, all different: without what all share, or in lines."""
    if max(map(len, names)) <= most:
        return list(names)
    ids = [name for name in names if not name.endswith(f" {OTHERS}")]
    start, end = _shared(ids), _shared([name[::-1] for name in ids])
    short = [f"…{name[start : len(name) - end]}{'…' if end else ''}" if name in ids else name for name in names]
    if start and max(map(len, short)) <= most and len(set(short)) == len(short):
        return short
    return [folded(name, most) for name in names]


def _shared(names: Sequence[str]) -> int:
    """Return how many letters all names begin with, up to the end of a word; 0 for a single name."""
    same = 0
    while len(names) > 1 and same < min(map(len, names)) and len({name[same] for name in names}) == 1:
        same += 1
    return len(re.sub(r"[^\W_]+$", "", names[0][:same]))

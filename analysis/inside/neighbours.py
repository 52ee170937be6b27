"""Who a target looks like: over which source subjects the nearest source frames of its frames are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.inside import EXTRACTED, UNADAPTED, AdaptedPeople, AdaptedPerson, View, person_views
from featlab.analysis.page import DrawnFigure, Result, safe_name
from featlab.analysis.style import folded
from featlab.analysis.table import Column, Table, make_table, number_text, share_text
from featlab.pairing.search import search

SIDES = ("before", "after")
KINDS = ("same", "other", "unknown")  # Whether the nearest source frame shows the class of the target's frame.

_NAMED = 20  # Source subjects that the figure names.
_OTHERS = "others"  # What the line of all other subjects ends in.
_LETTERS = 34  # Longest line of a subject's name.
_LETTER = 0.075  # Width of a letter of a panel's title, inches.
_WORDS = {"same": "same class", "other": "another class", "unknown": "label unknown"}
_LOOKS: dict[str, dict[str, Any]] = {
    "same": {"facecolor": style.COLOURS[0]},
    "other": {"facecolor": style.COLOURS[1], "hatch": "////", "edgecolor": "white"},
    "unknown": {"facecolor": style.MUTED},
}


@dataclass(frozen=True)
class Distribution:
    """How the nearest source frames are distributed over source subjects."""

    effective: float  # Effective number of subjects, exp of the entropy of their fractions.
    found: int  # Subjects that have any.
    largest: str  # The subject that has most; the first by name among equals.
    largest_share: float  # Its fraction.
    same_class: float  # Fraction of frames whose nearest source frame shows their class; NaN without labels.


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest source frames of one target's test frames, as extracted (before) and after a method."""

    subject: str
    method: str
    frames: int
    reference: str  # What was done to the source rows after translation.
    subjects: tuple[str, ...]  # S source subjects.
    counts: NDArray[np.int64]  # (2, S, 3): side, source subject, kind.
    before: Distribution
    after: Distribution

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, the counts as columns."""
        head = {name: getattr(self, name) for name in ("subject", "method", "frames", "reference")}
        sides = {"before": asdict(self.before), "after": asdict(self.after)}
        return head | sides | {"counts": neighbours_data(self, len(self.subjects))}


def source_neighbours(people: AdaptedPeople, person: AdaptedPerson, method: str) -> Neighbours:
    """Find each test frame's nearest source frame by cosine similarity."""
    views = {view.name: view for view in person_views(people, person) if view.name != UNADAPTED}
    table, source, rows = person.table, people.source, person.split.test
    codes, place = np.unique(source.subject, return_inverse=True)
    subjects = tuple(source.subjects[code] for code in codes)

    def count(view: View) -> NDArray[np.int64]:
        nearest = search(view.target[rows], view.source, 1).rows[:, 0]
        ours, theirs = table.label[rows], source.label[nearest]
        kind = np.where((ours < 0) | (theirs < 0), 2, (ours != theirs).astype(np.intp))
        counts = np.zeros((len(subjects), len(KINDS)), dtype=np.int64)
        np.add.at(counts, (place.reshape(-1)[nearest], kind), 1)
        return counts

    counts = np.stack([count(views[EXTRACTED]), count(views[method])])
    before, after = (_distribution(side, subjects) for side in counts)
    return Neighbours(person.subject, method, len(rows), views[method].reference, subjects, counts, before, after)


def neighbours_result(found: Neighbours) -> Result:
    """Return figure, table and what they say."""
    caption = (
        f"Of {found.frames} test frames of {found.subject}, which were not adapted on, how many have their nearest "
        "source frame (cosine similarity of features) in each source subject. Left: everyone as extracted. Right: "
        f"the target after {found.method}, the source rows {found.reference}."
    )
    figure = DrawnFigure(
        f"neighbours-{safe_name(found.subject)}",
        f"Whom {found.subject} is nearest to",
        caption,
        plot_neighbours(found),
        neighbours_data(found),
    )
    return Result(
        kind="plot",
        title=f"{found.subject} across the source subjects",
        summary=[_sentence(found)],
        tables={"spread": neighbours_table(found)},
        figures=[figure],
        data=found.to_dict(),
    )


def neighbours_data(found: Neighbours, named: int = _NAMED) -> dict[str, list[Any]]:
    """Return frames by subject, side and kind; beyond the ``named`` largest subjects one line, "N others"."""
    totals = found.counts.sum(axis=2)
    ranked = np.lexsort((np.arange(totals.shape[1]), -totals.sum(axis=0), -totals.max(axis=0)))
    shown = np.array([place for place in ranked[:named].tolist() if totals[:, place].any()], dtype=np.intp)
    shown = shown[np.lexsort((shown, -totals[1, shown], -totals[0, shown]))]
    rest = np.setdiff1d(np.arange(totals.shape[1]), shown)
    names, counts = [found.subjects[place] for place in shown.tolist()], found.counts[:, shown]
    if len(rest):
        names.append(f"{len(rest)} {_OTHERS}")
        counts = np.concatenate([counts, found.counts[:, rest].sum(axis=1, keepdims=True)], axis=1)
    columns: dict[str, list[Any]] = {"subject": names}
    for side, name in enumerate(SIDES):
        for kind, what in enumerate(KINDS):
            columns[f"{name}_{what}"] = counts[side, :, kind].tolist()
    return columns


def neighbours_table(found: Neighbours) -> Table:
    """Return two lines: how the nearest source frames are distributed before and after."""
    columns: list[Column[tuple[str, Distribution]]] = [
        Column("", lambda side: side[0], text=True),
        Column("Largest", lambda side: side[1].largest, text=True),
        Column("Effective subjects", lambda side: number_text(side[1].effective, 2)),
        Column("Subjects", lambda side: str(side[1].found)),
        Column("Largest share (%)", lambda side: number_text(100 * side[1].largest_share, 1)),
        Column("Same class (%)", lambda side: number_text(100 * side[1].same_class, 1)),
    ]
    return make_table(
        f"The nearest source frames of {found.frames} frames of {found.subject}",
        columns,
        list(zip(SIDES, (found.before, found.after), strict=True)),
        notes=(
            f"Of {len(found.subjects)} source subjects. Effective subjects: exp of the entropy of their fractions.",
            "Same class: the nearest source frame shows the class of the target's.",
        ),
    )


def plot_neighbours(found: Neighbours) -> Figure:
    """Draw the fraction of the target's frames whose nearest source frame is of each source subject, a panel a side."""
    data = neighbours_data(found)
    names = [folded(name, _LETTERS) for name in data["subject"]]
    places = np.arange(len(names))
    step = 0.03 + 0.115 * max(1 + name.count("\n") for name in names)
    kinds = [kind for kind in KINDS if any(sum(data[f"{side}_{kind}"]) for side in SIDES)]
    room = (style.FULL - 0.3 - 0.06 * max(len(line) for name in names for line in name.splitlines())) / 2
    heads = [folded(title, int(room / _LETTER)) for title in ("As extracted", f"After {found.method}")]
    lines = max(head.count("\n") + 1 for head in heads)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.85 + 0.13 * lines + step * len(places))
        panels = drawn.subplots(1, 2, sharex=True, sharey=True)
        for panel, side, head in zip(panels, SIDES, heads, strict=True):
            left = np.zeros(len(places))
            for kind in kinds:
                fraction = np.asarray(data[f"{side}_{kind}"]) / found.frames
                panel.barh(places, fraction, left=left, height=0.72, linewidth=0, label=f"_{kind}", **_LOOKS[kind])
                left += fraction
            panel.set_title(head, loc="left", fontweight="bold")
            style.names_down(panel, names)
            panel.xaxis.set_major_locator(MaxNLocator(5))
            style.in_percent(panel.xaxis)
        if names[-1].endswith(f" {_OTHERS}"):
            panels[0].get_yticklabels()[-1].set_fontstyle("italic")
        whose = folded(f"Frames of {found.subject} whose nearest source frame is of the person on the left (%)", 90)
        drawn.supxlabel(whose, fontsize=7.5)
        handles = [Patch(**_LOOKS[kind] | {"linewidth": 0}, label=_WORDS[kind]) for kind in kinds]
        drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _distribution(counts: NDArray[np.int64], subjects: Sequence[str]) -> Distribution:
    totals = counts.sum(axis=1)
    fractions = totals[totals > 0] / totals.sum()
    known = int(counts[:, :2].sum())
    largest = int(totals.argmax())
    return Distribution(
        effective=float(np.exp(-(fractions * np.log(fractions)).sum())),
        found=len(fractions),
        largest=subjects[largest],
        largest_share=float(totals[largest] / totals.sum()),
        same_class=float(counts[:, 0].sum() / known) if known else math.nan,
    )


def _sentence(found: Neighbours) -> str:
    before, after = found.before, found.after
    said = (
        f"The nearest source frames of {found.subject} are of {before.effective:.1f} effective subjects of "
        f"{len(found.subjects)} as extracted and of {after.effective:.1f} after {found.method}"
    )
    if math.isnan(before.same_class) or math.isnan(after.same_class):
        return f"{said}; without labels nothing says whether they show the same class."
    return f"{said}; they show the same class in {share_text(before.same_class)} and {share_text(after.same_class)}."

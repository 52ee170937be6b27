"""Who a target looks like: over which source subjects the nearest source frames of its frames are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.analysis.inside import EXTRACTED, AdaptedPeople, AdaptedPerson, View, person_views
from featlab.analysis.page import DrawnFigure, Result, safe_name
from featlab.analysis.table import Column, make_table, number_text, share_text
from featlab.pairing.search import search

SIDES = ("before", "after")
KINDS = {"same": "same class", "other": "another class", "unknown": "label unknown"}
"""Whether the nearest source frame shows the class of the target's frame."""

_NAMED = 20  # Source subjects that the figure names.
_LETTERS = 34  # Longest line of a subject's name.
_LOOKS: dict[str, dict[str, Any]] = {
    "same": {"facecolor": style.COLOURS[0]},
    "other": {"facecolor": style.COLOURS[1], "hatch": "////", "edgecolor": "white"},
    "unknown": {"facecolor": style.MUTED},
}


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest source frames of one target's test frames, as extracted (before) and after a method."""

    subject: str
    method: str
    frames: int
    reference: str  # What was done to the source rows after translation.
    subjects: tuple[str, ...]  # S source subjects.
    counts: NDArray[np.int64]  # (2, S, 3): side, source subject, kind.

    def effective(self, side: int) -> float:
        """Return the effective number of subjects, exp of the entropy of their fractions."""
        fractions = self.counts[side].sum(axis=1) / self.frames
        fractions = fractions[fractions > 0]
        return float(np.exp(-(fractions * np.log(fractions)).sum()))

    def same_class(self, side: int) -> float:
        """Return the fraction of frames whose nearest source frame shows their class; NaN without labels."""
        same, other, _ = self.counts[side].sum(axis=0).tolist()
        return same / (same + other) if same + other else float("nan")


def source_neighbours(people: AdaptedPeople, person: AdaptedPerson, method: str) -> Neighbours:
    """Find each test frame's nearest source frame by cosine similarity."""
    views = person_views(people, person)
    table, source, rows = person.table, people.source, person.split.test
    codes, place = np.unique(source.subject, return_inverse=True)

    def count(view: View) -> NDArray[np.int64]:
        nearest = search(view.target[rows], view.source, 1).rows[:, 0]
        ours, theirs = table.label[rows], source.label[nearest]
        kind = np.where((ours < 0) | (theirs < 0), 2, (ours != theirs).astype(np.intp))
        counts = np.zeros((len(codes), len(KINDS)), dtype=np.int64)
        np.add.at(counts, (place.reshape(-1)[nearest], kind), 1)
        return counts

    counts = np.stack([count(views[EXTRACTED]), count(views[method])])
    subjects = tuple(source.subjects[code] for code in codes)
    return Neighbours(person.subject, method, len(rows), views[method].reference, subjects, counts)


def neighbours_result(found: Neighbours) -> Result:
    """Return figure, table and what they say."""
    caption = (
        f"Of {found.frames} test frames of {found.subject}, which were not adapted on, how many have their nearest "
        "source frame (cosine similarity of features) in each source subject. Left: everyone as extracted. Right: "
        f"the target after {found.method}, the source rows {found.reference}."
    )
    table = make_table(
        f"The nearest source frames of {found.frames} frames of {found.subject}",
        [
            Column[int]("", lambda side: SIDES[side], text=True),
            Column("Effective subjects", lambda side: number_text(found.effective(side), 2)),
            Column("Same class (%)", lambda side: number_text(100 * found.same_class(side), 1)),
        ],
        range(len(SIDES)),
        notes=(
            f"Of {len(found.subjects)} source subjects. Effective subjects: exp of the entropy of their fractions.",
            "Same class: the nearest source frame shows the class of the target's.",
        ),
    )
    data = neighbours_data(found)
    title = f"Whom {found.subject} is nearest to"
    effective = [found.effective(side) for side in range(len(SIDES))]
    same = [found.same_class(side) for side in range(len(SIDES))]
    shown = "without labels nothing says whether they show the same class"
    if not np.isnan(same).any():
        shown = f"they show the same class in {share_text(same[0])} and {share_text(same[1])}"
    return Result(
        kind="plot",
        title=f"{found.subject} across the source subjects",
        summary=[
            f"The nearest source frames of {found.subject} are of {effective[0]:.1f} effective subjects of "
            f"{len(found.subjects)} as extracted and of {effective[1]:.1f} after {found.method}; {shown}."
        ],
        tables={"spread": table},
        figures=[DrawnFigure(f"neighbours-{safe_name(found.subject)}", title, caption, plot_neighbours(found), data)],
        data={
            "subject": found.subject,
            "method": found.method,
            "frames": found.frames,
            "reference": found.reference,
            "effective": effective,
            "same_class": same,
            "counts": neighbours_data(found, len(found.subjects)),
        },
    )


def neighbours_data(found: Neighbours, named: int = _NAMED) -> dict[str, list[Any]]:
    """Return frames by subject, side and kind; beyond the ``named`` largest subjects one line, "N others"."""
    totals = found.counts.sum(axis=2)
    ranked = np.lexsort((-totals.sum(axis=0), -totals.max(axis=0)))[:named]
    shown = np.sort(ranked[totals[:, ranked].any(axis=0)])
    shown = shown[np.lexsort((-totals[1, shown], -totals[0, shown]))]
    names, counts = [found.subjects[place] for place in shown.tolist()], found.counts[:, shown]
    if others := len(found.subjects) - len(shown):
        names.append(f"{others} others")
        rest = np.delete(found.counts, shown, axis=1).sum(axis=1, keepdims=True)
        counts = np.concatenate([counts, rest], axis=1)
    columns: dict[str, list[Any]] = {"subject": names}
    for side, name in enumerate(SIDES):
        columns |= {f"{name}_{what}": counts[side, :, kind].tolist() for kind, what in enumerate(KINDS)}
    return columns


def plot_neighbours(found: Neighbours) -> Figure:
    """Draw the fraction of the target's frames whose nearest source frame is of each source subject, a panel a side."""
    data = neighbours_data(found)
    names = [style.folded(name, _LETTERS) for name in data["subject"]]
    places = np.arange(len(names))
    step = 0.03 + 0.115 * max(1 + name.count("\n") for name in names)
    with style.house_style():
        drawn = style.figure(style.FULL, 1.0 + step * len(places))
        panels = drawn.subplots(1, 2, sharex=True, sharey=True)
        for panel, side, head in zip(panels, SIDES, ("As extracted", f"After {found.method}"), strict=True):
            left = np.zeros(len(places))
            for kind, said in KINDS.items():
                if any(sum(data[f"{each}_{kind}"]) for each in SIDES):
                    percent = 100 * np.asarray(data[f"{side}_{kind}"]) / found.frames
                    panel.barh(places, percent, left=left, height=0.72, linewidth=0, label=said, **_LOOKS[kind])
                    left += percent
            panel.set_title(head, loc="left", fontweight="bold")
            style.names_down(panel, names)
        whose = f"Frames of {found.subject} whose nearest source frame is of the person on the left (%)"
        drawn.supxlabel(style.folded(whose, 90), fontsize=7.5)
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return drawn

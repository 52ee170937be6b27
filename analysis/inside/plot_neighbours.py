"""The picture of a target's nearest source frames: bars a source subject, before and after translation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import folded
from featlab.analysis.inside.neighbours import KINDS, OTHERS, SIDES, Neighbours, Spread, neighbours_data

__all__ = ["plot_neighbours"]

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

"""The critical-difference diagram (Demšar, 2006, figure 1): average ranks on a line, bars over what doesn't differ."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from featlab.analysis import style
from featlab.analysis.evaluation import ACCESS_NOTE, figure_name
from featlab.analysis.evaluation.tables import friedman_text
from featlab.analysis.style import folded
from featlab.analysis.table import count_text
from featlab.evaluation.statistics import RankComparison

_SIZE = 7.0  # Of a name's letters, points.
_LINE, _BAR = 0.125, 0.075  # Height of a line of a name, distance between two bars.
_HEAD, _FIRST_BAR, _PAD = 0.62, 0.1, 0.08
"""From the top to the line of ranks, from there to the first bar, and around names."""
_MOST_LETTERS = 30
_NUMBER = 0.15  # Room for a number of two digits.


def ranks_data(compared: RankComparison) -> dict[str, list[Any]]:
    """Return the numbers of `plot_ranks`; groups count from 1, and are empty for none."""
    methods = len(compared.methods)
    groups = compared.groups()
    return {
        "method": list(compared.methods),
        "rank": list(compared.ranks),
        "first_group": [group[0] if group else "" for group in groups],
        "last_group": [group[-1] if group else "" for group in groups],
        "subjects": [compared.subjects] * methods,
        "critical_difference": [compared.critical_difference] * methods,
        "level": [compared.level] * methods,
        "friedman_p": [compared.friedman_p] * methods,
    }


def plot_ranks(compared: RankComparison, *, selections: Mapping[str, str] | None = None) -> Figure:
    """Draw the average ranks, the best on the right; a bar joins methods that do not differ."""
    seen = selections or {}
    access = [seen.get(method) == "source-access" for method in compared.methods]
    shown = [folded(figure_name(name, seen.get(name, "source-free")), _MOST_LETTERS) for name in compared.methods]
    better = math.ceil(len(shown) / 2)
    # From the outside in on both sides, so that no line crosses another.
    sides = ((1, range(better)), (-1, range(len(shown) - 1, better - 1, -1)))
    levels = _levels(compared.cliques)
    notes = _notes(compared, any(access))
    bars = _FIRST_BAR + _BAR * (max(levels, default=-1) + 1)
    lines = max(sum(_height(shown[place]) for place in places) for _, places in sides)
    foot = 0.1 + 0.12 * len(notes)
    height = _HEAD + bars + lines + _PAD + foot
    margin = max(_width(line) for name in shown for line in name.split("\n")) + 3 * _PAD
    # The line of ranks, inches: from the worst on the left to 1 on the right.
    left, right, worst = margin, style.FULL - margin, len(shown)
    y = height - _HEAD
    unit = (right - left) / (worst - 1)

    def at(rank: float) -> float:
        return right - (rank - 1.0) * unit

    with style.house_style():
        drawn = style.figure(style.FULL, height)
        drawn.set_layout_engine("none")
        # One unit is one inch, so that what is measured in letters and lines is drawn as measured.
        axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, style.FULL), ylim=(0.0, height))
        axes.set_axis_off()
        axes.plot([left, right], [y] * 2, color="black", linewidth=0.8, label="_line")
        step = math.ceil(_NUMBER / unit)
        for rank in range(1, worst + 1):
            numbered = (rank - 1) % step == 0
            axes.plot([at(rank)] * 2, [y, y + (0.05 if numbered else 0.03)], color="black", linewidth=0.6)
            if numbered:
                axes.text(at(rank), y + 0.07, str(rank), ha="center", va="bottom", fontsize=6.5)
        # With few subjects the difference may be more than there are ranks: then the whole line is all that is drawn.
        whole = compared.critical_difference > worst - 1
        above = y + 0.3
        end = right if whole else left + compared.critical_difference * unit
        axes.plot([left, end], [above] * 2, color=style.LOSS, linewidth=1.4, label="_difference")
        axes.vlines([left, end], above - 0.035, above + 0.035, color=style.LOSS, linewidth=1.0)
        said = f"CD = {compared.critical_difference:.2f}" + (" (more than the ranks span)" if whole else "")
        axes.text(left, above + 0.07, said, va="bottom", fontsize=6.5)
        for (first, last), level in zip(compared.cliques, levels, strict=True):
            ends = [at(compared.ranks[last]) - 0.035, at(compared.ranks[first]) + 0.035]
            depth = y - _FIRST_BAR - _BAR * level
            axes.plot(ends, [depth] * 2, color=style.COLOURS[0], linewidth=2.6, solid_capstyle="butt", label="_clique")
        for side, places in sides:
            bottom = y - bars
            end = right + _PAD if side > 0 else left - _PAD
            # From a rank down, and out to the name; side is 1 on the right and -1 on the left.
            for place in places:
                bottom -= _height(shown[place])
                depth = bottom + _height(shown[place]) / 2
                line, letters = (style.MUTED, "#555555") if access[place] else ("black", "black")
                path = [at(compared.ranks[place])] * 2 + [end], [y, depth, depth]
                axes.plot(*path, color=line, linewidth=0.7, zorder=1, label="_method")
                look: dict[str, Any] = {"ha": "left" if side > 0 else "right", "va": "center", "linespacing": 1.0}
                axes.text(end + side * 0.04, depth, shown[place], color=letters, fontsize=_SIZE, **look)
        for place, note in enumerate(notes):
            axes.text(0.06, foot - 0.04 - 0.12 * place, note, fontsize=6.5, color="#444444", va="top")
    return drawn


def _levels(cliques: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each bar the highest row in which it touches no other."""
    ends: list[int] = []
    levels = []
    for first, last in cliques:
        free = next((level for level, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        levels.append(free)
    return levels


def _notes(compared: RankComparison, marked: bool) -> list[str]:
    text = f"Average rank over {count_text(compared.subjects, 'subject')}, 1 is the best. "
    text += f"A bar joins methods that do not differ (Nemenyi, {compared.level:g})."
    if not math.isnan(compared.friedman_p):
        text += f" Friedman: {friedman_text(compared)}."
    if marked:
        text += f" {ACCESS_NOTE}."
    return textwrap.wrap(text, int((style.FULL - 0.12) / 0.055))


def _width(text: str) -> float:
    with style.house_style():
        return float(TextPath((0.0, 0.0), text, size=_SIZE).get_extents().width) / 72.0


def _height(name: str) -> float:
    return 0.03 + _LINE * (1 + name.count("\n"))

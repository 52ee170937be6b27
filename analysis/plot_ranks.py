"""The critical-difference diagram (Demšar, 2006, figure 1): average ranks on a line, bars over what doesn't differ."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featlab.analysis import style
from featlab.analysis.rank_table import friedman_text
from featlab.ranks import RankComparison

__all__ = ["plot_ranks", "ranks_data"]

_LETTER = 0.063
"""Width of a letter of a name, inches; a little more than the mean, so that few names come out wider."""
_LINE, _BAR = 0.125, 0.075
"""Height of a line of a name, distance between two bars."""
_PAD = 0.08
_MOST_LETTERS = {style.COLUMN: 16, style.FULL: 30}
_TICKS = 26
"""Ranks up to which each has a number under the line."""


def ranks_data(compared: RankComparison) -> dict[str, list[Any]]:
    """Return the numbers of `plot_ranks`: columns method, rank, first_group, last_group (from 1; empty for none),
    subjects, critical_difference, level, friedman_p.
    """
    methods = len(compared.methods)
    groups = [
        [number for number, (first, last) in enumerate(compared.cliques, start=1) if first <= place <= last]
        for place in range(methods)
    ]
    return {
        "method": list(compared.methods),
        "rank": list(compared.ranks),
        "first_group": [mine[0] if mine else "" for mine in groups],
        "last_group": [mine[-1] if mine else "" for mine in groups],
        "subjects": [compared.subjects] * methods,
        "critical_difference": [compared.critical_difference] * methods,
        "level": [compared.level] * methods,
        "friedman_p": [compared.friedman_p] * methods,
    }


def plot_ranks(
    compared: RankComparison,
    *,
    names: Mapping[str, str] | None = None,
    selections: Mapping[str, str] | None = None,
    width: float = style.FULL,
) -> Figure:
    """Draw the average ranks, the best on the right; a bar joins methods that do not differ.

    Above the line: the critical difference. Names of methods with source access are grey and end in a dagger.

    Args:
        compared: From `featlab.ranks.compare_ranks`.
        names: Method to display name.
        selections: Method to what it was allowed to see; source-free by default.
        width: `featlab.analysis.style.FULL` or ``COLUMN``.
    """
    access = [(selections or {}).get(method) == "source-access" for method in compared.methods]
    most = _MOST_LETTERS.get(width, int(0.3 * width / _LETTER))
    shown = [
        textwrap.fill((names or {}).get(method, method) + (" †" if marked else ""), most)
        for method, marked in zip(compared.methods, access, strict=True)
    ]
    better = math.ceil(len(shown) / 2)
    sides = ((range(better), 1), (range(len(shown) - 1, better - 1, -1), -1))
    levels = _levels(compared.cliques)
    margin = max(_LETTER * max(len(line) for name in shown for line in name.split("\n")), 0.5) + 2 * _PAD
    notes = _notes(compared, any(access), width)
    head = 0.62
    bars = 0.1 + _BAR * (max(levels, default=-1) + 1)
    lines = max(sum(_height(shown[place]) for place in places) for places, _ in sides)
    foot = 0.1 + 0.12 * len(notes)
    height = head + bars + lines + 0.08 + foot
    with style.house_style():
        drawn = style.figure(width, height)
        drawn.set_layout_engine("none")
        # One unit is one inch, so that what is measured in letters and lines is drawn as measured.
        axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(0.0, height))
        axes.set_axis_off()
        worst, line = len(shown), height - head

        def across(rank: float) -> float:
            return width - margin - (rank - 1.0) / (worst - 1.0) * (width - 2 * margin)

        _scale(axes, across, worst, line, compared.critical_difference)
        for (first, last), level in zip(compared.cliques, levels, strict=True):
            ends = [across(compared.ranks[last]) - 0.035, across(compared.ranks[first]) + 0.035]
            depth = line - 0.1 - _BAR * level
            axes.plot(ends, [depth] * 2, color=style.COLOURS[0], linewidth=2.6, solid_capstyle="butt", label="_clique")
        for places, side in sides:
            depth = line - bars
            for place in places:
                depth -= _height(shown[place])
                middle = depth + _height(shown[place]) / 2
                rank, end = across(compared.ranks[place]), width / 2 + side * (width / 2 - margin + _PAD)
                colour = style.MUTED if access[place] else "black"
                axes.plot(
                    [rank, rank, end], [line, middle, middle], color=colour, linewidth=0.7, zorder=1, label="_method"
                )
                axes.text(
                    end + side * 0.04,
                    middle,
                    shown[place],
                    color="#555555" if access[place] else "black",
                    ha="left" if side > 0 else "right",
                    va="center",
                    fontsize=7,
                    linespacing=1.0,
                )
        for place, note in enumerate(notes):
            axes.text(0.06, foot - 0.04 - 0.12 * place, note, fontsize=6.5, color="#444444", va="top")
    return drawn


def _scale(axes: Axes, across: Any, worst: int, line: float, difference: float) -> None:
    """Draw the line of ranks with its numbers, and the critical difference above it."""
    axes.plot([across(worst), across(1)], [line, line], color="black", linewidth=0.8, label="_line")
    step = max(1, math.ceil(worst / _TICKS))
    for rank in range(1, worst + 1):
        numbered = (rank - 1) % step == 0
        axes.plot([across(rank)] * 2, [line, line + (0.05 if numbered else 0.03)], color="black", linewidth=0.6)
        if numbered:
            axes.text(across(rank), line + 0.07, str(rank), ha="center", va="bottom", fontsize=6.5)
    # With few subjects the difference may be more than there are ranks; then all that can be drawn is the whole line.
    drawn = min(difference, worst - 1.0)
    more = " (more than the ranks span)" if difference > worst - 1.0 else ""
    above, left = line + 0.3, across(worst)
    right = left + across(1.0) - across(1.0 + drawn)
    axes.plot([left, right], [above, above], color=style.LOSS, linewidth=1.4, label="_difference")
    for end in (left, right):
        axes.plot([end, end], [above - 0.035, above + 0.035], color=style.LOSS, linewidth=1.0)
    axes.text(left, above + 0.07, f"CD = {difference:.2f}{more}", va="bottom", fontsize=6.5)


def _levels(cliques: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each bar the highest row in which it touches no other."""
    ends: list[int] = []
    levels = []
    for first, last in cliques:
        free = next((level for level, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        levels.append(free)
    return levels


def _notes(compared: RankComparison, marked: bool, width: float) -> list[str]:
    subjects = "1 subject" if compared.subjects == 1 else f"{compared.subjects} subjects"
    text = f"Average rank over {subjects}, 1 is the best. A bar joins methods that do not differ (Nemenyi, "
    text += f"{compared.level:g})."
    if not math.isnan(compared.friedman_p):
        text += f" Friedman: {friedman_text(compared)}."
    if marked:
        text += " † With source access."
    return textwrap.wrap(text, int((width - 0.12) / 0.055))


def _height(name: str) -> float:
    return 0.03 + _LINE * (1 + name.count("\n"))

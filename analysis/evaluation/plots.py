"""Figures of results: each subject before and after, the means, the average ranks (Demšar, 2006, figure 1)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation import ACCESS_NOTE, figure_name, note_access, rows_by_method
from featlab.analysis.evaluation.tables import friedman_text
from featlab.analysis.style import folded
from featlab.analysis.table import columns_of, count_text
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow, common_subject_means
from featlab.evaluation.statistics import TOLERANCE, RankComparison, bootstrap_interval
from featlab.evaluation.summary import MethodSummary

_LETTER = 0.075  # Width of a bold letter of a panel's title, inches.
_SOURCE, _ORACLE = "source-only", "oracle"
_PANELS_ACROSS = 6
_TALL, _LOW, _FEW_ROWS = 1.9, 1.65, 3
"""Height of a row of panels, inches: lower where there are more than a few, so that all go onto one page."""
_NAME_LETTERS = {style.COLUMN: 24, style.FULL: 44}  # Longest line of a name beside the means.


def subjects_data(rows: Sequence[EvaluationRow]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_subjects`: columns method, subject, source, score (fractions)."""
    by_method = rows_by_method(rows)
    lines = [
        (method, subject, *scores)
        for method, group in by_method.items()
        if method != _SOURCE
        for subject, scores in common_subject_means(by_method.get(_SOURCE, ()), group).items()
    ]
    if not lines:
        raise InputError(f"no method has a subject in common with {_SOURCE!r}; the figure compares with it")
    return columns_of(("method", "subject", "source", "score"), lines)


def plot_subjects(rows: Sequence[EvaluationRow]) -> Figure:
    """Draw one panel a method: every subject's macro F1 before (source-only) and after."""
    data = subjects_data(rows)
    methods = list(dict.fromkeys(data["method"]))
    down = math.ceil(len(methods) / _PANELS_ACROSS)
    across = math.ceil(len(methods) / down)
    letters = int((style.FULL / across - 0.1) / _LETTER)
    selections = {row.method: row.selection for row in rows}
    with style.house_style():
        drawn = style.figure(style.FULL, 0.35 + (_TALL if down <= _FEW_ROWS else _LOW) * down)
        panels = style.panels(drawn, len(methods), across, sharey=True)
        for panel, method in zip(panels, methods, strict=True):
            mine = [index for index, name in enumerate(data["method"]) if name == method]
            before = [data["source"][index] for index in mine]
            after = [data["score"][index] for index in mine]
            _slopes(panel, before, after)
            name = folded(figure_name(method, selections[method]), letters)
            panel.set_title(name, fontweight="bold", fontsize=7.5, pad=14)
        for panel in panels[::across]:
            panel.set_ylabel("Macro F1 (%)")
        note_access(drawn, [selections[method] for method in methods])
    return drawn


def summary_data(summaries: Sequence[MethodSummary]) -> dict[str, list[Any]]:
    """Return the numbers of `plot_summary`: columns method, macro_f1, low, high (fractions), subjects."""
    lines = [(item.method, item.macro_f1, *item.ci95, item.subjects) for item in summaries]
    return columns_of(("method", "macro_f1", "low", "high", "subjects"), lines)


def plot_summary(summaries: Sequence[MethodSummary], *, width: float = style.COLUMN) -> Figure:
    """Draw each method's mean macro F1 with its 95 % interval; dashed lines mark source-only and the oracle."""
    data = summary_data(summaries)
    most = _NAME_LETTERS.get(width, int(6 * width))
    shown = [folded(figure_name(item.method, item.selection), most) for item in summaries]
    people = count_text(max(item.subjects for item in summaries), "subject")
    dashed = " and ".join(name for name in (_SOURCE, _ORACLE) if name in data["method"])
    said = f"Macro F1 (%), mean over {people} and 95 % interval" + (f"; dashed: {dashed}" if dashed else "")
    label = folded(said, 34 if width < style.FULL else 80)
    if any(item.selection == "source-access" for item in summaries):
        label += f"\n{ACCESS_NOTE}"
    # The distance of all lines is the same, whatever their names need.
    step = 0.07 + 0.115 * max(1 + name.count("\n") for name in shown)
    with style.house_style():
        drawn = style.figure(width, 0.4 + 0.15 * (1 + label.count("\n")) + step * len(summaries))
        axes = drawn.subplots()
        for place, (method, mean, low, high) in enumerate(
            zip(data["method"], data["macro_f1"], data["low"], data["high"], strict=True)
        ):
            reference = method in (_SOURCE, _ORACLE)
            colour = style.MUTED if reference else style.COLOURS[0]
            if reference:
                axes.axvline(mean, color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1)
            axes.plot([low, high], [place, place], color=colour, solid_capstyle="round", label=f"_interval {method}")
            axes.plot([mean], [place], "D" if reference else "o", color=colour, label=f"_mean {method}")
            said = "failed" if math.isnan(mean) else f"{100 * mean:.1f}"
            said += "" if math.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
            beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
            axes.text(1.02, place, said, fontsize=6.5, **beside)
        style.names_down(axes, shown)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        style.in_percent(axes.xaxis)
        axes.set_xlabel(label)
    return drawn


def _slopes(axes: Axes, before: Sequence[float], after: Sequence[float]) -> None:
    for left, right in zip(before, after, strict=True):
        lost, same = right < left - TOLERANCE, abs(right - left) <= TOLERANCE
        axes.plot(
            [0, 1],
            [left, right],
            color=style.MUTED if same else style.LOSS if lost else style.GAIN,
            alpha=0.75,
            linewidth=0.9,
            marker="o",
            markersize=2.2,
            zorder=3 if lost else 2,
        )
    for side, values in ((-0.16, before), (1.16, after)):
        axes.plot([side, side], bootstrap_interval(values), color="black", linewidth=1.2, label="_interval")
        axes.plot([side], [float(np.mean(values))], "o", color="black", markersize=4, label="_mean")
    worse = sum(right < left - TOLERANCE for left, right in zip(before, after, strict=True))
    points = 100.0 * (float(np.mean(after)) - float(np.mean(before)))
    gain = f"{points:+.1f}".replace("-", "−")
    look: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "fontsize": 6.5}
    axes.text(0.36, 1.02, gain, ha="right", color="#444444", **look)
    axes.text(0.42, 1.02, f"{worse}/{len(before)} worse", color=style.LOSS if worse else "#444444", **look)
    axes.set_xlim(-0.35, 1.35)
    axes.set_xticks([0, 1], ["before", "after"])
    axes.yaxis.set_major_locator(MaxNLocator(6))
    style.in_percent(axes.yaxis)
    axes.grid(axis="y")


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

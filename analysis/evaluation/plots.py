"""Figures of results: each subject before and after, the means, the average ranks (Demšar, 2006, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.evaluation import figure_name, note_access, rows_by_method
from featlab.analysis.style import folded
from featlab.analysis.table import columns_of, count_text
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow, common_subject_means
from featlab.evaluation.statistics import TOLERANCE, RankComparison, bootstrap_interval
from featlab.evaluation.summary import MethodSummary

_LETTER = 0.075  # Width of a bold letter of a panel's title, inches.
_SOURCE, _ORACLE = "source-only", "oracle"
_PANELS_ACROSS = 6
_NAME_LETTERS = 30  # Longest line of a name beside the ranks.


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
        drawn = style.figure(style.FULL, 0.35 + 1.7 * down)
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
    shown = [folded(figure_name(item.method, item.selection), int(6.5 * width)) for item in summaries]
    people = count_text(max(item.subjects for item in summaries), "subject")
    dashed = " and ".join(name for name in (_SOURCE, _ORACLE) if name in data["method"])
    said = f"Macro F1 (%), mean over {people} and 95 % interval" + (f"; dashed: {dashed}" if dashed else "")
    label = folded(said, 34 if width < style.FULL else 80)
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
            axes.text(1.02, place, said, transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=6.5)
        style.names_down(axes, shown)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        style.in_percent(axes.xaxis)
        axes.set_xlabel(label)
        note_access(drawn, [item.selection for item in summaries])
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
    """Draw the average ranks, the best at the top; a bar on the right joins methods that do not differ."""
    seen = selections or {}
    shown = [folded(figure_name(name, seen.get(name, "source-free")), _NAME_LETTERS) for name in compared.methods]
    # The distance of all lines is the same, whatever their names need.
    step = 0.07 + 0.115 * max(1 + name.count("\n") for name in shown)
    worst = len(shown)
    with style.house_style():
        drawn = style.figure(style.FULL, 0.6 + step * (worst + 1.5))
        axes, joined = drawn.subplots(1, 2, sharey=True, width_ratios=(4, 1))
        axes.plot(compared.ranks, range(worst), "o", color=style.COLOURS[0], label="_ranks")
        style.names_down(axes, shown)
        # Above the best stands the critical difference, to compare distances with; it may be more than there are ranks.
        axes.set_ylim(top=-2.2)
        end = min(1 + compared.critical_difference, worst)
        axes.plot([1, end], [-1, -1], color=style.LOSS, linewidth=1.6, label="_difference")
        axes.text(1, -1.3, f"critical difference {compared.critical_difference:.2f}", va="bottom", fontsize=6.5)
        axes.set_xlim(0.8, worst + 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        people = count_text(compared.subjects, "subject")
        axes.set_xlabel(f"Average rank over {people}, 1 is the best")
        for number, clique in enumerate(compared.cliques, start=1):
            joined.plot([number] * 2, clique, color=style.COLOURS[0], linewidth=2.6, label="_clique")
        joined.set(xlim=(0, max(4, len(compared.cliques)) + 1), xlabel=f"do not differ\n(Nemenyi, {compared.level:g})")
        joined.set_xticks([])
        joined.tick_params(axis="y", length=0, labelleft=False)
        joined.spines[:].set_visible(False)
        note_access(drawn, seen.values())
    return drawn

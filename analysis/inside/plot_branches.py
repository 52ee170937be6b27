"""The figure of branches: cosines by expression and by subject, and what linear probes read off, a line each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from featlab.analysis import style
from featlab.analysis.inside.branch_table import ROWS
from featlab.analysis.inside.branches import COSINES, PROBES, BranchReport

__all__ = ["branch_data", "plot_branches"]

_EXPRESSION = {"color": style.COLOURS[0], "marker": "o"}
_SUBJECT = {"color": style.COLOURS[1], "marker": "s"}
_LOOKS: dict[str, dict[str, Any]] = {
    "fixed_expression": _EXPRESSION,
    "fixed_subject": _SUBJECT,
    "neither": {"color": style.MUTED, "marker": "D"},
    "expression": _EXPRESSION,
    "identity": _SUBJECT,
}
_WORDS = {
    "fixed_expression": "same expression, other subjects",
    "fixed_subject": "same subject, other expressions",
    "neither": "both other",
    "expression": "expression",
    "identity": "identity",
}
_APART = 0.24
"""Distance of the dots on a line, as a share of that of the lines."""
_LINE = 0.3
"""Distance of two lines, inches."""


def branch_data(report: BranchReport) -> dict[str, list[Any]]:
    """Return the numbers of `plot_branches`: columns group, representation, measure, mean, low, high, chance.

    One line a row of the table and measure; cosines, and fractions of the probes.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("group", "representation", "measure", "mean", "low", "high", "chance")
    }
    for group, name, key in ROWS:
        for measure in (*COSINES, *PROBES):
            found = getattr(report.of(key), measure)
            values = (group, name, measure, found.mean, found.low, found.high, found.chance)
            for column, value in zip(columns, values, strict=True):
                columns[column].append(value)
    return columns


def plot_branches(data: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw a line a representation: mean cosines on the left, accuracy of the probes on the right.

    Thin lines are 95 % intervals over subjects; dashed ones show what guessing would give, in the probe's colour.

    Args:
        data: From `branch_data`.
    """
    lines = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    ticks = _ticks(lines)
    with style.house_style():
        drawn = style.figure(style.FULL, 1.0 + _LINE * len(ticks))
        panels = drawn.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        for panel, measures in zip(panels, (COSINES, tuple(reversed(PROBES))), strict=True):
            for line in lines:
                if line["measure"] in measures and math.isfinite(line["mean"]):
                    place = ticks.index((line["group"], line["representation"]))
                    shift = _APART * (measures.index(line["measure"]) - (len(measures) - 1) / 2)
                    _dot(panel, place + shift, line)
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            handles = [
                Line2D([], [], linestyle="none", markersize=4.5, label=_WORDS[measure], **_LOOKS[measure])
                for measure in measures
            ]
            if panel is panels[1]:
                handles.append(Line2D([], [], linestyle="--", linewidth=0.8, color=style.MUTED, label="guessing"))
            panel.legend(
                handles=handles,
                loc="lower left",
                bbox_to_anchor=(-0.02, 1.0),
                ncols=1 if panel is panels[0] else 3,
                handletextpad=0.4,
                borderpad=0,
            )
        panels[0].set_yticks(range(len(ticks)), [name or group for group, name in ticks])
        for text, (_, name) in zip(panels[0].get_yticklabels(), ticks, strict=True):
            text.set_fontweight("normal" if name else "bold")
        panels[0].set_ylim(len(ticks) - 0.4, -0.5)
        panels[0].axvline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        panels[0].xaxis.set_major_locator(MaxNLocator(6))
        panels[0].set_xlabel("Mean cosine (centred on the source)")
        _chance(panels[1], lines)
        panels[1].set_xlim(0, 1.03)
        style.in_percent(panels[1].xaxis)
        panels[1].set_xlabel("Read off by a linear probe (%)")
    return drawn


def _ticks(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (group, representation) of each line from the top; a group's heading has no representation."""
    ticks: list[tuple[str, str]] = []
    for line in lines:
        for tick in ((line["group"], ""), (line["group"], line["representation"])):
            if tick not in ticks:
                ticks.append(tick)
    return ticks


def _dot(axes: Axes, place: float, line: Mapping[str, Any]) -> None:
    look = _LOOKS[line["measure"]]
    name = f"{line['measure']} {line['representation']}"
    axes.plot([line["low"], line["high"]], [place, place], color=look["color"], linewidth=0.9, label=f"_span {name}")
    axes.plot(
        [line["mean"]],
        [place],
        linestyle="none",
        markersize=4.5,
        zorder=3,
        clip_on=False,
        label=f"_mean {name}",
        **look,
    )


def _chance(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Mark what guessing gives: one dashed line a probe, the same in every representation."""
    for measure in PROBES:
        known = [line["chance"] for line in lines if line["measure"] == measure and math.isfinite(line["chance"])]
        if not known:
            continue
        axes.axvline(
            known[0],
            color=_LOOKS[measure]["color"],
            # Where both are the same, the dashes of one fill the gaps of the other.
            linestyle=(4 * PROBES.index(measure), (4, 4)),
            linewidth=0.8,
            zorder=1,
            label=f"_chance {measure}",
        )

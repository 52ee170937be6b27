"""The results folder of `featlab plot style`: a figure a method, the distances as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featlab.analysis.inside.style_shift import SPREAD, StyleShift
from featlab.analysis.page import DrawnFigure, Result, safe_name, write_result
from featlab.analysis.table import MISSING, Table, number_text
from featlab.methods import get_method

__all__ = ["style_table", "style_words", "write_style"]

_NAMES = {"mean": "mean", "std": "standard deviation"}
_SAME = 0.005


def style_table(shifts: Sequence[StyleShift]) -> Table:
    """Return one line a method, layer and statistic: median distances, and how many are within the source's spread."""
    rows = tuple(
        (
            get_method(shift.method).title,
            layer,
            _NAMES[statistic],
            *(
                number_text(_median(shift, (layer, statistic), group, side), 2)
                for group in ("adapted rows", "other rows")
                for side in ("before", "after")
            ),
            number_text(_median(shift, (layer, statistic), "source moved", "after"), 2),
            *(_within_text(shift, (layer, statistic), side) for side in ("before", "after")),
        )
        for shift in shifts
        for layer, statistic in shift.units
    )
    return Table(
        title="Distance from the source's style",
        columns=(
            "Method",
            "Layer",
            "Statistic",
            "Adapted rows, before",
            "Adapted rows, after",
            "Other rows, before",
            "Other rows, after",
            "Source people, moved",
            "Within, before",
            "Within, after",
        ),
        rows=rows,
        bold=tuple((False,) * len(row) for row in rows),
        notes=(
            "Medians over targets; 1 is the distance of a typical source person, as they are.",
            "Adapted rows come near by construction; the other neutral rows of a target the method has never seen.",
            "Source people moved: each by half of their neutral clips, measured on the others.",
            f"Within: targets no farther away, in their other rows, than {SPREAD:g} % of the source people.",
        ),
        text_columns=3,
        grouped=True,
    )


def style_words(shift: StyleShift) -> list[str]:
    """Return what one method's numbers say, a sentence a layer and statistic."""
    name = get_method(shift.method).title
    words = []
    for key in shift.units:
        layer, statistic = key
        start = f"{name}, {layer}, {_NAMES[statistic]}: "
        adapted = [_median(shift, key, "adapted rows", side) for side in ("before", "after")]
        other = [_median(shift, key, "other rows", side) for side in ("before", "after")]
        if np.isnan(other[0]):
            words.append(f"{start}{adapted[0]:.2f} before; no target has neutral rows that were not adapted on.")
        elif all(abs(after - before) < _SAME for before, after in (adapted, other)):
            words.append(f"{start}stays at {other[1]:.2f} of a typical source person's distance.")
        else:
            words.append(
                f"{start}from {other[0]:.2f} to {other[1]:.2f} of a typical source person's distance on rows that were "
                f"not adapted on ({adapted[1]:.2f} on those that were){_beside(shift, key)}. "
                f"{_within_text(shift, key, 'after')} targets end up within the source people's spread, where "
                f"{_within(shift, key, 'before')} had been before."
            )
    return words


def write_style(folder: Path, shifts: Sequence[StyleShift], command: str, facts: Mapping[str, Any]) -> list[Path]:
    """Write a figure a method, the table and the words into a folder.

    Args:
        folder: Where; made if missing.
        shifts: From `featlab.analysis.inside.style_shift.style_shift`, a method each.
        command: What was typed.
        facts: From `featlab.evaluation.campaign.run_facts`.

    Returns:
        The files.
    """
    from featlab.analysis.inside.plot_style import plot_style

    figures = []
    for shift in shifts:
        name = get_method(shift.method).title
        caption = (
            "Distance of each target's neutral style (mean; standard deviation) from the source's centre, before "
            f"and after {name}; 1 is a typical source person. Left in a panel the rows that were adapted on, right the "
            "other neutral rows. Grey: 90 % of the source people as they are; green: 90 % of them, each moved "
            "by half of their neutral clips and measured on the others."
        )
        figures.append(
            DrawnFigure(
                f"style-{safe_name(shift.method)}",
                f"Style before and after {name}",
                caption,
                plot_style(shift),
                shift.columns,
            )
        )
    return write_result(
        folder,
        Result(
            kind="plot",
            title="How far targets are from the source's style",
            summary=[word for shift in shifts for word in style_words(shift)],
            tables={"style": style_table(shifts)},
            figures=figures,
            metadata=facts,
        ),
        command,
    )


def _median(shift: StyleShift, key: tuple[str, str], group: str, side: str) -> float:
    values = shift.values(*key, group, side)
    return float(np.median(values)) if len(values) else float("nan")


def _within(shift: StyleShift, key: tuple[str, str], side: str) -> int:
    return int((shift.values(*key, "other rows", side) <= shift.limit(*key)).sum())


def _within_text(shift: StyleShift, key: tuple[str, str], side: str) -> str:
    targets = len(shift.values(*key, "other rows"))
    return f"{_within(shift, key, side)} of {targets}" if targets else MISSING


def _beside(shift: StyleShift, key: tuple[str, str]) -> str:
    moved = _median(shift, key, "source moved", "after")
    return "" if np.isnan(moved) else f"; source people moved likewise come to {moved:.2f}"

"""Figures of ablations: accuracy against one setting, methods side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from featlab.analysis import style
from featlab.errors import InputError

__all__ = ["plot_dims"]

_SPREAD = 0.34
"""Methods stand side by side over this part of the way to the next dimension, so that intervals don't cover."""


def plot_dims(
    data: Mapping[str, Sequence[Any]], *, names: Mapping[str, str] | None = None, width: float = style.FULL
) -> Figure:
    """Draw macro F1 against the dimension of the features, one line a method, with 95 % intervals.

    Args:
        data: Columns dim (0 is the full size), kept (features there were), method, macro_f1, low, high (fractions), as
            `featlab.analysis.ablations.dims_data` gives them.
        names: Method to display name.
        width: `featlab.analysis.style.COLUMN` or ``FULL``.

    Raises:
        InputError: No rows.
    """
    rows = list(zip(*(data[name] for name in ("dim", "kept", "method", "macro_f1", "low", "high")), strict=True))
    if not rows:
        raise InputError("no results to draw; run the ablation first")
    dims = list(dict.fromkeys((dim, kept) for dim, kept, *_ in rows))
    methods = list(dict.fromkeys(row[2] for row in rows))
    step = _SPREAD / max(1, len(methods) - 1)
    across = 4 if width >= style.FULL else 1
    with style.house_style():
        drawn = style.figure(width, 2.4 + 0.14 * math.ceil(len(methods) / across))
        axes = drawn.subplots()
        for order, method in enumerate(methods):
            mine = [row for row in rows if row[2] == method]
            place = [dims.index(row[:2]) + (order - (len(methods) - 1) / 2) * step for row in mine]
            look: dict[str, Any] = {
                "color": style.COLOURS[order % len(style.COLOURS)],
                "marker": style.MARKERS[order % len(style.MARKERS)],
            }
            axes.plot(place, [row[3] for row in mine], markersize=3.5, label=(names or {}).get(method, method), **look)
            for x, row in zip(place, mine, strict=True):
                axes.plot([x, x], row[4:6], color=look["color"], linewidth=0.9, alpha=0.6, label="_interval")
        axes.set_xticks(np.arange(len(dims)), [_tick(dim, kept) for dim, kept in dims])
        axes.set_xlim(-0.5, len(dims) - 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.grid(axis="y")
        axes.set_xlabel("Dimension of the features")
        axes.set_ylabel("Macro F1 (%)")
        drawn.legend(loc="outside upper center", ncols=across)
    return drawn


def _tick(dim: int, kept: int) -> str:
    if not dim:
        return f"full\n({kept:,})"
    return f"{dim}" if kept == dim else f"{dim}\n({kept:,} there)"

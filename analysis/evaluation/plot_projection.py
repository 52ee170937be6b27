"""The picture of an adaptation: source and target features in the plane, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from featlab.analysis import style
from featlab.errors import InputError

__all__ = ["plot_projection", "principal_axes", "projection_data"]


def principal_axes(
    rows: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Return the mean (d,), the two principal axes (2, d) and the share of variance on each.

    Signs are fixed (the largest entry of an axis is positive), so that the same rows never come out mirrored.

    Args:
        rows: (n, d) with n, d >= 2.
    """
    centre = rows.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(rows - centre, full_matrices=False)
    axes = directions[:2]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[np.arange(2), largest] < 0, -1.0, 1.0)[:, None]
    total = float((spread**2).sum()) or 1.0
    return centre, axes, (float(spread[0] ** 2) / total, float(spread[1] ** 2) / total)


def projection_data(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    is_target: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Return the numbers of `plot_projection`: columns label, is_target, before_x, before_y, after_x, after_y.

    Args:
        before: (n, d) features before adaptation.
        after: (n, d) the same rows after it.
        labels: (n,) class codes, -1 unknown; for the markers only.
        is_target: (n,) whether a row belongs to the target subject.

    Raises:
        InputError: Shapes that differ, non-finite features, or fewer than two source rows or dimensions.
    """
    before, after = np.asarray(before), np.asarray(after)
    labels, is_target = np.asarray(labels), np.asarray(is_target, dtype=bool)
    if before.ndim != 2 or before.shape != after.shape:
        raise InputError(f"features before {before.shape} and after {after.shape} must be (n, d) of the same rows")
    if labels.shape != before.shape[:1] or is_target.shape != before.shape[:1]:
        raise InputError(f"{len(before)} rows, but labels {labels.shape} and target marks {is_target.shape}")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise InputError("features hold NaN or infinity; nothing to project")
    if before.shape[1] < 2 or int((~is_target).sum()) < 2:
        raise InputError("a projection is fitted on source rows: at least two of them, of at least two dimensions")
    centre, axes, _ = principal_axes(before[~is_target])
    left, right = (before - centre) @ axes.T, (after - centre) @ axes.T
    return {
        "label": labels,
        "is_target": is_target,
        "before_x": left[:, 0],
        "before_y": left[:, 1],
        "after_x": right[:, 0],
        "after_y": right[:, 1],
    }


def plot_projection(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    is_target: NDArray[np.bool_],
    *,
    classes: Sequence[str],
    titles: tuple[str, str] = ("Before adaptation", "After adaptation"),
    width: float = style.FULL,
) -> Figure:
    """Draw two panels on the same axes: PCA fitted on the source rows before adaptation, and on nothing else.

    Args:
        before: (n, d) features before adaptation.
        after: (n, d) the same rows after it.
        labels: (n,) class codes, -1 unknown.
        is_target: (n,) whether a row belongs to the target subject.
        classes: Class names, one marker each (after eight, markers repeat).
        titles: Of the two panels.
        width: Inches.

    Raises:
        InputError: As `projection_data`, or a label outside ``classes``.
    """
    data = projection_data(before, after, labels, is_target)
    labels, is_target = data["label"], data["is_target"]
    if labels.max() >= len(classes):
        raise InputError(f"label {int(labels.max())} has no name among the {len(classes)} classes")
    _, _, shares = principal_axes(np.asarray(before)[~is_target])
    codes = [code for code in range(-1, len(classes)) if (labels == code).any()]
    with style.house_style():
        drawn = style.figure(width, 0.5 * width + 0.45)
        panels = drawn.subplots(1, 2)
        for panel, title, x, y in (
            (panels[0], titles[0], data["before_x"], data["before_y"]),
            (panels[1], titles[1], data["after_x"], data["after_y"]),
        ):
            for target in (False, True):
                for code in codes:
                    mask = (labels == code) & (is_target == target)
                    panel.plot(
                        x[mask],
                        y[mask],
                        label=f"_{'target' if target else 'source'} {code}",
                        **_look(code, target, 1.0 if width >= style.FULL else 0.7),
                    )
            panel.set_title(title, fontweight="bold")
            panel.set_xlabel(f"source PC 1 ({100 * shares[0]:.0f} %)")
            _limits(panel, data)
        panels[0].set_ylabel(f"source PC 2 ({100 * shares[1]:.0f} %)")
        panels[1].tick_params(labelleft=False)
        handles = [
            Line2D([], [], linestyle="none", marker="o", markersize=5, color=style.MUTED, label="source subjects"),
            Line2D([], [], linestyle="none", marker="o", markersize=5, color=style.LOSS, label="target subject"),
        ]
        for code in codes:
            name = classes[code] if code >= 0 else "unknown"
            handles.append(Line2D([], [], **{**_look(code, True), "color": "black", "markersize": 4}, label=name))
        drawn.legend(
            handles=handles, loc="outside lower center", ncols=5 if width >= style.FULL else 3, handletextpad=0.2
        )
    return drawn


def _look(code: int, target: bool, scale: float = 1.0) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": style.MARKERS[code % len(style.MARKERS)] if code >= 0 else ".",
        "markersize": scale * (3.6 if target else 2.8),
        "markeredgewidth": 0.3,
        "markeredgecolor": "white",
        "color": style.LOSS if target else style.MUTED,
        "alpha": 0.9 if target else 0.5,
        "zorder": 3 if target else 2,
    }


def _limits(panel: Axes, data: dict[str, NDArray[Any]]) -> None:
    """Give both panels the same limits, and a distance the same length in every direction."""
    x = np.concatenate([data["before_x"], data["after_x"]])
    y = np.concatenate([data["before_y"], data["after_y"]])
    panel.update_datalim(np.column_stack([x, y]))
    # The box keeps its size and the limits grow: a box that shrinks escapes the layout and clips the titles.
    panel.set_aspect("equal", adjustable="datalim")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(5, prune="both"))

"""How far targets are from the source's style, layer by layer, before and after a method; 1 is a source person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis import style
from featlab.analysis.inside import AdaptedPeople, features_of
from featlab.analysis.page import DrawnFigure, Result, safe_name
from featlab.analysis.table import MISSING, Column, Table, columns_of, make_table, number_text
from featlab.errors import InputError
from featlab.methods.base import base_model
from featlab.methods.pft.method import PFT
from featlab.methods.registry import get_method
from featlab.model.losses import group_statistics, style_statistics
from featlab.model.networks import PersonalModel, SourceHead, Translator, as_tensor

STATISTICS = {"mean": "mean", "std": "standard deviation"}
SPREAD = 95.0  # Percentile of the source people's distances up to which someone is within the source's spread.

_SMALLEST_UNIT = 1e-6  # Source people who are less apart than this do not differ.

Key = tuple[str, str]  # Layer and statistic.


@dataclass(frozen=True, eq=False)
class StyleShift:
    """Distances of one method's targets, and of the source people beside them."""

    method: str
    layers: tuple[str, ...]  # features (before T), embedding (after it), bottleneck; without T no embedding.
    # A line a person, in units, of three groups: a target's adapted rows, and other neutral rows; the source people as
    # they are, who have no after (NaN).
    columns: dict[str, list[Any]]
    units: Mapping[Key, float]  # To a distance; none where people don't differ.

    def values(self, key: Key, group: str, side: str = "after") -> NDArray[np.float64]:
        """Return (n,) distances of one group before or after, in the order of the columns; n is 0 without any."""
        keys = zip(self.columns["layer"], self.columns["statistic"], self.columns["group"], strict=True)
        wanted = [found == (*key, group) for found in keys]
        return np.asarray(self.columns[side], dtype=np.float64)[wanted]

    def median(self, key: Key, group: str, side: str) -> float:
        """Return the median of `values`; NaN without any."""
        values = self.values(key, group, side)
        return float(np.median(values)) if len(values) else math.nan

    def within(self, key: Key, side: str) -> str:
        """Return how many targets are within the source's spread in their other rows; a dash where none has any."""
        values = self.values(key, "other rows", side)
        limit = np.percentile(self.values(key, "source", "before"), SPREAD)
        return f"{int((values <= limit).sum())} of {len(values)}" if len(values) else MISSING


def style_shift(people: AdaptedPeople, method: str) -> StyleShift:
    """Measure one method against the style bank's centre; before is the model without the person's adaptation."""
    bundle, source = people.bundle, people.source
    if bundle.bank is None:
        raise InputError("this bundle has no style bank to measure from; pretrain with pretrain.style_bank = centre")
    through = issubclass(get_method(method), PFT)
    plain = PersonalModel(bundle.projection, bundle.translator, bundle.head) if through else base_model(bundle)
    neutral = np.flatnonzero(source.label == source.neutral_code)
    codes, group = np.unique(source.subject[neutral], return_inverse=True)
    statistics = {
        layer: group_statistics(rows, torch.from_numpy(group.reshape(-1)), len(codes))
        for layer, rows in _layers(plain, source.embeddings[neutral], through).items()
    }
    centres = {layer: (mean.mean(dim=0), std.mean(dim=0)) for layer, (mean, std) in statistics.items()}
    if through:
        centres = {layer: bundle.bank.layers[layer] for layer in statistics}
    measured = []
    for person in people.people:
        table, split, model = person.table, person.split, person.models[method].model
        others = split.test[table.label[split.test] == table.neutral_code]
        for who, rows in (("adapted rows", split.adapt), ("other rows", others)):
            if len(rows):
                sides = [_layers(part, table.embeddings[rows], through) for part in (plain, model)]
                measured.append((who, person.subject, sides))
    lines: list[tuple[Any, ...]] = []
    units: dict[Key, float] = {}
    for layer, parts in statistics.items():
        for place, statistic in enumerate(STATISTICS):
            centre = centres[layer][place]
            apart = torch.linalg.vector_norm(parts[place] - centre, dim=1).double().numpy()
            unit = float(np.median(apart))
            if not unit > _SMALLEST_UNIT:
                continue
            units[layer, statistic] = unit
            for who, subject, sides in measured:
                if all(layer in rows for rows in sides):
                    styles = [style_statistics(rows[layer])[place] for rows in sides]
                    far = [float(torch.linalg.vector_norm(each - centre)) / unit for each in styles]
                    lines.append((layer, statistic, who, subject, *far))
            lines += [
                (layer, statistic, "source", source.subjects[code], far / unit, math.nan)
                for code, far in zip(codes, apart, strict=True)
            ]
    if not units:
        raise InputError("the source people do not differ in their neutral rows: nothing to measure by; add people")
    columns = columns_of(("layer", "statistic", "group", "subject", "before", "after"), lines)
    return StyleShift(method, tuple(statistics), columns, units)


def _layers(model: PersonalModel, embeddings: NDArray[np.float32], through: bool) -> dict[str, Tensor]:
    """Return (n, D) rows at each layer; a model without a bottleneck has no such layer."""
    given = features_of(model, embeddings)
    layers = {"features": given}
    if through:
        assert isinstance(model.translator, Translator)  # that of a PFT
        with torch.no_grad():
            features = model.projection(as_tensor(embeddings, model.projection.mean.device)) + model.translator.offset
        layers = {"features": features.cpu(), "embedding": given}
    if isinstance(model.head, SourceHead):
        with torch.no_grad():
            layers["bottleneck"] = model.head.bottleneck(given.to(model.head.norm.weight.device)).cpu()
    return layers


_SAME = 0.005
"""A change that is too small to see is none: an offset leaves standard deviations as they are, but for rounding."""
_STARTS = {"adapted rows": 0.0, "other rows": 2.6}  # Where on the x axis the slopes of a group begin; they are 1 wide.
_BAND = "#DDDDDD"
_SLOPE: dict[str, Any] = {"linewidth": 0.8, "marker": "o", "markersize": 2}
_LOOKS: Mapping[str, dict[str, Any]] = {
    "a target, nearer after": {"color": style.GAIN, "linestyle": "-"},
    "a target, farther after": {"color": style.LOSS, "linestyle": "--"},
    "a target, as before": {"color": "#666666", "linestyle": ":"},
}


def style_result(shifts: Sequence[StyleShift]) -> Result:
    """Return a figure a method, the table and what it says."""
    caption = (
        "Distance of each target's neutral style (mean; standard deviation) from the source's centre, before and after "
        "{}; 1 is a typical source person. Left in a panel the rows that were adapted on, right the other neutral "
        "rows. Grey: 90 % of the source people."
    )
    return Result(
        kind="plot",
        title="How far targets are from the source's style",
        summary=[style_sentence(shift) for shift in shifts],
        tables={"style": style_table(shifts)},
        figures=[
            DrawnFigure(
                f"style-{safe_name(shift.method)}",
                f"Style before and after {shift.method}",
                caption.format(shift.method),
                plot_style(shift),
                shift.columns,
            )
            for shift in shifts
        ],
        data={"distances": {shift.method: shift.columns for shift in shifts}},
    )


def style_sentence(shift: StyleShift) -> str:
    """Return how far the means of the targets' other neutral rows are before and after, layer by layer."""
    parts = []
    for key in shift.units:
        before, after = (shift.median(key, "other rows", side) for side in ("before", "after"))
        if key[1] == "mean" and not math.isnan(before):
            within = shift.within(key, "after")
            parts.append(f"{key[0]} {before:.2f} to {after:.2f} ({within} within the source's spread)")
    if not parts:
        return f"{shift.method}: no target has neutral rows that were not adapted on."
    said = "median distance of the mean, on neutral rows that were not adapted on"
    return f"{shift.method}: {said}: {', '.join(parts)}."


def style_table(shifts: Sequence[StyleShift]) -> Table:
    """Return one line a method, layer and statistic: median distances, and how many are within the source's spread."""

    def median(head: str, group: str, side: str, *, wide: bool = False) -> Column[tuple[StyleShift, Key]]:
        return Column(head, lambda line: number_text(line[0].median(line[1], group, side), 2), wide=wide)

    return make_table(
        "Distance from the source's style",
        [
            Column("Method", lambda line: line[0].method, text=True),
            Column("Layer", lambda line: line[1][0], text=True),
            Column("Statistic", lambda line: STATISTICS[line[1][1]], text=True),
            median("Adapted rows, before", "adapted rows", "before", wide=True),
            median("Adapted rows, after", "adapted rows", "after", wide=True),
            median("Other rows, before", "other rows", "before"),
            median("Other rows, after", "other rows", "after"),
            Column("Within, before", lambda line: line[0].within(line[1], "before")),
            Column("Within, after", lambda line: line[0].within(line[1], "after")),
        ],
        [(shift, key) for shift in shifts for key in shift.units],
        notes=(
            "Medians over targets; 1 is the distance of a typical source person.",
            "Adapted rows come near by construction; the other neutral rows of a target the method has never seen.",
            f"Within: targets no farther away, in their other rows, than {SPREAD:g} % of the source people.",
        ),
        grouped=True,
    )


def plot_style(shift: StyleShift) -> Figure:
    """Draw a column of panels a layer, a row a statistic; in each every target before and after."""
    statistics = [name for name in STATISTICS if any((layer, name) in shift.units for layer in shift.layers)]
    with style.house_style():
        drawn = style.figure(style.FULL, 0.75 + 1.75 * len(statistics))
        grid = drawn.subplots(len(statistics), len(shift.layers), sharey="row", squeeze=False)
        for panels, statistic in zip(grid, statistics, strict=True):
            for panel, layer in zip(panels, shift.layers, strict=True):
                if (layer, statistic) in shift.units:
                    _draw_panel(panel, shift, (layer, statistic))
                else:
                    panel.text(0.5, 0.5, "no difference\nto measure by", transform=panel.transAxes, ha="center")
                    panel.set(xticks=[])
            label = style.folded(f"Distance of the {STATISTICS[statistic]}", 20)
            panels[0].set_ylabel(f"{label}\n(source person = 1)")
            # The limits are one for the row: only now does it know of all its panels.
            panels[0].set_ylim(bottom=0.0)
        for panel, layer in zip(grid[0], shift.layers, strict=True):
            panel.set_title(layer, fontweight="bold")
        pairs = zip(*(shift.columns[name] for name in ("group", "before", "after")), strict=True)
        kinds = {_kind(before, after) for group, before, after in pairs if group in _STARTS}
        handles = [
            *(Line2D([], [], **_SLOPE, **look, label=kind) for kind, look in _LOOKS.items() if kind in kinds),
            Line2D([], [], color="black", marker="o", linewidth=1.8, label="median target"),
            Patch(facecolor=_BAND, label="source people (90 %)"),
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.8)
    return drawn


def _draw_panel(panel: Axes, shift: StyleShift, key: Key) -> None:
    low, high = np.percentile(shift.values(key, "source", "before"), [100 - SPREAD, SPREAD])
    panel.axhspan(low, high, color=_BAND, alpha=0.6, linewidth=0, zorder=0, label="_band")
    panel.axhline(1.0, color=style.MUTED, linestyle="--", linewidth=0.8, zorder=1, label="_unit")
    for group, start in _STARTS.items():
        before, after = (shift.values(key, group, side) for side in ("before", "after"))
        places = [start, start + 1]
        # A group's name, beneath the ticks.
        across = panel.get_xaxis_transform()
        beneath: dict[str, Any] = {"xycoords": across, "textcoords": "offset points", "ha": "center", "va": "top"}
        panel.annotate(group, (start + 0.5, 0), (0, -13), fontsize=7, **beneath)
        if not len(before):
            panel.text(start + 0.5, 0.5, "no rows", transform=across, ha="center", fontsize=6.5)
            continue
        for pair in zip(before, after, strict=True):
            panel.plot(places, pair, alpha=0.6, zorder=2, label=f"_{group}", **_SLOPE, **_LOOKS[_kind(*pair)])
        medians = [float(np.median(before)), float(np.median(after))]
        panel.plot(places, medians, color="black", linewidth=1.8, marker="o", zorder=4, clip_on=False, label="_median")
        for place, value, away, side in zip(places, medians, (-3, 3), ("right", "left"), strict=True):
            look: dict[str, Any] = {"ha": side, "va": "bottom", "fontsize": 6.5, "fontweight": "bold", "zorder": 5}
            panel.annotate(f"{value:.2f}", (place, value), (away, -1), textcoords="offset points", **look)
    panel.set_xlim(-0.75, max(_STARTS.values()) + 1.75)
    panel.set_xticks([place for start in _STARTS.values() for place in (start, start + 1)], ["before", "after"] * 2)
    panel.yaxis.set_major_locator(MaxNLocator(5))


def _kind(before: float, after: float) -> str:
    nearer, farther, same = _LOOKS
    return same if abs(after - before) < _SAME else farther if after > before else nearer

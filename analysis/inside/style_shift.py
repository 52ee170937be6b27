"""How far targets are from the source's style, layer by layer, before and after a method; 1 is a source person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
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

_GROUPS = ("adapted rows", "other rows")  # Of a target.
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
        for who, rows in zip(_GROUPS, (split.adapt, others), strict=True):
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


def style_result(shifts: Sequence[StyleShift]) -> Result:
    """Return a figure a method, the table and what it says."""
    caption = (
        "Distance of each target's neutral style (mean; standard deviation) from the source's centre, before and after "
        "{}; 1 is a typical source person. Dot: the median of the people; bar: half of them; "
        "thin line: 90 %."
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
    """Draw a column of panels a layer, a row a statistic; in each the spread of source people and of targets."""
    statistics = [name for name in STATISTICS if any((layer, name) in shift.units for layer in shift.layers)]
    lines = {"source people": ("source", "before")}
    lines |= {f"{group} {side}": (group, side) for group in _GROUPS for side in ("before", "after")}
    with style.house_style():
        drawn = style.figure(style.FULL, 0.5 + 1.25 * len(statistics))
        grid = drawn.subplots(len(statistics), len(shift.layers), sharey=True, squeeze=False)
        for panels, statistic in zip(grid, statistics, strict=True):
            for panel, layer in zip(panels, shift.layers, strict=True):
                if (layer, statistic) in shift.units:
                    for place, (group, side) in enumerate(lines.values()):
                        values = shift.values((layer, statistic), group, side)
                        if len(values):
                            ends = np.percentile(values, (100 - SPREAD, 25, 50, 75, SPREAD))
                            colour = style.GAIN if side == "after" else style.MUTED
                            panel.hlines(place, ends[0], ends[4], color=colour, linewidth=1)
                            panel.hlines(place, ends[1], ends[3], color=colour, linewidth=5)
                            panel.plot(ends[2], place, "o", color="black", markersize=3)
                else:
                    panel.text(0.5, 0.5, "no difference\nto measure by", transform=panel.transAxes, ha="center")
                style.names_down(panel, list(lines))
                panel.set_xlim(left=0.0)
                panel.set_title(f"{layer}, {STATISTICS[statistic]}", fontweight="bold", fontsize=7)
        drawn.supxlabel("Distance from the source's centre (a typical source person = 1)", fontsize=7.5)
    return drawn

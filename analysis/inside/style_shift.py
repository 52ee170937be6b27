"""How far targets are from the source's style, layer by layer, before and after a method: two distances a person.

One unit is what separates a typical source person's style from the source's centre before anything is moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis.inside import AdaptedPeople, features_of
from featlab.analysis.table import MISSING, columns_of
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

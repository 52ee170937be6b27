"""How far targets are from the source's style, layer by layer, before and after a method: two distances a person.

Style is the mean and the standard deviation of a person's neutral rows. One unit is what separates a typical source
person from the source's centre before anything is moved: the median over source subjects. (The style bank has them
moved by their own offsets, which puts everyone's mean onto the centre and leaves nothing to measure by.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis.people import AdaptedPeople, AdaptedPerson, features_of
from featlab.analysis.table import columns_of
from featlab.errors import InputError
from featlab.methods.base import base_model
from featlab.methods.pft.method import PFT
from featlab.methods.registry import get_method
from featlab.model.losses import group_statistics, style_statistics
from featlab.model.networks import Affine, PersonalModel, SourceHead, Translator, as_tensor
from featlab.protocol.splits import split_target

STATISTICS = ("mean", "std")
GROUPS = ("adapted rows", "other rows", "source", "source moved")
"""Whose distances: a target's rows that were adapted on, and its other neutral rows; the source people as they are; the
same people, each moved by half of their neutral clips and measured on the others, as a target is."""
SPREAD = 95.0  # Percentile of the source people's distances up to which someone is within the source's spread.

_SMALLEST_UNIT = 1e-6  # Source people who are less apart than this do not differ.
_COLUMNS = ("layer", "statistic", "group", "subject", "before", "after")

_Layers = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class StyleShift:
    """Distances of one method's targets, and of the source people beside them."""

    method: str
    layers: tuple[str, ...]  # features (before T), embedding (after it), bottleneck; without T no embedding.
    columns: dict[str, list[Any]]  # A line a person, in units; source people as they are have no after (NaN).
    units: Mapping[tuple[str, str], float]  # (layer, statistic) to a distance; none where people don't differ.

    def values(self, layer: str, statistic: str, group: str, side: str = "after") -> NDArray[np.float64]:
        """Return (n,) distances of one group before or after, in the order of the columns; n is 0 without any."""
        keys = zip(self.columns["layer"], self.columns["statistic"], self.columns["group"], strict=True)
        wanted = [key == (layer, statistic, group) for key in keys]
        return np.asarray(self.columns[side], dtype=np.float64)[wanted]

    def limit(self, layer: str, statistic: str) -> float:
        """Return the distance up to which `SPREAD` percent of the source people are, as they are."""
        return float(np.percentile(self.values(layer, statistic, "source", "before"), SPREAD))


def style_shift(people: AdaptedPeople, method: str, gap: int) -> StyleShift:
    """Measure one method against the style bank's centre; before is the model without the person's adaptation."""
    bundle, source = people.bundle, people.source
    if bundle.bank is None:
        raise InputError("this bundle has no style bank to measure from; pretrain with pretrain.style_bank = true")
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
        centres = {layer: bundle.bank.centre(layer) for layer in statistics}
    moved_to, _ = bundle.bank.centre("features")
    measured = [found for person in people.people for found in _of_person(person, method, plain, through)]
    measured += _of_source(people, plain, through, gap, moved_to)
    lines: list[tuple[Any, ...]] = []
    units: dict[tuple[str, str], float] = {}
    for layer, parts in statistics.items():
        for place, statistic in enumerate(STATISTICS):
            centre = centres[layer][place]
            apart = torch.linalg.vector_norm(parts[place] - centre, dim=1).double().numpy()
            unit = float(np.median(apart))
            if not unit > _SMALLEST_UNIT:
                continue
            units[layer, statistic] = unit
            lines += [
                (layer, statistic, who, subject, *(_distance(rows[layer], place, centre) / unit for rows in sides))
                for who, subject, *sides in measured
                if all(layer in rows for rows in sides)
            ]
            lines += [
                (layer, statistic, "source", source.subjects[code], far / unit, math.nan)
                for code, far in zip(codes, apart, strict=True)
            ]
    if not units:
        raise InputError("the source people do not differ in their neutral rows: nothing to measure by; add people")
    return StyleShift(method, tuple(statistics), columns_of(_COLUMNS, lines), units)


def _of_person(
    person: AdaptedPerson, method: str, plain: PersonalModel, through: bool
) -> Iterator[tuple[str, str, _Layers, _Layers]]:
    """Yield group, subject, and the neutral rows at each layer before and after; a group without rows is left out."""
    table, model = person.table, person.models[method].model
    others = person.split.test[table.label[person.split.test] == table.neutral_code]
    for group, rows in (("adapted rows", person.split.adapt), ("other rows", others)):
        if len(rows):
            before, after = (_layers(part, table.embeddings[rows], through) for part in (plain, model))
            yield group, person.subject, before, after


def _of_source(
    people: AdaptedPeople, plain: PersonalModel, through: bool, gap: int, centre: Tensor
) -> Iterator[tuple[str, str, _Layers, _Layers]]:
    """Yield the same of each source subject who can play a target, moved by the mean of what would be adapted on."""
    bundle, base = people.bundle, base_model(people.bundle)
    for subject in people.source.subject_names_present():
        table = people.source.rows_of(subject)
        try:
            split = split_target(table, gap)
        except InputError:
            continue
        others = split.test[table.label[split.test] == table.neutral_code]
        if not len(others):
            continue
        shift = centre - features_of(base, table.embeddings[split.adapt]).mean(dim=0)
        moved = PersonalModel(
            bundle.projection, _shifted(bundle.translator, shift) if through else Affine.shift(shift), bundle.head
        )
        before, after = (_layers(part, table.embeddings[others], through) for part in (plain, moved))
        yield "source moved", subject, before, after


def _shifted(translator: Translator, offset: Tensor) -> Translator:
    moved = copy.deepcopy(translator)
    moved.offset.data.copy_(offset)
    return moved


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


def _distance(rows: Tensor, place: int, centre: Tensor) -> float:
    """Return how far the mean (place 0) or the standard deviation (1) of some rows is from the centre's."""
    return float(torch.linalg.vector_norm(style_statistics(rows)[place] - centre))

"""What an ablation is and what it gave: settings with their results, each compared with the reference setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import common_subject_means
from featlab.evaluation.statistics import bootstrap_interval, holm, mean, paired_wilcoxon
from featlab.evaluation.summary import MethodSummary

CACHE_METADATA = ("cache_digest", "extractor")
"""Metadata of a run that differ from data set to data set."""

Values = Mapping[str, Any]
"""``{"section.key": value}``."""


@dataclass(frozen=True)
class Setting:
    """One setting of an ablation: what it sets, under a label that no other of its group (a panel each) has."""

    label: str
    values: Values
    group: str = ""
    at: tuple[Any, ...] = ()  # Where it stands: the weights in a surface, the terms that are on, the mode.


@dataclass(frozen=True)
class Grid:
    """The settings to run on one data set, in the order of the figure."""

    title: str
    axis: str
    settings: Sequence[Setting]
    reference: str  # Label of the setting that the others are compared with.
    caption: str
    figure: str = "lines"  # Or bars, dots, surface, modes.
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("source-only", "neutral-shift", "referenced", "pft")
    base: Values = field(default_factory=dict)  # What every setting sets that does not set it itself.
    retrains: bool = False  # Every setting has a bundle of its own: validated only on demand.
    weighs: bool = True  # pft aligns in closed form, and so weighs the frames of a clip.
    name: str = ""


@dataclass(frozen=True)
class Difference:
    """A setting against the reference setting of its group, one method, over the subjects that both have."""

    value: float  # Mean difference of the macro F1.
    ci95: tuple[float, float]  # Bootstrap over subjects.
    p: float  # Wilcoxon, Holm-adjusted over the settings of the group.
    subjects: int


@dataclass(frozen=True, eq=False)
class Point:
    """One setting on one data set, with its results."""

    data: str
    setting: Setting
    features: int  # That the projection kept, fewer than asked for when source rows span fewer; 0 beside dims.
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]  # One a method.


@dataclass(frozen=True, eq=False)
class AblationReport:
    """What an ablation gave."""

    grid: Grid  # That of the first data set: names, title, methods.
    references: Mapping[str, str]  # Data set to the label of the setting that its others are compared with.
    points: tuple[Point, ...]  # Data set by data set, in the order of its grid.
    notes: tuple[str, ...]
    metadata: Mapping[str, Mapping[str, Any]]  # Of the run on each data set.

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(self.metadata)

    def groups(self, data: str) -> dict[str, list[Point]]:
        """Return the points of one data set, group by group."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.data == data:
                found.setdefault(point.setting.group, []).append(point)
        return found

    @cached_property
    def differences(self) -> dict[tuple[str, str, str, str], Difference]:
        """(data set, group, setting, method) to the difference from the group's reference; a group without has none."""
        return {
            (data, group, label, method): difference
            for data in self.data_sets
            for group, points in self.groups(data).items()
            for method in self.grid.methods
            for label, difference in _differences(points, self.references[data], method).items()
        }

    def difference(self, point: Point, method: str) -> Difference | None:
        """Return that of one setting; ``None`` for a reference."""
        return self.differences.get((point.data, point.setting.group, point.setting.label, method))

    def by_data_set(self) -> dict[str, dict[str, Any]]:
        """Return data set to the metadata in which they differ."""
        return {name: {key: part[key] for key in CACHE_METADATA} for name, part in self.metadata.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: as `featlab evaluate`, each entry with its data set and setting."""
        return {
            "ablation": self.grid.name,
            **next(iter(self.metadata.values())),
            "data_sets": self.by_data_set(),
            "notes": list(self.notes),
            "results": [_placed(point, row.to_dict()) for point in self.points for row in point.rows],
            "summary": [_placed(point, item.to_dict()) for point in self.points for item in point.summaries],
        }


def _differences(points: Sequence[Point], label: str, method: str) -> dict[str, Difference]:
    """Return label to difference, for one method and every setting of a group but its reference."""
    reference = next((point for point in points if point.setting.label == label), None)
    others = [point for point in points if point is not reference]
    if reference is None or not others:
        return {}
    pairs = [list(common_subject_means(_of(point, method), _of(reference, method)).values()) for point in others]
    adjusted = holm([paired_wilcoxon([a for a, _ in both], [b for _, b in both]) for both in pairs])
    found = {}
    for point, both, p in zip(others, pairs, adjusted, strict=True):
        change = [a - b for a, b in both]
        found[point.setting.label] = Difference(mean(change), bootstrap_interval(change), p, len(change))
    return found


def _of(point: Point, method: str) -> list[EvaluationRow]:
    return [row for row in point.rows if row.method == method]


def _placed(point: Point, entry: Mapping[str, Any]) -> dict[str, Any]:
    place = {"data": point.data, "group": point.setting.group, "setting": point.setting.label}
    return {**place, "features": point.features, **entry}

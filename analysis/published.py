"""The published tables that `featlab paper` sets beside our own numbers: ``published.toml``, read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measure:
    """What a column is of."""

    key: str  # A field of what makes our numbers, or a class: its recall.
    title: str
    scale: float  # What our number is multiplied by to be in the published unit.
    decimals: int


@dataclass(frozen=True)
class PublishedTable:
    """A published table and its protocol, as far as it is known."""

    name: str
    title: str
    kind: str  # What makes our numbers: ``scores``, ``complexity`` or ``branches``.
    measures: tuple[Measure, ...]
    # What we run, a method with options as in ``clup-swav score=confidence``, to what the table calls it, and its
    # figures: one a measure, NaN where nothing is published.
    runs: Mapping[str, tuple[str, tuple[float, ...]]]
    proposed: str  # The run that stands for the paper's own method, and the one that it is compared with.
    against: str
    source: Mapping[str, str]  # ``of`` (short), ``cite``, ``read`` (what was read), ``licence``.
    page: str  # Where in what was read.
    classes: tuple[str, ...]  # That a cache must have; none where any will do.
    differs: tuple[str, ...]  # Where our protocol is another one; a run fills in the words in braces.
    optional: tuple[str, ...] = ()  # Classes that a cache may have besides.
    scope: str = "person"
    targets: int = 0  # People; 0 where the target is a data set.
    sources: int = 0
    make: str = "featlab merge SOURCE.h5 TARGET.h5 --out both.h5 --rename OLD=NEW"  # How to come by a cache.
    options: Mapping[str, Any] = field(default_factory=dict)  # Of the methods called ``clup-…``.


def published_tables() -> dict[str, PublishedTable]:
    """Return every table by name."""
    data = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    tables = {}
    for name, own in data["tables"].items():
        facts = {**data["families"][own.pop("family")], **own}
        column = facts.pop("column", None)
        shown = slice(2, None) if column is None else slice(2 + column, 3 + column)
        facts["runs"] = {run: (line[0], tuple(line[shown])) for line in facts.pop("rows") for run in line[1].split(",")}
        facts["measures"] = [Measure(*line) for line in facts["measures"]]
        facts["differs"] = [*facts["differs"], *facts.pop("besides", [])]
        facts["source"] = data["sources"][facts["source"]]
        tuples = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
        tables[name] = PublishedTable(name, **(facts | tuples))
    return tables

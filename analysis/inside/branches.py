"""Is identity gone and expression still there? Cosines and linear probes on target subjects, before and after T."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis.inside.probes import expression_probe, halves_by_video, identity_probe, mean_cosines
from featlab.analysis.people import AdaptedPeople, AdaptedPerson, adapt_people
from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.evaluation.runner import plan
from featlab.evaluation.statistics import bootstrap_interval, mean
from featlab.methods.dsfda import train_disentangler
from featlab.model.networks import as_tensor
from featlab.model.style_bank import neutral_clips
from featlab.workspace.workspace import Workspace

METHOD = "pft"  # What adapts T to each person.
REPRESENTATIONS = ("features-before", "features-after", "bottleneck-before", "bottleneck-after", "identity-code")
"""DSFDA's expression encoder is B: its codes are ``bottleneck-before``."""
COSINES = ("fixed_expression", "fixed_subject", "neither")
PROBES = ("identity", "expression")

_Found = tuple[Mapping[str, float], float]  # Subject to value in one draw, and the value of guessing.


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Labelled test rows of target subjects, grouped by subject; no row that T was adapted on is among them."""

    people: tuple[AdaptedPerson, ...]
    tables: tuple[FeatureTable, ...]  # One a person, each with at least one row.

    @property
    def subject(self) -> NDArray[np.int64]:
        """(N,) places in ``people``."""
        return np.repeat(np.arange(len(self.tables)), [len(table) for table in self.tables])

    def column(self, name: str) -> NDArray[Any]:
        """Return (N,) values of one of the tables' columns, e.g. ``label``."""
        return np.concatenate([getattr(table, name) for table in self.tables])


@dataclass(frozen=True, eq=False)
class Representation:
    """Rows as one part of the model sees them, (N, D), and the mean of the source rows there, (D,)."""

    rows: NDArray[np.float64]
    centre: NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One number, over target subjects: mean, its 95 % bootstrap interval, and what guessing gives (NaN: nothing)."""

    mean: float
    low: float
    high: float
    by_subject: Mapping[str, float]  # Draws averaged.
    chance: float = math.nan


@dataclass(frozen=True)
class Scores:
    """What one representation holds: three mean cosines, and what linear probes get right."""

    representation: str
    fixed_expression: Measure  # Cosine of the same expression on other subjects.
    fixed_subject: Measure  # Cosine of other expressions of the same subject.
    neither: Measure  # Cosine of other expressions on other subjects.
    identity: Measure  # Fraction of rows whose person is named.
    expression: Measure  # Balanced accuracy on people that the probe was not fitted on.


@dataclass(frozen=True)
class BranchReport:
    """What was found, and on what."""

    rows: tuple[Scores, ...]
    draws: tuple[tuple[str, ...], ...]  # The target subjects of each.
    classes: tuple[str, ...]
    frames: int
    single: Mapping[str, int]  # Class to how many subjects have a single video of it: not in the identity probe.
    unprobed: tuple[str, ...]  # Subjects of whom nothing is left for it.

    def of(self, representation: str) -> Scores:
        """Return the row of one representation."""
        return next(row for row in self.rows if row.representation == representation)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def compare_branches(workspace: Workspace, *, on_step: Callable[[int, int], None] | None = None) -> BranchReport:
    """Measure every representation on the target subjects of the protocol, draw by draw."""
    draws = list({task.draw: task.targets for task in plan(workspace)}.values())
    if any(len(targets) < 2 for targets in draws):
        raise InputError("branches compares people with each other; give --targets 2 or more")
    total, done = len(draws) * (1 + len(REPRESENTATIONS)), 0
    found: dict[str, dict[str, list[_Found]]] = {key: defaultdict(list) for key in REPRESENTATIONS}
    parts: list[LabelledRows] = []

    def advance() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    for targets in draws:
        adapted = adapt_people(workspace, targets, [METHOD])
        seen = labelled_rows(adapted)
        views = representations(adapted, seen)
        parts.append(seen)
        advance()
        for key, view in views.items():
            for name, values in _measured(view, seen).items():
                found[key][name].append(values)
            advance()
    classes = sorted({code for seen in parts for code in seen.column("label").tolist()})
    single, unprobed = _left_out(parts)
    return BranchReport(
        rows=tuple(
            Scores(key, **{name: measure_of(values) for name, values in scores.items()})
            for key, scores in found.items()
        ),
        draws=tuple(draws),
        classes=tuple(workspace.table.classes[code] for code in classes),
        frames=sum(len(seen.subject) for seen in parts),
        single=single,
        unprobed=unprobed,
    )


def labelled_rows(adapted: AdaptedPeople) -> LabelledRows:
    """Return the rows that are scored."""
    rows = [person.table.take(person.split.test) for person in adapted.people]
    known = [table.take(table.label >= 0) for table in rows]
    kept = [place for place, table in enumerate(known) if len(table)]
    if len(kept) < 2:
        raise InputError("fewer than 2 targets have labelled rows beside their neutral clip; choose other --targets")
    return LabelledRows(tuple(adapted.people[place] for place in kept), tuple(known[place] for place in kept))


def representations(adapted: AdaptedPeople, seen: LabelledRows) -> dict[str, Representation]:
    """Return rows in each of `REPRESENTATIONS`, in order; after T each person's rows pass their own adapted T."""
    bundle = adapted.bundle
    head, device = bundle.head, bundle.projection.mean.device
    embeddings = [as_tensor(table.embeddings, device) for table in seen.tables]
    with torch.no_grad():
        source = bundle.projection(as_tensor(adapted.source.embeddings, device))
        before = bundle.projection(torch.cat(embeddings))
        after = torch.cat(
            [person.models[METHOD].model.features(rows) for person, rows in zip(seen.people, embeddings, strict=True)]
        )
        translated = bundle.translator(source)
        encoder = _identity_encoder(adapted, source)
        codes = {
            "features-before": (before, source),
            "features-after": (after, translated),
            "bottleneck-before": (head.bottleneck(before), head.bottleneck(source)),
            "bottleneck-after": (head.bottleneck(after), head.bottleneck(translated)),
            "identity-code": (encoder(before), encoder(source)),
        }
    return {key: Representation(_array(rows), _array(others).mean(axis=0)) for key, (rows, others) in codes.items()}


def measure_of(draws: Sequence[_Found]) -> Measure:
    """Average draws within a subject, then subjects, with a bootstrap interval over them."""
    values: dict[str, list[float]] = defaultdict(list)
    for by_subject, _ in draws:
        for subject, value in by_subject.items():
            if math.isfinite(value):
                values[subject].append(value)
    subjects = {subject: mean(several) for subject, several in sorted(values.items())}
    low, high = bootstrap_interval(list(subjects.values()))
    guesses = [chance for _, chance in draws if math.isfinite(chance)]
    return Measure(mean(list(subjects.values())), low, high, subjects, mean(guesses))


def _measured(view: Representation, seen: LabelledRows) -> dict[str, _Found]:
    """Return each measure of one representation in one draw."""
    subject, video, label = seen.subject, seen.column("video"), seen.column("label")
    names = [person.subject for person in seen.people]

    def named(codes: NDArray[np.int64], values: NDArray[np.float64], chance: float = math.nan) -> _Found:
        return {names[code]: float(value) for code, value in zip(codes, values, strict=True)}, chance

    cosines = mean_cosines(view.rows - view.centre, subject, label)
    identity = identity_probe(view.rows, subject, video, label)
    expression = expression_probe(view.rows, subject, label)
    return {name: named(cosines.subject, getattr(cosines, name)) for name in COSINES} | {
        "identity": named(identity.subject, identity.score, identity.chance),
        "expression": named(expression.subject, expression.score, expression.chance),
    }


def _left_out(parts: Sequence[LabelledRows]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return class to how many subjects have a single video of it, and the subjects of whom no video can be halved."""
    cells: set[tuple[str, str]] = set()
    unprobed: set[str] = set()
    for seen in parts:
        half = halves_by_video(seen.subject, seen.column("video"), seen.column("label"))
        for place, (person, table) in enumerate(zip(seen.people, seen.tables, strict=True)):
            alone = half[seen.subject == place] < 0
            for video in np.unique(table.video[alone]):
                kind = int(np.bincount(table.label[table.video == video]).argmax())
                cells.add((person.subject, table.classes[kind]))
            if alone.all():
                unprobed.add(person.subject)
    return dict(sorted(Counter(kind for _, kind in cells).items())), tuple(sorted(unprobed))


def _identity_encoder(adapted: AdaptedPeople, source: Tensor) -> torch.nn.Module:
    """Train DSFDA's networks on the labelled rows of source subjects with a neutral clip; B and C stay as they are."""
    table, bundle = adapted.source, adapted.bundle
    labels = torch.from_numpy(table.label.astype(np.int64)).to(source.device)
    person = neutral_clips(table, source).row_subject.to(source.device)
    rows = torch.nonzero((person >= 0) & (labels >= 0)).squeeze(1)
    with torch.enable_grad():
        networks = train_disentangler(
            source[rows], labels[rows], person[rows], bundle.head, classes=len(bundle.classes), seed=bundle.seed
        )
    return networks.identity_encoder


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.cpu().numpy().astype(np.float64)
    return found

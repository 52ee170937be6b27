"""Is identity gone and expression still there? Cosines and linear probes on target subjects, before and after T.

A probe looks into a representation; nothing is adapted by it. No tested row shares a video with one it was fitted on.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis.inside import AdaptedPeople, AdaptedPerson, adapt_people
from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.evaluation.runner import OnStep, plan
from featlab.evaluation.statistics import bootstrap_interval, mean
from featlab.methods.dsfda import train_disentangler
from featlab.model.networks import as_tensor
from featlab.model.style_bank import SourceRows
from featlab.workspace.workspace import Workspace

METHOD = "pft"  # What adapts T to each person.
REPRESENTATIONS = ("features-before", "features-after", "bottleneck-before", "bottleneck-after", "identity-code")
"""DSFDA's expression encoder is B: its codes are ``bottleneck-before``."""
COSINES = ("fixed_expression", "fixed_subject", "neither")
"""Mean cosine of the same expression on other subjects, of other expressions of the same subject, and of neither."""
PROBES = ("identity", "expression")
"""Fraction of rows whose person is named; balanced accuracy on people that the probe was not fitted on."""

_STEPS = 500
_FOLDS = 5

Codes = NDArray[np.integer[Any]]
Found = tuple[dict[Any, float], float]
"""Subject to value in one draw, and the value of guessing (NaN: nothing)."""


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
class BranchReport:
    """What was found, and on what."""

    found: Mapping[str, Mapping[str, Measure]]  # Representation to what it holds, by `COSINES` and `PROBES`.
    draws: tuple[tuple[str, ...], ...]  # The target subjects of each.
    classes: tuple[str, ...]
    frames: int

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        data = asdict(self)
        return {"rows": [{"representation": key, **scores} for key, scores in data.pop("found").items()], **data}


def compare_branches(workspace: Workspace, on_step: OnStep = lambda done, total: None) -> BranchReport:
    """Measure every representation on the target subjects of the protocol, draw by draw."""
    draws = list({task.draw: task.targets for task in plan(workspace)}.values())
    if any(len(targets) < 2 for targets in draws):
        raise InputError("branches compares people with each other; give --targets 2 or more")
    total, steps = len(draws) * (1 + len(REPRESENTATIONS)), itertools.count(1)
    found: dict[str, dict[str, list[Found]]] = {key: defaultdict(list) for key in REPRESENTATIONS}
    parts: list[LabelledRows] = []
    for targets in draws:
        adapted = adapt_people(workspace, targets, [METHOD])
        seen = labelled_rows(adapted)
        views = representations(adapted, seen)
        parts.append(seen)
        on_step(next(steps), total)
        for key, view in views.items():
            for name, values in _measured(view, seen).items():
                found[key][name].append(values)
            on_step(next(steps), total)
    classes = sorted({code for seen in parts for code in seen.column("label").tolist()})
    return BranchReport(
        {key: {name: measure_of(values) for name, values in scores.items()} for key, scores in found.items()},
        tuple(draws),
        tuple(workspace.table.classes[code] for code in classes),
        sum(len(seen.subject) for seen in parts),
    )


def labelled_rows(adapted: AdaptedPeople) -> LabelledRows:
    """Return the rows that are scored."""
    rows = [person.table.take(person.split.test) for person in adapted.people]
    known = [table.take(table.label >= 0) for table in rows]
    kept = [(person, table) for person, table in zip(adapted.people, known, strict=True) if len(table)]
    if len(kept) < 2:
        raise InputError("fewer than 2 targets have labelled rows beside their neutral clip; choose other --targets")
    return LabelledRows(tuple(person for person, _ in kept), tuple(table for _, table in kept))


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
    return {
        key: Representation(rows.double().cpu().numpy(), others.double().cpu().numpy().mean(axis=0))
        for key, (rows, others) in codes.items()
    }


def measure_of(draws: Sequence[Found]) -> Measure:
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


def _measured(view: Representation, seen: LabelledRows) -> dict[str, Found]:
    """Return each measure of one representation in one draw."""
    subject, video, label = seen.subject, seen.column("video"), seen.column("label")
    found = {name: (values, math.nan) for name, values in mean_cosines(view.rows - view.centre, subject, label).items()}
    found["identity"] = identity_probe(view.rows, subject, video, label)
    found["expression"] = expression_probe(view.rows, subject, label)
    names = [person.subject for person in seen.people]
    return {
        name: ({names[code]: value for code, value in values.items()}, chance)
        for name, (values, chance) in found.items()
    }


def _identity_encoder(adapted: AdaptedPeople, source: Tensor) -> torch.nn.Module:
    """Train DSFDA's networks on the labelled rows of source subjects with a neutral clip; B and C stay as they are."""
    table, bundle = adapted.source, adapted.bundle
    labels = torch.from_numpy(table.label.astype(np.int64)).to(source.device)
    person = SourceRows.of(table, source).row_subject.to(source.device)
    rows = torch.nonzero((person >= 0) & (labels >= 0)).squeeze(1)
    with torch.enable_grad():
        networks = train_disentangler(source[rows], labels[rows], person[rows], bundle.head, seed=bundle.seed)
    return networks.identity_encoder


def identity_probe(rows: NDArray[np.floating[Any]], subject: Codes, video: Codes, label: Codes) -> Found:
    """Return the accuracy of telling people apart: fitted on half of each class's videos, tested on the others."""
    half = halves_by_video(subject, video, label)
    used = half >= 0
    people = np.unique(subject[used]).tolist()
    if len(people) < 2:
        return {}, math.nan
    right = np.zeros(len(rows))
    for side in (0, 1):
        fitted, tested = half == side, half == 1 - side
        right[tested] = _predict(rows[fitted], subject[fitted], rows[tested]) == subject[tested]
    return {code: float(right[used & (subject == code)].mean()) for code in people}, 1.0 / len(people)


def expression_probe(rows: NDArray[np.floating[Any]], subject: Codes, label: Codes) -> Found:
    """Return the balanced accuracy of telling expressions apart on people whom the probe was not fitted on."""
    people, person = np.unique(subject, return_inverse=True)
    classes = np.unique(label)
    if len(people) < 2 or len(classes) < 2:
        return {}, math.nan
    fold = person % min(_FOLDS, len(people))
    right = np.zeros(len(rows))
    for number in np.unique(fold):
        tested = fold == number
        guess = _predict(rows[~tested], label[~tested], rows[tested], balanced=True)
        right[tested] = guess == label[tested]
    score = {}
    for code in people.tolist():
        mine = subject == code
        score[code] = float(np.mean([right[mine & (label == kind)].mean() for kind in np.unique(label[mine])]))
    return score, 1.0 / len(classes)


def halves_by_video(subject: Codes, video: Codes, label: Codes) -> NDArray[np.int8]:
    """Deal the videos of each subject and class to two halves in turn: (N,) 0 or 1; -1 for a class's only video."""
    half = np.full(len(video), -1, dtype=np.int8)
    for person in np.unique(subject):
        mine = subject == person
        groups: dict[int, list[int]] = {}
        for code in np.unique(video[mine]).tolist():
            groups.setdefault(int(np.bincount(label[mine & (video == code)]).argmax()), []).append(code)
        for videos in groups.values():
            for place, code in enumerate(videos if len(videos) > 1 else ()):
                half[mine & (video == code)] = place % 2
    return half


def _predict(fitted: NDArray[Any], answers: Codes, tested: NDArray[Any], *, balanced: bool = False) -> Codes:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(np.unique(answers)) == 1:
        return np.full(len(tested), answers[0])
    weight = "balanced" if balanced else None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS, class_weight=weight))
    # A probe that would still gain in the last digits is good enough to look with.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        guesses: Codes = probe.fit(fitted, answers).predict(tested)
    return guesses


def mean_cosines(rows: NDArray[np.float64], subject: Codes, label: Codes) -> dict[str, dict[int, float]]:
    """Return each of `COSINES` by subject, NaN where there is no pair; every cell of a subject and a class weighs 1."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    cells, cell = np.unique(np.stack([subject, label], axis=1), axis=0, return_inverse=True)
    means = np.zeros((len(cells), rows.shape[1]))
    np.add.at(means, cell.reshape(-1), unit)
    means /= np.bincount(cell.reshape(-1))[:, None]
    person, kind = cells.T
    found: dict[str, dict[int, float]] = {name: {} for name in COSINES}
    for code in np.unique(person).tolist():
        mine = person == code
        cosine = means[mine] @ means.T
        same = kind[mine][:, None] == kind
        for name, pairs in zip(COSINES, (same & ~mine, ~same & mine, ~same & ~mine), strict=True):
            found[name][code] = float(cosine[pairs].mean()) if pairs.any() else math.nan
    return found

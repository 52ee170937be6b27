"""Linear probes: can a classifier read a person's identity, or an expression, off the features?

A probe is a logistic regression on standardised features with a fixed penalty. It looks into a representation; nothing
is adapted by it. No tested row shares a video with a row that the probe was fitted on.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

_PENALTY = 1.0  # C of scikit-learn: the weight of the rows' loss against that of the squared weights.
_STEPS = 500
_FOLDS = 5

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe got right: a score from 0 to 1 for each tested subject, and the expected one of guessing."""

    subject: NDArray[np.int64]  # (S,) codes, ascending.
    score: NDArray[np.float64]  # (S,)
    chance: float  # NaN when nothing could be probed.


_NOTHING = Probe(np.empty(0, dtype=np.int64), np.empty(0), math.nan)


def identity_probe(rows: NDArray[np.floating[Any]], subject: Codes, video: Codes, label: Codes) -> Probe:
    """Return the accuracy of telling people apart: fitted on half of each class's videos, tested on the others."""
    half = halves_by_video(subject, video, label)
    used = half >= 0
    people = np.unique(subject[used])
    if len(people) < 2:
        return _NOTHING
    right = np.zeros(len(rows))
    for side in (0, 1):
        fitted, tested = half == side, half == 1 - side
        right[tested] = _predict(rows[fitted], subject[fitted], rows[tested]) == subject[tested]
    score = np.array([right[used & (subject == code)].mean() for code in people])
    return Probe(people.astype(np.int64), score, 1.0 / len(people))


def expression_probe(rows: NDArray[np.floating[Any]], subject: Codes, label: Codes) -> Probe:
    """Return the balanced accuracy of telling expressions apart on people whom the probe was not fitted on."""
    people, person = np.unique(subject, return_inverse=True)
    classes = np.unique(label)
    if len(people) < 2 or len(classes) < 2:
        return _NOTHING
    fold = person % min(_FOLDS, len(people))
    right = np.zeros(len(rows))
    for number in np.unique(fold):
        tested = fold == number
        guess = _predict(rows[~tested], label[~tested], rows[tested], balanced=True)
        right[tested] = guess == label[tested]
    score = [
        np.mean([right[(subject == code) & (label == kind)].mean() for kind in np.unique(label[subject == code])])
        for code in people
    ]
    return Probe(people.astype(np.int64), np.array(score), 1.0 / len(classes))


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
    classifier = LogisticRegression(C=_PENALTY, max_iter=_STEPS, class_weight="balanced" if balanced else None)
    probe = make_pipeline(StandardScaler(), classifier)
    # A probe that would still gain in the last digits is good enough to look with.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        guesses: Codes = probe.fit(fitted, answers).predict(tested)
    return guesses


@dataclass(frozen=True, eq=False)
class Similarities:
    """Mean cosines, one number a subject; NaN where there is no pair."""

    subject: NDArray[np.int64]  # (S,) codes of the subjects, ascending.
    fixed_expression: NDArray[np.float64]  # (S,) between a subject's cells and other subjects' cells of the same class.
    fixed_subject: NDArray[np.float64]  # (S,) between a subject's cells of different classes.
    neither: NDArray[np.float64]  # (S,) between a subject's cells and other subjects' cells of other classes.


def mean_cosines(
    rows: NDArray[np.floating[Any]], subject: NDArray[np.integer[Any]], label: NDArray[np.integer[Any]]
) -> Similarities:
    """Compare every subject's cells with their own of other classes, and with those of others."""
    if not len(rows) or not len(rows) == len(subject) == len(label):
        raise InputError(f"similarities need rows, subjects and labels, got {len(rows)}, {len(subject)}, {len(label)}")
    values = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("similarities need finite rows; these hold NaN or infinity")
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    subjects, person = np.unique(subject, return_inverse=True)
    classes, kind = np.unique(label, return_inverse=True)
    count = np.zeros((len(subjects), len(classes)))
    np.add.at(count, (person, kind), 1.0)
    cells = np.zeros((*count.shape, values.shape[1]))
    np.add.at(cells, (person, kind), unit)
    there = count > 0
    cells[there] /= count[there][:, None]

    # Sums over pairs of cells of dot products are dot products of sums of cells.
    of_subject, of_class = cells.sum(axis=1), cells.sum(axis=0)
    own = np.einsum("scd,scd->s", cells, cells)
    within = np.einsum("sd,sd->s", of_subject, of_subject) - own
    alike = np.einsum("scd,cd->s", cells, of_class) - own
    everything = of_subject @ of_class.sum(axis=0)
    cells_of, subjects_of = there.sum(axis=1), there.sum(axis=0)
    pairs_within = cells_of * (cells_of - 1)
    pairs_alike = there @ subjects_of - cells_of
    pairs_all = cells_of * there.sum()
    return Similarities(
        subjects.astype(np.int64),
        _ratio(alike, pairs_alike),
        _ratio(within, pairs_within),
        _ratio(everything - within - alike - own, pairs_all - pairs_within - pairs_alike - cells_of),
    )


def _ratio(total: NDArray[np.float64], pairs: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    ratio = np.full(len(total), np.nan)
    np.divide(total, pairs, out=ratio, where=pairs > 0)
    return ratio

"""Linear probes: can a classifier read a person's identity, or an expression, off the features?

A probe is a logistic regression on standardised features with a fixed penalty. It looks into a representation; nothing
is adapted by it. No tested row shares a video with a row that the probe was fitted on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError

__all__ = ["Probe", "expression_probe", "halves_by_video", "identity_probe"]

PENALTY = 1.0
"""C of scikit-learn: the weight of the rows' loss against that of the squared weights."""
STEPS = 500
FOLDS = 5

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe got right.

    Attributes:
        subject: (S,) codes of the tested subjects, ascending.
        score: (S,) their scores, from 0 to 1.
        chance: Expected score of guessing; NaN when nothing could be probed.
    """

    subject: NDArray[np.int64]
    score: NDArray[np.float64]
    chance: float


def identity_probe(rows: NDArray[np.floating[Any]], subject: Codes, video: Codes, label: Codes) -> Probe:
    """Tell people apart: fitted on half of everyone's videos of each class, tested on the other half, and back.

    Args:
        rows: (N, D).
        subject: (N,) codes.
        video: (N,) codes; two subjects may share one.
        label: (N,) classes ≥ 0.

    Returns:
        Accuracy a subject; nobody when fewer than two have a class with two videos (see `halves_by_video`).

    Raises:
        InputError: Arrays of different lengths.
    """
    values = _checked(rows, subject, video, label)
    half = halves_by_video(subject, video, label)
    used = half >= 0
    people = np.unique(subject[used])
    if len(people) < 2:
        return _nothing()
    right = np.zeros(len(values))
    for side in (0, 1):
        fitted, tested = half == side, half == 1 - side
        right[tested] = _predict(values[fitted], subject[fitted], values[tested]) == subject[tested]
    score = np.array([right[used & (subject == code)].mean() for code in people])
    return Probe(people.astype(np.int64), score, 1.0 / len(people))


def expression_probe(rows: NDArray[np.floating[Any]], subject: Codes, label: Codes, *, folds: int = FOLDS) -> Probe:
    """Tell expressions apart on people whom the probe was not fitted on; classes weigh the same.

    Args:
        rows: (N, D).
        subject: (N,) codes; subjects are dealt to the folds in turn.
        label: (N,) classes ≥ 0.
        folds: Most of them; no more than there are subjects.

    Returns:
        Balanced accuracy a subject, over the classes that the subject has; nobody for one class or one subject.

    Raises:
        InputError: Arrays of different lengths.
    """
    values = _checked(rows, subject, label)
    people, person = np.unique(subject, return_inverse=True)
    classes, kind = np.unique(label, return_inverse=True)
    if len(people) < 2 or len(classes) < 2:
        return _nothing()
    fold = person % min(folds, len(people))
    right = np.zeros(len(values))
    for number in np.unique(fold):
        tested = fold == number
        guess = _predict(values[~tested], label[~tested], values[tested], balanced=True)
        right[tested] = guess == label[tested]
    count, hits = np.zeros((2, len(people), len(classes)))
    np.add.at(count, (person, kind), 1.0)
    np.add.at(hits, (person, kind), right)
    recall = np.divide(hits, count, out=np.zeros_like(hits), where=count > 0)
    return Probe(people.astype(np.int64), recall.sum(axis=1) / (count > 0).sum(axis=1), 1.0 / len(classes))


def halves_by_video(subject: Codes, video: Codes, label: Codes) -> NDArray[np.int8]:
    """Deal the videos of each subject and class (a video's most frequent label) to two halves, in turn.

    Args:
        subject: (N,) codes.
        video: (N,) codes, dealt in their order; two subjects may share one.
        label: (N,) classes ≥ 0.

    Returns:
        (N,) 0 or 1; -1 for a video that is its subject's only one of its class: it can't be on both sides.
    """
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


def _predict(
    fitted: NDArray[np.float64], answers: Codes, tested: NDArray[np.float64], *, balanced: bool = False
) -> Codes:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    known = np.unique(answers)
    if len(known) == 1:
        return np.full(len(tested), known[0])
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    # What does not vary among the fitted rows tells nothing, and must not be blown up among the tested ones.
    scale[scale <= 1e-9 * max(float(scale.max()), 1e-300)] = np.inf
    probe = LogisticRegression(C=PENALTY, max_iter=STEPS, class_weight="balanced" if balanced else None)
    # A probe that would still gain in the last digits is good enough to look with.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit((fitted - mean) / scale, answers)
        guesses: Codes = probe.predict((tested - mean) / scale)
    return guesses


def _checked(rows: NDArray[np.floating[Any]], *codes: Codes) -> NDArray[np.float64]:
    if any(len(part) != len(rows) for part in codes):
        raise InputError(f"a probe needs codes for each of its {len(rows)} rows, got {[len(part) for part in codes]}")
    return np.asarray(rows, dtype=np.float64)


def _nothing() -> Probe:
    return Probe(np.empty(0, dtype=np.int64), np.empty(0), float("nan"))

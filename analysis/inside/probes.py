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

_PENALTY = 1.0
"""C of scikit-learn: the weight of the rows' loss against that of the squared weights."""
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
    """Tell people apart: fitted on half of everyone's videos of each class, tested on the other half, and back.

    The score is the accuracy; nobody has one where fewer than two subjects have a class with two videos.
    """
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
    """Tell expressions apart on people whom the probe was not fitted on, who are dealt to the folds in turn.

    The score is the balanced accuracy over the classes that the subject has; there is none for one class or subject.
    """
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
    """Deal the videos of each subject and class (a video's most frequent label) to two halves, in turn.

    Returns (N,) 0 or 1; -1 for a video that is its subject's only one of its class: it can't be on both sides.
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

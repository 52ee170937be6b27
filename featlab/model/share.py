"""The carried share: how much of a person's offset at rest is still there in their expressions.

1 where a face is at every moment the common face plus what is its own; 0 where a resting face says nothing of the
expressions. It is chosen on held-out source people: for each candidate a logistic regression is fitted on rows that are
seen through other neutral clips of their subject (as in `featlab.model.linear`), and the candidate with the lowest
cross-entropy on people who had no part in the fit is taken. (A regression of expression offsets on neutral offsets
would be pulled down by the noise of a short clip.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.model.linear import fit_classifier
from featlab.model.style_bank import SourceRows
from featlab.seeding import torch_generator

CANDIDATES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.25, 0.0)
FOLDS = 5
LEAST_SUBJECTS = 8
"""Fewer say nothing about the next person: all of the offset is then taken."""
_ITERATIONS = 60


@dataclass(frozen=True)
class CarriedShare:
    """The share, and what it was chosen on.

    Attributes:
        value: In [0, 1].
        people: Held-out source subjects that it was chosen on; 0: it was given.
        losses: Their mean cross-entropy for each of `CANDIDATES`.
    """

    value: float = 1.0
    people: int = 0
    losses: tuple[float, ...] = ()

    def sentence(self) -> str:
        """Return what it means, for people."""
        if not self.people:
            return f"taken to be {100 * self.value:.0f} % (not learned from source people)"
        return shares_sentence([self])


def shares_sentence(shares: Sequence[CarriedShare]) -> str:
    """Return what shares that were learned mean, for people: of one source model, or of several."""
    spans = []
    for values in ([round(100 * share.value) for share in shares], [share.people for share in shares]):
        low, high = min(values), max(values)
        spans.append(f"{low}" if low == high else f"{low} to {high}")
    return f"{spans[0]} % of how a face differs at rest is still there in its expressions (from {spans[1]} people)"


def person_folds(people: int, seed: int) -> list[Tensor]:
    """Return the places of the subjects of each fold."""
    order = torch.randperm(people, generator=torch_generator(seed, "source validation"))
    return [order[fold::FOLDS] for fold in range(min(FOLDS, people))]


def learn_share(source: SourceRows, classes: int, penalty: float, *, seed: int) -> CarriedShare:
    """Choose the carried share on held-out source subjects.

    Args:
        source: Source rows.
        classes: K.
        penalty: Of the squared weights, for one source video.
        seed: Of folds and episodes.

    Returns:
        The share; 1 where there are fewer than `LEAST_SUBJECTS` subjects with neutral rows.
    """
    people = len(source.clips.subjects)
    if people < LEAST_SUBJECTS:
        return CarriedShare()
    totals = torch.zeros(len(CANDIDATES), dtype=torch.float64)
    scored = 0
    for held_out in person_folds(people, seed):
        rest = source.without(held_out)
        train = rest.seen_rows()
        test = torch.nonzero(torch.isin(source.clips.row_subject, held_out) & (source.labels >= 0)).squeeze(1)
        if len(torch.unique(source.labels[train])) < 2:
            continue
        _, person = torch.unique(source.clips.row_subject[test], return_inverse=True)
        count = source.clips.tested_share(test).double()
        # Every person weighs alike, whatever the number of their rows.
        count = count / torch.zeros(int(person.max()) + 1).double().index_add(0, person, count)[person]
        fitted = [torch.zeros(source.features.shape[1], classes).double(), torch.zeros(classes).double()]
        videos = len(torch.unique(source.clips.row_video[train]))
        for place, share in enumerate(CANDIDATES):
            random = torch_generator(seed, "carried share")
            seen = rest.clips.seen(source.features, train, share, random)
            counts = source.clips.tested_share(train)
            fit_classifier(fitted, seen, source.labels[train], counts, penalty / videos, _ITERATIONS)
            # Seen from the others' centre, as a new person would be.
            shown = source.features[test] + share * (rest.clips.centre - source.clips.episode_mean(test, random))
            entropy = F.cross_entropy(shown.double() @ fitted[0] + fitted[1], source.labels[test], reduction="none")
            totals[place] += (count * entropy).sum()
        scored += int(person.max()) + 1
    if not scored:
        return CarriedShare()
    losses = (totals / scored).tolist()
    return CarriedShare(CANDIDATES[min(range(len(losses)), key=losses.__getitem__)], scored, tuple(losses))

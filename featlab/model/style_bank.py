"""What pretraining sees of the source, and what of it leaves the source site: the carried share and the style bank.

And whether someone who has another clip of a person can tell that this person was among the source people. People are
dealt into thirds, again and again: those *in*, of whom one half of their videos makes the statistics, those *out*, and
*others*, whose mean the attacker knows. The attack has the other half of a person's videos (or of the frames of the
only one). The area under the ROC curve is 0.5 for a guess and 1 for a certainty; a third of the people is easier to
tell than all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.cache.table import FeatureTable
from featlab.compute import torch_generator
from featlab.config.sections import HeadConfig
from featlab.errors import InputError
from featlab.model.losses import group_statistics

if TYPE_CHECKING:
    from featlab.pairing.pairs import Pairs

LAYERS = ("features", "embedding", "bottleneck")
"""Where style is compared."""
_ROWS = 16384


@dataclass(frozen=True)
class CarriedShare:
    """How much of a person's offset at rest is still there in their expressions; see `featlab.model.linear`."""

    value: float = 1.0  # In [0, 1].
    people: int = 0  # Held-out source subjects that it was chosen on; 0: it was given.
    losses: tuple[float, ...] = ()  # Their mean cross-entropy for each candidate.

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


@dataclass(frozen=True, eq=False)
class StyleBank:
    """The centre of source people's neutral rows, at every layer where style is compared. It names nobody."""

    # Layer name to (mean, std), each (D,) float32: the means over people of each one's mean and standard deviation at
    # ``features`` (before T), ``embedding`` (after T with the person's own offset) and ``bottleneck`` (after B on top
    # of that).
    layers: Mapping[str, tuple[Tensor, Tensor]]
    size: int  # S, how many people that is.

    def sentence(self) -> str:
        """Return what it holds, for people."""
        return f"a mean and a standard deviation over {self.size} people"


@dataclass(frozen=True, eq=False)
class SourceRows:
    """What pretraining sees of the source: rows, and the neutral clips that each of their subjects can be seen through.

    Each neutral clip can play the one through which a target subject would be seen.
    """

    features: Tensor  # (N, D) projected rows.
    labels: Tensor  # (N,) int64 codes; -1 unknown.
    subjects: tuple[str, ...]  # S names, those with at least one neutral row.
    row_subject: Tensor  # (N,) int64, the subject of each row as an index into ``subjects``; -1 without one.
    row_video: Tensor  # (N,) int64, the video of each row, whatever it shows; no two subjects share a code.
    row_clip: Tensor  # (N,) int64, the clip that a row belongs to if it is neutral, else -1.
    clip_mean: Tensor  # (M, D) mean of each clip's features.
    clips: Tensor  # (S, C) int64, each subject's clips; filled up by repeating them.
    count: Tensor  # (S,) int64, how many clips the subject has.
    pairs: Pairs | None = None  # (row, reference) indices into the rows; ``None`` where nothing is trained on pairs.

    @classmethod
    def of(cls, table: FeatureTable, features: Tensor, pairs: Pairs | None = None) -> SourceRows:
        """Gather the rows of a source table, and group the neutral ones into clips: one a (subject, video)."""
        neutral = np.flatnonzero(table.label == table.neutral_code)
        keys = np.stack([table.subject[neutral], table.video[neutral]], axis=1)
        unique, clip_of = np.unique(keys, axis=0, return_inverse=True)
        clip_of = clip_of.reshape(-1)
        codes, first, count = np.unique(unique[:, 0], return_index=True, return_counts=True)
        place = np.full(len(table.subjects), -1, dtype=np.int64)
        place[codes] = np.arange(len(codes))
        width = int(count.max(initial=1))
        clips = first[:, None] + np.arange(width)[None, :] % count[:, None]
        row_clip = np.full(len(table), -1, dtype=np.int64)
        row_clip[neutral] = clip_of
        clip_mean, _ = group_statistics(features[neutral], torch.from_numpy(clip_of.astype(np.int64)), len(unique))
        return cls(
            features,
            labels=torch.from_numpy(table.label.astype(np.int64)),
            subjects=tuple(table.subjects[code] for code in codes),
            row_subject=torch.from_numpy(place[table.subject]),
            row_video=torch.from_numpy(table.subject.astype(np.int64) * len(table.videos) + table.video),
            row_clip=torch.from_numpy(row_clip),
            clip_mean=clip_mean,
            clips=torch.from_numpy(clips.astype(np.int64)),
            count=torch.from_numpy(count.astype(np.int64)),
            pairs=pairs,
        )

    @cached_property
    def centre(self) -> Tensor:
        """(D,): the mean over subjects of their neutral means."""
        return self.subject_mean().mean(dim=0)

    def subject_mean(self) -> Tensor:
        """Return (S, D): the mean over each subject's clips of their means, whatever the clips' lengths."""
        weight = torch.arange(self.clips.shape[1])[None, :] < self.count[:, None]
        means = self.clip_mean[self.clips] * weight[..., None]
        return means.sum(dim=1) / self.count[:, None]

    def episode_mean(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """Return (n, D): for each row, the neutral mean through which its subject is seen in a random episode.

        As in the protocol, half of the subject's neutral clips are adapted on, at least one, and never the clip that
        the row itself belongs to (unless it is the only one).
        """
        subject = self.row_subject[rows]
        count = self.count[subject]
        order = torch.rand(len(rows), self.clips.shape[1], generator=random)
        order = order.masked_fill(self.clips[subject] == self.row_clip[rows, None], 2.0)
        order = order.masked_fill(torch.arange(self.clips.shape[1])[None, :] >= count[:, None], 3.0)
        first = torch.arange(self.clips.shape[1]) < (count // 2).clamp_min(1)[:, None]
        adapted = torch.empty_like(first).scatter_(1, order.argsort(dim=1), first)
        # Some rows at a time: every row takes as much as all clips of its subject.
        parts = zip(torch.split(subject, _ROWS), torch.split(adapted, _ROWS), strict=True)
        sums = [(self.clip_mean[self.clips[who]] * taken[..., None]).sum(dim=1) for who, taken in parts]
        return torch.cat(sums) / adapted.sum(dim=1, keepdim=True)

    def seen(self, rows: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Return (n, D) rows as they are seen in a random episode: f + share · (centre − mean of other neutral clips).

        As the target stage does to a new person's rows: T meets there what it met in training.
        """
        return self.features[rows] + share * (self.centre - self.episode_mean(rows, random))

    def tested_share(self, rows: Tensor) -> Tensor:
        """Return (n,): in what share of its subject's episodes a row is tested rather than adapted on.

        1 for rows of other expressions; for a row of one of m neutral clips ceil(m / 2) / m, and a half when m = 1.
        """
        count = self.count[self.row_subject[rows]]
        neutral = torch.where(count > 1, (count + 1) // 2 / count, 0.5)
        return torch.where(self.row_clip[rows] >= 0, neutral, 1.0)

    def seen_rows(self) -> Tensor:
        """Return the rows that can be seen in an episode: labelled ones of subjects with neutral rows."""
        return torch.nonzero((self.row_subject >= 0) & (self.labels >= 0)).squeeze(1)

    def episodic(self) -> Tensor:
        """Return `seen_rows`; fewer than two are an InputError."""
        rows = self.seen_rows()
        if len(rows) < 2:
            raise InputError("no source subject has neutral rows, and pretraining needs them; label them")
        return rows

    def neutral(self) -> tuple[Tensor, Tensor]:
        """Return the n neutral rows of subjects, as (n,) indices, and whose they are, (n,) places in their names."""
        rows = torch.nonzero((self.row_clip >= 0) & (self.row_subject >= 0)).squeeze(1)
        return rows, self.row_subject[rows]

    def neutral_means(self) -> Tensor:
        """Return (S, D): the mean of each subject's neutral rows."""
        rows, subject = self.neutral()
        return group_statistics(self.features[rows], subject, len(self.subjects))[0]

    def without(self, people: Tensor) -> SourceRows:
        """Return the rows without those of some subjects (places in ``subjects``), which then have no subject.

        Pairs stay as they are: those of rows that are left out are in no episode (see `featlab.model.pretrain`).
        """
        left = torch.ones(len(self.subjects), dtype=torch.bool)
        left[people] = False
        # The last place is that of rows without a subject, which -1 finds.
        place = torch.cat([torch.where(left, left.cumsum(0) - 1, -1), torch.tensor([-1])])
        return replace(
            self,
            labels=self.labels.masked_fill(torch.isin(self.row_subject, people), -1),
            subjects=tuple(name for name, kept in zip(self.subjects, left.tolist(), strict=True) if kept),
            row_subject=place[self.row_subject],
            clips=self.clips[left],
            count=self.count[left],
        )


SPLITS, HEADS = 30, 3
"""How often people are dealt, and how often a head is trained for it."""
LEAST_PEOPLE = 12


def membership_test(
    source: SourceRows, bank: StyleBank | None, config: HeadConfig, *, classes: int, seed: int
) -> dict[str, float]:
    """Attack what a bundle with such a style bank and a head trained like that would hold.

    Returned are ``people``, how many were dealt, and the area under the curve of each attack: ``centre`` (inner product
    of a person's neutral mean and the bank's centre, both from the others' mean) and ``head`` (the loss of the person's
    rows). Nothing with fewer than `LEAST_PEOPLE` people who have neutral rows in both halves.
    """
    if len(source.subjects) < LEAST_PEOPLE:
        return {}
    # A bundle is read without what trains one.
    from featlab.model.head import train_heads

    rows = source.seen_rows()
    features, labels, neutral = source.features[rows], source.labels[rows], source.row_clip[rows] >= 0
    person, count = source.row_subject[rows], len(source.subjects)
    other = torch.from_numpy(_other_half(*(part.numpy() for part in (person, labels, source.row_video[rows]))))
    known, held = (_means(features, person, neutral & half, count) for half in (~other, other))
    dealt = torch.nonzero(torch.isfinite(known[:, 0] + held[:, 0])).squeeze(1)
    if len(dealt) < LEAST_PEOPLE:
        return {}
    random, found = torch_generator(seed, "membership"), dict[str, list[float]](centre=[], head=[])
    for split in range(SPLITS):
        inside, outside, others = dealt[torch.randperm(len(dealt), generator=random)].tensor_split(3)
        scores: dict[str, Tensor] = {}
        if bank is not None:
            base = held[others].mean(dim=0)
            scores["centre"] = (held - base) @ (known[inside].mean(dim=0) - base)
        seen = torch.isin(person, inside) & ~other
        if config.classifier == "trained" and split < HEADS and len(torch.unique(labels[seen])) > 1:
            codes = labels[seen].numpy().astype(np.int16)
            (head,) = train_heads(features[seen], [codes], classes, config, seed=seed + split)
            with torch.no_grad():
                likely = torch.log_softmax(head(features), dim=1).gather(1, labels[:, None])
            scores["head"] = _means(likely, person, other, count).squeeze(1)
        for name, score in scores.items():
            found[name].append(_area(score[inside], score[outside]))
    return {"people": float(len(dealt))} | {name: float(np.mean(areas)) for name, areas in found.items() if areas}


def membership_sentence(found: Mapping[str, float]) -> str:
    """Return what `membership_test` found, for people."""
    if not found:
        return "not measured: too few people, or nobody was held out (pretrain.validation)"
    names = {"centre": "the style bank's centre", "head": "the source model"}
    areas = ", ".join(f"{found[name]:.2f} from {words}" for name, words in names.items() if name in found)
    return f"{areas} (0.5 is a guess, 1 a certainty; a third of {found['people']:.0f} people in)"


def _other_half(person: NDArray[np.int64], label: NDArray[np.int64], video: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which rows are of the second half of a person's videos of a class, or of the frames of the only one."""
    half = np.zeros(len(person), dtype=np.bool_)
    _, group, count = np.unique(np.stack([person, label]), axis=1, return_inverse=True, return_counts=True)
    for rows in np.split(np.argsort(group.reshape(-1), kind="stable"), np.cumsum(count)[:-1]):
        videos = np.unique(video[rows])
        single = np.arange(len(rows)) >= (len(rows) + 1) // 2
        half[rows] = np.isin(video[rows], videos[(len(videos) + 1) // 2 :]) if len(videos) > 1 else single
    return half


def _means(values: Tensor, person: Tensor, taken: Tensor, people: int) -> Tensor:
    """Return (S, D): the mean of each person's rows that are taken; NaN for whom there are none."""
    sums = values.new_zeros(people, values.shape[1]).index_add(0, person[taken], values[taken])
    return sums / torch.bincount(person[taken], minlength=people)[:, None]


def _area(inside: Tensor, outside: Tensor) -> float:
    """Return how often a score of those inside is the higher one of two, ties as half."""
    scores, theirs = inside.numpy(), np.sort(outside.numpy())
    below = np.searchsorted(theirs, scores) + np.searchsorted(theirs, scores, side="right")
    return float(below.mean() / 2 / len(theirs))

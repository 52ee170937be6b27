"""Whether someone who has another clip of a person can tell that this person was among the source people.

People are dealt into thirds, again and again: those *in*, of whom one half of their videos makes the statistics, those
*out*, and *others*, whose mean the attacker knows. The attack has the other half of a person's videos (or of the frames
of the only one). The area under the ROC curve is 0.5 for a guess and 1 for a certainty; a third of the people is easier
to tell than all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.config.sections import HeadConfig
from featlab.model.head import train_heads
from featlab.model.style_bank import SourceRows, StyleBank
from featlab.seeding import torch_generator

SPLITS, HEADS = 30, 3
"""How often people are dealt, and how often a head is trained for it."""
LEAST_PEOPLE = 12


def membership_test(
    source: SourceRows, bank: StyleBank | None, config: HeadConfig, *, classes: int, seed: int
) -> dict[str, float]:
    """Attack what a bundle with such a style bank and a head trained like that would hold.

    Returns:
        ``people``, how many were dealt, and the area under the curve of each attack: ``centre`` (inner product of a
        person's neutral mean and the bank's centre, both from the others' mean), ``head`` (the loss of the person's
        rows) and ``single`` (distance to the nearest of the bank's people). Empty with fewer than `LEAST_PEOPLE` people
        who have neutral rows in both halves.
    """
    if len(source.clips.subjects) < LEAST_PEOPLE:
        return {}
    rows = source.seen_rows()
    features, labels, neutral = source.features[rows], source.labels[rows], source.clips.row_clip[rows] >= 0
    person, count = source.clips.row_subject[rows], len(source.clips.subjects)
    other = torch.from_numpy(_other_half(*(part.numpy() for part in (person, labels, source.clips.row_video[rows]))))
    known, held = (_means(features, person, neutral & half, count) for half in (~other, other))
    dealt = torch.nonzero(torch.isfinite(known[:, 0] + held[:, 0])).squeeze(1)
    if len(dealt) < LEAST_PEOPLE:
        return {}
    random, found = torch_generator(seed, "membership"), dict[str, list[float]](centre=[], head=[], single=[])
    for split in range(SPLITS):
        inside, outside, others = dealt[torch.randperm(len(dealt), generator=random)].tensor_split(3)
        scores: dict[str, Tensor] = {}
        if bank is not None:
            base = held[others].mean(dim=0)
            scores["centre"] = (held - base) @ (known[inside].mean(dim=0) - base)
        if bank is not None and bank.people is not None and split < HEADS:
            scores["single"] = -torch.cdist(held, known[inside]).min(dim=1).values
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


def _other_half(person: NDArray[np.int64], label: NDArray[np.int64], video: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which rows are of the second half of a person's videos of a class, or of the frames of the only one."""
    videos = int(video.max()) + 1
    group = (person * (int(label.max()) + 1) + label) * videos + video
    clip, of_clip, frames = np.unique(group, return_inverse=True, return_counts=True)
    first, last = (np.searchsorted(clip // videos, clip // videos, side=side) for side in ("left", "right"))
    later = np.arange(len(clip)) - first >= (last - first + 1) // 2
    frame = np.empty(len(group), dtype=np.int64)
    frame[np.argsort(of_clip, kind="stable")] = np.arange(len(group)) - np.repeat(np.cumsum(frames) - frames, frames)
    half: NDArray[np.bool_] = np.where((last - first)[of_clip] > 1, later[of_clip], frame >= (frames[of_clip] + 1) // 2)
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

"""Whether someone who has another clip of a person can tell that this person was among the source people.

Source people are dealt into thirds, again and again. Of those who are *in*, one half of their videos makes the
statistics; those who are *out* make nothing; and whoever attacks knows the mean of the *others*. The attack is given
the other half of a person's videos (of their frames, where there is one video) and scores how likely the person was in.
The area under its ROC curve is 0.5 for a guess and 1 for a certainty. A third of the people is easier to tell than all
of them would be.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.config.sections import HeadConfig
from featlab.model.head import train_head
from featlab.model.style_bank import SourceRows, StyleBank
from featlab.seeding import torch_generator

SPLITS, HEADS = 30, 3
"""How often people are dealt, and how often a head is trained for it."""
LEAST_PEOPLE = 12


def membership_test(
    source: SourceRows, bank: StyleBank | None, config: HeadConfig, *, classes: int, seed: int
) -> dict[str, float]:
    """Attack what a bundle holds.

    Args:
        source: Source rows.
        bank: The bundle's style bank, of which only that is attacked which it holds.
        config: How a head is trained.
        classes: K.
        seed: Of the deals and the heads.

    Returns:
        ``people``, how many were dealt, and the area under the curve of each attack: ``centre`` (the inner product of a
        person's neutral mean and the bank's centre, both from the others' mean), ``head`` (the loss of the person's
        rows) and ``single`` (the distance to the nearest of the bank's people). Empty with fewer than `LEAST_PEOPLE`
        people who have neutral rows for both halves.
    """
    rows = source.seen_rows()
    labels, person = source.labels[rows], source.clips.row_subject[rows]
    other = torch.from_numpy(_other_half(*(part.numpy() for part in (person, labels, source.clips.row_video[rows]))))
    neutral, count = source.clips.row_clip[rows] >= 0, len(source.clips.subjects)
    features = source.features[rows]
    known, held = (_means(features, person, neutral & half, count) for half in (~other, other))
    dealt = torch.nonzero(torch.isfinite(known[:, 0] + held[:, 0])).squeeze(1)
    if len(dealt) < LEAST_PEOPLE:
        return {}
    random = torch_generator(seed, "membership")
    found: dict[str, list[float]] = {"centre": [], "head": [], "single": []}
    for split in range(SPLITS):
        inside, outside, others = dealt[torch.randperm(len(dealt), generator=random)].tensor_split(3)
        if bank is not None:
            base = held[others].mean(dim=0)
            score = (held - base) @ (known[inside].mean(dim=0) - base)
            found["centre"].append(_area(score[inside], score[outside]))
        if split >= HEADS:
            continue
        if bank is not None and bank.people is not None:
            near = -torch.cdist(held, known[inside]).min(dim=1).values
            found["single"].append(_area(near[inside], near[outside]))
        seen = torch.isin(person, inside) & ~other
        if len(torch.unique(labels[seen])) > 1:
            head = train_head(features[seen], labels[seen].numpy().astype(np.int16), classes, config, seed=seed + split)
            with torch.no_grad():
                likely = torch.log_softmax(head(features), dim=1).gather(1, labels[:, None])
            score = _means(likely, person, other, count).squeeze(1)
            found["head"].append(_area(score[inside], score[outside]))
    areas = {name: float(np.mean(values)) for name, values in found.items() if values}
    return {"people": float(len(dealt)), **areas}


def _other_half(person: NDArray[np.int64], label: NDArray[np.int64], video: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which rows are of the second half of a person's videos of a class, or of the frames of the only one."""
    videos = int(video.max()) + 1
    group = (person * (int(label.max()) + 1) + label) * videos + video
    clip, of_clip, frames = np.unique(group, return_inverse=True, return_counts=True)
    same = clip // videos
    first = np.searchsorted(same, same)
    clips = np.searchsorted(same, same, side="right") - first
    later = np.arange(len(clip)) - first >= (clips + 1) // 2
    frame = np.empty(len(group), dtype=np.int64)
    order = np.argsort(of_clip, kind="stable")
    frame[order] = np.arange(len(group)) - np.repeat(np.cumsum(frames) - frames, frames)
    second: NDArray[np.bool_] = np.where(clips[of_clip] > 1, later[of_clip], frame >= (frames[of_clip] + 1) // 2)
    return second


def _means(values: Tensor, person: Tensor, taken: Tensor, people: int) -> Tensor:
    """Return (S, D): the mean of each person's rows that are taken; NaN for whom there are none."""
    sums = values.new_zeros(people, values.shape[1]).index_add(0, person[taken], values[taken])
    return sums / torch.bincount(person[taken], minlength=people)[:, None]


def _area(inside: Tensor, outside: Tensor) -> float:
    """Return how often a score of those inside is the higher one of two, ties as half."""
    scores, theirs = inside.numpy(), np.sort(outside.numpy())
    below = np.searchsorted(theirs, scores) + np.searchsorted(theirs, scores, side="right")
    return float(below.mean() / 2 / len(theirs))

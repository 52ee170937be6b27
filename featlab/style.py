"""The style bank: what leaves the source site besides weights. Statistics of source subjects' neutral rows, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.cache import FeatureTable
from featlab.losses import group_statistics

__all__ = ["NeutralClips", "StyleBank", "neutral_clips"]


@dataclass(frozen=True, eq=False)
class StyleBank:
    """Per source subject, the mean and standard deviation of the neutral rows, at every layer where style is compared.

    Attributes:
        subjects: S names.
        layers: Layer name to (mean, std), each (S, D) float32: ``features`` (before T), ``embedding`` (after T with
            the subject's own offset) and ``bottleneck`` (after B on top of that).
    """

    subjects: tuple[str, ...]
    layers: Mapping[str, tuple[Tensor, Tensor]]

    def centre(self, layer: str) -> tuple[Tensor, Tensor]:
        """Return the mean over subjects of their means and of their standard deviations at one layer, both (D,)."""
        mean, std = self.layers[layer]
        return mean.mean(dim=0), std.mean(dim=0)


@dataclass(frozen=True, eq=False)
class NeutralClips:
    """Neutral clips of source subjects: each can play the clip through which a target subject would be seen.

    Attributes:
        subjects: S names, those with at least one neutral row.
        row_subject: (N,) int64, the subject of each row of the table as an index into ``subjects``; -1 without one.
        row_clip: (N,) int64, the clip that a row belongs to if it is neutral, else -1.
        clip_mean: (M, D) mean of each clip's features.
        clips: (S, C) int64, each subject's clips; filled up by repeating them.
        count: (S,) int64, how many clips the subject has.
    """

    subjects: tuple[str, ...]
    row_subject: Tensor
    row_clip: Tensor
    clip_mean: Tensor
    clips: Tensor
    count: Tensor

    def subject_mean(self) -> Tensor:
        """Return (S, D): the mean over each subject's clips of their means, whatever the clips' lengths."""
        weight = torch.arange(self.clips.shape[1])[None, :] < self.count[:, None]
        means = self.clip_mean[self.clips] * weight[..., None]
        return means.sum(dim=1) / self.count[:, None]

    def other_clip_mean(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """Return (n, D): for each row, the mean of a random neutral clip of its subject, another than its own if any.

        A target is seen through a clip that its test rows are not part of; an episode has to be like that.
        """
        subject = self.row_subject[rows]
        count = self.count[subject]
        pick = (torch.rand(len(rows), generator=random) * count).long()
        own = self.clips[subject, pick] == self.row_clip[rows]
        pick = torch.where(own, (pick + 1) % count, pick)
        return self.clip_mean[self.clips[subject, pick]]


def neutral_clips(table: FeatureTable, features: Tensor) -> NeutralClips:
    """Group the neutral rows of a table into clips: one a (subject, video).

    Args:
        table: N labelled source rows.
        features: (N, D), their projected features.

    Returns:
        The clips. Subjects without a neutral row are left out.
    """
    neutral = np.flatnonzero(table.label == table.neutral_code)
    keys = np.stack([table.subject[neutral], table.video[neutral]], axis=1)
    unique, clip_of = np.unique(keys, axis=0, return_inverse=True)
    clip_of = clip_of.reshape(-1)
    codes, first, count = np.unique(unique[:, 0], return_index=True, return_counts=True)
    width = int(count.max(initial=1))
    clips = first[:, None] + np.arange(width)[None, :] % count[:, None]
    row_clip = np.full(len(table), -1, dtype=np.int64)
    row_clip[neutral] = clip_of
    clip_mean, _ = group_statistics(features[neutral], torch.from_numpy(clip_of.astype(np.int64)), len(unique))
    return NeutralClips(
        subjects=tuple(table.subjects[code] for code in codes),
        row_subject=torch.from_numpy(_positions(codes, table.subject)),
        row_clip=torch.from_numpy(row_clip),
        clip_mean=clip_mean,
        clips=torch.from_numpy(clips.astype(np.int64)),
        count=torch.from_numpy(count.astype(np.int64)),
    )


def _positions(codes: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the place of each value in sorted ``codes``, -1 for a value that isn't there."""
    if not len(codes):
        return np.full(len(values), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(codes, values), len(codes) - 1)
    return np.where(codes[place] == values, place, -1).astype(np.int64)

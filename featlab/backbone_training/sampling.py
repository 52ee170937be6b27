"""In which order images are seen: each class as often as each other, and within a class each subject."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["balanced_epoch", "batches", "cells"]


def cells(subject: NDArray[np.intp], label: NDArray[np.intp]) -> list[tuple[Tensor, float]]:
    """Group rows by (subject, class).

    Args:
        subject: (n,) codes.
        label: (n,) codes.

    Returns:
        For each group its rows, int64, and the share of an epoch that it gets: the classes share equally, and within a
        class its subjects do.
    """
    found = np.unique(np.stack([label, subject], axis=1), axis=0)
    classes, subjects_of = np.unique(found[:, 0], return_counts=True)
    share = {int(code): 1 / (len(classes) * int(count)) for code, count in zip(classes, subjects_of, strict=True)}
    groups = []
    for code, who in found.tolist():
        rows = np.flatnonzero((label == code) & (subject == who))
        groups.append((torch.from_numpy(rows), share[code]))
    return groups


def balanced_epoch(groups: list[tuple[Tensor, float]], random: torch.Generator) -> Tensor:
    """Return the rows of one epoch in random order, about as many as there are.

    A group's rows are gone through in a random order, and again where its share asks for more: an image is seen a
    second time only after every other of its group.

    Args:
        groups: From `cells`.
        random: Drawn from.
    """
    total = sum(len(rows) for rows, _ in groups)
    chosen = []
    for rows, share in groups:
        quota = max(1, round(total * share))
        for start in range(0, quota, len(rows)):
            order = torch.randperm(len(rows), generator=random)[: quota - start]
            chosen.append(rows[order])
    epoch = torch.cat(chosen)
    return epoch[torch.randperm(len(epoch), generator=random)]


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Cut rows into batches of equal size; a last, smaller one is left out: BatchNorm needs its size."""
    size = min(size, len(rows))
    for start in range(0, len(rows) - size + 1, size):
        yield rows[start : start + size]

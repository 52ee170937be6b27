"""Who trains a backbone, who chooses its epoch, and whose images are never opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.errors import InputError
from featlab.extraction.inputs import InputConfig
from featlab.extraction.items import Item, item_order
from featlab.extraction.layouts import resolve_layout
from featlab.extraction.shards import Failure
from featlab.extraction.video.expand import expand_videos
from featlab.extraction.video.frames import is_video
from featlab.extraction.video.times import Sampling
from featlab.protocol.splits import check_known, choose_targets
from featlab.seeding import stable_hash

__all__ = [
    "Listed",
    "People",
    "balanced_epoch",
    "batches",
    "cells",
    "choose_people",
    "held_out_subjects",
    "list_items",
    "take_frames",
]


@dataclass(frozen=True)
class People:
    """Subjects by their part, each sorted; nobody is in two parts.

    Attributes:
        fit: Trained on.
        validation: Source subjects who are held out to choose the epoch.
        held_out: Target subjects. No image of theirs is opened.
    """

    fit: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def source(self) -> tuple[str, ...]:
        """Everyone whose images may be opened, sorted."""
        return tuple(sorted((*self.fit, *self.validation)))


def held_out_subjects(
    subjects: Sequence[str], targets: str | None = None, *, draws: int = 1, seed: int = 0, named: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return everyone who is a target in any of the draws that `featlab evaluate` makes of the same subjects.

    Args:
        subjects: Everyone in the source.
        targets: A number, ids with commas, or a file of ids, as `--targets` of `featlab evaluate`; None: nobody.
        draws: Draws of that number.
        seed: Root seed.
        named: Further subjects.

    Returns:
        Subject names, sorted.

    Raises:
        InputError: An unknown subject, or a number that leaves nobody.
    """
    check_known(named, subjects)
    held = set(named)
    if targets is not None:
        for draw in range(draws):
            held |= set(choose_targets(subjects, targets, seed=seed, draw=draw))
    return tuple(sorted(held))


def choose_people(items: Sequence[Item], held_out: Sequence[str], share: float, seed: int) -> People:
    """Divide the subjects. The validation subjects are the first in an order by a hash of seed and name.

    Args:
        items: The whole source.
        held_out: Target subjects.
        share: Of the source subjects, who are held out for validation; at least one of them.
        seed: Root seed.

    Raises:
        InputError: An unknown held-out subject, or fewer than two source subjects with labels.
    """
    subjects = sorted({item.subject for item in items})
    check_known(held_out, subjects)
    labelled = {item.subject for item in items if item.label is not None} - set(held_out)
    if len(labelled) < 2:
        raise InputError(
            f"training a backbone needs 2 or more source subjects with labels, one of them for validation; "
            f"{len(labelled)} of {len(subjects)} are left after {len(set(held_out))} were held out"
        )
    ranked = sorted(labelled, key=lambda name: stable_hash("backbone validation", seed, name))
    count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
    return People(
        fit=tuple(sorted(ranked[count:])),
        validation=tuple(sorted(ranked[:count])),
        held_out=tuple(sorted(set(held_out))),
    )


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


@dataclass(frozen=True, eq=False)
class Listed:
    """What a source holds, by its names alone.

    Attributes:
        items: Images, and videos as a whole.
        neutral: Name of the neutral class, by the layout.
        sampling: Which frames of videos are taken.
    """

    items: list[Item]
    neutral: str
    sampling: Sampling

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everyone, sorted."""
        return tuple(sorted({item.subject for item in self.items}))


def list_items(source: Path, config: InputConfig) -> Listed:
    """List a source in any known layout. No image and no video is opened.

    Args:
        source: A manifest, or a folder.
        config: Its layout and sampling are read.

    Raises:
        InputError: Nothing there, or it doesn't fit; one line.
        ConfigError: An unknown layout or option.
    """
    layout, root = resolve_layout(config.layout, source)
    items = layout.read(root, config.layout_options)
    if config.sampling is not None and not any(is_video(item.path) for item in items):
        raise InputError(
            f"{source} has no videos, so there are no frames to choose: leave out --fps, --window, --stride"
        )
    return Listed(items, layout.neutral, config.sampling if config.sampling is not None else layout.sampling)


def take_frames(
    listed: Listed,
    held_out: Sequence[str],
    *,
    jobs: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Item], tuple[Failure, ...]]:
    """Put frames in the place of source subjects' videos; those of held-out subjects stay as they are, unopened.

    Args:
        listed: From `list_items`.
        held_out: Target subjects.
        jobs: Worker processes that open videos; 0 takes all cores.
        on_progress: Called with how many videos have been opened, and how many there are.

    Returns:
        The items, and the videos that can't be opened.
    """
    held = set(held_out)
    source = [item for item in listed.items if item.subject not in held]
    if not any(is_video(item.path) for item in source):
        return listed.items, ()
    expanded = expand_videos(source, listed.sampling, jobs=jobs, on_progress=on_progress)
    rest = [item for item in listed.items if item.subject in held]
    return sorted([*expanded.items, *rest], key=item_order), tuple(expanded.failures)

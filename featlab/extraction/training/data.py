"""Who trains a backbone, who chooses its epoch, whose images are never opened; and the images, decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from featlab.compute import stable_hash
from featlab.engine import OnProgress
from featlab.errors import InputError, closest
from featlab.extraction.backbones import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from featlab.extraction.decode import read_pixels
from featlab.extraction.inputs import InputConfig
from featlab.extraction.items import Failure, Item, item_order
from featlab.extraction.layouts import resolve_layout
from featlab.extraction.training import TrainConfig
from featlab.extraction.video import Sampling, expand_videos, refuse_sampling
from featlab.extraction.video.frames import is_video


@dataclass(frozen=True, eq=False)
class Listed:
    """What a source holds, by its names alone: images, and videos as a whole; frames are taken by ``sampling``."""

    items: list[Item]
    neutral: str
    sampling: Sampling

    @property
    def subjects(self) -> tuple[str, ...]:
        """Everyone, sorted."""
        return tuple(sorted({item.subject for item in self.items}))


def list_items(source: Path, config: InputConfig) -> Listed:
    """List a source in any known layout. No image and no video is opened."""
    layout, root = resolve_layout(config.layout, source)
    items = layout.read(root, config.layout_options)
    if config.sampling is not None and not any(is_video(item.path) for item in items):
        raise refuse_sampling(source)
    return Listed(items, layout.neutral, config.sampling if config.sampling is not None else layout.sampling)


def take_frames(
    listed: Listed, held_out: Sequence[str], *, jobs: int = 0, on_progress: OnProgress | None = None
) -> tuple[list[Item], tuple[Failure, ...]]:
    """Put frames in the place of source subjects' videos, and list videos that can't be opened; 0 jobs: all cores."""
    held = set(held_out)
    source = [item for item in listed.items if item.subject not in held]
    expanded = expand_videos(source, listed.sampling, jobs=jobs, on_progress=on_progress)
    rest = [item for item in listed.items if item.subject in held]
    return sorted([*expanded.items, *rest], key=item_order), tuple(expanded.failures)


@dataclass(frozen=True)
class People:
    """Subjects by their part, each sorted; nobody is in two parts."""

    fit: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def source(self) -> tuple[str, ...]:
        """Everyone whose images may be opened, sorted."""
        return tuple(sorted((*self.fit, *self.validation)))


def choose_people(items: Sequence[Item], held_out: Sequence[str], fraction: float, seed: int) -> People:
    """Divide the subjects; of the source subjects a fraction, at least one, is for validation, by a hash of names."""
    subjects = {item.subject for item in items}
    for name in held_out:
        if name not in subjects:
            raise InputError(f"unknown subject {name!r} among the {len(subjects)} there are{closest(name, subjects)}")
    labelled = {item.subject for item in items if item.label is not None} - set(held_out)
    if len(labelled) < 2:
        raise InputError(
            f"training a backbone needs 2 or more source subjects with labels, one of them for validation; "
            f"{len(labelled)} of {len(subjects)} are left after {len(set(held_out))} were held out"
        )
    ranked = sorted(labelled, key=lambda name: stable_hash("backbone validation", seed, name))
    count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    return People(
        fit=tuple(sorted(ranked[count:])),
        validation=tuple(sorted(ranked[:count])),
        held_out=tuple(sorted(set(held_out))),
    )


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images of source subjects."""

    pixels: NDArray[np.uint8]
    subject: NDArray[np.intp]
    label: NDArray[np.intp]
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    failures: tuple[Failure, ...]

    def rows_of(self, subjects: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of some subjects, ascending."""
        return np.flatnonzero(np.isin(self.subject, [self.subjects.index(name) for name in subjects]))

    def batch(self, rows: NDArray[np.intp], device: str | torch.device) -> Tensor:
        """Return (n, 3, S, S) float32 in [0, 1], with the channels last in memory."""
        return torch.from_numpy(self.pixels[rows]).to(device).permute(0, 3, 1, 2).float() / 255


def load_images(
    items: Sequence[Item],
    people: People,
    classes: tuple[str, ...],
    *,
    size: int,
    file: Path,
    on_image: OnProgress | None = None,
) -> Images:
    """Decode the labelled images of the source subjects at (size, size) into a file; nobody else's are opened."""
    source = set(people.source)
    wanted = [item for item in items if item.subject in source and item.label is not None]
    # The system keeps as much of it in memory as there is room for.
    pixels = np.memmap(file, dtype=np.uint8, mode="w+", shape=(len(wanted), size, size, 3))
    prepare = InputSpec(size)
    kept: list[Item] = []
    failures: list[Failure] = []
    for number, (item, image) in enumerate(zip(wanted, read_pixels(wanted), strict=True)):
        if isinstance(image, InputError):
            failures.append(Failure(item.name, str(image)))
        else:
            pixels[len(kept)] = prepare(image)
            kept.append(item)
        if on_image is not None:
            on_image(number + 1, len(wanted))
    images = Images(
        pixels=pixels[: len(kept)],
        subject=np.array([people.source.index(item.subject) for item in kept], dtype=np.intp),
        label=np.array([classes.index(str(item.label)) for item in kept], dtype=np.intp),
        subjects=people.source,
        classes=classes,
        failures=tuple(failures),
    )
    _check(images, people)
    return images


def normalise(images: Tensor) -> Tensor:
    """Return (image - mean) / std, channel by channel, of (n, 3, S, S) values in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    return (images - mean) / std


def _check(images: Images, people: People) -> None:
    """Refuse a part of the people that has no readable images of two classes."""
    for what, subjects in (("trained on", people.fit), ("held out for validation", people.validation)):
        present = np.unique(images.label[images.rows_of(subjects)])
        if len(present) < 2:
            found = ", ".join(images.classes[code] for code in present) or "none"
            failed = images.failures
            why = f"; {len(failed)} images can't be read, e.g. {': '.join(failed[0])}" if failed else ""
            raise InputError(
                f"the {len(subjects)} source subjects that are {what} have images of {len(present)} classes ({found}), "
                f"and a network needs 2 or more{why}"
            )


def balanced_groups(subject: NDArray[np.intp], label: NDArray[np.intp]) -> list[tuple[Tensor, float]]:
    """Return the rows of each (class, subject), and their fraction of an epoch."""
    found = np.unique(np.stack([label, subject], axis=1), axis=0)
    classes, subjects_of = np.unique(found[:, 0], return_counts=True)
    fraction = {int(code): 1 / (len(classes) * int(count)) for code, count in zip(classes, subjects_of, strict=True)}
    return [
        (torch.from_numpy(np.flatnonzero((label == code) & (subject == who))), fraction[code])
        for code, who in found.tolist()
    ]


def balanced_epoch(groups: list[tuple[Tensor, float]], random: torch.Generator) -> Tensor:
    """Return the rows of one epoch in random order, about as many as there are."""
    total = sum(len(rows) for rows, _ in groups)
    chosen = []
    for rows, fraction in groups:
        quota = max(1, round(total * fraction))
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


_SHIFT, _SCALE, _ROTATION = 0.06, 0.08, 8.0  # Sides of the image, of the logarithm of the size, degrees
_GAMMA, _GAIN, _CONTRAST = 0.25, 0.08, 0.25  # Of the logarithms of an exponent, a channel's factor, one about the mean
_SLOPE, _BRIGHTNESS = 0.2, 0.1  # Of a gain that changes linearly across the image, and added to every value


def augment(images: Tensor, config: TrainConfig, random: torch.Generator) -> Tensor:
    """Change each image in its own way."""
    draws = torch.rand(len(images), 20, generator=random).to(images.device)
    noise = torch.randn(images.shape, generator=random).to(images.device)
    # In [-1, 1], for what goes both ways.
    both = 2 * draws - 1
    images = _move(images, config, draws, both)
    if config.light:
        images = _light(images, config.light, draws, both)
    images = images + noise * (config.noise * draws[:, 13])[:, None, None, None]
    return _erase(images.clamp(0, 1), config.erase, draws)


def _move(images: Tensor, config: TrainConfig, draws: Tensor, both: Tensor) -> Tensor:
    """Mirror some images; shift, scale and rotate some, with the border mirrored outwards."""
    mirrored = (draws[:, 2] < config.flip)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    moved = torch.nonzero(draws[:, 19] < config.move).flatten()
    if not len(moved):
        return images
    both = both[moved]
    angle = both[:, 0] * _ROTATION * torch.pi / 180
    size = torch.exp(both[:, 1] * _SCALE)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    # affine_grid measures in half sides.
    right, down = 2 * _SHIFT * both[:, 3], 2 * _SHIFT * both[:, 4]
    matrix = torch.stack([cos, -sin, right, sin, cos, down], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, [len(moved), *images.shape[1:]], align_corners=False)
    resampled = F.grid_sample(images[moved], grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return images.index_copy(0, moved, resampled.clamp(0, 1))


def _light(images: Tensor, strength: float, draws: Tensor, both: Tensor) -> Tensor:
    """Change gamma, gains, the direction of light, contrast and brightness."""

    def each(values: Tensor) -> Tensor:
        return values.reshape(len(images), -1, 1, 1)

    images = images ** each(torch.exp(strength * _GAMMA * both[:, 5]))
    images = images * each(torch.exp(strength * _GAIN * both[:, 6:9]))
    side = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    direction = 2 * torch.pi * draws[:, 9]
    slope = each(torch.cos(direction)) * side + each(torch.sin(direction)) * side[:, None]
    images = images * (1 + strength * _SLOPE * each(draws[:, 10]) * slope)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * each(torch.exp(strength * _CONTRAST * both[:, 11])) + mean
    return images + strength * _BRIGHTNESS * each(both[:, 12])


def _erase(images: Tensor, probability: float, draws: Tensor) -> Tensor:
    """Fill a rectangle of some images with their mean colour."""
    least, most = 0.2, 0.5  # Of the image's side
    place = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]

    def within(size: Tensor, start: Tensor) -> Tensor:
        length = least + (most - least) * size
        low = start * (1 - length)
        return (place >= low[:, None]) & (place < (low + length)[:, None])

    wide, high = within(draws[:, 14], draws[:, 15]), within(draws[:, 16], draws[:, 17])
    hole = high[:, :, None] & wide[:, None, :] & (draws[:, 18] < probability)[:, None, None]
    return torch.where(hole[:, None], images.mean(dim=(2, 3), keepdim=True), images)

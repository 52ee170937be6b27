"""The training images, decoded once at the training size: in RAM, or in a file where they are too many for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.errors import InputError
from featlab.extraction.backbones.options import IMAGENET_MEAN, IMAGENET_STD, ResizeCrop
from featlab.extraction.decode import read_pixels
from featlab.extraction.items import Item
from featlab.extraction.training.people import People

__all__ = ["Images", "load_images", "normalise", "to_floats"]

OnImage = Callable[[int, int], None]
"""Called after each image with how many have been read, and how many there are."""


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images of source subjects.

    Attributes:
        pixels: uint8 (n, S, S, 3), RGB; perhaps mapped from a file.
        subject: (n,) places in ``subjects``.
        label: (n,) places in ``classes``.
        subjects: Source subjects, sorted.
        classes: Class names, neutral first.
        failures: Name and reason of each image that can't be read.
    """

    pixels: NDArray[np.uint8]
    subject: NDArray[np.intp]
    label: NDArray[np.intp]
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]

    def rows_of(self, subjects: Sequence[str]) -> NDArray[np.intp]:
        """Return the rows of some subjects, ascending."""
        codes = [self.subjects.index(name) for name in subjects]
        return np.flatnonzero(np.isin(self.subject, codes))

    def batch(self, rows: NDArray[np.intp], device: str | torch.device) -> Tensor:
        """Return (n, 3, S, S) float32 in [0, 1], with the channels last in memory."""
        return to_floats(self.pixels[rows], device)


def load_images(
    items: Sequence[Item],
    people: People,
    classes: tuple[str, ...],
    *,
    size: int,
    ram_mb: int,
    spill: Path,
    on_image: OnImage | None = None,
) -> Images:
    """Decode the labelled images of the source subjects; nobody else's are opened.

    Args:
        items: The whole source.
        people: Who is a source subject.
        classes: Class names, neutral first.
        size: Side in pixels.
        ram_mb: Up to this many megabytes stay in RAM.
        spill: The file that takes more than that; written again by every run, removed by the caller.
        on_image: Progress.

    Raises:
        InputError: A part of the people has no readable image of two classes.
    """
    source = set(people.source)
    wanted = [item for item in items if item.subject in source and item.label is not None]
    shape = (len(wanted), size, size, 3)
    pixels: NDArray[np.uint8]
    if np.prod(shape, dtype=np.int64) <= ram_mb * 1_000_000:
        pixels = np.empty(shape, dtype=np.uint8)
    else:
        spill.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.memmap(spill, dtype=np.uint8, mode="w+", shape=shape)
    prepare = ResizeCrop(size)
    kept: list[Item] = []
    failures: list[tuple[str, str]] = []
    for number, (item, image) in enumerate(zip(wanted, read_pixels(wanted), strict=True)):
        if isinstance(image, InputError):
            failures.append((item.name, str(image)))
        else:
            pixels[len(kept)] = prepare(image)
            kept.append(item)
        if on_image is not None:
            on_image(number + 1, len(wanted))
    subjects = people.source
    images = Images(
        pixels=pixels[: len(kept)],
        subject=np.array([subjects.index(item.subject) for item in kept], dtype=np.intp),
        label=np.array([classes.index(str(item.label)) for item in kept], dtype=np.intp),
        subjects=subjects,
        classes=classes,
        failures=tuple(failures),
    )
    _check(images, people)
    return images


def to_floats(pixels: NDArray[np.uint8], device: str | torch.device = "cpu") -> Tensor:
    """Return (n, 3, S, S) float32 in [0, 1] of uint8 (n, S, S, 3), with the channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float() / 255


def normalise(images: Tensor) -> Tensor:
    """Return (image - mean) / std, channel by channel, of (n, 3, S, S) values in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    return (images - mean) / std


def _check(images: Images, people: People) -> None:
    for what, subjects in (("trained on", people.fit), ("held out for validation", people.validation)):
        present = np.unique(images.label[images.rows_of(subjects)])
        if len(present) < 2:
            found = ", ".join(images.classes[code] for code in present) or "none"
            why = f"; {len(images.failures)} images can't be read, e.g. {images.failures[0]}" if images.failures else ""
            raise InputError(
                f"the {len(subjects)} source subjects that are {what} have images of {len(present)} classes ({found}), "
                f"and a network needs 2 or more{why}"
            )

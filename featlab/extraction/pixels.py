"""The pixels of items: image files, frames of videos, lines of a csv."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.decode import decode_image
from featlab.extraction.items import Item
from featlab.extraction.video_files import is_video
from featlab.extraction.video_frames import decode_frames

Pixels = NDArray[np.uint8] | InputError


def read_pixels(items: Sequence[Item]) -> Generator[Pixels, None, None]:
    """Read the pixels of items, one after the other.

    Consecutive frames of one video are decoded in one pass over it. Nothing is kept: one image is in memory at a time.

    Args:
        items: In any order; frames of a video are read fastest one after the other, in the order of time.

    Yields:
        One result an item, in their order: uint8 (height, width, 3), upright RGB, C-contiguous, cut to the item's box;
        or the `InputError` that says why there is none (the reason alone, without the path).

    Raises:
        ConfigError: There are video frames, and PyAV isn't installed.
    """
    with closing(_whole_images(items)) as images:
        for item, image in zip(items, images, strict=True):
            yield image if item.box is None or isinstance(image, InputError) else _cut(image, item.box)


def _whole_images(items: Sequence[Item]) -> Generator[Pixels, None, None]:
    start = 0
    while start < len(items):
        if not is_video(items[start].path):
            yield _read_one(items[start])
            start += 1
            continue
        path, stamps = _run(items, start)
        if not stamps:
            yield InputError("a whole video, not one frame of it; expand_videos turns it into frames")
            start += 1
            continue
        # Closed here, so that a caller who stops early leaves no open file behind.
        with closing(decode_frames(path, stamps)) as frames:
            yield from frames
        start += len(stamps)


def _run(items: Sequence[Item], start: int) -> tuple[Path, list[int]]:
    """Return the video at ``start`` and the time stamps that ascend from there; none for a whole video."""
    path = items[start].path
    stamps: list[int] = []
    for item in items[start:]:
        if item.path != path or item.at is None or (stamps and item.at <= stamps[-1]):
            break
        stamps.append(item.at)
    return path, stamps


def _read_one(item: Item) -> Pixels:
    try:
        if item.path.suffix.lower() != ".csv":
            return decode_image(item.path)
        if item.at is None:
            return InputError("a whole csv, not one image of it")
        from featlab.extraction.csv_pixels import decode_csv_pixels

        return decode_csv_pixels(item.path, item.at)
    except InputError as error:
        return error


def _cut(image: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Pixels:
    left, top, right, bottom = box
    part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if part.size == 0:
        height, width = image.shape[:2]
        return InputError(f"the box {left},{top},{right},{bottom} has nothing of the image, {width}x{height}")
    return np.ascontiguousarray(part)

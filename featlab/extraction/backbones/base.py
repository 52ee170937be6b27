"""What the pipeline asks of a backbone, and how a backbone is found by its name.

A name is a prefix, optionally with an argument after a colon: ``hog``, ``geometry:51``. Options go by keyword. The
module behind a prefix is imported when it is asked for, so that ``hog`` costs no import of a heavier one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from featlab.cache import ExtractorInfo
from featlab.registry import Registry

Image = NDArray[np.uint8]

APPENDED = "means and deviations of the layers appended"
"""Ends the preprocessing line of an extractor with layers; older ones, without it, kept them beside the embedding."""


class Preparation(Protocol):
    """One decoded image to what ``embed`` wants: align, crop, resize. Pickled once into every worker process."""

    def __call__(self, image: Image, landmarks: NDArray[np.float32] | None) -> Image:
        """Prepare one image; an `InputError` leaves this image out, with its message as the reason."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """Turns images or landmarks into embeddings.

    The same image must give the same embedding whatever else is in the batch.

    Attributes:
        name: What the user wrote.
        needs_images: False: no image is decoded, and ``embed`` gets an empty list.
        needs_landmarks: True: the pipeline refuses to start without landmarks, and rows without any never reach
            ``embed``.
        in_worker: True: light and picklable, run beside the decoding in the worker processes, one image at a time.
            False: run in the main process on batches (a network on a GPU), while the workers decode ahead.
        prepare: Run in the worker after decoding, None to leave images as they are. A backbone of the main process
            should crop to its input size here: whole photographs are slow to hand over and fill the memory.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def needs_images(self) -> bool: ...  # noqa: D102
    @property
    def needs_landmarks(self) -> bool: ...  # noqa: D102
    @property
    def in_worker(self) -> bool: ...  # noqa: D102
    @property
    def prepare(self) -> Preparation | None: ...  # noqa: D102

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: equal fingerprints mean that rows may meet in one cache."""
        ...

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n images."""
        ...


Factory = Callable[[str | None, Mapping[str, Any]], Backbone]
"""Builds a backbone of what follows the colon in its name and of its options."""

_HERE = __name__.rpartition(".")[0]
BACKBONES: Registry[Factory] = Registry(
    "backbone",
    {
        "geometry": f"{_HERE}.geometry:build",
        "hf": f"{_HERE}.transformers_folder:build",
        "hog": f"{_HERE}.hog:build",
        "onnx": f"{_HERE}.onnx_file:build",
        "pt2": f"{_HERE}.exported_program:build",
        "python": f"{_HERE}.python_factory:build",
        "resnet18": f"{_HERE}.model_libraries:build_resnet18",
        "timm": f"{_HERE}.model_libraries:build_timm",
        "torchvision": f"{_HERE}.model_libraries:build_torchvision",
    },
)


def make_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by its name.

    Args:
        name: A prefix, or ``prefix:argument``.
        **options: The backbone's own options.

    Raises:
        ConfigError: An unknown prefix (names the closest), or an argument or option that doesn't fit.
    """
    prefix, colon, argument = name.partition(":")
    return BACKBONES.get(prefix)(argument if colon else None, options)

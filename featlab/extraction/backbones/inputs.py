"""What a network reads: a square of the image, resized, normalised. No torch here: it runs beside the decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from featlab.errors import ConfigError
from featlab.extraction.backbones.base import Image

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "INTERPOLATIONS", "InputSpec", "ResizeCrop"]

# Of RGB scaled to 0..1 over ImageNet's training set, as torchvision documents them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = {
    "bilinear": PilImage.Resampling.BILINEAR,
    "bicubic": PilImage.Resampling.BICUBIC,
    "lanczos": PilImage.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ResizeCrop:
    """Cuts the centred square out of an image and resizes it; a `Preparation` that can be pickled.

    Attributes:
        size: Side of the result in pixels.
        crop: Side of the square as a share of the image's shorter side.
        interpolation: A key of `INTERPOLATIONS`. The filter widens when it shrinks, so that nothing aliases.
    """

    size: int
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __call__(self, image: Image, landmarks: NDArray[np.float32] | None = None) -> Image:
        """Return uint8 (size, size, 3) of uint8 (H, W, 3); landmarks are not used."""
        height, width = image.shape[:2]
        if self.crop == 1.0 and height == width == self.size:
            return image
        side = min(height, width) * self.crop
        left, top = (width - side) / 2, (height - side) / 2
        square = PilImage.fromarray(image).resize(
            (self.size, self.size), INTERPOLATIONS[self.interpolation], box=(left, top, left + side, top + side)
        )
        return np.asarray(square)


@dataclass(frozen=True)
class InputSpec:
    """A network's input: (x / 255 - mean) / std of an RGB square.

    Attributes:
        size: Side in pixels.
        mean: Of R, G and B, on the scale 0..1.
        std: Likewise, positive.
        crop: See `ResizeCrop`; in (0, 1].
        interpolation: See `ResizeCrop`.

    Raises:
        ConfigError: A value out of range.
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ConfigError(f"size must be a positive whole number of pixels, got {self.size!r}")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ConfigError(f"mean must be finite and std positive, got mean {self.mean} and std {self.std}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop is a share of the shorter side, above 0 and up to 1, got {self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")

    def prepare(self) -> ResizeCrop:
        """Return what cuts an image to this input."""
        return ResizeCrop(self.size, self.crop, self.interpolation)

    def describe(self) -> str:
        """Return one readable line with everything that changes what the network sees."""
        square = "centre square" if self.crop == 1.0 else f"centre square of {self.crop:g} of the shorter side"
        mean, std = (" ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"RGB, {square}, {self.size}x{self.size} {self.interpolation}, mean {mean}, std {std}"

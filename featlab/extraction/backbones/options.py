"""Options that every network has, read from keywords or from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from featlab.errors import ConfigError
from featlab.extraction.backbones.base import Image, config_from_options

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INTERPOLATIONS",
    "InputSpec",
    "NetworkOptions",
    "ResizeCrop",
    "network_options",
    "require_argument",
]


@dataclass(frozen=True)
class NetworkOptions:
    """What may be chosen of a network.

    Attributes:
        weights: A weights file, a name that the network's library knows, or "random". None: the network's own.
        layers: Whose channel means and standard deviations are appended to the embedding.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        amp: float16 autocast on a GPU; changes values, and so the fingerprint.
        size: Side of the input in pixels; None here and below: the network's own.
        mean: Of R, G and B on the scale 0..1.
        std: Likewise.
        crop: Side of the centred square that is used, as a share of the image's shorter side.
        interpolation: "bilinear", "bicubic" or "lanczos".
    """

    weights: str | None = None
    layers: tuple[str, ...] = ()
    device: str = "auto"
    amp: bool = False
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop: float | None = None
    interpolation: str | None = None

    def input_spec(self, own: InputSpec) -> InputSpec:
        """Return the network's own input with what was chosen put in."""
        names = ("size", "mean", "std", "crop", "interpolation")
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(own, **chosen)

    def no_weights(self, name: str, where: str) -> None:
        """Raise a ConfigError when weights were given to a network whose ``where`` holds them."""
        if self.weights is not None:
            raise ConfigError(f"{name}: the weights are in its {where}; leave out --weights {self.weights}")


Options = TypeVar("Options", bound=NetworkOptions)


def network_options(name: str, kind: type[Options], options: Mapping[str, Any]) -> Options:
    """Build the options of a network.

    ``layers`` may be one string with commas ("none" for no layer), ``mean`` and ``std`` one number or three.
    """
    values = dict(options)
    for key, convert in (("layers", _names), ("mean", _three), ("std", _three)):
        if values.get(key) is not None:
            values[key] = convert(name, key, values[key])
    for key, kinds, wanted in (
        ("weights", (str,), "text"),
        ("device", (str,), "auto, cpu or cuda"),
        ("amp", (bool,), "true or false"),
        ("crop", (int, float), "a number"),
        ("interpolation", (str,), "text"),
    ):
        value = values.get(key)
        if value is not None and not isinstance(value, kinds):
            raise ConfigError(f"{name}: {key} must be {wanted}, got {value!r}")
    return config_from_options(name, kind, values)


def require_argument(prefix: str, argument: str | None, wanted: str) -> str:
    """Return what follows the colon."""
    if not argument:
        raise ConfigError(f"{prefix}: what follows the colon is {wanted}")
    return argument


def _names(name: str, key: str, value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{name}: {key} must be names of layers, got {value!r}")
    names = tuple(part.strip() for part in parts if part.strip())
    if names == ("none",):
        return ()
    for layer in names:
        if names.count(layer) > 1:
            raise ConfigError(f"{name}: the layer {layer!r} is named twice")
    return names


def _three(name: str, key: str, value: Any) -> tuple[float, float, float]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = [float(part) for part in (parts if isinstance(parts, list | tuple) else [parts])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise ConfigError(f"{name}: {key} must be one number or three (R, G, B), got {value!r}")
    return numbers[0], numbers[1], numbers[2]


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

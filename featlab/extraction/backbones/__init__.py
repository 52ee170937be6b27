"""What the pipeline asks of a backbone, and how one is found by its name: ``PREFIX`` or ``PREFIX:ARGUMENT``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from featlab.cache.schema import ExtractorInfo
from featlab.config.options import Options, Registry, option, refuse_inert, with_options
from featlab.errors import ConfigError

Image = NDArray[np.uint8]

APPENDED = "means and deviations of the layers appended"
"""Ends the preprocessing line of an extractor with layers; older ones, without it, kept them beside the embedding."""


Preparation = Callable[[Image, NDArray[np.float32] | None], Image]
"""One decoded image, and its landmarks, to what ``embed`` wants: align, crop, resize. Pickled once into every worker
process. An `InputError` leaves the image out, with its message as the reason."""


@runtime_checkable
class Backbone(Protocol):
    """Turns images or landmarks into embeddings, each the same whatever else is in the batch."""

    @property
    def name(self) -> str:
        """What the user wrote."""

    @property
    def needs_images(self) -> bool:
        """False: no image is decoded, and ``embed`` gets an empty list."""

    @property
    def needs_landmarks(self) -> bool:
        """True: rows without landmarks never reach ``embed``."""

    @property
    def in_worker(self) -> bool:
        """True: light and picklable, run in the workers, an image at a time. False: run in the main process."""

    @property
    def prepare(self) -> Preparation | None:
        """Run in the workers; a backbone of the main process should crop here: whole photographs fill the memory."""

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: equal fingerprints mean that rows may meet in one cache."""

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n images."""


Factory = Callable[[str | None, Mapping[str, Any]], Backbone]
"""Builds a backbone of what follows the colon in its name and of its options."""

BACKBONES: Registry[Factory] = Registry(
    "backbone",
    {
        "clip": f"{__name__}.transformers_folder:build_clip",
        "emotiefflib": f"{__name__}.named:build_emotiefflib",
        "face-api": f"{__name__}.named:build_face_api",
        "fer": f"{__name__}.named:build_fer",
        "geometry": f"{__name__}.builtin:build_geometry",
        "hf": f"{__name__}.transformers_folder:build",
        "hog": f"{__name__}.builtin:build_hog",
        "onnx": f"{__name__}.onnx_file:build",
        "pt2": f"{__name__}.exported_program:build",
        "pyfeat": f"{__name__}.named:build_pyfeat",
        "python": f"{__name__}.modules:build_python",
        "resnet18": f"{__name__}.modules:build_resnet18",
        "timm": f"{__name__}.modules:build_timm",
        "torchvision": f"{__name__}.modules:build_torchvision",
    },
)


def make_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by its name, a prefix or ``prefix:argument``; a ConfigError says which option doesn't fit."""
    prefix, colon, argument = name.partition(":")
    return BACKBONES.get(prefix)(argument if colon else None, options)


@dataclass(frozen=True)
class NetworkOptions(Options):
    """What may be chosen of a network; None stands for the network's own."""

    weights: str | None = option(None, "A weights file, a name that the network's library knows, or random.")
    prefix: str | None = option(None, "Start of the names that are meant, where a weights file holds two networks.")
    layers: tuple[str, ...] = option((), "Whose channel means and standard deviations are appended to the embedding.")
    device: str = option("auto", "auto (a GPU where there is one), cpu, cuda or mps.")
    amp: bool = option(False, "float16 autocast on a GPU; changes values, and so the fingerprint.")
    size: int | None = option(None, "Side of the input in pixels.")
    mean: tuple[float, ...] | None = option(None, "Of R, G and B on the scale 0..1; one number or three.")
    std: tuple[float, ...] | None = option(None, "Likewise.")
    crop: float | None = option(None, "Side of the centred square, in shorter sides.", minimum=0.01, maximum=1)
    interpolation: str | None = option(None, "Filter that resizes.", choices=("bilinear", "bicubic", "lanczos"))

    def check_together(self) -> None:
        """Refuse a layer named twice, another number of means than one or three, and a prefix without a file."""
        if self.prefix is not None and "." not in (self.weights or ""):
            raise ConfigError(f"{self.key('prefix')} is for a weights file with two networks; give it with --weights")
        for layer in self.layers:
            if self.layers.count(layer) > 1:
                raise ConfigError(f"{self.key('layers')}: the layer {layer!r} is named twice")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != 3:
                if len(values) != 1:
                    raise ConfigError(f"{self.key(name)} must be one number or three (R, G, B), got {values}")
                object.__setattr__(self, name, values * 3)

    def input_spec(self, own: InputSpec) -> InputSpec:
        """Return the network's own input with what was chosen put in."""
        names = ("size", "mean", "std", "crop", "interpolation")
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(own, **chosen)

    def no_weights(self, name: str, where: str) -> None:
        """Raise a ConfigError when weights were given to a network whose ``where`` holds them."""
        if self.weights is not None:
            raise ConfigError(f"{name}: the weights are in its {where}; leave out --weights {self.weights}")


Chosen = TypeVar("Chosen", bound=NetworkOptions)


def network_options(name: str, kind: type[Chosen], options: Mapping[str, Any]) -> Chosen:
    """Build the options of a network; ``layers`` may be "none", and ``mean`` and ``std`` one number."""
    values = {
        key: (value,) if key in ("mean", "std") and isinstance(value, int | float) else value
        for key, value in options.items()
    }
    if values.get("layers") == "none":
        values["layers"] = ()
    made: Chosen = with_options(kind(), values, name)
    refuse_inert(made, values, name)
    return made


def library(name: str, network: str, extra: str) -> Any:
    """Import what an extra brings."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{network} networks need {error.name}: pip install 'featlab[{extra}]'") from None


def require_argument(prefix: str, argument: str | None, wanted: str) -> str:
    """Return what follows the colon."""
    if not argument:
        raise ConfigError(f"{prefix}: what follows the colon is {wanted}")
    return argument


# Of RGB scaled to 0..1 over ImageNet's training set, as torchvision documents them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = {
    "bilinear": PilImage.Resampling.BILINEAR,
    "bicubic": PilImage.Resampling.BICUBIC,
    "lanczos": PilImage.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class InputSpec:
    """A network's input, (x / 255 - mean) / std of an RGB square, and the `Preparation` that cuts an image to it."""

    size: int = 224  # Side of the square in pixels
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0  # Side of what is cut out, as a fraction of the image's shorter side
    interpolation: str = "bilinear"  # A key of `INTERPOLATIONS`

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ConfigError(f"size must be a positive whole number of pixels, got {self.size!r}")
        values = (*self.mean, *self.std)
        if not len(self.mean) == len(self.std) == 3 or not all(map(math.isfinite, values)) or min(self.std) <= 0:
            said = f"got mean {self.mean} and std {self.std}"
            raise ConfigError(f"mean must be finite and std positive, three numbers each; {said}")

    def __call__(self, image: Image, landmarks: NDArray[np.float32] | None = None) -> Image:
        """Return the centred square of uint8 (H, W, 3), resized to (size, size, 3); landmarks are not used."""
        height, width = image.shape[:2]
        if self.crop == 1.0 and height == width == self.size:
            return image
        side = min(height, width) * self.crop
        left, top = (width - side) / 2, (height - side) / 2
        square = PilImage.fromarray(image).resize(
            (self.size, self.size), INTERPOLATIONS[self.interpolation], box=(left, top, left + side, top + side)
        )
        return np.asarray(square)

    def describe(self) -> str:
        """Return one readable line with everything that changes what the network sees."""
        square = "centre square" if self.crop == 1.0 else f"centre square of {self.crop:g} of the shorter side"
        mean, std = (" ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"RGB, {square}, {self.size}x{self.size} {self.interpolation}, mean {mean}, std {std}"

"""Every setting of a backbone's training, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from featlab.config.options import Options, option, with_options
from featlab.errors import ConfigError

_PREFIX = "augment."


@dataclass(frozen=True)
class AugmentConfig(Options):
    """How a training image is changed, anew each time that it is seen; 0 turns a change off."""

    shift: float = option(0.06, "Of the whole image, as a fraction of its side, along each axis.", minimum=0)
    scale: float = option(0.08, "Of the logarithm of the size.", minimum=0)
    rotation: float = option(8.0, "In degrees.", minimum=0)
    move: float = option(
        0.7,
        "Probability of shift, scale and rotation. Resampling blurs a little; images that keep their "
        "pixels show the network how sharp those are that it will embed.",
        minimum=0,
        maximum=1,
    )
    flip: float = option(0.5, "Probability of a mirror image.", minimum=0, maximum=1)
    brightness: float = option(0.1, "Added to every value.", minimum=0)
    contrast: float = option(0.25, "Of the logarithm of the factor of values about their mean.", minimum=0)
    gamma: float = option(0.25, "Of the logarithm of the exponent.", minimum=0)
    channel: float = option(0.08, "Of the logarithm of a gain for each channel.", minimum=0)
    light: float = option(0.2, "Of a gain that changes linearly across the image, in a random direction.", minimum=0)
    noise: float = option(0.03, "Largest standard deviation of Gaussian noise; each image draws its own.", minimum=0)
    erase: float = option(
        0.25,
        "Probability that a rectangle, of a fifth to a half of each side, is filled with the image's mean.",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True)
class TrainConfig(Options):
    """What is trained and how."""

    arch: str = option("small", "`small` (96 px on a CPU), `resnet18`, `torchvision:NAME` or `timm:NAME`.")
    size: int = option(
        0, "Side in pixels to which images are resized; 0 takes the network's own: 96 for `small`, else 224.", minimum=0
    )
    layers: tuple[str, ...] = option(
        (), "Taps whose channel statistics the exported file returns; empty takes the network's own."
    )
    epochs: int = option(
        60, "Length of the learning-rate cycle, in passes over as many images as there are.", minimum=1
    )
    batch: int = option(64, "Images in a step.", minimum=2)
    lr: float = option(0.004, "Peak of the learning rate.")
    weight_decay: float = option(0.05, "Of AdamW.", minimum=0)
    label_smoothing: float = option(0.1, "Of the cross-entropy.", minimum=0, maximum=1)
    dropout: float = option(0.2, "Of the embedding, before the classifier.", minimum=0, maximum=1)
    validation: float = option(
        0.2,
        "Fraction of the source subjects that are held out to choose the epoch; at least one of them.",
        minimum=0,
        maximum=1,
    )
    patience: int = option(30, "Epochs without a better score after which training ends.", minimum=1)
    refit: bool = option(True, "Train again on all source subjects, for as many epochs as were best.")
    amp: bool = option(True, "Mixed precision on CUDA.")
    augment: AugmentConfig = option(AugmentConfig, "How training images are changed.")

    def check_together(self) -> None:
        """Refuse values at the end of a range that stands for nothing."""
        if not self.lr > 0:
            raise ConfigError(f"{self.key('lr')} = {self.lr} must be above 0")
        if not 0 < self.validation < 1 or self.dropout == 1:
            raise ConfigError("validation must be between 0 and 1 without the two, and dropout below 1")

    def with_values(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return a copy with some values replaced; keys of the augmentation start with ``augment.``."""
        own = {key: value for key, value in values.items() if not key.startswith(_PREFIX)}
        inner = {key.removeprefix(_PREFIX): value for key, value in values.items() if key.startswith(_PREFIX)}
        augment = with_options(self.augment, inner, "augment")
        changed: TrainConfig = with_options(replace(self, augment=augment), own, "backbone")
        return changed


def flat(config: TrainConfig) -> dict[str, Any]:
    """Return every setting as ``{"lr": …, "augment.shift": …}``, JSON-ready."""
    values = asdict(config)
    augment = values.pop("augment")
    values["layers"] = list(config.layers)
    return values | {f"{_PREFIX}{name}": value for name, value in augment.items()}

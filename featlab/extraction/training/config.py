"""Every setting of a backbone's training, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from featlab.config.options import check_at_least, check_share, with_options
from featlab.errors import ConfigError

__all__ = ["AugmentConfig", "TrainConfig", "flat"]

_PREFIX = "augment."


@dataclass(frozen=True)
class AugmentConfig:
    """How a training image is changed, anew each time that it is seen; 0 turns a change off.

    Uniform in +- the given strength where nothing else is said. Images have values in [0, 1].

    Attributes:
        shift: Of the whole image, as a share of its side, along each axis.
        scale: Of the logarithm of the size.
        rotation: In degrees.
        move: Probability of shift, scale and rotation. Resampling blurs a little; images that keep their pixels show
            the network how sharp those are that it will embed.
        flip: Probability of a mirror image.
        brightness: Added to every value.
        contrast: Of the logarithm of the factor of values about their mean.
        gamma: Of the logarithm of the exponent.
        channel: Of the logarithm of a gain for each channel.
        light: Of a gain that changes linearly across the image, in a random direction.
        noise: Largest standard deviation of Gaussian noise; each image draws its own.
        erase: Probability that a rectangle, of a fifth to a half of each side, is filled with the image's mean.
    """

    shift: float = 0.06
    scale: float = 0.08
    rotation: float = 8.0
    move: float = 0.7
    flip: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.25
    gamma: float = 0.25
    channel: float = 0.08
    light: float = 0.2
    noise: float = 0.03
    erase: float = 0.25

    def __post_init__(self) -> None:
        for entry in fields(self):
            check_at_least(f"augment.{entry.name}", getattr(self, entry.name), 0)
        for name in ("move", "flip", "erase"):
            check_share(f"augment.{name}", getattr(self, name))


@dataclass(frozen=True)
class TrainConfig:
    """What is trained and how.

    Attributes:
        arch: ``small`` (96 px on a CPU), ``resnet18``, ``torchvision:NAME`` or ``timm:NAME``.
        size: Side in pixels to which images are resized; 0 takes the network's own: 96 for ``small``, else 224.
        layers: Taps whose channel statistics the exported file returns; empty takes the network's own.
        epochs: Length of the learning-rate cycle, in passes over as many images as there are.
        batch: Images in a step.
        lr: Peak of the learning rate.
        weight_decay: Of AdamW.
        label_smoothing: Of the cross-entropy.
        dropout: Of the embedding, before the classifier.
        validation: Share of the source subjects that are held out to choose the epoch; at least one of them.
        patience: Epochs without a better score after which training ends.
        refit: Train again on all source subjects, for as many epochs as were best.
        amp: Mixed precision on CUDA.
        ram_mb: Decoded images up to this many megabytes stay in RAM; more are put into a file beside the checkpoint.
        augment: How training images are changed.

    Raises:
        ConfigError: A value out of range.
    """

    arch: str = "small"
    size: int = 0
    layers: tuple[str, ...] = ()
    epochs: int = 60
    batch: int = 64
    lr: float = 0.004
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    dropout: float = 0.2
    validation: float = 0.2
    patience: int = 30
    refit: bool = True
    amp: bool = True
    ram_mb: int = 2048
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        least = {"size": 0, "epochs": 1, "batch": 2, "patience": 1, "ram_mb": 0, "weight_decay": 0}
        for name, value in least.items():
            check_at_least(name, getattr(self, name), value)
        if not self.lr > 0:
            raise ConfigError(f"lr = {self.lr} must be above 0")
        for name in ("label_smoothing", "dropout", "validation"):
            check_share(name, getattr(self, name))
        if not 0 < self.validation < 1 or self.dropout == 1:
            raise ConfigError("validation must be between 0 and 1 without the two, and dropout below 1")

    def with_values(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return a copy with some values replaced; keys of the augmentation start with ``augment.``.

        Args:
            values: Key to value; strings are converted to the field's type.

        Raises:
            ConfigError: An unknown key, or a value of the wrong type or range.
        """
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

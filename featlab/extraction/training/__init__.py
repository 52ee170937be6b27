"""Every setting of a backbone's training, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from featlab.config.options import Options, option
from featlab.errors import ConfigError

_MOVED = "move is the fraction of images that are shifted, scaled and turned, by how much is fixed"
_LIT = "light scales all changes of light together"


@dataclass(frozen=True)
class TrainConfig(Options):
    """What is trained and how."""

    renamed: ClassVar[Mapping[str, str]] = {f"augment.{name}": name for name in ("move", "flip", "noise", "erase")}
    removed: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("augment.shift", "augment.scale", "augment.rotation"), _MOVED),
        **dict.fromkeys(("augment.gamma", "augment.channel", "augment.light"), _LIT),
        **dict.fromkeys(("augment.contrast", "augment.brightness"), _LIT),
    }

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
    # How a training image is changed, anew each time that it is seen; 0 turns a change off.
    flip: float = option(0.5, "Probability of a mirror image.", minimum=0, maximum=1)
    move: float = option(
        0.7,
        "Probability that an image is shifted, scaled and turned. Resampling blurs a little; images that keep their "
        "pixels show the network how sharp those are that it will embed.",
        minimum=0,
        maximum=1,
    )
    light: float = option(
        1.0, "Strength of changes of gamma, contrast, brightness, the colours' gains, the light's direction.", minimum=0
    )
    noise: float = option(0.03, "Largest standard deviation of Gaussian noise; each image draws its own.", minimum=0)
    erase: float = option(
        0.25,
        "Probability that a rectangle, of a fifth to a half of each side, is filled with the image's mean.",
        minimum=0,
        maximum=1,
    )

    def check_together(self) -> None:
        """Refuse values at the end of a range that stands for nothing."""
        if not self.lr > 0:
            raise ConfigError(f"{self.key('lr')} = {self.lr} must be above 0")
        if not 0 < self.validation < 1 or self.dropout == 1:
            raise ConfigError("validation must be between 0 and 1 without the two, and dropout below 1")

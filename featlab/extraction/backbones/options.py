"""Options that every network has, read from keywords or from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from featlab.errors import ConfigError
from featlab.extraction.backbones.base import config_from_options
from featlab.extraction.backbones.inputs import InputSpec

__all__ = ["NetworkOptions", "network_options", "require_argument"]


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
        """Return the network's own input with what was chosen put in.

        Raises:
            ConfigError: A value out of range.
        """
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

    Args:
        name: Of the backbone, for messages.
        kind: The dataclass to build.
        options: Keywords of `make_backbone`.

    Raises:
        ConfigError: An unknown option (names the closest), or a value of the wrong type.
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
    """Return what follows the colon.

    Raises:
        ConfigError: Nothing does; says what is ``wanted`` there.
    """
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

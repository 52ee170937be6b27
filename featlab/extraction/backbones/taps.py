"""Channel statistics of a network's layers, taken by forward hooks and appended to the embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from featlab.errors import ConfigError, closest

__all__ = ["Statistics", "Taps", "appended", "channel_statistics", "check_layers", "position_axes"]

Statistics = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel: float32 (n, C) both."""

_SHOWN = 12


def position_axes(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the axes that count positions, or None when there are fewer than two positions.

    A map is (n, C, H, W). It is (n, H, W, C) where only that makes it square, as in Swin transformers: the input always
    is. Tokens are (n, T, C), with a class token counted as one of them.
    """
    if len(shape) == 4:
        axes: tuple[int, ...] = (1, 2) if shape[1] == shape[2] != shape[3] else (2, 3)
    elif len(shape) == 3:
        axes = (1,)
    else:
        return None
    positions = 1
    for axis in axes:
        positions *= shape[axis]
    return axes if positions > 1 else None


def channel_statistics(output: Tensor) -> Statistics | None:
    """Return each image's mean and population standard deviation over positions, computed in float32.

    Args:
        output: (n, C, H, W), (n, H, W, C) or (n, T, C); see `position_axes`.

    Returns:
        Two float32 tensors (n, C); None when the output has no positions.
    """
    axes = position_axes(output.shape)
    if axes is None:
        return None
    variance, mean = torch.var_mean(output.float(), dim=axes, correction=0)
    return mean, variance.sqrt()


def appended(embedding: Tensor, layers: Sequence[str], statistics: Mapping[str, Statistics]) -> Tensor:
    """Return (n, D) with each layer's channel means and standard deviations after it, layer by layer."""
    return torch.cat([embedding, *(part for layer in layers for part in statistics[layer])], dim=1)


def check_layers(backbone: str, layers: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ConfigError for a layer that isn't known; names the closest, and what there is."""
    for layer in layers:
        if layer not in known:
            shown = ", ".join(known[:_SHOWN]) + (f", ... {len(known)} in all" if len(known) > _SHOWN else "")
            has = shown or "none that can be tapped"
            raise ConfigError(f"{backbone} has no layer {layer!r}{closest(layer, known)} (it has: {has})")


class Taps:
    """Hooks on some modules of a network.

    Args:
        backbone: Its name, for messages.
        module: The network.
        layers: Names of modules, as `named_modules` writes them.

    Raises:
        ConfigError: A name that isn't there; names the closest.
    """

    def __init__(self, backbone: str, module: nn.Module, layers: Sequence[str]) -> None:
        modules = {name: child for name, child in module.named_modules() if name}
        check_layers(backbone, layers, list(modules))
        self._backbone = backbone
        self._modules = {layer: modules[layer] for layer in layers}

    @contextmanager
    def collect(self) -> Iterator[dict[str, Statistics]]:
        """Yield a dict that one forward pass fills: layer to statistics.

        Raises:
            ConfigError: After the pass, for a layer that wasn't called, was called twice or has no positions.
        """
        found: dict[str, Statistics] = {}
        handles = [
            child.register_forward_hook(partial(self._take, layer, found)) for layer, child in self._modules.items()
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
        for layer in self._modules:
            if layer not in found:
                raise ConfigError(f"{self._backbone}: the layer {layer!r} isn't called in a forward pass; tap another")

    def _take(self, layer: str, found: dict[str, Statistics], module: nn.Module, args: Any, output: Any) -> None:
        # At once: a later layer may work in place on this output.
        if layer in found:
            raise ConfigError(
                f"{self._backbone}: the layer {layer!r} is called more than once in a forward pass; tap one that isn't"
            )
        tensor = _tensor_of(output)
        statistics = None if tensor is None else channel_statistics(tensor)
        if statistics is None:
            shape = tuple(tensor.shape) if tensor is not None else type(output).__name__
            raise ConfigError(
                f"{self._backbone}: the layer {layer!r} has no positions to take statistics of (its output: {shape}); "
                "tap one with maps (n, C, H, W) or tokens (n, T, C)"
            )
        found[layer] = statistics


def _tensor_of(output: Any) -> Tensor | None:
    """Return the tensor of a layer's output: itself, the first of a tuple, or a transformer's hidden states."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output:
        return _tensor_of(output[0])
    hidden = getattr(output, "last_hidden_state", None)
    return hidden if isinstance(hidden, Tensor) else None

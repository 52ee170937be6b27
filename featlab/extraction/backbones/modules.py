"""A `torch.nn.Module` as a network, and the channel statistics of its layers, taken by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from featlab.compute import choose_device, computing
from featlab.errors import ConfigError, closest
from featlab.extraction.backbones.network import NetworkBackbone, as_embedding, network_backbone
from featlab.extraction.backbones.options import InputSpec, NetworkOptions

AMP_NOTE = "float16 autocast"


class ModuleNetwork:
    """Runs a module on a device."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        layers: Sequence[str],
        *,
        device: torch.device,
        amp: bool = False,
        channels_last: bool = False,
        pick: Callable[[Any], Any] | None = None,
    ) -> None:
        self.device = device
        self.layers = tuple(layers)
        self._name = name
        self._amp = amp
        self._memory = torch.channels_last if channels_last else torch.contiguous_format
        self.module = module.eval().requires_grad_(False).to(device)
        if channels_last:
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._taps = Taps(name, self.module, layers)
        self.pick = pick or (lambda output: output)

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S)."""
        with computing(self.device, amp=self._amp):
            return self.vectors(images.contiguous(memory_format=self._memory))

    def vectors(self, images: Tensor) -> Tensor:
        """Embed as the call does, in whatever mode torch is in; torch.export can trace it."""
        with self._taps.collect() as statistics:
            output = self.module(images)
        return appended(as_embedding(self._name, self.pick(output), images.shape[0]), self.layers, statistics)


def module_backbone(
    name: str,
    module: nn.Module,
    options: NetworkOptions,
    own: InputSpec,
    *,
    id: str,
    weights: str,
    channels_last: bool = False,
    pick: Callable[[Any], Any] | None = None,
    notes: Sequence[str] = (),
    versions: dict[str, str] | None = None,
) -> NetworkBackbone:
    """Make a backbone of a module with its weights in it."""
    network = ModuleNetwork(
        name,
        module,
        options.layers,
        device=choose_device(options.device, amp=options.amp),
        amp=options.amp,
        channels_last=channels_last,
        pick=pick,
    )
    return network_backbone(
        name,
        network,
        options.input_spec(own),
        id=id,
        weights=weights,
        notes=(*notes, AMP_NOTE) if options.amp else notes,
        versions=versions,
    )


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
    """Return each image's mean and population standard deviation over positions, computed in float32."""
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
    """Hooks on some modules of a network."""

    def __init__(self, backbone: str, module: nn.Module, layers: Sequence[str]) -> None:
        modules = {name: child for name, child in module.named_modules() if name}
        check_layers(backbone, layers, list(modules))
        self._backbone = backbone
        self._modules = {layer: modules[layer] for layer in layers}

    @contextmanager
    def collect(self) -> Iterator[dict[str, Statistics]]:
        """Yield a dict that one forward pass fills: layer to statistics."""
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

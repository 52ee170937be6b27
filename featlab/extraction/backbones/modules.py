"""A `torch.nn.Module` as a network: evaluation mode, taps, mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featlab.compute import choose_device, computing
from featlab.extraction.backbones.inputs import InputSpec
from featlab.extraction.backbones.network import NetworkBackbone, as_embedding, network_backbone
from featlab.extraction.backbones.options import NetworkOptions
from featlab.extraction.backbones.taps import Taps, appended

__all__ = ["ModuleNetwork", "module_backbone"]

AMP_NOTE = "float16 autocast"


class ModuleNetwork:
    """Runs a module on a device.

    Args:
        name: Of the backbone, for messages.
        module: Returns one vector an image, or what ``pick`` makes one of; put into evaluation mode and moved.
        layers: Modules whose statistics are appended.
        device: Where.
        amp: float16 autocast.
        channels_last: Keep maps in channels-last memory, which convolutions are faster in. Only for code that is known
            to take it: a ``view`` in a module's forward may not.
        pick: Finds the embedding in the module's output.

    Raises:
        ConfigError: A layer that the module hasn't.
    """

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
        """Embed float32 (n, 3, S, S).

        Raises:
            ConfigError: The output isn't one vector an image, or a layer has no positions.
        """
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
    """Make a backbone of a module with its weights in it.

    Args:
        name: What the user wrote.
        module: See `ModuleNetwork`.
        options: The user's.
        own: The module's own input, before the options.
        id: See `network_backbone`; also the next three.
        weights: sha256.
        channels_last: See `ModuleNetwork`.
        pick: See `ModuleNetwork`.
        notes: What else changes values.
        versions: Of libraries.

    Raises:
        ConfigError: Options, device, layers or the module's output don't fit.
    """
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

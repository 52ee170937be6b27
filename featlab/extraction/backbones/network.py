"""The backbone that every network is used through: batches in the main process, while the workers decode and crop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.cache.schema import ExtractorInfo
from featlab.compute import choose_device, computing
from featlab.errors import ConfigError, FeatlabError, closest, listed, one_line
from featlab.extraction.backbones import APPENDED, Image, InputSpec, NetworkOptions


class Network(Protocol):
    """Something that embeds normalised images."""

    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S), which may be in channels-last memory, as (n, D)."""
        ...


@dataclass(frozen=True)
class NetworkBackbone:
    """A network as a backbone; made by `network_backbone`."""

    name: str  # What the user wrote
    network: Network
    prepare: InputSpec  # The network's input; the workers cut images to it
    extractor: ExtractorInfo  # Identity of the embeddings
    needs_images: bool = True
    needs_landmarks: bool = False
    in_worker: bool = False
    texts: Callable[[Sequence[str]], NDArray[np.float32]] | None = None  # See `FeatureTable.prompts`

    def info(self) -> ExtractorInfo:
        """Identity of the embeddings: weights, input, layers and precision are part of it; the device isn't."""
        return self.extractor

    def embed(self, images: Sequence[Image], landmarks: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Embed n images in one batch; see `Backbone.embed`. Landmarks are not used."""
        square = (self.prepare.size, self.prepare.size)
        fitted = [image if image.shape[:2] == square else self.prepare(image) for image in images]
        return _run(self.name, self.network, self.prepare, np.stack(fitted)).float().cpu().numpy()


def network_backbone(
    name: str,
    network: Network,
    spec: InputSpec,
    options: NetworkOptions,
    *,
    id: str,
    weights: str,
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    trained_on: Sequence[str] = (),
) -> NetworkBackbone:
    """Make a backbone of a network, after a trial on two images."""
    shape = (2, spec.size, spec.size, 3)
    _run(name, network, spec, np.linspace(0, 255, math.prod(shape)).astype(np.uint8).reshape(shape))
    said = [spec.describe(), *notes]
    if options.prefix is not None:
        said.append(f"weights under {options.prefix}")
    said += [note for note, holds in (("float16 autocast", options.amp), (APPENDED, options.layers)) if holds]
    extractor = ExtractorInfo(
        id=id,
        weights=weights,
        preprocessing=", ".join(said),
        layers=options.layers,
        versions={"torch": torch.__version__, "pillow": PIL.__version__, "numpy": np.__version__, **(versions or {})},
        trained_on=tuple(trained_on),
    )
    return NetworkBackbone(name, network, spec, extractor)


def as_embedding(name: str, output: Any, rows: int) -> Tensor:
    """Return a network's output as (n, D); a map of one position, (n, D, 1, 1), counts as one."""
    if isinstance(output, tuple | list) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ConfigError(f"{name} returned a {type(output).__name__}; it must return one tensor (n, D)")
    shape = tuple(output.shape)
    if shape[2:] == (1, 1):
        output = output.flatten(1)
    if output.ndim != 2 or output.shape[0] != rows or output.shape[1] == 0 or not output.is_floating_point():
        raise ConfigError(
            f"{name} returned {str(output.dtype).removeprefix('torch.')} {shape} for {rows} images; it must return "
            "floats (n, D), one vector an image (pool the map or the tokens in the network)"
        )
    vectors: Tensor = output
    return vectors


def joined(name: str, outputs: Sequence[Any], rows: int) -> Tensor:
    """Return a network's embedding and the statistics of its layers as one vector an image, (n, D)."""
    return torch.cat([as_embedding(name, output, rows) for output in outputs], dim=1)


def in_fixed_batches(run: Callable[[Tensor], Tensor], images: Tensor, batch: int | None) -> Tensor:
    """Run a network that takes only ``batch`` images at once; the last images are repeated to fill it up."""
    if batch is None or batch == len(images):
        return run(images)
    parts = []
    for part in torch.split(images, batch):
        filled = torch.cat([part, part[-1:].expand(batch - len(part), -1, -1, -1)])
        parts.append(run(filled)[: len(part)])
    return torch.cat(parts)


def _run(name: str, network: Network, spec: InputSpec, images: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(images).to(network.device).float()
    mean, std = (torch.tensor(values, dtype=torch.float32, device=pixels.device) for values in (spec.mean, spec.std))
    try:
        # The memory stays in the order of the pixels.
        return network(pixels.div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2))
    except FeatlabError:
        raise
    except torch.cuda.OutOfMemoryError:
        raise FeatlabError(f"{name}: {len(images)} images are too many for the GPU's memory; lower --batch") from None
    except Exception as error:
        # Whatever the network lets through: a wrong size is a RuntimeError in one, an AssertionError in another.
        raise ConfigError(
            f"{name} can't embed images of {spec.size}x{spec.size} ({type(error).__name__}: {one_line(error)}); "
            "if it was made for another size, say so with the option size"
        ) from error


@dataclass(eq=False)
class ModuleNetwork:
    """Runs a module on a device."""

    taps: Taps  # The module, and the layers whose statistics are appended
    device: torch.device
    amp: bool
    memory: torch.memory_format = torch.contiguous_format  # How the images lie in it
    batch: int | None = None  # How many images it takes at once; None: any number
    pick: Callable[[Any], Sequence[Any]] = lambda output: [output]  # Takes the vectors from what the module returns

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S)."""
        with computing(self.device, amp=self.amp):
            return in_fixed_batches(self.vectors, images.contiguous(memory_format=self.memory), self.batch)

    def vectors(self, images: Tensor) -> Tensor:
        """Embed as many images as the module takes, in whatever mode torch is in; an export traces it."""
        output, statistics = self.taps.run(images)
        return joined(self.taps.name, [*self.pick(output), *statistics], images.shape[0])


def module_backbone(
    name: str,
    module: nn.Module,
    options: NetworkOptions,
    own: InputSpec,
    *,
    channels_last: bool = False,
    pick: Callable[[Any], Sequence[Any]] = lambda output: [output],
    **about: Any,
) -> NetworkBackbone:
    """Make a backbone of a module with its weights in it; ``about`` are `network_backbone`'s id, weights and so on."""
    device = choose_device(options.device, amp=options.amp)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    module = module.eval().requires_grad_(False).to(device)
    if channels_last:
        module = module.to(memory_format=memory)  # type: ignore[call-overload]
    taps = Taps(name, module, options.layers)
    network = ModuleNetwork(taps, device, options.amp, memory, pick=pick)
    return network_backbone(name, network, options.input_spec(own), options, **about)


def channel_statistics(output: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return each image's mean and population standard deviation over positions, in float32; None without any two."""
    # A map is (n, C, H, W), or (n, H, W, C) where only that makes it square (Swin transformers); tokens are (n, T, C).
    shape = output.shape
    if len(shape) == 4:
        axes: tuple[int, ...] = (1, 2) if shape[1] == shape[2] != shape[3] else (2, 3)
    else:
        axes = (1,) if len(shape) == 3 else ()
    if math.prod(shape[axis] for axis in axes) < 2:
        return None
    variance, mean = torch.var_mean(output.float(), dim=axes, correction=0)
    return mean, variance.sqrt()


def check_layers(backbone: str, layers: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ConfigError for a layer that isn't known; names the closest, and what there is."""
    for layer in layers:
        if layer not in known:
            has = f"(it has: {listed(known, 12) or 'none that can be tapped'})"
            raise ConfigError(f"{backbone} has no layer {layer!r}{closest(layer, known)} {has}")


class Taps:
    """A module, and some modules in it whose channel statistics are wanted."""

    def __init__(self, name: str, module: nn.Module, layers: Sequence[str]) -> None:
        modules = {place: child for place, child in module.named_modules() if place}
        check_layers(name, layers, list(modules))
        self.name, self.module = name, module
        self._tapped = {layer: modules[layer] for layer in layers}

    def run(self, images: Tensor) -> tuple[Any, list[Tensor]]:
        """Return what the module returns, and the mean and the deviation, float32 (n, C), of each layer in turn."""
        found: dict[str, Sequence[Tensor]] = {}
        hooks = [
            child.register_forward_hook(partial(self._take, layer, found)) for layer, child in self._tapped.items()
        ]
        try:
            output = self.module(images)
        finally:
            for hook in hooks:
                hook.remove()
        for layer in self._tapped:
            if layer not in found:
                raise ConfigError(f"{self.name}: the layer {layer!r} isn't called in a forward pass; tap another")
        return output, [part for layer in self._tapped for part in found[layer]]

    def _take(self, layer: str, found: dict[str, Sequence[Tensor]], module: nn.Module, args: Any, output: Any) -> None:
        # At once: a later layer may work in place on this output.
        if layer in found:
            raise ConfigError(
                f"{self.name}: the layer {layer!r} is called more than once in a forward pass; tap one that isn't"
            )
        tensor = _tensor_of(output)
        statistics = None if tensor is None else channel_statistics(tensor)
        if statistics is None:
            shape = tuple(tensor.shape) if tensor is not None else type(output).__name__
            raise ConfigError(
                f"{self.name}: the layer {layer!r} has no positions to take statistics of (its output: {shape}); "
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

"""The networks that can be trained: by name, with the layers whose statistics the file will return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from featlab.errors import ConfigError, closest, one_line
from featlab.extraction.backbones.exported_program import load_program
from featlab.extraction.backbones.hubs import TAPS, bare_network, resnet18, small_resnet
from featlab.extraction.backbones.network import check_layers, position_axes
from featlab.extraction.backbones.weights import load_state_dict, read_state_dict


def default_size(arch: str) -> int:
    """Return the side in pixels of the images that a network is made for."""
    return 96 if arch == "small" else 224


ARCHES = ("small", "resnet18", "torchvision:NAME", "timm:NAME")


class Classifier(nn.Module):
    """Network, dropout, linear layer: normalised images to (n, K) logits."""

    def __init__(self, network: nn.Module, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, K) logits."""
        logits: Tensor = self.classifier(self.dropout(self.network(images)))
        return logits


@dataclass(frozen=True, eq=False)
class TrainableNetwork:
    """A network that turns (n, 3, S, S) normalised images into (n, D) embeddings."""

    module: nn.Module
    dim: int
    taps: tuple[str, ...]


def build_network(arch: str, size: int, layers: Sequence[str] = ()) -> TrainableNetwork:
    """Build a network with fresh weights, drawn from torch's default generator."""
    kind, _, name = arch.partition(":")
    if arch == "small":
        module: nn.Module = small_resnet()
    elif arch == "resnet18":
        module = resnet18()
    elif kind in ("torchvision", "timm") and name:
        module = bare_network(arch)
    else:
        hint = closest(arch, ("small", "resnet18", "torchvision:", "timm:"))
        raise ConfigError(f"no network is called {arch!r} (known: {', '.join(ARCHES)}){hint}")
    check_layers(arch, layers, [place for place, _ in module.named_modules() if place])
    dim, shapes = _probe(module, arch, size)
    # Of the usual layers those that this network has, and that have positions left at this size.
    usual = tuple(layer for layer in TAPS if layer in shapes and position_axes(shapes[layer]) is not None)
    for layer in layers:
        if position_axes(shapes.get(layer, ())) is None:
            raise ConfigError(
                f"the layer {layer!r} of {arch} has no positions to take statistics over at {size}x{size} pixels; "
                f"choose others{f', e.g. {usual[-1]}' if usual else ''}"
            )
    return TrainableNetwork(module, dim, tuple(layers) or usual)


def load_weights(arch: str, module: nn.Module, path: Path) -> None:
    """Start from a state dict, or a ``.pt2`` of ours: every tensor of the network must be there in its shape."""
    state = dict(load_program(path)[0].state_dict) if path.suffix == ".pt2" else read_state_dict(path)
    load_state_dict(arch, module, state, path)


def _probe(module: nn.Module, arch: str, size: int) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Return D, and the shape of each submodule's output for one image."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(place: str, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[place] = tuple(output.shape)

    hooks = [
        part.register_forward_hook(lambda _, __, output, place=place: note(place, output))
        for place, part in module.named_modules()
        if place
    ]
    module.eval()
    try:
        with torch.no_grad():
            out = module(torch.zeros(1, 3, size, size))
    except Exception as error:
        # A network says in its own way that it can't take a size (assertions, shapes that don't match).
        raise ConfigError(
            f"{arch} doesn't take images of {size}x{size} ({one_line(error)}); choose another --size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    module.train()
    if not isinstance(out, Tensor) or out.dim() != 2:
        raise ConfigError(f"{arch} doesn't return one vector an image; choose a classification network")
    return int(out.shape[1]), shapes

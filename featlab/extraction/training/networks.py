"""Residual networks (He et al., CVPR 2016) without their last linear layer: images in, pooled embeddings out.

Parameters carry torchvision's names and shapes, so that a state dict of its ``resnet18`` (also as SHOT and SFDA-PFT
release it: ``conv1``, ``bn1``, ``layer1`` to ``layer4``) loads as it is once ``fc`` is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from featlab.errors import ConfigError, closest
from featlab.extraction.backbones.exported_program import load_program
from featlab.extraction.backbones.modules import check_layers, position_axes
from featlab.extraction.backbones.network import one_line
from featlab.extraction.backbones.weights import load_state_dict, read_state_dict

__all__ = [
    "ARCHES",
    "SMALL_WIDTHS",
    "TAPS",
    "BasicBlock",
    "Network",
    "ResNet",
    "build_network",
    "default_size",
    "load_weights",
    "resnet18",
    "small_resnet",
]

TAPS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
"""Layers whose channel statistics say something about style: the stem's pooling and the four stages."""

SMALL_WIDTHS = (16, 32, 64, 128)
"""Channels of the four stages of `small_resnet`."""


class BasicBlock(nn.Module):
    """relu(x + F(x)) with F two 3x3 convolutions, each with BatchNorm; x goes through 1x1 where its shape changes.

    Args:
        channels: In.
        width: Out.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, width, H / stride, W / stride) of (n, channels, H, W)."""
        inner = self.relu(self.bn1(self.conv1(images)))
        inner = self.bn2(self.conv2(inner))
        shortcut = images if self.downsample is None else self.downsample(images)
        out: Tensor = self.relu(inner + shortcut)
        return out


class ResNet(nn.Module):
    """Stem (convolution of stride 2, max pooling of stride 2), four stages of basic blocks, mean over positions.

    Weights start as in the paper's code: He-normal convolutions (fan out), BatchNorm at 1 and 0.

    Args:
        widths: Channels of the four stages; the stem has the first one's.
        blocks: Basic blocks of the four stages. The first of each stage but the first halves the resolution.
        stem: Side of the stem's kernel, odd.

    Raises:
        ConfigError: Not four stages, an even kernel, or a number below 1.
    """

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), blocks: Sequence[int] = (2, 2, 2, 2), stem: int = 7
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4 or min((*widths, *blocks)) < 1:
            raise ConfigError(f"a ResNet has four stages of 1 or more blocks and channels, got {widths} and {blocks}")
        if stem < 1 or stem % 2 == 0:
            raise ConfigError(f"the stem's kernel has an odd side, got {stem}")
        self.dim = widths[3]
        self.conv1 = nn.Conv2d(3, widths[0], stem, stride=2, padding=stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(widths[0], widths[0], blocks[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], stride=2)
        self.layer4 = _stage(widths[2], widths[3], blocks[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, widths[3]) embeddings of (n, 3, H, W) normalised images, H and W 1 or more."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled


def resnet18() -> ResNet:
    """Build the 18-layer net for 224 px: 11,176,512 parameters, D = 512."""
    return ResNet()


def small_resnet(widths: Sequence[int] = SMALL_WIDTHS, blocks: Sequence[int] = (1, 1, 1, 1)) -> ResNet:
    """Build a net that a CPU trains in minutes on 96 px: 5x5 stem, one block a stage; D = the last width."""
    return ResNet(widths, blocks, stem=5)


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels, width, stride), *rest)


ARCHES = ("small", "resnet18", "torchvision:NAME", "timm:NAME")
_SIZES = {"small": 96}


@dataclass(frozen=True, eq=False)
class Network:
    """A network that turns (n, 3, S, S) normalised images into (n, D) embeddings.

    Attributes:
        module: The network.
        dim: D.
        taps: Layers whose channel statistics will be returned.
    """

    module: nn.Module
    dim: int
    taps: tuple[str, ...]


def default_size(arch: str) -> int:
    """Return the side in pixels that an architecture is made for."""
    return _SIZES.get(arch, 224)


def build_network(arch: str, size: int, layers: Sequence[str] = ()) -> Network:
    """Build a network with fresh weights, drawn from torch's default generator.

    Args:
        arch: One of `ARCHES`.
        size: Side of the images in pixels.
        layers: Taps; empty takes the stem's pooling and the stages, where the network has them.

    Raises:
        ConfigError: An unknown architecture or layer, a library that isn't installed, or a network that doesn't take
            images of this size.
    """
    kind, _, name = arch.partition(":")
    if arch == "small":
        module: nn.Module = small_resnet()
    elif arch == "resnet18":
        module = resnet18()
    elif kind == "torchvision" and name:
        module = _torchvision(name)
    elif kind == "timm" and name:
        module = _timm(name)
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
    return Network(module, dim, tuple(layers) or usual)


def load_weights(arch: str, module: nn.Module, path: Path) -> None:
    """Load a state dict as a starting point: every tensor of the network must be there in its shape.

    Args:
        arch: Name of the network, for messages.
        module: The network without its classifier.
        path: As `read_state_dict` takes it, or a ``.pt2`` of ours.

    Raises:
        InputError: The file can't be read.
        ConfigError: Its tensors don't fit; names some.
    """
    state = dict(load_program(path)[0].state_dict) if path.suffix == ".pt2" else read_state_dict(path)
    load_state_dict(arch, module, state, path)


def _torchvision(name: str) -> nn.Module:
    try:
        from torchvision.models import get_model, list_models

        from featlab.extraction.backbones.model_libraries import remove_head
    except ImportError as error:
        raise ConfigError("torchvision: networks need torchvision: pip install 'featlab[backbones]'") from error
    if name not in list_models():
        raise ConfigError(f"torchvision has no network {name!r}{closest(name, list_models())}")
    return remove_head(f"torchvision:{name}", get_model(name, weights=None))


def _timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError("timm: networks need timm: pip install 'featlab[backbones]'") from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no network {name!r}{closest(name, timm.list_models())}")
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return module


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

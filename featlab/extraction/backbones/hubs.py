"""Networks by their names, without a head: ``resnet18`` (built in), ``torchvision:NAME`` and ``timm:NAME``.

``timm:hf-hub:OWNER/NAME`` is a model of the Hugging Face hub in timm's form; ``@REVISION`` at the end pins a version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featlab.errors import ConfigError, closest, one_line
from featlab.extraction.backbones import (
    INTERPOLATIONS,
    InputSpec,
    NetworkOptions,
    library,
    network_options,
    require_argument,
)
from featlab.extraction.backbones.network import NetworkBackbone, module_backbone
from featlab.extraction.backbones.weights import RANDOM, module_with_weights, state_sha256

PRETRAINED = "pretrained"
# Where torchvision's families keep the layers after pooling.
_HEADS = ("fc", "classifier", "head", "heads")


def build_resnet18(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build the backbone called ``resnet18``; the options are the fields of `NetworkOptions`."""
    if argument is not None:
        raise ConfigError(f"the backbone 'resnet18' takes nothing after a colon, got {argument!r}")
    chosen = network_options("resnet18", NetworkOptions, options)
    module, sha = module_with_weights("resnet18", resnet18, chosen.weights, chosen.prefix)
    return module_backbone("resnet18", module, chosen, InputSpec(), id="resnet18", weights=sha, channels_last=True)


def remove_head(name: str, module: nn.Module) -> nn.Module:
    """Replace the last linear layer by the identity, so that the network returns what that layer reads.

    In ``fc``, ``classifier``, ``head`` or ``heads``, whichever the family has. Only that layer goes: what is before it
    (ConvNeXt's norm and flatten, VGG's first two linear layers, dropout) belongs to the embedding. SqueezeNet has a
    convolution there.
    """
    for head in _HEADS:
        root = getattr(module, head, None)
        if not isinstance(root, nn.Module):
            continue
        for kind in (nn.Linear, nn.Conv2d):
            last = [path for path, child in root.named_modules() if isinstance(child, kind)]
            if last:
                path = ".".join(part for part in (head, last[-1]) if part)
                parent, _, attribute = path.rpartition(".")
                setattr(module.get_submodule(parent), attribute, nn.Identity())
                return module
    raise ConfigError(
        f"{name} has no classification head (none of {', '.join(_HEADS)}); return the embedding from a function of "
        "your own and name it with python:MODULE:FACTORY"
    )


def bare_network(name: str, own: Any = None) -> nn.Module:
    """Build ``torchvision:NAME`` or ``timm:NAME`` without a head, with the library's ``own`` weights or random ones."""
    hub, network = _library(name)
    is_timm = hub.__name__ == "timm"
    try:
        if is_timm:
            module: nn.Module = hub.create_model(network, pretrained=own is not None, num_classes=0)
        else:
            module = hub.models.get_model(network, weights=own)
    except (OSError, RuntimeError, ValueError) as error:
        hint = "" if own is None else "; name a file with --weights"
        if network.startswith("hf-hub:"):  # What it looks like lies there too.
            there = network.removeprefix("hf-hub:").partition("@")[0]
            hint = f"; run `hf download {there}` where there is a network, and copy ~/.cache/huggingface from there"
        raise ConfigError(f"{name} can't be made ({one_line(error)}){hint}") from None
    return module if is_timm else remove_head(name, module)


def build_torchvision(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``torchvision:NAME``; the options are the fields of `NetworkOptions`."""
    name, chosen = _named("torchvision", argument, options, "resnet50")
    torchvision, network = _library(name)
    own = {weights.name: weights for weights in torchvision.models.get_model_weights(network)}
    default = torchvision.models.get_model_weights(network).DEFAULT if own else None
    wanted = {"DEFAULT": default, PRETRAINED: default, **own}.get(chosen.weights or "")
    spec = _torchvision_spec(wanted or default)
    return _backbone(name, torchvision, chosen, list(own), wanted, lambda module: spec)


def build_timm(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``timm:NAME``; the options are the fields of `NetworkOptions`."""
    name, chosen = _named("timm", argument, options, "resnet18.a1_in1k")
    timm, _ = _library(name)

    def spec(module: nn.Module) -> InputSpec:
        return _timm_spec(timm.data.resolve_data_config({}, model=module))

    wanted = PRETRAINED if chosen.weights == PRETRAINED else None
    return _backbone(name, timm, chosen, [PRETRAINED], wanted, spec)


def _named(hub: str, argument: str | None, options: Mapping[str, Any], example: str) -> tuple[str, NetworkOptions]:
    """Return ``hub:NETWORK`` and the options."""
    network = require_argument(hub, argument, f"a network's name, for example {hub}:{example}")
    return f"{hub}:{network}", network_options(f"{hub}:{network}", NetworkOptions, options)


def _library(name: str) -> tuple[Any, str]:
    """Return the library of ``library:NETWORK``, and the name of a network that it has."""
    package, _, network = name.partition(":")
    module = library(package, package, "backbones")
    if package == "timm":
        # With a colon it is a model of a hub.
        known = ":" in network or module.is_model(network)
        names, meant = module.list_models, network.partition(".")[0]
    else:
        names, meant = partial(module.models.list_models, module=module.models), network
        known = network in names()
    if not known:
        raise ConfigError(f"{package} {module.__version__} has no network {network!r}{closest(meant, names())}")
    return module, network


def _backbone(
    name: str,
    hub: Any,
    chosen: NetworkOptions,
    own: Sequence[str],
    wanted: Any,
    spec: Callable[[nn.Module], InputSpec],
) -> NetworkBackbone:
    """Make a backbone of a library's network with what is ``wanted`` of its own weights, or else with others."""
    weights = chosen.weights
    offered = f"a file, {RANDOM}, or {hub.__name__}'s own: {', '.join(own) or 'it has none'}"
    if wanted is not None:
        module = bare_network(name, wanted)
        sha = state_sha256(module)
    elif weights is None:
        raise ConfigError(f"{name}: choose weights with --weights: {offered}")
    elif weights != RANDOM and not Path(weights).exists() and "." not in Path(weights).name:
        raise ConfigError(f"{name}: --weights {weights} is none of {offered}{closest(weights, own)}")
    else:
        module, sha = module_with_weights(name, partial(bare_network, name), weights, chosen.prefix)
    versions = {hub.__name__: hub.__version__}
    return module_backbone(
        name, module, chosen, spec(module), id=name, weights=sha, channels_last=True, versions=versions
    )


def _torchvision_spec(weights: Any) -> InputSpec:
    """Return the size and the normalisation that the network's published weights were made with."""
    if weights is None:
        return InputSpec()
    transforms = weights.transforms()
    spec = InputSpec(size=int(transforms.crop_size[0]), mean=tuple(transforms.mean), std=tuple(transforms.std))
    return replace(spec, interpolation=transforms.interpolation.value)


def _timm_spec(config: Mapping[str, Any]) -> InputSpec:
    """Return timm's input of a network; its crop is left to the user, as faces come cropped."""
    interpolation = str(config.get("interpolation", "bilinear"))
    return InputSpec(
        size=int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
    )


TAPS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
"""Layers whose channel statistics say something about style: the stem's pooling and the four stages."""

SMALL_WIDTHS = (16, 32, 64, 128)
"""Channels of the four stages of `small_resnet`."""


class BasicBlock(nn.Module):
    """relu(x + F(x)) with F two 3x3 convolutions, each with BatchNorm; x goes through 1x1 where its shape changes."""

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
    """Stem (convolution of stride 2, max pooling of stride 2), four stages of basic blocks, mean over positions."""

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), blocks: Sequence[int] = (2, 2, 2, 2), stem: int = 7
    ) -> None:
        super().__init__()
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


def small_resnet(widths: Sequence[int] = SMALL_WIDTHS) -> ResNet:
    """Build a net that a CPU trains in minutes on 96 px: 5x5 stem, one block a stage; D = the last width."""
    return ResNet(widths, (1, 1, 1, 1), stem=5)


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(channels, width, stride), *rest)

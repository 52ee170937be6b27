"""Networks by their names, without a head: ``resnet18`` (built in), ``torchvision:NAME`` and ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featlab.errors import ConfigError, closest, one_line
from featlab.extraction.backbones import INTERPOLATIONS, InputSpec, NetworkOptions, network_options, require_argument
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


def build_torchvision(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``torchvision:NAME``; the options are the fields of `NetworkOptions`."""
    torchvision, network, chosen = _named("torchvision", argument, options, "resnet50")
    name, models = f"torchvision:{network}", torchvision.models
    known = models.list_models(module=models)
    if network not in known:
        raise ConfigError(f"torchvision {torchvision.__version__} has no network {network!r}{closest(network, known)}")

    own = {weights.name: weights for weights in models.get_model_weights(network)}
    default = models.get_model_weights(network).DEFAULT if own else None
    library = {"DEFAULT": default, "pretrained": default, **own}.get(chosen.weights or "")
    spec = _torchvision_spec(library or default)
    if library is not None:
        try:
            module = models.get_model(network, weights=library)
        except OSError as error:
            raise ConfigError(
                f"{name}: {library.name} can't be downloaded ({one_line(error)}); name a file with --weights"
            ) from None
        module = remove_head(name, module)
        sha = state_sha256(module)
    else:
        _check_weights(name, chosen.weights, tuple(own))
        module, sha = module_with_weights(
            name, lambda: remove_head(name, models.get_model(network, weights=None)), chosen.weights, chosen.prefix
        )
    return module_backbone(
        name,
        module,
        chosen,
        spec,
        id=name,
        weights=sha,
        channels_last=True,
        versions={"torchvision": torchvision.__version__},
    )


def _named(
    library: str, argument: str | None, options: Mapping[str, Any], example: str
) -> tuple[Any, str, NetworkOptions]:
    """Return the library, the network's name in it and the options."""
    network = require_argument(library, argument, f"a network's name, for example {library}:{example}")
    chosen = network_options(f"{library}:{network}", NetworkOptions, options)
    try:
        return import_module(library), network, chosen
    except ImportError:
        raise ConfigError(f"{library} networks need {library}: pip install 'featlab[backbones]'") from None


def _check_weights(name: str, weights: str | None, own: tuple[str, ...]) -> None:
    """Raise a ConfigError when no weights are named, or a name that neither torchvision nor the disk knows."""
    offered = f"torchvision's own are {', '.join(own)}" if own else "torchvision has none of its own"
    if weights is None:
        raise ConfigError(f"{name}: choose weights with --weights: a file, {RANDOM}, or a name; {offered}")
    if weights != RANDOM and not Path(weights).exists() and "." not in Path(weights).name:
        raise ConfigError(f"{name}: {weights!r} is neither a weights file nor a name; {offered}{closest(weights, own)}")


def _torchvision_spec(weights: Any) -> InputSpec:
    """Return the size and the normalisation that the network's published weights were made with."""
    if weights is None:
        return InputSpec()
    transforms = weights.transforms()
    spec = InputSpec(size=int(transforms.crop_size[0]), mean=tuple(transforms.mean), std=tuple(transforms.std))
    return replace(spec, interpolation=transforms.interpolation.value)


def build_timm(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``timm:NAME``; the options are the fields of `NetworkOptions`."""
    timm, network, chosen = _named("timm", argument, options, "resnet18.a1_in1k")
    name = f"timm:{network}"
    if ":" not in network and not timm.is_model(network):
        known = closest(network.partition(".")[0], timm.list_models())
        raise ConfigError(f"timm {timm.__version__} has no network {network!r}{known}")

    def make(pretrained: bool) -> nn.Module:
        try:
            module: nn.Module = timm.create_model(network, pretrained=pretrained, num_classes=0)
        except (OSError, RuntimeError, ValueError) as error:
            hint = "; name a file with --weights" if pretrained else ""
            raise ConfigError(f"{name} can't be made ({one_line(error)}){hint}") from None
        return module

    if chosen.weights == PRETRAINED:
        module = make(True)
        sha = state_sha256(module)
    else:
        if chosen.weights is None:
            raise ConfigError(f"{name}: choose weights with --weights: {PRETRAINED}, a file, or {RANDOM}")
        if chosen.weights != RANDOM and not Path(chosen.weights).exists() and "." not in Path(chosen.weights).name:
            raise ConfigError(f"{name}: {chosen.weights!r} is no weights file; --weights {PRETRAINED} takes timm's own")
        module, sha = module_with_weights(name, lambda: make(False), chosen.weights, chosen.prefix)
    return module_backbone(
        name,
        module,
        chosen,
        _timm_spec(timm.data.resolve_data_config({}, model=module)),
        id=name,
        weights=sha,
        channels_last=True,
        versions={"timm": timm.__version__},
    )


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

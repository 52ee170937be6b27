"""Networks that are modules of torch: ``resnet18``, those of torchvision and timm without a head, the user's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featlab.errors import ConfigError, FeatlabError, closest, one_line
from featlab.extraction.backbones import (
    INTERPOLATIONS,
    Backbone,
    InputSpec,
    NetworkOptions,
    library,
    network_options,
    require_argument,
)
from featlab.extraction.backbones.network import NetworkBackbone, module_backbone
from featlab.extraction.backbones.weights import RANDOM, built, module_with_weights, state_sha256

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
    """Replace the last linear layer (of SqueezeNet, the convolution) by the identity: what it reads is returned."""
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


def _build(package: str, example: str, argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build a library's network with its own weights, or with those of a file or random ones."""
    wanted = f"a network's name, for example {package}:{example}"
    name = f"{package}:{require_argument(package, argument, wanted)}"
    chosen = network_options(name, NetworkOptions, options)
    (hub, network), weights, spec = _library(name), chosen.weights, InputSpec()
    own: Mapping[str, Any] = {PRETRAINED: True}
    published = None
    if package == "torchvision":
        known = hub.models.get_model_weights(network)
        own = {entry.name: entry for entry in known}
        published = known.DEFAULT if own else None
    theirs = {"DEFAULT": published, PRETRAINED: published, **own}.get(weights or "")
    offered = f"a file, {RANDOM}, or {package}'s own: {', '.join(own) or 'it has none'}"
    if theirs is not None:
        module = bare_network(name, theirs)
        sha = state_sha256(module)
    elif weights is None:
        raise ConfigError(f"{name}: choose weights with --weights: {offered}")
    elif weights != RANDOM and not Path(weights).exists() and "." not in Path(weights).name:
        raise ConfigError(f"{name}: --weights {weights} is none of {offered}{closest(weights, list(own))}")
    else:
        module, sha = module_with_weights(name, partial(bare_network, name), weights, chosen.prefix)
    if published is not None:
        made = (theirs or published).transforms()
        size, interpolation = int(made.crop_size[0]), made.interpolation.value
        spec = InputSpec(size, tuple(made.mean), tuple(made.std), interpolation=interpolation)
    elif package == "timm":
        # Its crop is left to the user, as faces come cropped.
        told = hub.data.resolve_data_config({}, model=module)
        spec = InputSpec(int(told["input_size"][-1]), tuple(told["mean"]), tuple(told["std"]))
        if (interpolation := str(told.get("interpolation"))) in INTERPOLATIONS:
            spec = replace(spec, interpolation=interpolation)
    return module_backbone(
        *(name, module, chosen, spec), id=name, weights=sha, channels_last=True, versions={package: hub.__version__}
    )


build_torchvision = partial(_build, "torchvision", "resnet50")
build_timm = partial(_build, "timm", "resnet18.a1_in1k")


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


TAPS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
"""Layers whose channel statistics say something about style: the stem's pooling and the four stages."""


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
        stages = zip((widths[0], *widths), widths, blocks, (1, 2, 2, 2), strict=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(*stage) for stage in stages)
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


def small_resnet(widths: Sequence[int] = (16, 32, 64, 128)) -> ResNet:
    """Build a net that a CPU trains in minutes on 96 px: 5x5 stem, one block a stage; D = the last width."""
    return ResNet(widths, (1, 1, 1, 1), stem=5)


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, width, stride), *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))


_FUNCTION = "a module and a function in it, for example python:my_networks:face_net"


def build_python(argument: str | None, options: Mapping[str, Any]) -> Backbone:
    """Build ``python:MODULE:FACTORY``."""
    module_name, colon, attribute = require_argument("python", argument, _FUNCTION).rpartition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"python:{argument}: what follows the colon is {_FUNCTION}")
    name = f"python:{module_name}:{attribute}"
    known = {entry.name for entry in fields(NetworkOptions)}
    own = {key: value for key, value in options.items() if key not in known}
    ours = {key: value for key, value in options.items() if key in known}
    factory = _find_factory(name, module_name, attribute)
    made = _call_factory(name, factory, own, seed=0)
    if isinstance(made, nn.Module):
        return _of_module(name, factory, made, own, network_options(name, NetworkOptions, ours))
    if isinstance(made, Backbone):
        if ours:
            raise ConfigError(f"{name} returns a backbone, which has no option {next(iter(ours))!r}")
        return made
    raise ConfigError(f"{name} returned a {type(made).__name__}; it must return a torch.nn.Module or a Backbone")


def _of_module(name: str, factory: Any, module: nn.Module, own: Mapping[str, Any], options: NetworkOptions) -> Backbone:
    if options.weights is None:
        sha = state_sha256(module)
        if sha != state_sha256(_call_factory(name, factory, own, seed=1)):
            raise ConfigError(
                f"{name} gives other weights at every call: load them in the function, name a file with --weights, "
                f"or ask for random ones with --weights {RANDOM}"
            )
    else:
        module, sha = module_with_weights(name, lambda: module, options.weights, options.prefix)
    # The folders that a file is in go into no cache and no bundle.
    files = {key: Path(value).name for key, value in own.items() if isinstance(value, str) and os.path.exists(value)}
    notes = tuple(f"{key} {value}" for key, value in sorted({**own, **files}.items()))
    return module_backbone(name, module, options, InputSpec(), id=name, weights=sha, notes=notes)


def _find_factory(name: str, module_name: str, attribute: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        # As `python -m` does. It stays: a module may import others when it is called.
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "?")
        why = f"{type(error).__name__}: {one_line(error)}"
        if missing:
            why = f"no module {module_name!r}, neither installed nor in {here}"
        raise ConfigError(f"{name} can't be imported: {why}") from (None if missing else error)
    if not hasattr(module, attribute):
        known = [entry for entry in dir(module) if not entry.startswith("_")]
        raise ConfigError(f"{name}: the module {module_name} has no {attribute!r}{closest(attribute, known)}")
    return getattr(module, attribute)


def _call_factory(name: str, factory: Any, arguments: Mapping[str, Any], *, seed: int) -> Any:
    """Call the factory with torch's generator at ``seed``; a network or a backbone stands for itself."""
    if isinstance(factory, nn.Module) or (isinstance(factory, Backbone) and not isinstance(factory, type)):
        if arguments:
            raise ConfigError(f"{name} is no function, so it has no option {next(iter(arguments))!r}")
        return factory
    if not callable(factory):
        raise ConfigError(f"{name} is a {type(factory).__name__}; it must be a function that returns a torch.nn.Module")
    try:
        return built(lambda: factory(**arguments), seed)
    except FeatlabError:
        raise
    except Exception as error:
        raise ConfigError(f"{name} failed: {type(error).__name__}: {one_line(error)}") from error

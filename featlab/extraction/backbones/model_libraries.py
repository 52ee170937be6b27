"""Networks by their names, without a head: ``resnet18`` (built in), ``torchvision:NAME`` and ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from featlab.errors import ConfigError, closest, one_line
from featlab.extraction.backbones.modules import module_backbone
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.extraction.backbones.options import (
    INTERPOLATIONS,
    InputSpec,
    NetworkOptions,
    network_options,
    require_argument,
)
from featlab.extraction.backbones.resnet import resnet18
from featlab.extraction.backbones.weights import RANDOM, module_with_weights, state_sha256

PRETRAINED = "pretrained"
# Where torchvision's families keep the layers after pooling.
_HEADS = ("fc", "classifier", "head", "heads")


def build_resnet18(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build the backbone called ``resnet18``; the options are the fields of `NetworkOptions`."""
    if argument is not None:
        raise ConfigError(f"the backbone 'resnet18' takes nothing after a colon, got {argument!r}")
    chosen = network_options("resnet18", NetworkOptions, options)
    module, sha = module_with_weights("resnet18", resnet18, chosen.weights)
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
    network = require_argument("torchvision", argument, "a network's name, for example torchvision:resnet50")
    name = f"torchvision:{network}"
    chosen = network_options(name, NetworkOptions, options)
    try:
        import torchvision
        from torchvision import models
    except ImportError:
        raise ConfigError("torchvision networks need torchvision: pip install 'featlab[backbones]'") from None
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
            name, lambda: remove_head(name, models.get_model(network, weights=None)), chosen.weights
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
    network = require_argument("timm", argument, "a network's name, for example timm:resnet18.a1_in1k")
    name = f"timm:{network}"
    chosen = network_options(name, NetworkOptions, options)
    try:
        import timm
    except ImportError:
        raise ConfigError("timm networks need timm: pip install 'featlab[backbones]'") from None
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
        module, sha = module_with_weights(name, lambda: make(False), chosen.weights)
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

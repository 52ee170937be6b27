"""Networks of timm (PyTorch Image Models) without a classifier: ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from featlab.errors import ConfigError, closest
from featlab.extraction.backbones.inputs import INTERPOLATIONS, InputSpec
from featlab.extraction.backbones.modules import module_backbone
from featlab.extraction.backbones.network import NetworkBackbone, one_line
from featlab.extraction.backbones.options import NetworkOptions, network_options, require_argument
from featlab.extraction.backbones.weights import RANDOM, module_with_weights, state_sha256

__all__ = ["build"]

PRETRAINED = "pretrained"


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``timm:NAME``; the options are the fields of `NetworkOptions`.

    ``weights`` is "pretrained" (timm downloads those of the name, e.g. ``resnet18.a1_in1k``), a file, or "random". Size
    and normalisation are those of timm's configuration of the network.

    Raises:
        ConfigError: timm is missing, an unknown network, or options or weights that don't fit.
        InputError: The weights file can't be read.
    """
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
        _spec(timm.data.resolve_data_config({}, model=module)),
        id=name,
        weights=sha,
        channels_last=True,
        versions={"timm": timm.__version__},
    )


def _spec(config: Mapping[str, Any]) -> InputSpec:
    """Return timm's input of a network; its crop share is left to the user, as faces come cropped."""
    interpolation = str(config.get("interpolation", "bilinear"))
    return InputSpec(
        size=int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
    )

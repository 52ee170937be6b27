"""The built-in network: a ResNet-18 that needs no library beside torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featlab.errors import ConfigError
from featlab.extraction.backbones.inputs import InputSpec
from featlab.extraction.backbones.modules import module_backbone
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.extraction.backbones.options import NetworkOptions, network_options
from featlab.extraction.backbones.resnet import resnet18
from featlab.extraction.backbones.weights import module_with_weights

__all__ = ["build"]


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build the backbone called ``resnet18``; the options are the fields of `NetworkOptions`.

    Raises:
        ConfigError: An argument after a colon, an option that doesn't fit, no weights, or weights that don't fit.
        InputError: The weights file can't be read.
    """
    if argument is not None:
        raise ConfigError(f"the backbone 'resnet18' takes nothing after a colon, got {argument!r}")
    chosen = network_options("resnet18", NetworkOptions, options)
    module, sha = module_with_weights("resnet18", resnet18, chosen.weights)
    return module_backbone("resnet18", module, chosen, InputSpec(), id="resnet18", weights=sha, channels_last=True)

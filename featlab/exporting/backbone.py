"""From a backbone of the extraction to a network that can be exported in front of a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from featlab.cache import ExtractorInfo
from featlab.errors import InputError
from featlab.exporting.network import Network
from featlab.extraction.backbones.base import Backbone
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.image_prediction import check_backbone

__all__ = ["exportable_network"]


class _Embedder(nn.Module):
    """A network's module, and which of its outputs is the embedding."""

    def __init__(self, module: nn.Module, pick: Callable[[Any], Any] | None) -> None:
        super().__init__()
        self.module = module
        self.pick = pick

    def forward(self, images: Tensor) -> Tensor:
        output = self.module(images)
        if self.pick is not None:
            output = self.pick(output)
        if isinstance(output, Mapping):
            output = output["embedding"]
        if isinstance(output, tuple | list):
            output = output[0]
        # A map of one position, (n, D, 1, 1), counts as one vector.
        embedding: Tensor = output.flatten(1)
        return embedding


def exportable_network(backbone: Backbone, wanted: ExtractorInfo) -> Network:
    """Return a backbone as a network to export.

    Layers that are tapped for their statistics make no difference to the embedding, and what is done to an image before
    the network (an alignment) stays outside of the file: it is in the facts, as a part of the extractor's line.

    Args:
        backbone: From `make_backbone`, on the CPU.
        wanted: The extractor that the bundle was made for.

    Raises:
        InputError: The backbone is no torch network.
        BundleError: It is another one than the bundle's.
    """
    module = getattr(backbone.network, "module", None) if isinstance(backbone, NetworkBackbone) else None
    if not isinstance(backbone, NetworkBackbone) or not isinstance(module, nn.Module):
        raise InputError(
            f"the backbone {backbone.name!r} is no torch network, so it can't be exported; leave --backbone out, and "
            "the file takes embeddings"
        )
    made = backbone.info()
    before, same, _ = wanted.preprocessing.partition(made.preprocessing)
    if same and wanted.preprocessing == before + made.preprocessing:
        made = ExtractorInfo(made.id, made.weights, wanted.preprocessing, wanted.layers)
    check_backbone(wanted, made)
    spec = backbone.spec
    return Network(
        name=backbone.name,
        # It is in evaluation mode already, and a module of torch.export's refuses to be told so.
        module=_Embedder(module, getattr(backbone.network, "pick", None)),
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        preprocessing=wanted.preprocessing,
    )

"""A backbone that is a torch module, as the first half of what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from featlab.exporting.folding import FoldedHead

__all__ = ["ExportedNetwork", "Network"]


@dataclass(frozen=True, eq=False)
class Network:
    """A backbone that can be exported.

    Attributes:
        name: As it was asked for.
        module: Float32 images (n, 3, S, S), RGB, normalised, to embeddings (n, D), or to a dict with ``embedding``.
        size: S.
        mean: Subtracted from pixels in 0..1, a channel each.
        std: Divides what is left, a channel each.
        preprocessing: The readable line of the extractor.
    """

    name: str
    module: nn.Module
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    preprocessing: str

    def embed(self, images: Tensor) -> Tensor:
        """Return (n, D) embeddings."""
        return embedding_of(self.module(images))

    def facts(self) -> dict[str, Any]:
        """Return what images have to be like, JSON-ready."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "preprocessing": self.preprocessing,
        }


class ExportedNetwork(nn.Module):
    """Images to logits and probabilities: the backbone, then the folded head.

    Args:
        backbone: As `Network.module`.
        head: Of embeddings.
    """

    def __init__(self, backbone: nn.Module, head: FoldedHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` and ``probabilities``, (n, K) each, of (n, 3, S, S) images."""
        outputs: dict[str, Tensor] = self.head(embedding_of(self.backbone(images)))
        return outputs


def embedding_of(output: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return the embedding of a network's output, which may come with statistics of its layers."""
    return output["embedding"] if isinstance(output, Mapping) else output

"""What is exported: a person's model as one small network of embeddings, in files that say what they are.

In evaluation mode B (linear, BatchNorm) and C (linear) are one affine map, and so is the projection P; the temperature
divides all weights after the hidden layer. So

    y = embedding − mean
    logits = y · direct_weight + direct_bias + relu(y · hidden_weight + hidden_bias) · out_weight

is all of C(B(T(P(embedding)))) / temperature. Without an MLP in T (the light baselines), or with one whose output is
zero, the last term isn't there.

A file holds one JSON text, in each format at the place that it has for such things.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.errors import InputError
from featlab.extraction.backbones.exported_program import TEXT_KEY
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.extraction.training.export import Run, load_onnx, load_pt2, write_onnx, write_pt2
from featlab.model.networks import Affine, PersonalModel, SourceHead, Translator, head_map


class FoldedHead(nn.Module):
    """Embeddings to logits and probabilities, in closed form."""

    mean: Tensor  # (D0,) subtracted from every embedding.
    direct_weight: Tensor  # (D0, K), of the affine part.
    direct_bias: Tensor  # (K,)
    hidden_weight: Tensor  # (D0, H), of the hidden layer, where there is one.
    hidden_bias: Tensor  # (H,)
    out_weight: Tensor  # (H, K), of what the hidden layer adds.

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.has_hidden = "hidden_weight" in tensors

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` and ``probabilities``, (n, K) each, of (n, D0) embeddings."""
        centred = embeddings - self.mean
        logits = centred @ self.direct_weight + self.direct_bias
        if self.has_hidden:
            logits = logits + torch.relu(centred @ self.hidden_weight + self.hidden_bias) @ self.out_weight
        return {"logits": logits, "probabilities": torch.softmax(logits, dim=1)}


def fold(model: PersonalModel) -> FoldedHead:
    """Fold a person's model; the products are taken in float64 and rounded once."""
    components = _wide(model.projection.components)
    weight, bias, hidden = _translator(model.translator, components.shape[1])
    last, last_bias = _head(model.head)
    temperature = float(model.temperature)
    tensors = {
        "mean": model.projection.mean.detach().cpu().clone(),
        "direct_weight": components @ weight @ last / temperature,
        "direct_bias": (bias @ last + last_bias) / temperature,
    }
    # The output of a T that was never pretrained is zero: its hidden layer would be carried along for nothing.
    if hidden is not None and bool(hidden[2].any()):
        tensors |= {"hidden_weight": components @ hidden[0], "hidden_bias": hidden[1]}
        tensors["out_weight"] = hidden[2] @ last / temperature
    return FoldedHead({name: tensor.float().contiguous() for name, tensor in tensors.items()}).eval()


def _translator(part: nn.Module, dim: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """Return T as f · weight + bias + relu(f · hidden[0] + hidden[1]) · hidden[2], in float64."""
    identity = torch.eye(dim, dtype=torch.float64)
    if type(part) is nn.Identity:
        return identity, identity.new_zeros(dim), None
    if type(part) is Affine:
        return _wide(part.weight), _wide(part.bias), None
    if type(part) is Translator:
        offset, first, bias = _wide(part.offset), _wide(part.first.weight).T, _wide(part.last.bias)
        hidden = (first, _wide(part.first.bias) + offset @ first, _wide(part.last.weight).T)
        return (identity, bias + offset, hidden) if part.residual else (torch.zeros_like(identity), bias, hidden)
    raise _unknown(part, "a Translator, an Affine or nothing")


def _head(part: nn.Module) -> tuple[Tensor, Tensor]:
    if type(part) is nn.Linear:
        return _wide(part.weight).T, _wide(part.bias)
    if type(part) is SourceHead:
        return head_map(part)
    raise _unknown(part, "B and C, or a linear map")


def _unknown(part: nn.Module, known: str) -> InputError:
    return InputError(f"a model with a {type(part).__name__} can't be exported; a method makes {known}")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float64)


class NetworkWithHead(nn.Module):
    """Images to logits and probabilities: a `ModuleNetwork`, in evaluation mode already, then the folded head."""

    def __init__(self, network: Any, head: FoldedHead) -> None:
        super().__init__()
        self.module = network.taps.module
        self.network = network
        self.head = head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` and ``probabilities``, (n, K) each, of (n, 3, S, S) normalised images."""
        outputs: dict[str, Tensor] = self.head(self.network.vectors(images))
        return outputs


def export_metadata(
    bundle: Bundle, *, subject: str | None, method: str, network: NetworkBackbone | None = None
) -> dict[str, Any]:
    """Return what an exported file says about itself, JSON-ready.

    ``subject`` is None for the source model; ``network`` stands in front where images go in. What is done to an image
    before the network (an alignment) stays outside of the file: it is a part of the extractor's line.
    """
    from featlab import __version__

    metadata = {
        "format": "featlab-export",
        "format_version": 1,
        "featlab": __version__,
        "input": "embeddings" if network is None else "images",
        "outputs": ["logits", "probabilities"],
        "dim": len(bundle.projection.mean),
        "classes": list(bundle.classes),
        "neutral": bundle.neutral,
        "subject": subject,
        "method": method,
        "extractor": bundle.extractor.to_dict() | {"fingerprint": bundle.extractor.fingerprint},
        "seed": bundle.seed,
    }
    if network is not None:
        spec = network.prepare
        images = {"size": spec.size, "mean": list(spec.mean), "std": list(spec.std)}
        metadata["images"] = images | {"preprocessing": bundle.extractor.preprocessing}
    return metadata


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return the metadata as JSON text."""
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True)


def write_safetensors(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write the tensors of a folded head."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={TEXT_KEY: text}))


def load_safetensors(path: Path) -> tuple[Run, str]:
    """Return what computes logits from the file's tensors, and its text: plain torch, nothing of this package."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = file.metadata()[TEXT_KEY]
        t = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file isn't a dict

    def run(embeddings: Tensor) -> dict[str, Tensor]:
        y = embeddings - t["mean"]
        logits = y @ t["direct_weight"] + t["direct_bias"]
        if "hidden_weight" in t:
            logits = logits + torch.relu(y @ t["hidden_weight"] + t["hidden_bias"]) @ t["out_weight"]
        return {"logits": logits}

    return run, text


FORMATS = {
    "safetensors": (write_safetensors, load_safetensors),
    "onnx": (write_onnx, load_onnx),
    "pt2": (write_pt2, load_pt2),
}
"""What writes and what reads a file of each format, whose name it ends in."""

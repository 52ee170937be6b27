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

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.compute import quiet_export
from featlab.errors import InputError
from featlab.extraction.training.export import onnx_bytes, onnx_session, pt2_bytes
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


@dataclass(frozen=True, eq=False)
class _Map:
    """f ↦ f · weight + bias + relu(f · hidden[0] + hidden[1]) · hidden[2], in float64."""

    weight: Tensor
    bias: Tensor
    hidden: tuple[Tensor, Tensor, Tensor] | None = None


def fold(model: PersonalModel) -> FoldedHead:
    """Fold a person's model; the products are taken in float64 and rounded once."""
    components = _wide(model.projection.components)
    inner, outer = _translator(model.translator, components.shape[1]), _head(model.head)
    temperature = float(model.temperature)
    tensors = {
        "mean": model.projection.mean.detach().cpu().clone(),
        "direct_weight": components @ inner.weight @ outer.weight / temperature,
        "direct_bias": (inner.bias @ outer.weight + outer.bias) / temperature,
    }
    # The output of a T that was never pretrained is zero: its hidden layer would be carried along for nothing.
    if inner.hidden is not None and bool(inner.hidden[2].any()):
        weight, bias, out = inner.hidden
        tensors |= {"hidden_weight": components @ weight, "hidden_bias": bias}
        tensors["out_weight"] = out @ outer.weight / temperature
    return FoldedHead({name: tensor.float().contiguous() for name, tensor in tensors.items()}).eval()


def _translator(part: nn.Module, dim: int) -> _Map:
    identity = torch.eye(dim, dtype=torch.float64)
    if type(part) is nn.Identity:
        return _Map(identity, torch.zeros(dim, dtype=torch.float64))
    if type(part) is Affine:
        return _Map(_wide(part.weight), _wide(part.bias))
    if type(part) is Translator:
        offset, first, last = _wide(part.offset), _wide(part.first.weight).T, _wide(part.last.weight).T
        hidden = (first, _wide(part.first.bias) + offset @ first, last)
        bias = _wide(part.last.bias)
        if part.residual:
            return _Map(identity, bias + offset, hidden)
        return _Map(torch.zeros_like(identity), bias, hidden)
    raise _unknown(part, "a Translator, an Affine or nothing")


def _head(part: nn.Module) -> _Map:
    if type(part) is nn.Linear:
        return _Map(_wide(part.weight).T, _wide(part.bias))
    if type(part) is SourceHead:
        return _Map(*head_map(part))
    raise _unknown(part, "B and C, or a linear map")


def _unknown(part: nn.Module, known: str) -> InputError:
    return InputError(f"a model with a {type(part).__name__} can't be exported; a method makes {known}")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float64)


@dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A backbone that can be exported."""

    name: str  # As it was asked for.
    module: nn.Module  # Float32 images (n, 3, S, S), RGB, normalised, to embeddings (n, D).
    size: int  # S.
    mean: tuple[float, ...]  # Subtracted from pixels in 0..1, a channel each.
    std: tuple[float, ...]  # Divides what is left, a channel each.
    preprocessing: str  # The readable line of the extractor.

    def embed(self, images: Tensor) -> Tensor:
        """Return (n, D) embeddings."""
        embeddings: Tensor = self.module(images)
        return embeddings

    def input_metadata(self) -> dict[str, Any]:
        """Return what images have to be like, JSON-ready."""
        return {"size": self.size, "mean": list(self.mean), "std": list(self.std), "preprocessing": self.preprocessing}


class NetworkWithHead(nn.Module):
    """Images to logits and probabilities: the module of an `ImageNetwork`, then the folded head."""

    def __init__(self, backbone: nn.Module, head: FoldedHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` and ``probabilities``, (n, K) each, of (n, 3, S, S) images."""
        outputs: dict[str, Tensor] = self.head(self.backbone(images))
        return outputs


EXPORT_FORMAT = 1
KEY = "featlab"
"""Key of the text in safetensors' metadata and in ONNX's metadata_props."""
PT2_FILE = "featlab.json"
"""Name of the text among the extra files of a .pt2."""


def export_metadata(
    bundle: Bundle, *, subject: str | None, method: str, network: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what an exported file says about itself, JSON-ready.

    ``subject`` is None for the source model; ``network`` says what images have to be like, None where embeddings go in.
    """
    from featlab import __version__

    return {
        "format": "featlab-export",
        "format_version": EXPORT_FORMAT,
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
        **({"images": dict(network)} if network is not None else {}),
    }


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return the metadata as JSON text."""
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True)


SUFFIXES = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}
FORMATS = tuple(SUFFIXES.values())

Run = Callable[[Tensor], Tensor]  # Inputs to logits.


def write_safetensors(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write the tensors of a folded head."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={KEY: text}))


def write_pt2(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write a `torch.export` program of a module from one tensor to a dict with ``logits`` and ``probabilities``."""
    path.write_bytes(pt2_bytes(module, _argument(example), example, {PT2_FILE: text}))


def write_onnx(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write an ONNX model; see `write_pt2`."""
    path.write_bytes(onnx_bytes(module, _argument(example), example, ("logits", "probabilities"), {KEY: text}))


def run_safetensors(path: Path) -> tuple[Run, str]:
    """Return what computes logits from the file's tensors, and its metadata: plain torch, nothing of this package."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = file.metadata()[KEY]
        t = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file isn't a dict

    def logits(embeddings: Tensor) -> Tensor:
        y = embeddings - t["mean"]
        out: Tensor = y @ t["direct_weight"] + t["direct_bias"]
        if "hidden_weight" in t:
            out = out + torch.relu(y @ t["hidden_weight"] + t["hidden_bias"]) @ t["out_weight"]
        return out

    return logits, text


def run_pt2(path: Path) -> tuple[Run, str]:
    """Return what runs the program, and its metadata."""
    extra = {PT2_FILE: ""}
    with quiet_export(), path.open("rb") as file:
        program = torch.export.load(io.BytesIO(file.read()), extra_files=extra).module()

    def logits(inputs: Tensor) -> Tensor:
        out: Tensor = program(inputs)["logits"]
        return out

    return logits, str(extra[PT2_FILE])


def run_onnx(path: Path) -> tuple[Run, str]:
    """Return what runs the model in onnxruntime on the CPU, and its metadata."""
    session = onnx_session(path.read_bytes())
    name = session.get_inputs()[0].name

    def logits(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {name: inputs.numpy()})[0])

    return logits, str(session.get_modelmeta().custom_metadata_map[KEY])


def _argument(example: Tensor) -> str:
    """Name of the modules' argument: `FoldedHead.forward` takes rows, `NetworkWithHead.forward` pictures."""
    return "embeddings" if example.ndim == 2 else "images"

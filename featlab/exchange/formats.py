"""What an exported file says about itself: one JSON text, in each format at the place that it has for such things."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.compute import quiet_export
from featlab.errors import InputError
from featlab.exchange.folding import FoldedHead
from featlab.extraction.training.export import check_onnx, onnx_bytes, onnx_session, pt2_bytes

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

Run = Callable[[Tensor], Tensor]
"""Inputs to logits."""


def write_safetensors(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write the tensors of a folded head."""
    from safetensors.torch import save

    if not isinstance(module, FoldedHead):
        raise InputError("safetensors holds tensors and no network; export a backbone as onnx or pt2, or leave it out")
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={KEY: text}))


def write_pt2(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write a `torch.export` program of a module from one tensor to a dict with ``logits`` and ``probabilities``."""
    path.write_bytes(pt2_bytes(module, _argument(example), example, {PT2_FILE: text}))


def write_onnx(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write an ONNX model; see `write_pt2`."""
    check_onnx()
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

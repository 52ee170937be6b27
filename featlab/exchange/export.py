"""From a backbone of the extraction to a network that can be exported in front of a head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featlab.cache.atomic import SIDECAR, atomic_path, atomic_write_text, sum_of
from featlab.cache.schema import ExtractorInfo
from featlab.config.options import check_choice
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.exchange import formats
from featlab.exchange.formats import ImageNetwork, NetworkWithHead, fold, metadata_text
from featlab.extraction.backbones import Backbone
from featlab.extraction.backbones.network import NetworkBackbone
from featlab.extraction.training.export import check_onnx
from featlab.model.networks import PersonalModel, Projection, as_tensor
from featlab.workspace.predict_images import check_backbone


class _Embedder(nn.Module):
    """A backbone's network as a module."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.module = network.module
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.network.vectors(images)
        return embedding


def exportable_network(backbone: Backbone, wanted: ExtractorInfo) -> ImageNetwork:
    """Return a backbone as a network to export.

    What is done to an image before the network (an alignment) stays outside of the file: it is in the metadata, as a
    part of the extractor's line. ``wanted`` is the extractor that the bundle was made for.
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
        made = ExtractorInfo(made.id, made.weights, wanted.preprocessing, made.layers)
    check_backbone(wanted, made)
    spec = backbone.spec
    return ImageNetwork(
        name=backbone.name,
        # It is in evaluation mode already, and a module of torch.export's refuses to be told so.
        module=_Embedder(backbone.network),
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        preprocessing=wanted.preprocessing,
    )


TOLERANCE = 1e-4
"""Largest difference of a logit, times the largest logit where that is above 1 (float32 has seven digits)."""
_RANDOM_ROWS = 64
_MOST_ROWS = 4096


class ExportMismatch(FeatlabError, RuntimeError):
    """The file that was written computes something else than the model."""


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    path: Path  # The file.
    format: str  # One of `featlab.exchange.formats.FORMATS`.
    bytes: int  # Its size.
    rows: int  # Rows of the person on which it was run against ours.
    random_rows: int  # Random inputs on which it was.
    difference: float  # Largest absolute difference of a logit.
    metadata: Mapping[str, Any]  # What the file says about itself.


def format_of(path: Path, name: str | None = None, *, images: bool = False) -> str:
    """Return the format that was named, or the one that the file's suffix says.

    One that can't be written is refused here, before there is a model: without its libraries, or tensors alone where
    ``images`` are to go in.
    """
    if name is not None:
        check_choice("--format", name, formats.FORMATS)
    elif path.suffix.lower() not in formats.SUFFIXES:
        raise ConfigError(f"{path}: which format? end the name in {', '.join(formats.SUFFIXES)}, or say --format")
    wanted = name or formats.SUFFIXES[path.suffix.lower()]
    if wanted == "onnx":
        check_onnx()
    if wanted == "safetensors" and images:
        raise InputError("safetensors holds tensors and no network; export a backbone as onnx or pt2, or leave it out")
    return wanted


def export_model(
    model: PersonalModel,  # The person's, or the source model.
    out: Path,  # Replaced when it is there.
    format: str,  # One of `FORMATS`.
    metadata: Mapping[str, Any],  # From `export_metadata`.
    *,
    embeddings: NDArray[np.float32] | None = None,  # (n, D0) rows of the person to compare on; the first 4,096 are.
    network: ImageNetwork | None = None,  # The backbone, to take images; ``None``: a head that takes embeddings.
) -> ExportReport:
    """Export a model, re-load the file with its own runtime, and compare.

    The file appears under its name only when its logits are ours, on the person's rows and on random inputs; beside it
    lies its digest, as ``sha256sum -c`` reads it.
    """
    format_of(out, format, images=network is not None)
    head = fold(model)
    module: nn.Module = head if network is None else NetworkWithHead(network.module, head)
    random = torch.Generator().manual_seed(0)
    rows = _rows(model, embeddings)
    if network is None:
        inputs = torch.cat([rows, _random_embeddings(model.projection, random)])
        example = torch.zeros(2, inputs.shape[1])
    else:
        inputs = torch.randn(3, 3, network.size, network.size, generator=random)
        example = torch.zeros(2, 3, network.size, network.size)
        rows = rows[:0]
    with torch.no_grad():
        ours = model(inputs if network is None else network.embed(inputs))
    write = {"safetensors": formats.write_safetensors, "onnx": formats.write_onnx, "pt2": formats.write_pt2}[format]
    with atomic_path(out) as partial:
        try:
            write(partial, module, example, metadata_text(metadata))
        except RuntimeError as error:
            if network is None:
                raise
            # torch.export raises RuntimeErrors of many classes where a network does what can't be traced.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"the backbone {network.name!r} can't be exported as {format} ({reason[:200]})") from error
        difference = _difference(partial, format, inputs, ours, metadata)
        size = partial.stat().st_size
        atomic_write_text(out.with_name(out.name + SIDECAR), f"{sum_of(partial)}  {out.name}\n")
    return ExportReport(out, format, size, len(rows), len(inputs) - len(rows), difference, metadata)


def _difference(path: Path, format: str, inputs: Tensor, ours: Tensor, metadata: Mapping[str, Any]) -> float:
    """Return how far the file's logits are from ours, run all at once and the first row alone."""
    run, text = {"safetensors": formats.run_safetensors, "onnx": formats.run_onnx, "pt2": formats.run_pt2}[format](path)
    with torch.no_grad():
        theirs, alone = run(inputs), run(inputs[:1])
    shapes = theirs.shape == ours.shape and alone.shape == ours[:1].shape
    if not shapes or json.loads(text) != json.loads(metadata_text(metadata)):
        raise ExportMismatch(f"the {format} file does not read back as it was written; nothing was kept")
    difference = float(torch.maximum((theirs - ours).abs().max(), (alone - ours[:1]).abs().max()))
    allowed = TOLERANCE * max(1.0, float(ours.abs().max()))
    # Not "difference > allowed": that lets NaN pass.
    if not difference <= allowed:
        raise ExportMismatch(
            f"the {format} file's logits differ from the model's by {difference:.1e}, more than {allowed:.1e}; "
            "nothing was kept"
        )
    return difference


def _rows(model: PersonalModel, embeddings: NDArray[np.float32] | None) -> Tensor:
    width = len(model.projection.mean)
    if embeddings is None:
        return torch.empty(0, width)
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise InputError(f"embeddings have shape {embeddings.shape}, the model takes (n, {width})")
    return as_tensor(embeddings[:_MOST_ROWS])


def _random_embeddings(projection: Projection, random: torch.Generator) -> Tensor:
    """Return embeddings whose features are standard normal: what the model meets, about."""
    # Columns of every projection are orthogonal, so that this is the transpose of their pseudo-inverse.
    inverse = projection.components / projection.components.square().sum(dim=0)
    features = torch.randn(_RANDOM_ROWS, inverse.shape[1], generator=random)
    return projection.mean + features @ inverse.T

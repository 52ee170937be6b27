"""A person's model as a file for other programs, which is run against ours before it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from featlab.exchange.formats import FORMATS, NetworkWithHead, fold, metadata_text
from featlab.extraction.backbones import Backbone
from featlab.extraction.backbones.network import ModuleNetwork, NetworkBackbone
from featlab.extraction.training.export import Run, check_onnx
from featlab.model.networks import PersonalModel, Projection, as_tensor
from featlab.workspace.predict_images import check_backbone


def exportable_network(backbone: Backbone, wanted: ExtractorInfo) -> NetworkBackbone:
    """Return a backbone whose network can be exported; ``wanted`` is the extractor that the bundle was made for."""
    if not isinstance(backbone, NetworkBackbone) or not isinstance(backbone.network, ModuleNetwork):
        raise InputError(
            f"the backbone {backbone.name!r} is no torch network, so it can't be exported; leave --backbone out, and "
            "the file takes embeddings"
        )
    made = backbone.info()
    if wanted.preprocessing.endswith(made.preprocessing):
        # An alignment may come before.
        made = replace(made, preprocessing=wanted.preprocessing)
    check_backbone(wanted, made)
    return backbone


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
    wanted = name or path.suffix.lower().removeprefix(".")
    if name is not None:
        check_choice("--format", name, tuple(FORMATS))
    elif wanted not in FORMATS:
        raise ConfigError(f"{path}: which format? end the name in .{', .'.join(FORMATS)}, or say --format")
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
    network: NetworkBackbone | None = None,  # From `exportable_network`, to take images; ``None``: a head alone.
) -> ExportReport:
    """Export a model, re-load the file with its own runtime, and compare.

    The file appears under its name only when its logits are ours, on the person's rows and on random inputs; beside it
    lies its digest, as ``sha256sum -c`` reads it.
    """
    format_of(out, format, images=network is not None)
    head, random = fold(model), torch.Generator().manual_seed(0)
    module: nn.Module = head
    rows = _rows(model, embeddings if network is None else None)
    with torch.no_grad():
        if network is None:
            inputs = embedded = torch.cat([rows, _random_embeddings(model.projection, random)])
        else:
            inputs = torch.randn(3, 3, network.prepare.size, network.prepare.size, generator=random)
            module = NetworkWithHead(network.network, head)
            embedded = module.network.vectors(inputs)
        ours = model(embedded)
    write, load = FORMATS[format]
    with atomic_path(out) as partial:
        try:
            write(partial, module, torch.zeros(2, *inputs.shape[1:]), metadata_text(metadata))
        except RuntimeError as error:
            if network is None:
                raise
            # torch.export raises RuntimeErrors of many classes where a network does what can't be traced.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"the backbone {network.name!r} can't be exported as {format} ({reason[:200]})") from error
        difference = _difference(format, *load(partial), inputs, ours, metadata)
        size = partial.stat().st_size
        atomic_write_text(out.with_name(out.name + SIDECAR), f"{sum_of(partial)}  {out.name}\n")
    return ExportReport(out, format, size, len(rows), len(inputs) - len(rows), difference, metadata)


def _difference(format: str, run: Run, text: str, inputs: Tensor, ours: Tensor, metadata: Mapping[str, Any]) -> float:
    """Return how far a file's logits are from ours, run all at once and the first row alone."""
    with torch.no_grad():
        theirs, alone = run(inputs)["logits"], run(inputs[:1])["logits"]
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

"""A network as one file for `featlab extract`: torch.export (``.pt2``) or ONNX, as docs/backbone-files.md has it."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.cache.atomic import atomic_write_bytes
from featlab.cache.schema import parse_json
from featlab.compute import quiet_export
from featlab.errors import ConfigError, FeatlabError, InputError, one_line
from featlab.extraction.backbones import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from featlab.extraction.backbones.exported_program import (
    CARD_FILE,
    CARD_KEY,
    EMBEDDING,
    FORMAT,
    VERSION,
    statistics_names,
)
from featlab.extraction.backbones.network import Taps, as_embedding

OPSET = 18
"""Of an ONNX file; onnxruntime 1.14 and newer read it."""
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class BackboneMeta:
    """What has to be known of a network besides its weights; a size, mean or std that can't be is a ConfigError."""

    size: int  # S, side of the images in pixels
    id: str  # What the network is called in caches
    layers: tuple[str, ...] = ()  # Submodules whose channel statistics are returned, as in ``named_modules``
    mean: tuple[float, ...] = IMAGENET_MEAN  # Subtracted from RGB values in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD  # What that is divided by
    # Whatever else is to be known, JSON-ready: the training data, scores, the licence.
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        InputSpec(self.size, self.mean, self.std)

    def to_json(self, dim: int) -> str:
        """Return the text of ``featlab.json`` for embeddings of ``dim`` values."""
        content = {
            "format": FORMAT,
            "format_version": VERSION,
            "id": self.id,
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "layers": list(self.layers),
            "dim": dim,
            "card": dict(self.card),
        }
        return json.dumps(content, indent=2, ensure_ascii=False)


class Tapped(nn.Module):
    """A network that returns its embedding and the channel statistics of some of its submodules."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self._taps = Taps("the network", network, layers)
        self.network = network
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs, named as above, of (n, 3, S, S) images."""
        with self._taps.collect() as statistics:
            embedding = self.network(images)
        outputs = {EMBEDDING: as_embedding("the network", embedding, images.shape[0])}
        for name in self.layers:
            outputs |= dict(zip(statistics_names(name), statistics[name], strict=True))
        return outputs


def export_backbone(module: nn.Module, path: Path, meta: BackboneMeta) -> float:
    """Write a network as ``.pt2``, or as ONNX where the path ends so, once what is read back computes the same.

    The module takes normalised images; the caller's stays as it is. Returns the largest relative difference of outputs.
    """
    is_onnx = path.suffix == ".onnx"
    if is_onnx:
        check_onnx()
    network = copy.deepcopy(module).cpu().float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    tapped = Tapped(network, meta.layers).eval().requires_grad_(False)
    outputs: Outputs = tapped(torch.zeros(2, 3, meta.size, meta.size))
    text = meta.to_json(outputs["embedding"].shape[1])
    # Another number of images than the export sees.
    noise = torch.randn(3, 3, meta.size, meta.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            images = torch.zeros(2, 3, meta.size, meta.size)
            content, run = (_onnx if is_onnx else _pt2)(tapped, images, outputs, text)
        except Exception as error:
            raise ConfigError(f"torch can't export this network as {path.suffix} ({one_line(error)})") from error
        difference = _compare(path, tapped(noise), run(noise))
    atomic_write_bytes(path, content)
    return difference


Outputs = Mapping[str, Tensor]
Written = tuple[bytes, Callable[[Tensor], Outputs]]
"""A file's content, and what runs it."""


def _pt2(tapped: Tapped, images: Tensor, outputs: Outputs, text: str) -> Written:
    content = pt2_bytes(tapped, "images", images, {CARD_FILE: text})
    return content, torch.export.load(io.BytesIO(content)).module()


def _onnx(tapped: Tapped, images: Tensor, outputs: Outputs, text: str) -> Written:
    content = onnx_bytes(tapped, "images", images, list(outputs), {CARD_KEY: text})
    session = onnx_session(content)
    names = [output.name for output in session.get_outputs()]

    def run(batch: Tensor) -> Outputs:
        values = session.run(names, {"images": batch.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return content, run


def pt2_bytes(module: nn.Module, argument: str, example: Tensor, texts: Mapping[str, str]) -> bytes:
    """Return a `torch.export` program for any number of rows, with texts; ``example`` is kept in it: nobody's data."""
    buffer = io.BytesIO()
    with quiet_export():
        torch.export.save(_program(module, argument, example), buffer, extra_files=dict(texts))
    return buffer.getvalue()


def onnx_bytes(
    module: nn.Module, argument: str, example: Tensor, outputs: Sequence[str], texts: Mapping[str, str]
) -> bytes:
    """Return an ONNX model, weights inside, whose number of rows is free, and texts in its metadata."""
    with quiet_export():
        made = torch.onnx.export(
            _program(module, argument, example),
            dynamo=True,
            opset_version=OPSET,
            input_names=[argument],
            output_names=list(outputs),
            verbose=False,
        )
    assert made is not None  # a program comes back unless a file name was given
    model: Any = made.model_proto
    for key, text in texts.items():
        model.metadata_props.add(key=key, value=text)
    content: bytes = model.SerializeToString()
    return content


def onnx_session(content: bytes) -> Any:
    """Return what runs an ONNX model on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def check_onnx() -> None:
    """Raise a ConfigError where a library is missing: torch's exporter says so only deep inside."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"an ONNX file needs {', '.join(missing)}: pip install 'featlab[onnx]'")


def _program(module: nn.Module, argument: str, example: Tensor) -> torch.export.ExportedProgram:
    shapes = {argument: {0: torch.export.Dim.DYNAMIC}}
    return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)


def _compare(path: Path, expected: Outputs, found: Outputs) -> float:
    if set(found) != set(expected):
        raise FeatlabError(f"{path}: the file returns {sorted(found)}, the network {sorted(expected)}; not usable")
    worst = 0.0
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-6)
        worst = max(worst, float((value - found[name]).abs().max()) / scale)
    if not worst <= _TOLERANCE:
        raise FeatlabError(f"{path}: the file's outputs differ from the network's by {worst:.1e} of their size")
    return worst


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a ``.pt2`` file: people, classes, scores, as whoever made it wrote them."""
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive's one folder is named by torch, and where extra files lie depends on its version.
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == CARD_FILE]
            content = parse_json(archive.read(names[0]).decode("utf-8")) if names else None
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path} can't be read as a .pt2 file ({one_line(error)})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} has no {CARD_FILE} of a backbone: it wasn't written by `featlab backbone train`")
    return dict(content.get("card", {}))

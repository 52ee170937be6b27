"""A network as one file for `featlab extract`: torch.export (``.pt2``) or ONNX, as docs/backbone-files.md has it."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.cache.atomic import atomic_path
from featlab.compute import quiet_export
from featlab.errors import ConfigError, FeatlabError, InputError, one_line
from featlab.extraction.backbones.exported_program import EMBEDDING, TEXT_FILE, TEXT_KEY, output_names
from featlab.extraction.backbones.exported_program import BackboneMeta as BackboneMeta
from featlab.extraction.backbones.network import Taps, as_embedding

OPSET = 18
"""Of an ONNX file; onnxruntime 1.14 and newer read it."""
_TOLERANCE = 1e-5


class Tapped(nn.Module):
    """A network that returns its embedding and the channel statistics of some of its submodules."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self._taps = Taps("the network", network, layers)
        self.network = network
        self._names = output_names(layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs, named as `output_names` has them, of (n, 3, S, S) images."""
        embedding, statistics = self._taps.run(images)
        vectors = as_embedding("the network", embedding, images.shape[0])
        return dict(zip(self._names, (vectors, *statistics), strict=True))


def export_backbone(module: nn.Module, path: Path, meta: BackboneMeta) -> float:
    """Write a network as ``.pt2``, or as ONNX where the path ends so, once what is read back computes the same.

    The module takes normalised images; the caller's stays as it is. Returns the largest relative difference of outputs.
    """
    write, load = (write_onnx, load_onnx) if path.suffix == ".onnx" else (write_pt2, load_pt2)
    if write is write_onnx:
        check_onnx()
    network = copy.deepcopy(module).cpu().float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    tapped = Tapped(network, meta.layers).eval().requires_grad_(False)
    shape = (3, meta.size, meta.size)
    # Another number of images than the export sees.
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), atomic_path(path) as draft:
        expected = tapped(noise)
        try:
            write(draft, tapped, torch.zeros(2, *shape), meta.to_json(expected[EMBEDDING].shape[1]))
            run, _ = load(draft)
        except Exception as error:
            raise ConfigError(f"torch can't export this network as {path.suffix} ({one_line(error)})") from error
        return _compare(path, expected, run(noise))


def _compare(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    if set(found) != set(expected):
        raise FeatlabError(f"{path}: the file returns {sorted(found)}, the network {sorted(expected)}; not usable")
    worst = 0.0
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-6)
        worst = max(worst, float((value - found[name]).abs().max()) / scale)
    if not worst <= _TOLERANCE:
        raise FeatlabError(f"{path}: the file's outputs differ from the network's by {worst:.1e} of their size")
    return worst


Run = Callable[[Tensor], Mapping[str, Tensor]]
"""Runs what was read from a file: its inputs to its outputs, by name."""


def write_pt2(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write a `torch.export` program of a module from one tensor, of any number of rows, to a dict, with a text.

    ``example`` is kept in the file: nobody's data.
    """
    buffer = io.BytesIO()
    with quiet_export():
        torch.export.save(_program(module, example)[1], buffer, extra_files={TEXT_FILE: text})
    path.write_bytes(buffer.getvalue())


def load_pt2(path: Path) -> tuple[Run, str]:
    """Return what runs a program of `write_pt2`, and its text."""
    extra = {TEXT_FILE: ""}
    with quiet_export():
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
    return program.module(), str(extra[TEXT_FILE])


def write_onnx(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write an ONNX model, weights inside; see `write_pt2`."""
    argument, program = _program(module, example)
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    with quiet_export():
        made = torch.onnx.export(program, input_names=[argument], output_names=list(module(example)), **options)
    assert made is not None  # a program comes back unless a file name was given
    model: Any = made.model_proto
    model.metadata_props.add(key=TEXT_KEY, value=text)
    path.write_bytes(model.SerializeToString())


def load_onnx(path: Path) -> tuple[Run, str]:
    """Return what runs an ONNX model of `write_onnx` on the CPU, and its text."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (argument,), names = session.get_inputs(), [output.name for output in session.get_outputs()]

    def run(inputs: Tensor) -> Mapping[str, Tensor]:
        return dict(zip(names, map(torch.from_numpy, session.run(names, {argument.name: inputs.numpy()})), strict=True))

    return run, str(session.get_modelmeta().custom_metadata_map[TEXT_KEY])


def check_onnx() -> None:
    """Raise a ConfigError where a library is missing: torch's exporter says so only deep inside."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"an ONNX file needs {', '.join(missing)}: pip install 'featlab[onnx]'")


def _program(module: nn.Module, example: Tensor) -> tuple[str, torch.export.ExportedProgram]:
    """Return the name of a module's argument, pictures or rows, and its program for any number of them."""
    argument = "images" if example.ndim == 4 else "embeddings"
    shapes = {argument: {0: torch.export.Dim.DYNAMIC}}
    return argument, torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a ``.pt2`` file: people, classes, scores, as whoever made it wrote them."""
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive's one folder is named by torch, and where extra files lie depends on its version.
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == TEXT_FILE]
            text = archive.read(names[0]).decode("utf-8") if names else ""
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{path} can't be read as a .pt2 file ({one_line(error)})") from error
    if not text:
        raise InputError(f"{path} has no {TEXT_FILE}: it wasn't written by `featlab backbone train`")
    return dict(BackboneMeta.of_json(text, path).card)

"""The three formats: each written by its own library, and read back by a runtime that knows nothing of this package.

safetensors  the tensors of the folded head; a few lines of any language compute it (see `run_safetensors`)
pt2          torch.export; ``torch.export.load(path).module()``
onnx         ONNX through torch.onnx; onnxruntime
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featlab.errors import ConfigError, InputError
from featlab.exporting.facts import KEY, PT2_FILE
from featlab.exporting.folding import FoldedHead

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "run_onnx",
    "run_pt2",
    "run_safetensors",
    "write_onnx",
    "write_pt2",
    "write_safetensors",
]

SUFFIXES = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}
FORMATS = tuple(SUFFIXES.values())
OPSET = 18
"""Of the ONNX file; onnxruntime 1.14 and newer read it."""

Run = Callable[[Tensor], Tensor]
"""Inputs to logits."""


def write_safetensors(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write the tensors of a folded head.

    Raises:
        InputError: The module isn't a folded head: a backbone is more than tensors.
    """
    from safetensors.torch import save

    if not isinstance(module, FoldedHead):
        raise InputError("safetensors holds tensors and no network; export a backbone as onnx or pt2, or leave it out")
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={KEY: text}))


def write_pt2(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write a `torch.export` program whose number of rows is free.

    Args:
        path: The file.
        module: One tensor in; a dict with ``logits`` and ``probabilities`` out.
        example: An input; it is stored in the file, so it should be nobody's.
        text: The facts.
    """
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(_program(module, example), buffer, extra_files={PT2_FILE: text})
    path.write_bytes(buffer.getvalue())


def write_onnx(path: Path, module: nn.Module, example: Tensor, text: str) -> None:
    """Write an ONNX model, weights inside, whose number of rows is free. Arguments as `write_pt2`.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is missing.
    """
    _import_onnxruntime()
    with _quiet():
        made = torch.onnx.export(
            _program(module, example),
            dynamo=True,
            opset_version=OPSET,
            input_names=[_input_name(example)],
            output_names=["logits", "probabilities"],
            verbose=False,
        )
    assert made is not None  # a program comes back unless a file name was given
    model: Any = made.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text
    path.write_bytes(model.SerializeToString())


def run_safetensors(path: Path) -> tuple[Run, str]:
    """Return what computes logits from the file's tensors, and its facts: plain torch, nothing of this package."""
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
    """Return what runs the program, and its facts."""
    extra = {PT2_FILE: ""}
    with _quiet(), path.open("rb") as file:
        program = torch.export.load(io.BytesIO(file.read()), extra_files=extra).module()

    def logits(inputs: Tensor) -> Tensor:
        out: Tensor = program(inputs)["logits"]
        return out

    return logits, str(extra[PT2_FILE])


def run_onnx(path: Path) -> tuple[Run, str]:
    """Return what runs the model in onnxruntime on the CPU, and its facts.

    Raises:
        ConfigError: onnxruntime is missing.
    """
    runtime = _import_onnxruntime()
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def logits(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {name: inputs.numpy()})[0])

    return logits, str(session.get_modelmeta().custom_metadata_map[KEY])


def _program(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    shapes = {_input_name(example): {0: torch.export.Dim.DYNAMIC}}
    return torch.export.export(module, (example,), dynamic_shapes=shapes)


def _input_name(example: Tensor) -> str:
    """Name of the modules' argument: `FoldedHead.forward` takes rows, `ExportedNetwork.forward` pictures."""
    return "embeddings" if example.ndim == 2 else "images"


def _import_onnxruntime() -> Any:
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ConfigError(
            f"onnx files need onnx, onnxscript and onnxruntime ({error}): pip install 'featlab[onnx]'"
        ) from None
    assert onnx is not None  # imported to be there: torch.onnx needs both
    assert onnxscript is not None
    return onnxruntime


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from telling of libraries that aren't there and of its own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""Networks in ONNX files, run by onnxruntime: ``onnx:FILE``, featlab's own and other people's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from featlab.compute import choose_device
from featlab.config.options import option
from featlab.errors import ConfigError, InputError, closest, one_line
from featlab.extraction.backbones import NetworkOptions, library, network_options, require_argument
from featlab.extraction.backbones.exported_program import EMBEDDING, TEXT_KEY, BackboneMeta, file_spec, output_names
from featlab.extraction.backbones.network import (
    NetworkBackbone,
    channel_statistics,
    in_fixed_batches,
    joined,
    network_backbone,
)
from featlab.extraction.backbones.weights import file_sha256

_ERRORS_ONLY = 3
_FLOATS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
_LINEAR = ("Gemm", "MatMul", "Conv", "QLinearMatMul", "MatMulInteger")
_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid")
# What may lie between scores and the output: it changes no number, or each by itself, or takes the mean of a map.
_PASSED = (
    *_SQUASHING,
    *("Add", "Sub", "Mul", "Div", "Cast", "Identity", "Dropout", "DequantizeLinear", "QuantizeLinear"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "ReduceMean", "GlobalAveragePool", "AveragePool"),
)
_MOST_CLASSES = 32
"""An embedding is longer; lists of expressions and action units are not."""


@dataclass(frozen=True)
class OnnxOptions(NetworkOptions):
    """Options of `NetworkOptions`, and which value is the embedding."""

    renamed: ClassVar[Mapping[str, str]] = {"output": "node"}
    node: str | None = option(
        None,
        "Name of an output, or of a value inside, of a map the mean over its positions; else the output embedding, or "
        "the only one.",
    )


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``onnx:FILE``; the options are the fields of `OnnxOptions`."""
    path = Path(require_argument("onnx", argument, "an ONNX file, for example onnx:backbone.onnx"))
    name = f"onnx:{path}"
    chosen = network_options(name, OnnxOptions, options)
    chosen.no_weights(name, "file")
    if chosen.amp:
        raise ConfigError(f"{name}: onnxruntime has no mixed precision to switch on; export a float16 model instead")
    device = choose_device(chosen.device, amp=False)
    onnxruntime, onnx = (library(each, "onnx:", "onnx") for each in ("onnxruntime", "onnx"))
    session = _session(path, device)
    model = onnx.load(str(path), load_external_data=False)
    files = _weight_files(onnx, model, path)
    batch, side, channels_last = _input_shape(name, session)
    outputs = [output.name for output in session.get_outputs()]
    text = session.get_modelmeta().custom_metadata_map.get(TEXT_KEY)
    meta = None if text is None else BackboneMeta.of_json(text, path)
    spec = file_spec(name, meta, chosen, side)
    embedding, notes, refusal = EMBEDDING, list[str](), ""
    if chosen.node is not None:
        embedding = _value(name, model.graph, chosen.node)
        notes.append(f"{'output' if embedding in outputs else 'node'} {embedding}")
        if embedding not in outputs:
            session = _session(path, device, embedding)
    elif EMBEDDING not in outputs:
        if len(outputs) != 1:
            raise ConfigError(
                f"{name} has {len(outputs)} outputs that may be the embedding ({', '.join(outputs)}); name one with "
                "the option node"
            )
        embedding = outputs[0]
        refusal = _class_scores(model.graph, embedding)
    wanted = (embedding, *output_names(chosen.layers)[1:])
    network = OnnxNetwork(name, session, wanted, chosen.node is not None, batch, channels_last, refusal)
    return network_backbone(
        name,
        network,
        spec,
        chosen,
        id="onnx",
        weights=file_sha256(path, *files),
        notes=notes,
        versions={"onnxruntime": onnxruntime.__version__},
        trained_on=meta.trained_on() if meta is not None else (),
    )


LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey picture (ITU-R BT.601, as Pillow has it)."""


@dataclass(eq=False)
class OnnxNetwork:
    """Runs an onnxruntime session."""

    name: str
    session: Any
    wanted: Sequence[str]  # The value that is the embedding, and the outputs that are appended to it
    averaged: bool  # Whether a map's mean over its positions is taken
    batch: int | None  # How many images it takes at once; None: any number
    channels_last: bool
    refusal: str  # Why a short embedding is none; empty where it is one all the same
    # onnxruntime takes arrays of the main memory and moves them itself.
    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S)."""
        with torch.inference_mode():
            return in_fixed_batches(self._embed, images.contiguous(), self.batch)

    def _embed(self, images: Tensor) -> Tensor:
        (taken,) = self.session.get_inputs()
        if taken.shape[3 if self.channels_last else 1] == 1:
            images = (images * images.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
        if self.channels_last:
            images = images.permute(0, 2, 3, 1)
        values = self.session.run(self.wanted, {taken.name: images.to(_FLOATS[taken.type]).contiguous().numpy()})
        vectors, *statistics = map(torch.from_numpy, values)
        if self.refusal and vectors.shape[-1] <= _MOST_CLASSES:
            raise ConfigError(f"{self.name} gives {vectors.shape[-1]} values an image, {self.refusal}")
        averages = channel_statistics(vectors) if self.averaged else None
        return joined(self.name, [vectors if averages is None else averages[0], *statistics], len(images))


def _weight_files(onnx: Any, model: Any, path: Path) -> list[Path]:
    """Return the files beside an ONNX file that hold its large tensors, in the order of their names."""
    names = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: its weights are said to be in {name!r}, outside of its folder; export it again")
    return [path.parent / name for name in sorted(names)]


def _value(name: str, graph: Any, wanted: str) -> str:
    """Return the name of a value inside; a node's own name stands for what it gives."""
    given = {node.name: node.output[0] for node in graph.node if node.name}
    values = [value for node in graph.node for value in node.output if value]
    value: str = wanted if wanted in values else given.get(wanted, "")
    if not value:
        raise ConfigError(f"{name} has no value {wanted!r} inside{closest(wanted, [*values, *given])}")
    return value


def before_the_last_gemm(path: Path) -> str:
    """Return the name of what a classifier's last linear layer reads: the embedding."""
    onnx = library("onnx", "onnx:", "onnx")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        # Protobuf's own errors, which have no parent here.
        raise InputError(f"{path} can't be read as an ONNX file ({one_line(error)}); fetch it again") from None
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    if not gemms:
        raise InputError(f"{path}: no Gemm in it; name the embedding with --option node=NAME")
    return str(gemms[-1].input[0])


def _class_scores(graph: Any, output: str) -> str:
    """Say why an output is a list of scores, one a class, and what may be taken instead; empty where it isn't."""
    made = {value: node for node in graph.node for value in node.output}
    fixed = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    ending, before, value = "", list[str](), output
    while value in made and len(before) < 2:
        node = made[value]
        inputs = [item for item in node.input if item not in fixed]
        if not inputs or (not before and len(inputs) > 1 and node.op_type in ("Add", "Sub", "Mul", "Div")):
            break
        if node.op_type in _LINEAR[: 2 if before else None]:
            before.append(inputs[0])
        elif not before and node.op_type not in _PASSED:
            break
        ending = ending or (node.op_type if node.op_type in (*_SQUASHING, *_LINEAR) else "")
        value = inputs[0]
    if not ending:
        return ""
    instead = " or ".join(f"--option node={item}" for item in before or [value])
    return (
        f"after its last {ending}: scores of classes, not an embedding; take what lies before with {instead}, or the "
        f"scores with --option node={output}"
    )


def _session(path: Path, device: torch.device, value: str | None = None) -> Any:
    """Load a model; with a value of its inside among its outputs."""
    import onnx
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    # Threads that spin while they wait would take the cores from the workers that decode.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        source: str | bytes = str(path)
        if value is not None:
            # Bytes have no folder: the weights that lie beside the file go into them.
            model = onnx.load(str(path))
            model.graph.output.append(onnx.ValueInfoProto(name=value))
            source = model.SerializeToString()
        return onnxruntime.InferenceSession(source, settings, providers=providers)
    except Exception as error:
        # onnxruntime has an exception class for every status, without a common parent; protobuf one for 2 GB and more.
        raise InputError(f"{path} can't be loaded by onnxruntime ({one_line(error)})") from None


def _input_shape(name: str, session: Any) -> tuple[int | None, int | None, bool]:
    """Return the number and the side of images that the model takes, None for any, and whether channels come last."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    first, last = [len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3)]
    channels_last = last and not first
    sides = {side for side in (shape[1:3] if channels_last else shape[2:]) if isinstance(side, int)}
    free = len(shape) == 4 and not isinstance(shape[1], int)
    if (first and last) or not (first or last or free) or len(sides) > 1:
        what = f"an input {shape}" if shape else f"{len(inputs)} inputs"
        raise ConfigError(
            f"{name} has {what}; a backbone takes one batch of square images, (n, C, S, S) or (n, S, S, C), C 3 or 1"
        )
    if inputs[0].type not in _FLOATS:
        raise ConfigError(f"{name} takes {inputs[0].type}; a backbone takes float images, normalised: export it so")
    return shape[0] if isinstance(shape[0], int) else None, sides.pop() if sides else None, channels_last

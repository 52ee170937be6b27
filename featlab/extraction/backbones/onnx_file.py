"""Networks in ONNX files, run by onnxruntime: ``onnx:FILE``, featlab's own and other people's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featlab.compute import choose_device
from featlab.config.options import option
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import NetworkOptions, network_options, require_argument
from featlab.extraction.backbones.network import NetworkBackbone, check_layers, in_fixed_batches, network_backbone
from featlab.extraction.backbones.weights import (
    CARD_KEY,
    EMBEDDING,
    embedding_of,
    file_sha256,
    file_spec,
    layers_among,
    read_card,
    statistics_names,
)

_ERRORS_ONLY = 3


@dataclass(frozen=True)
class OnnxOptions(NetworkOptions):
    """Options of `NetworkOptions`, and which output is the embedding."""

    output: str | None = option(None, "Its name; else embedding, or the only output beside those named as layers.")


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``onnx:FILE``; the options are the fields of `OnnxOptions`."""
    path = Path(require_argument("onnx", argument, "an ONNX file, for example onnx:backbone.onnx"))
    name = f"onnx:{path}"
    chosen = network_options(name, OnnxOptions, options)
    chosen.no_weights(name, "file")
    if chosen.amp:
        raise ConfigError(f"{name}: onnxruntime has no mixed precision to switch on; export a float16 model instead")
    device = choose_device(chosen.device, amp=False)
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("onnx: networks need onnxruntime: pip install 'featlab[onnx]'") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    session = _session(onnxruntime, path, device)
    batch, side = _input_shape(name, session)
    outputs = [output.name for output in session.get_outputs()]
    text = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    card = None if text is None else read_card(text, path)
    spec = file_spec(name, card, chosen, side)
    layers = chosen.layers
    check_layers(name, layers, layers_among(outputs))
    embedding = _embedding_output(name, outputs, layers, chosen.output)
    return network_backbone(
        name,
        OnnxNetwork(name, session, layers, embedding, batch),
        spec,
        id="onnx",
        weights=file_sha256(path, *weight_files(path)),
        notes=(f"output {embedding}",) if chosen.output is not None else (),
        versions={"onnxruntime": onnxruntime.__version__},
        trained_on=card.trained_on if card is not None else (),
    )


LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey picture (ITU-R BT.601, as Pillow has it)."""


class OnnxNetwork:
    """Runs an onnxruntime session."""

    def __init__(self, name: str, session: Any, layers: tuple[str, ...], embedding: str, batch: int | None) -> None:
        # onnxruntime takes arrays of the main memory and moves them itself.
        self.device = torch.device("cpu")
        self.layers = layers
        self._name = name
        self._session = session
        self._embedding = embedding
        self._batch = batch
        self._input = session.get_inputs()[0].name
        self._grey = session.get_inputs()[0].shape[1] == 1
        available = {output.name for output in session.get_outputs()}
        wanted = [embedding]
        for layer in layers:
            statistics = statistics_names(layer)
            wanted += statistics if available.issuperset(statistics) else [layer]
        self._wanted = wanted

    def __call__(self, images: Tensor) -> Tensor:
        """Embed float32 (n, 3, S, S)."""
        with torch.inference_mode():
            return in_fixed_batches(self._embed, images.contiguous(), self._batch)

    def _embed(self, images: Tensor) -> Tensor:
        if self._grey:
            images = (images * images.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
        values = self._session.run(self._wanted, {self._input: images.numpy()})
        outputs = {key: torch.from_numpy(value) for key, value in zip(self._wanted, values, strict=True)}
        outputs[EMBEDDING] = outputs[self._embedding]
        return embedding_of(self._name, outputs, self.layers, len(images))


def weight_files(path: Path) -> list[Path]:
    """Return the files beside an ONNX file that hold its large tensors, in the order of their names."""
    try:
        import onnx
    except ImportError:
        raise ConfigError("onnx: networks need onnx: pip install 'featlab[onnx]'") from None
    model = onnx.load(str(path), load_external_data=False)
    names = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: its weights are said to be in {name!r}, outside of its folder; export it again")
    return [path.parent / name for name in sorted(names)]


def _session(onnxruntime: Any, path: Path, device: torch.device) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    # Threads that spin while they wait would take the cores from the workers that decode.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:
        # onnxruntime has an exception class for every status, without a common parent.
        raise InputError(f"{path} can't be loaded by onnxruntime ({one_line(error)})") from None


def _input_shape(name: str, session: Any) -> tuple[int | None, int | None]:
    """Return the number and the side of images that the model takes, None where it takes any."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    sides = {side for side in shape[2:] if isinstance(side, int)}
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] not in (1, 3)) or len(sides) > 1:
        what = f"an input {shape}" if shape else f"{len(inputs)} inputs"
        raise ConfigError(
            f"{name} has {what}; a backbone takes one batch of square images (n, 3, S, S) or grey ones (n, 1, S, S)"
        )
    if inputs[0].type != "tensor(float)":
        raise ConfigError(f"{name} takes {inputs[0].type}; a backbone takes float32 images, normalised")
    return shape[0] if isinstance(shape[0], int) else None, sides.pop() if sides else None


def _embedding_output(name: str, outputs: Sequence[str], layers: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in outputs:
            raise ConfigError(f"{name} has no output {wanted!r} (it has: {', '.join(outputs)})")
        return wanted
    if EMBEDDING in outputs:
        return EMBEDDING
    taken = {*layers, *(output for layer in layers for output in statistics_names(layer))}
    rest = [output for output in outputs if output not in taken]
    if len(rest) != 1:
        raise ConfigError(
            f"{name} has {len(rest)} outputs that may be the embedding ({', '.join(rest) or 'none'}); name one with "
            "the option output"
        )
    return rest[0]

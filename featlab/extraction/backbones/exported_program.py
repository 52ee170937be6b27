"""Networks exported by torch.export: ``pt2:FILE``; what a file of featlab's, ``.pt2`` or ONNX, says of itself."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from featlab.cache.schema import parse_json
from featlab.compute import choose_device, quiet_export
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    NetworkOptions,
    network_options,
    require_argument,
)
from featlab.extraction.backbones.network import ModuleNetwork, NetworkBackbone, Taps, check_layers, network_backbone
from featlab.extraction.backbones.weights import file_sha256

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TEXT_FILE = "featlab.json"
"""Name among the extra files of a ``.pt2`` of the JSON text that says what it is."""
TEXT_KEY = "featlab"
"""Key of that text in the metadata of an ONNX or safetensors file."""
EMBEDDING = "embedding"
"""Name of the output with one vector an image, float32 (n, D)."""

_FORMAT, _VERSION = "featlab-backbone", 1
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``pt2:FILE``; the options are the fields of `NetworkOptions`."""
    path = Path(require_argument("pt2", argument, "a file that torch.export.save wrote, for example pt2:backbone.pt2"))
    name = f"pt2:{path}"
    chosen = network_options(name, NetworkOptions, options)
    chosen.no_weights(name, "file")
    device = choose_device(chosen.device, amp=chosen.amp)
    program, meta = load_program(path)
    batch, side = _input_shape(name, program)
    spec = file_spec(name, meta, chosen, side)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    taps = Taps(name, program.module(), ())
    network = ModuleNetwork(taps, device, chosen.amp, batch=batch, pick=partial(_vectors, chosen.layers))
    people = meta.trained_on() if meta is not None else ()
    return network_backbone(name, network, spec, chosen, id="pt2", weights=file_sha256(path), trained_on=people)


def _vectors(layers: Sequence[str], output: Any) -> list[Any]:
    """Return what a program of other people's returned, or the embedding and layers that one of featlab's did."""
    own = isinstance(output, Mapping) and EMBEDDING in output
    return [output[name] for name in output_names(layers)] if own else [output]


def load_program(path: Path) -> tuple[ExportedProgram, BackboneMeta | None]:
    """Load a ``.pt2`` and the description in it, running nothing that is pickled there."""
    _refuse_objects(path)
    extra: dict[str, Any] = {TEXT_FILE: ""}
    try:
        with _weights_only(), quiet_export():
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        # The reader lets through whatever it stumbles over: a schema of another version, a missing operator.
        raise InputError(
            f"{path} can't be loaded by torch {torch.__version__} ({type(error).__name__}: {one_line(error)}); export "
            "it again with this version"
        ) from None
    text = extra[TEXT_FILE]
    return program, BackboneMeta.of_json(text, path) if text else None


def _refuse_objects(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        names = []
    except OSError as error:
        raise InputError(f"{path}: can't be read ({one_line(error)})") from None
    if not any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        raise InputError(f"{path} isn't a program that torch.export.save wrote; weights alone go with --weights FILE")
    if any(kind in name for name in names for kind in ("constants/custom_obj", "constants/opaque_obj")):
        raise InputError(
            f"{path} holds pickled objects, which can run code and are not read; export the network without them"
        )


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make every torch.load in here one with ``weights_only``."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def _input_shape(name: str, program: ExportedProgram) -> tuple[int | None, int | None]:
    """Return the number and the side of images that the program takes, None where it takes any."""
    inputs = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    value = nodes[str(inputs[0])].meta.get("val") if len(inputs) == 1 and str(inputs[0]) in nodes else None
    shape = list(value.shape) if isinstance(value, Tensor) else []
    sides = {side for side in shape[2:] if isinstance(side, int)}
    if len(shape) != 4 or shape[1] != 3 or len(sides) > 1:
        what = f"an input {tuple(shape)}" if shape else f"{len(inputs)} inputs"
        raise ConfigError(f"{name} has {what}; a backbone takes one batch of square images (n, 3, S, S)")
    return shape[0] if isinstance(shape[0], int) else None, sides.pop() if sides else None


def output_names(layers: Sequence[str]) -> list[str]:
    """Return the outputs of a file: the embedding, then of each layer channel means and population deviations."""
    return [EMBEDDING, *(f"layers.{layer}.{part}" for layer in layers for part in ("mean", "std"))]


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
        self.input_spec()

    def input_spec(self) -> InputSpec:
        """Return the input that the network was made for."""
        return InputSpec(self.size, self.mean, self.std)

    def trained_on(self) -> tuple[str, ...]:
        """Return the subjects whose images trained it or chose its epoch: a refit trains on all of them."""
        people = (*self.card.get("source_subjects", ()), *self.card.get("validation_subjects", ()))
        return tuple(sorted(map(str, people)))

    def to_json(self, dim: int) -> str:
        """Return the text of a file whose embeddings have ``dim`` values."""
        content = {"format": _FORMAT, "format_version": _VERSION, **asdict(self), "dim": dim}
        return json.dumps(content, indent=2, ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str, path: Path) -> BackboneMeta:
        """Read the text of a file."""
        try:
            content = parse_json(text)
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            version = int(content["format_version"])
            if version <= _VERSION:
                mean, std = (tuple(map(float, content[name])) for name in ("mean", "std"))
                layers, card = tuple(content["layers"]), dict(content.get("card", {}))
                if not all(isinstance(layer, str) and layer for layer in layers):
                    raise TypeError("layers are names")
                meta = cls(content["size"], str(content.get("id")), layers, mean, std, card)
                meta.trained_on()  # Fails where the card has no lists of people
                return meta
        except (ValueError, TypeError, KeyError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}: what it says of itself can't be read ({what}); export it again") from None
        raise InputError(f"{path}: a backbone of format {version}, and this featlab reads up to {_VERSION}; update it")


def file_spec(name: str, meta: BackboneMeta | None, options: NetworkOptions, side: int | None) -> InputSpec:
    """Return the input of a backbone file; of one of featlab's only layers, crop and interpolation may be chosen."""
    check_layers(name, options.layers, meta.layers if meta is not None else ())
    if meta is None:
        spec = options.input_spec(InputSpec(size=side) if side is not None else InputSpec())
    else:
        spec = options.input_spec(meta.input_spec())
        for key in ("size", "mean", "std"):
            chosen, own = getattr(options, key), getattr(meta, key)
            if chosen is not None and chosen != own:
                raise ConfigError(f"{name} was made for {key} {own}; leave out the option {key} ({chosen})")
    if side is not None and spec.size != side:
        raise ConfigError(f"{name} was exported for {side}x{side} images; leave out the option size ({spec.size})")
    return spec

"""Networks exported by torch.export: ``pt2:FILE``; what a file of featlab's, ``.pt2`` or ONNX, says of itself."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from featlab.cache.schema import parse_json
from featlab.compute import choose_device, quiet_export
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import InputSpec, NetworkOptions, network_options, require_argument
from featlab.extraction.backbones.network import (
    AMP_NOTE,
    ModuleNetwork,
    NetworkBackbone,
    Taps,
    appended,
    as_embedding,
    channel_statistics,
    check_layers,
    network_backbone,
)
from featlab.extraction.backbones.weights import file_sha256

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CARD_FILE = "featlab.json"
"""Name among the extra files of a ``.pt2``."""
CARD_KEY = "featlab"
"""Key among an ONNX file's metadata."""
EMBEDDING = "embedding"
"""Name of the output with one vector an image, float32 (n, D)."""

FORMAT, VERSION = "featlab-backbone", 1
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def build(argument: str | None, options: Mapping[str, Any]) -> NetworkBackbone:
    """Build ``pt2:FILE``; the options are the fields of `NetworkOptions`."""
    path = Path(require_argument("pt2", argument, "a file that torch.export.save wrote, for example pt2:backbone.pt2"))
    name = f"pt2:{path}"
    chosen = network_options(name, NetworkOptions, options)
    chosen.no_weights(name, "file")
    device = choose_device(chosen.device, amp=chosen.amp)
    program, card = load_program(path)
    batch, side = _input_shape(name, program)
    spec = file_spec(name, card, chosen, side)
    check_layers(name, chosen.layers, card.layers if card is not None else ())
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module()
    pick = partial(_outputs, name, chosen.layers)
    network = ModuleNetwork(
        name, module, Taps(name, module, ()), chosen.layers, device, chosen.amp, batch=batch, pick=pick
    )
    return network_backbone(
        name,
        network,
        spec,
        id="pt2",
        weights=file_sha256(path),
        notes=(AMP_NOTE,) if chosen.amp else (),
        trained_on=card.trained_on if card is not None else (),
    )


def _outputs(name: str, layers: Sequence[str], output: Any) -> Any:
    """Return what a program of other people's returned, or the embedding and layers that one of featlab's did."""
    own = isinstance(output, Mapping) and EMBEDDING in output
    return embedding_of(name, output, layers, len(output[EMBEDDING])) if own else output


def load_program(path: Path) -> tuple[ExportedProgram, BackboneCard | None]:
    """Load a ``.pt2`` and the description in it, running nothing that is pickled there."""
    _refuse_objects(path)
    extra: dict[str, Any] = {CARD_FILE: ""}
    try:
        with _weights_only(), quiet_export():
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        # The reader lets through whatever it stumbles over: a schema of another version, a missing operator.
        raise InputError(
            f"{path} can't be loaded by torch {torch.__version__} ({type(error).__name__}: {one_line(error)}); export "
            "it again with this version"
        ) from None
    text = extra[CARD_FILE]
    return program, read_card(text, path) if text else None


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
    if (
        len(shape) != 4
        or shape[1] != 3
        or (isinstance(shape[2], int) and isinstance(shape[3], int) and shape[2] != shape[3])
    ):
        what = f"an input {tuple(shape)}" if shape else f"{len(inputs)} inputs"
        raise ConfigError(f"{name} has {what}; a backbone takes one batch of square images (n, 3, S, S)")
    batch, _, side, _ = shape
    return batch if isinstance(batch, int) else None, side if isinstance(side, int) else None


@dataclass(frozen=True)
class BackboneCard:
    """What a backbone file says of itself."""

    spec: InputSpec  # The input that it was made for
    layers: tuple[str, ...]  # Whose statistics are among its outputs, and can be appended; see `statistics_names`
    trained_on: tuple[str, ...] = ()  # Subjects whose images trained it or chose its epoch, where its card says so


def file_spec(name: str, card: BackboneCard | None, options: NetworkOptions, side: int | None) -> InputSpec:
    """Return the input of a backbone file; of one with a card only crop and interpolation may be chosen."""
    if card is None:
        spec = options.input_spec(InputSpec(size=side) if side is not None else InputSpec())
    else:
        spec = options.input_spec(card.spec)
        for key in ("size", "mean", "std"):
            chosen, own = getattr(options, key), getattr(card.spec, key)
            if chosen is not None and chosen != own:
                raise ConfigError(f"{name} was made for {key} {own}; leave out the option {key} ({chosen})")
    if side is not None and spec.size != side:
        raise ConfigError(f"{name} was exported for {side}x{side} images; leave out the option size ({spec.size})")
    return spec


def statistics_names(layer: str) -> tuple[str, str]:
    """Return the two outputs of a layer: channel means, and population standard deviations over positions."""
    return f"layers.{layer}.mean", f"layers.{layer}.std"


def read_card(text: str, path: Path) -> BackboneCard:
    """Read the description."""
    try:
        content: Mapping[str, Any] = parse_json(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        version = content["format_version"]
        if not isinstance(version, int):
            raise TypeError("format_version is no whole number")
        if version > VERSION:
            raise InputError(
                f"{path}: a backbone of format {version}, and this featlab reads up to {VERSION}; update it"
            )
        mean, std = (tuple(map(float, content[name])) for name in ("mean", "std"))
        layers = tuple(content["layers"])
        if not all(isinstance(layer, str) and layer for layer in layers):
            raise TypeError("layers are names")
        card = content.get("card", {})
        # Validation subjects chose the epoch, and a refit trains on them too.
        people = tuple(sorted(map(str, (*card.get("source_subjects", ()), *card.get("validation_subjects", ())))))
        spec = InputSpec(content["size"], mean, std)
        return BackboneCard(spec, layers, people)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: what it says of itself can't be read ({what}); export it again") from None


def embedding_of(name: str, outputs: Mapping[str, Tensor], layers: Sequence[str], rows: int) -> Tensor:
    """Return the embedding with the layers' statistics appended, from named outputs."""
    if EMBEDDING not in outputs:
        raise ConfigError(f"{name} has no output {EMBEDDING!r} (it has: {', '.join(outputs)})")
    found = {}
    for layer in layers:
        mean, std = statistics_names(layer)
        if mean in outputs and std in outputs:
            statistics = outputs[mean].float(), outputs[std].float()
            if statistics[0].ndim != 2 or len(statistics[0]) != rows or statistics[0].shape != statistics[1].shape:
                shapes = " and ".join(str(tuple(part.shape)) for part in statistics)
                raise ConfigError(f"{name}: the statistics of {layer!r} have shapes {shapes}; they must both be (n, C)")
        elif layer in outputs:
            taken = channel_statistics(outputs[layer])
            if taken is None:
                raise ConfigError(
                    f"{name}: the output {layer!r} {tuple(outputs[layer].shape)} has no positions to take statistics of"
                )
            statistics = taken
        else:
            check_layers(name, [layer], layers_among(list(outputs)))
            raise ConfigError(f"{name}: the layer {layer!r} has only one of its outputs {mean!r} and {std!r}")
        found[layer] = statistics
    return appended(as_embedding(name, outputs[EMBEDDING], rows), layers, found)


def layers_among(outputs: Sequence[str]) -> list[str]:
    """Return the names that can be asked for as layers, of the names of a file's outputs."""
    names = []
    for output in outputs:
        if output.startswith("layers.") and output.endswith(".mean"):
            names.append(output.removeprefix("layers.").removesuffix(".mean"))
        elif output != EMBEDDING and not (output.startswith("layers.") and output.endswith(".std")):
            names.append(output)
    return names

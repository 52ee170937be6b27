"""Networks exported by torch.export: ``pt2:FILE``, featlab's own and other people's."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from featlab.compute import choose_device, quiet_export
from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import NetworkOptions, network_options, require_argument
from featlab.extraction.backbones.card import CARD_FILE, EMBEDDING, BackboneCard, embedding_of, file_spec, read_card
from featlab.extraction.backbones.network import (
    AMP_NOTE,
    ModuleNetwork,
    NetworkBackbone,
    Statistics,
    Taps,
    check_layers,
    network_backbone,
)
from featlab.extraction.backbones.weights import file_sha256

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
    if card is not None:
        check_layers(name, chosen.layers, card.layers)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    hooked = chosen.layers if card is None else ()
    module = _unflattened(name, program) if hooked else program.module()
    taps = Taps(name, module, hooked)
    network = ProgramNetwork(name, module, taps, chosen.layers, device, chosen.amp, batch=batch)
    return network_backbone(
        name,
        network,
        spec,
        id="pt2",
        weights=file_sha256(path),
        notes=(AMP_NOTE,) if chosen.amp else (),
        trained_on=card.trained_on if card is not None else (),
    )


class ProgramNetwork(ModuleNetwork):
    """Runs an exported program: featlab's own give the statistics of their layers, on others' modules are taps."""

    def finish(self, output: Any, statistics: Mapping[str, Statistics], rows: int) -> Tensor:
        """Return the embedding of what the program returned, with the statistics of its layers."""
        if isinstance(output, Mapping) and EMBEDDING in output:
            if not statistics:
                return embedding_of(self.name, output, self.layers, rows)
            output = output[EMBEDDING]
        return super().finish(output, statistics, rows)


def load_program(path: Path) -> tuple[ExportedProgram, BackboneCard | None]:
    """Load a ``.pt2`` and the description in it, running nothing that is pickled there."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
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


def _unflattened(name: str, program: ExportedProgram) -> nn.Module:
    try:
        with quiet_export():
            module: nn.Module = torch.export.unflatten(program)
    except Exception as error:
        raise ConfigError(
            f"{name}: its modules can't be told apart any more, so no layer can be tapped ({one_line(error)}); export "
            "it with the layers' statistics as outputs"
        ) from None
    return module

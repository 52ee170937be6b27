"""What a backbone file, ``.pt2`` or ONNX, says of itself, and what its outputs are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import InputSpec, NetworkOptions
from featlab.extraction.backbones.network import appended, as_embedding, channel_statistics, check_layers

CARD_FILE = "featlab.json"
"""Name among the extra files of a ``.pt2``."""
CARD_KEY = "featlab"
"""Key among an ONNX file's metadata."""
EMBEDDING = "embedding"
"""Name of the output with one vector an image, float32 (n, D)."""

FORMAT, VERSION = "featlab-backbone", 1


@dataclass(frozen=True)
class BackboneCard:
    """What a backbone file says of itself."""

    spec: InputSpec  # The input that it was made for
    layers: tuple[str, ...]  # Whose statistics are among its outputs, and can be appended; see `statistics_names`
    dim: int  # D
    id: str  # What its maker called it
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
        content: Mapping[str, Any] = json.loads(text)
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
        return BackboneCard(spec, layers, int(content["dim"]), str(content["id"]), people)
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

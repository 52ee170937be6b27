"""Weights files: read without running anything that is in them, and put into a network that they must fit."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from featlab.errors import ConfigError, InputError, one_line
from featlab.extraction.backbones import InputSpec, NetworkOptions
from featlab.extraction.backbones.network import appended, as_embedding, channel_statistics, check_layers

RANDOM = "random"
"""The name by which random weights have to be asked for."""

_TORCH_SUFFIXES = (".pt", ".pth", ".pt.tar", ".pth.tar", ".ckpt", ".bin")
# Where training scripts keep the state dict beside the epoch and the optimiser.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "backbone", "weights")
# Modules that turn an embedding into classes; keys below them are left out where the network has none.
_HEADS = frozenset({"fc", "classifier", "head", "heads", "head_dist", "last_linear", "logits"})
_SHOWN = 4

Built = TypeVar("Built")


def file_sha256(*paths: Path) -> str:
    """Return the sha256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or one_line(error)}") from None
    return digest.hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 of a module's weights: of each tensor, by name, its name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def seeded(build: Callable[[], Built], seed: int = 0) -> Built:
    """Call ``build`` with torch's generator at ``seed``, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def module_with_weights(name: str, build: Callable[[], nn.Module], weights: str | None) -> tuple[nn.Module, str]:
    """Build a network and put the weights into it."""
    if weights is None:
        raise ConfigError(
            f"{name} has no weights: name a file with --weights FILE ({_suffixes()}), or ask for random ones with "
            f"--weights {RANDOM}"
        )
    module = seeded(build)
    if weights == RANDOM:
        return module, state_sha256(module)
    path = Path(weights)
    load_state_dict(name, module, read_state_dict(path), path)
    return module, file_sha256(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from ``.pt`` and the like with ``weights_only``."""
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.name.lower().endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} isn't a safetensors file that can be read ({one_line(error)})") from None
    if path.name.lower().endswith(_TORCH_SUFFIXES):
        return _unwrapped(path, _torch_load(path))
    hint = "; an exported network is a backbone by itself: pt2:FILE" if path.suffix == ".pt2" else ""
    raise InputError(f"{path}: weights files end in {_suffixes()}{hint}")


def load_state_dict(name: str, module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a state dict into a network, exactly."""
    own = module.state_dict()
    state = _without_prefix(state, own)
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own and key.partition(".")[0] not in _HEADS]
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    wrong = [
        f"{len(keys)} {what} ({_first(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if wrong:
        raise ConfigError(f"{path} doesn't fit {name}: keys {', '.join(wrong)}; of {len(own)} that it has")
    module.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _without_prefix(state: Mapping[str, Tensor], own: Iterable[str]) -> Mapping[str, Tensor]:
    """Take off the prefix with which most of the network's keys are found; what lies beside it is another network's."""
    names = set(own)
    counts: dict[str, int] = {"": 0}
    for key in state:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
            if key[start:] in names:
                counts[key[:start]] = counts.get(key[:start], 0) + 1
    prefix = max(sorted(counts, key=len), key=lambda candidate: counts[candidate])
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _torch_load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What is no pickle at all stops at its first byte that names no operation.
        if "unsupported operand" in str(error).lower():
            raise InputError(f"{path} isn't a file of torch.save") from None
        raise InputError(
            f"{path} holds pickled Python objects, which can run code and are not read; load it where it was made and "
            "save only the weights: torch.save(model.state_dict(), FILE)"
        ) from None
    except RuntimeError as error:
        if "torchscript" in str(error).lower():
            raise InputError(
                f"{path} is a TorchScript archive; save its weights alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise InputError(f"{path} isn't a file of torch.save ({one_line(error)})") from None
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} isn't a file of torch.save ({one_line(error)})") from None


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            inner = content.get(wrapper)
            if isinstance(inner, Mapping) and _is_state_dict(inner):
                return dict(inner)
        if _is_state_dict(content):
            return dict(content)
        keys = ", ".join(str(key) for key in list(content)[:_SHOWN])
        raise InputError(
            f"{path} holds no state dict (its keys: {keys}); save one: torch.save(model.state_dict(), FILE)"
        )
    raise InputError(
        f"{path} holds a {type(content).__name__} and no state dict; save torch.save(model.state_dict(), FILE)"
    )


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")


def _suffixes() -> str:
    return ", ".join((".safetensors", *_TORCH_SUFFIXES))


CARD_FILE = "featlab.json"
"""Name among the extra files of a ``.pt2``."""
CARD_KEY = "featlab"
"""Key among an ONNX file's metadata."""
EMBEDDING = "embedding"
"""Name of the output with one vector an image, float32 (n, D)."""

_FORMAT, _VERSION = "featlab-backbone", 1


@dataclass(frozen=True)
class BackboneCard:
    """What a backbone file says of itself."""

    spec: InputSpec  # The input that it was made for
    layers: tuple[str, ...]  # Whose statistics are among its outputs, and can be appended; see `statistics_names`
    dim: int  # D
    id: str  # What its maker called it
    trained_on: tuple[str, ...] = ()  # Subjects whose images trained it or chose its epoch, where its card says so

    def input_spec(self, name: str, options: NetworkOptions) -> InputSpec:
        """Return the input; crop and interpolation may be chosen, the rest is the file's."""
        for key in ("size", "mean", "std"):
            chosen, own = getattr(options, key), getattr(self.spec, key)
            if chosen is not None and chosen != own:
                raise ConfigError(f"{name} was made for {key} {own}; leave out the option {key} ({chosen})")
        return options.input_spec(self.spec)


def file_spec(name: str, card: BackboneCard | None, options: NetworkOptions, side: int | None) -> InputSpec:
    """Return the input of a backbone file: its card's, or the options' and the side that it was exported for."""
    if card is not None:
        spec = card.input_spec(name, options)
    else:
        spec = options.input_spec(InputSpec(size=side) if side is not None else InputSpec())
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
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        version = content["format_version"]
        if not isinstance(version, int):
            raise TypeError("format_version is no whole number")
        if version > _VERSION:
            raise InputError(
                f"{path}: a backbone of format {version}, and this featlab reads up to {_VERSION}; update it"
            )
        mean, std = _three(content["mean"]), _three(content["std"])
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


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue

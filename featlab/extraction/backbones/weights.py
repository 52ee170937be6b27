"""Weights files: read without running anything that is in them, and put into a network that they must fit."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from featlab.compute import from_seed
from featlab.errors import ConfigError, InputError, listed, one_line

RANDOM = "random"
"""The name by which random weights have to be asked for."""

_TORCH_SUFFIXES = (".pt", ".pth", ".pt.tar", ".pth.tar", ".ckpt", ".bin")
_SUFFIXES = ", ".join((".safetensors", *_TORCH_SUFFIXES))
# Modules that turn an embedding into classes; keys below them are left out where the network has none.
_HEADS = frozenset({"fc", "classifier", "head", "heads", "head_dist", "last_linear", "logits"})
# How many batches BatchNorm has seen; old files and averages of weights don't have it.
_BATCHES = "num_batches_tracked"

Built = TypeVar("Built")


def file_sha256(*paths: Path) -> str:
    """Return the sha256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            raise InputError(f"{path}: {one_line(error)}") from None
    return digest.hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 of a module's weights: of each tensor, by name, its name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def built(build: Callable[[], Built], seed: int = 0) -> Built:
    """Call ``build`` with torch's generator at ``seed``, and leave the generator as it was."""
    with from_seed(seed):
        return build()


def module_with_weights(
    name: str, build: Callable[[], nn.Module], weights: str | None, prefix: str | None = None
) -> tuple[nn.Module, str]:
    """Build a network and put the weights into it; ``prefix`` as in `load_state_dict`."""
    if weights is None:
        raise ConfigError(
            f"{name} has no weights: name a file with --weights FILE ({_SUFFIXES}), or ask for random ones with "
            f"--weights {RANDOM}"
        )
    module = built(build)
    if weights == RANDOM:
        return module, state_sha256(module)
    path = Path(weights)
    load_state_dict(name, module, read_state_dict(path), path, prefix)
    return module, file_sha256(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from ``.pt`` and the like with ``weights_only``.

    Of a file with several all are read, each under its own name: ``model.conv1.weight``, ``model_ema.conv1.weight``.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({one_line(error)})") from None
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
    raise InputError(f"{path}: weights files end in {_SUFFIXES}{hint}")


def load_state_dict(
    name: str, module: nn.Module, state: Mapping[str, Tensor], path: Path, prefix: str | None = None
) -> None:
    """Put a state dict into a network, exactly; a warning says what was taken off its names, and what lies beside them.

    Of two networks in the state dict that fit and differ, ``prefix`` takes the one whose names start with it (without
    the last dot; "." takes the one whose names have nothing in front).
    """
    own = module.state_dict()
    start, part = _one_network(name, state, own, path, prefix)
    missing = [key for key in own if key not in part and not key.endswith(_BATCHES)]
    unexpected = [key for key in part if key not in own and key.partition(".")[0] not in _HEADS]
    shapes = [
        f"{key} {tuple(part[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in part and part[key].shape != own[key].shape
    ]
    wrong = [
        f"{len(keys)} {what} ({listed(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if wrong:
        where = f" (under {start!r})" if start else ""
        raise ConfigError(f"{path} doesn't fit {name}: keys {', '.join(wrong)}; of {len(own)} that it has{where}")
    module.load_state_dict({key: part[key] for key in own if key in part}, strict=False)
    rest = [key for key in state if not key.startswith(start) or key.removeprefix(start) not in part]
    said = [f"takes the weights under {start!r}"] if start else []
    said += [f"leaves {len(rest)} of {len(state)} tensors out ({listed(rest)})"] if rest else []
    if said:
        warnings.warn(f"{path}: {name} {' and '.join(said)}", stacklevel=2)


def _one_network(
    name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, prefix: str | None
) -> tuple[str, Mapping[str, Tensor]]:
    """Return the start of the names that are the network's, and the tensors under it without it."""
    asked = f"{prefix.strip('.')}." if prefix and prefix.strip(".") else ""
    found, fitting = Counter({"": 0}), Counter[str]()
    for key, tensor in state.items():
        for at in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
            if key[at:] in own and key[:at].startswith(asked):
                found[key[:at]] += 1
                fitting[key[:at]] += own[key[at:]].shape == tensor.shape and not key.endswith(_BATCHES)
    keys = [key for key in own if not key.endswith(_BATCHES)]
    whole = [start for start, count in fitting.items() if count == len(keys)]
    start = whole[0] if whole else max(sorted(found, key=len), key=lambda candidate: found[candidate])
    if prefix is not None and not asked:
        start = ""
    elif asked and not start:
        tops = list(dict.fromkeys(key.partition(".")[0] for key in state))
        raise ConfigError(f"{path}: no names of {name} begin with {asked!r} there (it has {listed(tops)})")
    elif others := [
        other
        for other in whole[1:]
        if any(not torch.equal(state[start + key].double(), state[other + key].double()) for key in keys)
    ]:
        names = " and ".join(repr(each.removesuffix(".") or ".") for each in (start, *others))
        raise ConfigError(
            f"{path} holds {len(others) + 1} networks that fit {name}: under {names}; take one with --option "
            f"prefix={others[0].removesuffix('.') or '.'}, or save it alone"
        )
    within = tuple(other for other in whole if other != start and other.startswith(start))
    part = {
        key.removeprefix(start): tensor
        for key, tensor in state.items()
        if key.startswith(start) and not key.startswith(within)
    }
    return start, part


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
    except Exception as error:
        # Bytes that are no pickle end in any error of its machine.
        if "torchscript" in str(error).lower():
            raise InputError(
                f"{path} is a TorchScript archive; save its weights alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise InputError(f"{path} isn't a file of torch.save ({one_line(error)})") from None


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    try:
        found = dict(_state_dicts(content))
    except RecursionError:
        raise InputError(f"{path}: its content is nested without end") from None
    for tensor in (tensor for state in found.values() for tensor in state.values()):
        sound = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not sound or tensor.numel() > max(tensor.untyped_storage().nbytes(), 1):
            raise InputError(f"{path} holds tensors that are sparse, empty or larger than the file; save plain ones")
    if len(found) == 1:
        return dict(*found.values())
    if found:
        return {f"{where}.{key}": tensor for where, state in found.items() for key, tensor in state.items()}
    what = f"a {type(content).__name__} and no state dict"
    if isinstance(content, Mapping):
        what = f"no state dict (its keys: {listed(list(map(str, content)))})"
    raise InputError(f"{path} holds {what}; save one: torch.save(model.state_dict(), FILE)")


def _state_dicts(content: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield every mapping of nothing but names to tensors, however deep, with the names of what it lies in."""
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        yield where, content
        return
    for key, value in content.items():
        yield from _state_dicts(value, f"{where}.{key}" if where else key)

"""One state dict from a file, as floats, without what a data-parallel wrapper puts before its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featlab.errors import InputError
from featlab.extraction.backbones.weights import file_sha256, read_state_dict

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One state dict as it came from a file.

    Attributes:
        path: The file.
        sha256: Of the file.
        tensors: Key to tensor, float32 where it was any float; no ``module.`` in front.
        ordered: Whether the file keeps the order in which the module's tensors were defined.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    ordered: bool


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state dict from ``.safetensors``, or from what ``torch.save`` wrote, where only tensors are unpickled.

    Args:
        path: The file.

    Returns:
        The state dict, on the CPU.

    Raises:
        InputError: No such file, a pickled module, something else than tensors by name, or values that aren't finite.
    """
    tensors = {}
    for name, value in read_state_dict(path).items():
        tensor = value.detach().to(torch.float32) if value.is_floating_point() else value.detach()
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinity; take an earlier checkpoint")
        tensors[name] = tensor
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return Checkpoint(path, file_sha256(path), tensors, ordered=path.suffix.lower() != ".safetensors")

"""What the estimators need around scikit-learn's arrays: names of rows, and models that can be pickled."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featlab.errors import InputError
from featlab.extraction.columns import as_text
from featlab.model.networks import SourceHead, linear_head

_BLOCK = 65536

M = TypeVar("M", bound=nn.Module)


def row_names(values: Any, rows: int, what: str) -> list[str]:
    """Return one name a row, as text; a single value is everybody's. ``what`` is the argument's name."""
    array = np.asarray(values)
    if array.ndim == 0:
        array = np.repeat(array, rows)
    if array.shape != (rows,):
        raise InputError(f"{what} has shape {array.shape}; expected one value for each of {rows} rows")
    names = [as_text(value) for value in array.tolist()]
    if "" in names:
        raise InputError(f"{what} of row {names.index('')} is empty; every row needs one")
    return names


def frozen(module: M) -> M:
    """Return a float64 copy for inference, C's weight normalisation folded into a plain weight.

    In float64 a row's output doesn't depend, to 1e-12, on the batch that it comes in.
    """
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if isinstance(part, SourceHead):
            part.classifier = linear_head(part.classifier.weight.detach(), part.classifier.bias.detach())
    return plain.double().eval().requires_grad_(False)


def in_blocks(module: nn.Module, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a float64 module makes of rows, computed block by block."""
    values = torch.from_numpy(rows.astype(np.float64))
    with torch.no_grad():
        return torch.cat([module(block) for block in torch.split(values, _BLOCK)]).numpy()

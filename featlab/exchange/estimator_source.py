"""From scikit-learn's arrays to a feature table, and models that can be pickled."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featlab.bundle.bundle import Bundle
from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.extraction.columns import as_text
from featlab.extraction.tables.index import codes_of
from featlab.model.networks import SourceHead, head_from_state, linear_head
from featlab.protocol.splits import Target

EVERYONE = "everyone"
"""Subject of rows that were given without one."""
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


def _find_neutral(classes: list[Any], neutral: Any) -> int:
    if neutral is None:
        names = [as_text(value) for value in classes]
        return names.index("neutral") if "neutral" in names else 0
    if neutral not in classes:
        raise InputError(f"neutral = {neutral!r} is none of the classes {classes[:8]}")
    return classes.index(neutral)


def make_table(
    X: NDArray[np.float32], y: NDArray[np.intp], classes: NDArray[Any], neutral: Any, subject: Any, video: Any
) -> FeatureTable:
    """Return the rows as a feature table; ``y`` are places in ``classes``, ``neutral`` one of them or None."""
    names = tuple(as_text(value) for value in classes.tolist())
    subjects, subject_code = codes_of(row_names(EVERYONE if subject is None else subject, len(X), "subject"))
    videos, video_code = codes_of([names[code] for code in y] if video is None else row_names(video, len(X), "video"))
    return FeatureTable(
        embeddings=X,
        label=y.astype(np.int16),
        subject=subject_code,
        video=video_code,
        frame=np.arange(len(X), dtype=np.int32),
        subjects=subjects,
        videos=videos,
        classes=names,
        neutral=names[_find_neutral(classes.tolist(), neutral)],
    )


def make_target(X: NDArray[np.float32], video: Any) -> Target:
    """Return neutral rows of one person, in their order; without ``video`` they are one clip."""
    _, codes = codes_of(row_names(EVERYONE if video is None else video, len(X), "video"))
    return Target(X, codes, np.arange(len(X), dtype=np.int32))


def frozen(module: M) -> M:
    """Return a float64 copy for inference, C's weight normalisation folded into a plain weight.

    In float64 a row's output doesn't depend, to 1e-12, on the batch that it comes in; and a weight-normalised module
    can't be pickled.
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


def pack_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle as a dict that can be pickled; `unpack_bundle` turns it back."""
    packed: dict[str, Any] = {item.name: getattr(bundle, item.name) for item in fields(bundle)}
    return packed | {"head": dict(bundle.head.state_dict())}


def unpack_bundle(packed: Mapping[str, Any]) -> Bundle:
    """Return the bundle that `pack_bundle` packed."""
    return Bundle(**{**packed, "head": head_from_state(packed["head"])})

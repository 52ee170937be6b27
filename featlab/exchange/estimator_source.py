"""The source stage for estimators, and models that can be pickled and give each row the same whatever its batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from featlab.bundle.bundle import Bundle
from featlab.cache import ExtractorInfo, FeatureTable
from featlab.config.load import Config
from featlab.methods.base import linear_head
from featlab.methods.registry import prepare_extras
from featlab.model.head import fit_projection, train_head
from featlab.model.networks import SourceHead, as_tensor
from featlab.model.pretrain import SourceRows, make_style_bank, new_translator
from featlab.pairing.pairs import Pairs
from featlab.workspace.source import build_bundle

__all__ = ["fit_source", "frozen", "in_blocks", "one_thread", "pack_bundle", "unpack_bundle"]

_BLOCK = 65536

M = TypeVar("M", bound=nn.Module)


def fit_source(table: FeatureTable, config: Config, *, seed: int, methods: Sequence[str]) -> Bundle:
    """Run the source stage; with one subject there are no pairs, so T stays the identity and the head alone is trained.

    Args:
        table: Labelled rows.
        config: Sections ``features``, ``head``, ``pair`` and ``pretrain`` are read.
        seed: Root seed.
        methods: Methods that will be run on the bundle.

    Raises:
        InputError: One class, or rows that are all alike.
    """
    extractor = ExtractorInfo("array", "none", f"{table.dim} values")
    if len(table.subject_names_present()) > 1:
        return build_bundle(table, config, seed=seed, extractor=extractor, methods=methods)
    projection = fit_projection(table.embeddings, table.subject, config.features)
    with torch.no_grad():
        features: Tensor = projection(as_tensor(table.embeddings))
    head = train_head(features, table.label, len(table.classes), config.head, seed=seed)
    none = np.empty(0, dtype=np.int64)
    source = SourceRows.of(table, features, Pairs(none, none, none.astype(np.float32), "random", "any", len(table)))
    # Only the residual form starts as the identity.
    untrained = new_translator(features.shape[1], replace(config.pretrain, residual=True), seed)
    translator = untrained.eval().requires_grad_(False)
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=translator,
        classes=table.classes,
        neutral=table.neutral,
        extractor=extractor,
        source_subjects=table.subject_names_present(),
        config=config,
        seed=seed,
        bank=make_style_bank(source, translator, head) if config.pretrain.style_bank else None,
    )
    return prepare_extras(bundle, source, methods)


def frozen(module: M) -> M:
    """Return a float64 copy for inference, C's weight normalisation folded into a plain weight.

    In float64 a row's output doesn't depend, to 1e-12, on the batch that it comes in. And a plain module can be
    pickled, a weight-normalised one can't.
    """
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if isinstance(part, SourceHead):
            part.classifier = linear_head(part.classifier.weight.detach(), part.classifier.bias.detach())
    return plain.double().eval().requires_grad_(False)


def in_blocks(module: nn.Module, rows: Tensor) -> Tensor:
    """Return what a module makes of float64 rows, computed block by block."""
    with torch.no_grad():
        return torch.cat([module(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK)])


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: batches are small, and a second thread makes a step slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pack_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle as a dict that can be pickled; `unpack_bundle` turns it back."""
    packed: dict[str, Any] = {item.name: getattr(bundle, item.name) for item in fields(bundle)}
    packed["head"] = dict(bundle.head.state_dict())
    return packed


def unpack_bundle(packed: Mapping[str, Any]) -> Bundle:
    """Return the bundle that `pack_bundle` packed."""
    state: dict[str, Tensor] = packed["head"]
    width, dim = state["linear.weight"].shape
    # The initial weights are overwritten, but drawing them would move the caller's random state.
    with torch.random.fork_rng(devices=[]):
        head = SourceHead(dim, width, len(packed["classes"]))
    head.load_state_dict(state)
    return Bundle(**{**packed, "head": head.eval().requires_grad_(False)})

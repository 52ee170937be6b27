"""The source stage from end to end: rows of source subjects in, a model bundle out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from featlab.bundle.bundle import Bundle
from featlab.cache import ExtractorInfo, FeatureTable
from featlab.config.load import Config
from featlab.errors import InputError
from featlab.methods.reads import reads_pairs
from featlab.methods.registry import prepare_extras
from featlab.model.head import fit_projection, train_head
from featlab.model.networks import Projection, SourceHead, as_tensor
from featlab.model.pretrain import SourceRows, make_style_bank, new_translator, pretrain_translator
from featlab.pairing.pairs import Pairs, make_pairs

__all__ = ["TrainedHead", "build_bundle", "pretrain_bundle", "train_source_head"]

OnEpoch = Callable[[str, int, int, float], None]
"""Called after each epoch with the stage's name, the epoch, the number of epochs and the mean loss."""


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The first half of a bundle: projection, B and C."""

    projection: Projection
    head: SourceHead


def train_source_head(
    table: FeatureTable, config: Config, *, seed: int, device: str = "cpu", on_epoch: OnEpoch | None = None
) -> TrainedHead:
    """Fit the projection and train B and C.

    Args:
        table: Labelled rows of the source subjects.
        config: Sections ``features`` and ``head`` are read.
        seed: Root seed.
        device: Where to train.
        on_epoch: Progress.

    Raises:
        InputError: One source subject, or one class.
    """
    if len(table.subject_names_present()) < 2:
        raise InputError(
            f"training needs at least 2 source subjects, got {len(table.subject_names_present())}; "
            "choose fewer targets, or extract more people"
        )
    projection = fit_projection(table.embeddings, table.subject, config.features, seed=seed).to(device)
    with torch.no_grad():
        features = projection(as_tensor(table.embeddings, device))
    report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("train", epoch, epochs, loss))
    head = train_head(features, table.label, len(table.classes), config.head, seed=seed, on_epoch=report)
    return TrainedHead(projection, head)


def pretrain_bundle(
    table: FeatureTable,
    trained: TrainedHead,
    pairs: Pairs | None,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str,
    methods: Sequence[str],
    on_epoch: OnEpoch | None = None,
) -> Bundle:
    """Pretrain T, make the style bank, let methods prepare what they carry, and put it all into a bundle.

    Args:
        table: Labelled rows of the source subjects.
        trained: Their projection and head.
        pairs: Pairs of their rows, where T or a method is trained on them.
        config: The resolved configuration; ``pretrain`` is read, and all of it is recorded.
        seed: Root seed.
        extractor: What made the embeddings.
        cache_digest: Of the cache that the rows come from.
        methods: Methods that will be run on the bundle; only these prepare extras.
        on_epoch: Progress.
    """
    device = trained.projection.mean.device
    with torch.no_grad():
        features = trained.projection(as_tensor(table.embeddings, device)).cpu()
    head, projection = copy.deepcopy(trained.head).cpu(), copy.deepcopy(trained.projection).cpu()
    source = SourceRows.of(table, features, pairs)
    report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("pretrain", epoch, epochs, loss))
    fresh = new_translator(features.shape[1], config.pretrain, seed).eval().requires_grad_(False)
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=fresh,
        classes=table.classes,
        neutral=table.neutral,
        extractor=extractor,
        source_subjects=table.subject_names_present(),
        config=config,
        seed=seed,
        cache_digest=cache_digest,
    )
    pretrained = pretrain_translator(source, head, config.pretrain, seed=seed, on_epoch=report)
    bank = make_style_bank(source, pretrained.translator, head) if config.pretrain.style_bank else None
    bundle = replace(bundle, translator=pretrained.translator, bank=bank, history=pretrained.history)
    return prepare_extras(bundle, source, methods)


def build_bundle(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str = "",
    methods: Sequence[str] = ("pft",),
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Bundle:
    """Run the whole source stage: train B and C, pair, pretrain T, bank, extras. See the parts for what they raise."""
    trained = train_source_head(table, config, seed=seed, device=device, on_epoch=on_epoch)
    pairs = make_pairs(table, config.pair, seed=seed) if reads_pairs(config, methods) else None
    return pretrain_bundle(
        table,
        trained,
        pairs,
        config,
        seed=seed,
        extractor=extractor,
        cache_digest=cache_digest,
        methods=methods,
        on_epoch=on_epoch,
    )

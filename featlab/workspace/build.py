"""The source stage in memory: rows of source subjects to a model bundle."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featlab.bundle.bundle import Bundle, KeyedNames
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable
from featlab.config.load import Config
from featlab.errors import InputError
from featlab.methods.registry import prepare_extras, reads_pairs
from featlab.model.head import fit_projection, prompt_head, train_heads
from featlab.model.linear import learn_share
from featlab.model.networks import Projection, SourceHead
from featlab.model.pretrain import make_style_bank, new_translator, pretrain_translators
from featlab.model.style_bank import CarriedShare, SourceRows, membership_test
from featlab.model.training import History
from featlab.pairing.pairs import Pairs, make_pairs
from featlab.workspace.workspace import OnEpoch


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The first half of a bundle: projection, B and C, and the carried share."""

    projection: Projection
    head: SourceHead
    share: CarriedShare


def train_source_head(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    device: str = "cpu",
    alone: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TrainedHead:
    """Fit the projection, train B and C, and learn the carried share; of one source subject only if ``alone``."""
    people = len(table.subject_names_present())
    if people < 2 and not alone:
        raise InputError(
            f"training needs at least 2 source subjects, got {people}: others are needed to learn from; extract more "
            "people, or hold fewer out"
        )
    projection = fit_projection(table.embeddings, table.subject, config.features, seed=seed).to(device)
    features = projection.of_rows(table.embeddings)
    report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("train", epoch, epochs, loss))
    if config.head.classifier == "prompts":
        if table.prompts is None:
            raise InputError(
                "head.classifier = prompts needs a cache with texts of its classes: extract with --backbone clip:NAME "
                "--option pooling=joint"
            )
        head = prompt_head(projection, features, table.prompts)
    else:
        (head,) = train_heads(features, [table.label], len(table.classes), config.head, seed=seed, on_epoch=report)
    how = config.pretrain
    share = CarriedShare(how.share)
    if how.learn_share:
        share = learn_share(SourceRows.of(table, features.cpu()), len(table.classes), how.penalty, seed=seed)
    return TrainedHead(projection, head, share)


def pretrain_bundle(
    table: FeatureTable,
    trained: TrainedHead,
    pairs: Pairs | None,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str = "",
    methods: Sequence[str],
    on_epoch: OnEpoch | None = None,
) -> Bundle:
    """Pretrain T, make the style bank, let ``methods`` prepare what they carry, and put it all into a bundle."""
    features = trained.projection.of_rows(table.embeddings).cpu()
    head, projection = copy.deepcopy(trained.head).cpu(), copy.deepcopy(trained.projection).cpu()
    source = SourceRows.of(table, features, pairs)
    history: History = []
    how, share = config.pretrain, trained.share.value
    if len(table.subject_names_present()) > 1:
        report = None if on_epoch is None else (lambda epoch, epochs, loss: on_epoch("pretrain", epoch, epochs, loss))
        (translator,), history = pretrain_translators([source], [head], how, share=share, seed=seed, on_epoch=report)
    else:
        translator = new_translator(features.shape[1], how, seed).eval().requires_grad_(False)
    bundle = Bundle(
        projection=projection,
        head=head,
        translator=translator,
        classes=table.classes,
        neutral=table.neutral,
        extractor=extractor,
        source_subjects=KeyedNames.of(table.subject_names_present(), cache_digest, seed),
        config=config,
        seed=seed,
        share=trained.share,
        bank=make_style_bank(source, translator, head, share, least_rows=how.single_people)
        if how.style_bank != "none"
        else None,
        cache_digest=cache_digest,
        history=tuple(history),
    )
    bundle = prepare_extras(bundle, source, methods)
    if how.validation:
        tried = membership_test(source, bundle.bank, config.head, classes=len(table.classes), seed=seed)
        bundle = replace(bundle, membership=tried)
    return bundle


def build_bundle(
    table: FeatureTable,
    config: Config,
    *,
    seed: int,
    extractor: ExtractorInfo,
    cache_digest: str = "",
    methods: Sequence[str] = ("pft",),
    device: str = "cpu",
    alone: bool = False,
) -> Bundle:
    """Run the whole source stage: train B and C, pair, pretrain T, bank, extras. See the parts for what they raise.

    ``alone`` lets one subject's rows pass: there are no pairs then, and T stays the identity.
    """
    # As a cache has them: the order in which the rows come makes no other model.
    table = table.take(np.lexsort((table.embeddings[:, 0], table.frame, table.video, table.subject)))
    trained = train_source_head(table, config, seed=seed, device=device, alone=alone)
    paired = reads_pairs(config, methods) and len(table.subject_names_present()) > 1
    pairs = make_pairs(table, config.pair, seed=seed) if paired else None
    return pretrain_bundle(
        table, trained, pairs, config, seed=seed, extractor=extractor, cache_digest=cache_digest, methods=methods
    )

"""Pretrain the translator T on source subjects, with B and C frozen.

`poster` is the seeds' objective as written: translated rows take the style of their references and keep the source
model's prediction. Its style loss compares a batch of translated rows with the batch of their references.

`anchored` plays the target stage at the source. In an episode a row's subject is seen through *other* neutral clips of
theirs: T's offset is what style alignment would make it, the bank's centre minus those clips' mean, and T learns to
classify what comes out (cross-entropy), to keep its pair's style (style loss) and, if asked, the source model's
prediction (expression loss). So T meets at a new person what it met in training. T is linear by default, and then the
whole is one convex problem without the style loss: see `featlab.model.linear`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.cache.table import FeatureTable
from featlab.compute import one_cycle
from featlab.config.sections import PretrainConfig
from featlab.errors import InputError
from featlab.model.linear import fit_linear_translator
from featlab.model.losses import expression_loss, group_statistics, style_loss, style_statistics
from featlab.model.networks import SourceHead, Translator, layer_values
from featlab.model.style_bank import NeutralClips, StyleBank, neutral_clips
from featlab.model.training import History, OnEpoch, Phase, shuffled_batches, train
from featlab.pairing.pairs import Pairs
from featlab.seeding import seeded, torch_generator

MAX_GRADIENT = 1.0
"""Largest norm of a step's gradient."""


@dataclass(frozen=True, eq=False)
class SourceRows:
    """What pretraining sees of the source.

    Attributes:
        features: (N, D) projected rows.
        labels: (N,) int64 codes; -1 unknown.
        clips: Their neutral clips.
        pairs: (row, reference) indices into the rows; ``None`` where nothing is trained on pairs.
    """

    features: Tensor
    labels: Tensor
    clips: NeutralClips
    pairs: Pairs | None = None

    @classmethod
    def of(cls, table: FeatureTable, features: Tensor, pairs: Pairs | None = None) -> SourceRows:
        """Gather the rows of a labelled source table."""
        labels = torch.from_numpy(table.label.astype(np.int64))
        return cls(features, labels, neutral_clips(table, features), pairs)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained translator and the mean losses of each epoch, or of each iteration where T is linear."""

    translator: Translator
    history: tuple[Mapping[str, float], ...]


def new_translator(dim: int, config: PretrainConfig, seed: int) -> Translator:
    """Return a fresh T for features of width ``dim``; the global random state is left alone."""
    with seeded(seed, "translator"):
        return Translator(dim, config.hidden or dim, residual=config.residual, dropout=config.dropout)


def pretrain_translator(
    source: SourceRows,
    head: SourceHead,
    config: PretrainConfig,
    *,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> Pretrained:
    """Pretrain T.

    Args:
        source: Source rows and their pairs.
        head: B and C; frozen, in evaluation mode.
        config: Objective, weights, layers and training.
        seed: Of initialisation, order, noise and clips.
        on_epoch: Called with the epoch, the number of epochs and the mean loss.

    Returns:
        T in evaluation mode, without gradients, with a zero offset.

    Raises:
        InputError: Fewer than two pairs, or no subject with neutral rows (`anchored`).
    """
    if config.linear:
        return _fit_linear(source, head, config, seed, on_epoch)
    rows, references = _pairs(source, config)
    translator = new_translator(source.features.shape[1], config, seed)
    random = torch_generator(seed, "pretrain", config.objective)
    # The offset belongs to one person. Here every episode has its own, so the shared one stays at zero.
    trained = [parameter for name, parameter in translator.named_parameters() if name != "offset"]
    optimiser = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    batch = min(config.batch, len(rows))
    total = config.epochs * (len(rows) // batch)
    centre = source.clips.subject_mean().mean(dim=0)
    setting = _Setting(source, translator, head, config, centre, random)
    losses = _anchored_losses if config.objective == "anchored" else _poster_losses
    steps: History = []
    epochs: History = []

    def batches() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            yield from shuffled_batches(len(rows), batch, batch, random)
            latest = steps[-(len(rows) // batch) :]
            epochs.append({name: float(np.mean([terms[name] for terms in latest])) for name in latest[0]})
            if on_epoch is not None:
                on_epoch(epoch + 1, config.epochs, epochs[-1]["loss"])

    with seeded(seed, "dropout"):
        translator.train()
        train(
            [Phase(optimiser, lambda picked: losses(setting, rows[picked], references[picked]))],
            batches(),
            name="pretraining",
            advice=f"lower pretrain.lr ({config.lr})",
            rate=lambda step: one_cycle(step, total),
            # Style is a squared distance between people, and some are very far: one batch must not undo an epoch.
            max_norm=MAX_GRADIENT,
            history=steps,
        )
    return Pretrained(translator.eval().requires_grad_(False), tuple(epochs))


def _fit_linear(
    source: SourceRows,
    head: SourceHead,
    config: PretrainConfig,
    seed: int,
    on_epoch: OnEpoch | None,
) -> Pretrained:
    if not config.epochs:
        return Pretrained(new_translator(source.features.shape[1], config, seed).eval().requires_grad_(False), ())
    translator, history = fit_linear_translator(source.features, source.labels, source.clips, head, config, seed=seed)
    if on_epoch is not None:
        on_epoch(1, 1, history[-1]["loss"])
    return Pretrained(translator, tuple(history))


def make_style_bank(source: SourceRows, translator: Translator, head: SourceHead) -> StyleBank:
    """Return the style bank of a pretrained T: each source subject translated with their own offset."""
    clips = source.clips
    if not clips.subjects:
        raise InputError(
            "no source subject has neutral rows: there is no style to bank; set pretrain.style_bank = false"
        )
    neutral = torch.nonzero(clips.row_clip >= 0).squeeze(1)
    group = clips.row_subject[neutral]
    means = clips.subject_mean()
    with torch.no_grad():
        features = source.features[neutral]
        translated = translator(features + (means.mean(dim=0) - means)[group])
        layers = {"features": features, "embedding": translated, "bottleneck": head.bottleneck(translated)}
        statistics = {name: group_statistics(values, group, len(means)) for name, values in layers.items()}
    return StyleBank(clips.subjects, statistics)


def _pairs(source: SourceRows, config: PretrainConfig) -> tuple[Tensor, Tensor]:
    assert source.pairs is not None  # made where `reads_pairs` says so
    rows, references = torch.from_numpy(source.pairs.row), torch.from_numpy(source.pairs.reference)
    if config.objective == "anchored":
        known = source.clips.row_subject
        keep = (known[rows] >= 0) & (known[references] >= 0) & (source.labels[rows] >= 0)
        rows, references = rows[keep], references[keep]
        if not len(rows):
            raise InputError("no source subject has neutral rows, and `anchored` pretraining needs them; label them")
    if len(rows) < 2:
        raise InputError(f"pretraining needs 2 pairs or more, got {len(rows)}; use more source subjects")
    return rows, references


@dataclass(frozen=True, eq=False)
class _Setting:
    """What stays the same over the steps of a pretraining."""

    source: SourceRows
    translator: Translator
    head: SourceHead
    config: PretrainConfig
    centre: Tensor
    random: torch.Generator


def _anchored_losses(setting: _Setting, rows: Tensor, references: Tensor) -> dict[str, Tensor]:
    source, head, config, random = setting.source, setting.head, setting.config, setting.random
    features = source.features[rows]
    seen = features + setting.centre - source.clips.episode_mean(rows, random)
    translated = setting.translator(seen + config.noise * torch.randn(seen.shape, generator=random))
    logits = head(translated)
    terms = {}
    if config.classification:
        # Rows count as often as they would be tested: neutral rows that are adapted on are not.
        weight = source.clips.tested_share(rows)
        entropy = F.cross_entropy(logits, source.labels[rows], label_smoothing=config.label_smoothing, reduction="none")
        terms["classification"] = config.classification * (weight * entropy).sum() / weight.sum()
    if config.style:
        # The reference is not translated: a target that moves along with T pulls it away without an end.
        paired = source.features[references] + setting.centre - source.clips.episode_mean(references, random)
        terms["style"] = config.style * _batch_style(translated, paired, head, config)
    if config.expression:
        terms["expression"] = config.expression * expression_loss(head(features), logits)
    return terms


def _poster_losses(setting: _Setting, rows: Tensor, references: Tensor) -> dict[str, Tensor]:
    source, head, config = setting.source, setting.head, setting.config
    features = source.features[rows]
    translated = setting.translator(features)
    return {
        "style": config.style * _batch_style(translated, source.features[references], head, config),
        "expression": config.expression * expression_loss(head(features), head(translated)),
    }


def _batch_style(translated: Tensor, references: Tensor, head: SourceHead, config: PretrainConfig) -> Tensor:
    """Return L_style summed over layers: statistics over the batch of pairs, or over each row's own features."""
    terms = []
    for layer in config.layers:
        ours = style_statistics(layer_values(layer, translated, head), config.axis)
        with torch.no_grad():
            theirs = style_statistics(layer_values(layer, references, head), config.axis)
        terms.append(style_loss(*ours, *theirs))
    return torch.stack(terms).sum()

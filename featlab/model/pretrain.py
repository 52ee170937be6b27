"""Pretrain the translator T on source subjects, with B and C frozen.

The target stage is played at the source: in an episode a row's subject is seen through *other* neutral clips of theirs,
and T learns to make that row easy for C. T's hidden layer holds two parts, each trained on its own: a linear one (one
convex problem, `featlab.model.linear`) and an MLP (step by step, on pairs). T is their weighted mean, which is again
one residual MLP with one hidden layer.

The MLP starts at the identity, and learns to classify what comes out (L_CE), to take the style of the row's reference,
another person's row seen in the same way (L_style), and to keep what the source model makes of the row (L_expr). The
sum is that of the SFDA-PFT poster; the weights are ours. As for a new person, the offset of an episode is the carried
share of the centre minus the mean of its clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featlab.compute import one_cycle
from featlab.config.sections import PretrainConfig
from featlab.errors import InputError
from featlab.model.linear import fit_linear_translator
from featlab.model.losses import (
    classification_loss,
    expression_loss,
    group_statistics,
    layer_values,
    style_loss,
    style_statistics,
)
from featlab.model.networks import SourceHead, Translator
from featlab.model.style_bank import SourceRows, StyleBank
from featlab.model.training import Adam, History, OnEpoch, Phase, shuffled_batches, train
from featlab.seeding import seeded, torch_generator

MAX_GRADIENT = 5.0
"""Largest norm of a step's gradient: style is a squared distance between people, and some are very far."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained translator and its losses: the mean of each epoch, or each evaluation where T is linear."""

    translator: Translator
    history: tuple[Mapping[str, float], ...]


def pretrain_translator(
    source: SourceRows,
    head: SourceHead,
    config: PretrainConfig,
    *,
    share: float = 1.0,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> Pretrained:
    """Pretrain T.

    Args:
        source: Source rows, and their pairs unless T is linear.
        head: B and C; frozen, in evaluation mode.
        config: Form, weights, layers and training.
        share: The carried share of a person's offset.
        seed: Of initialisation, order, dropout and clips.
        on_epoch: Called with the epoch, the number of epochs and the mean loss.

    Returns:
        T in evaluation mode, without gradients, with a zero offset.

    Raises:
        InputError: No labelled row of a subject with neutral rows, or a loss that is not finite.
    """
    if not config.epochs:
        return Pretrained(new_translator(source.features.shape[1], config, seed).eval().requires_grad_(False), ())
    parts: list[tuple[Translator, float]] = []
    history: History = []
    if config.form != "mlp":
        linear, history = fit_linear_translator(source, head, config, share=share, seed=seed)
        parts.append((linear, 1 - config.balance if config.paired else 1.0))
        if on_epoch is not None:
            on_epoch(1, 1, history[-1]["loss"])
    if config.paired:
        mlp, history = fit_mlp_translator(source, head, config, share=share, seed=seed, on_epoch=on_epoch)
        parts.append((mlp, 1 - sum(weight for _, weight in parts)))
    translator = parts[0][0] if len(parts) == 1 else Translator.mean(parts)
    return Pretrained(translator, tuple(history))


def part_of(translator: Translator, part: str, config: PretrainConfig, classes: int) -> Translator:
    """Return the ``linear`` or the ``mlp`` part of a pretrained T, as if it had been trained alone.

    Raises:
        InputError: T doesn't hold it.
    """
    if config.form == part or not config.epochs:
        return translator
    weight = config.balance if part == "mlp" else 1 - config.balance
    if config.form != "joint" or not weight:
        raise InputError(
            f"the method pft-{part} needs a T with a {part} part, and this bundle has none; "
            f"pretrain with pretrain.form = joint or {part}"
        )
    units = slice(2 * classes) if part == "linear" else slice(2 * classes, None)
    return translator.part(units, weight, bias=part == "mlp")


def weighed(translator: Translator, balance: float, config: PretrainConfig, classes: int) -> Translator:
    """Return a joint T with another weight of its MLP part."""
    linear, mlp = (part_of(translator, part, config, classes) for part in ("linear", "mlp"))
    return Translator.mean([(linear, 1 - balance), (mlp, balance)])


def make_style_bank(
    source: SourceRows, translator: Translator, head: SourceHead, share: float = 1.0, *, least_rows: int | None = None
) -> StyleBank:
    """Return the style bank of a pretrained T: source people translated with the share of their own offset.

    Single people with ``least_rows`` neutral rows or more are kept too; ``None`` keeps nobody.
    """
    clips = source.clips
    if not clips.subjects:
        raise InputError(
            "no source subject has neutral rows: there is no style to bank; set pretrain.style_bank = none"
        )
    neutral, group = source.neutral()
    means = clips.subject_mean()
    with torch.no_grad():
        features = source.features[neutral]
        translated = translator(features + share * (clips.centre - means)[group])
        layers = {"features": features, "embedding": translated, "bottleneck": head.bottleneck(translated)}
        statistics = {name: group_statistics(values, group, len(means)) for name, values in layers.items()}
    people = None
    if least_rows is not None:
        people = statistics["features"][0][torch.bincount(group) >= least_rows]
        if not len(people):
            raise InputError(
                f"no source person has {least_rows} neutral rows (pretrain.bank_rows), so pretrain.style_bank = people "
                "would hold nobody; set it to centre"
            )
        # Their names are sorted: another order keeps the places from telling them.
        people = people[people[:, 0].argsort()]
    centres = {name: (mean.mean(dim=0), std.mean(dim=0)) for name, (mean, std) in statistics.items()}
    return StyleBank(centres, len(means), people)


def fit_mlp_translator(
    source: SourceRows,
    head: SourceHead,
    config: PretrainConfig,
    *,
    share: float = 1.0,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> tuple[Translator, History]:
    """Train a residual T of one hidden layer: Adam, one learning-rate cycle, weights averaged over the second half.

    Args:
        source: Source rows and their pairs.
        head: B and C, frozen, in evaluation mode.
        config: Losses, weights, layers and training.
        share: The carried share of a person's offset.
        seed: Of initialisation, order, dropout and clips.
        on_epoch: Called with the epoch, the number of epochs and the mean loss.

    Returns:
        T in evaluation mode, without gradients and with a zero offset, and the mean loss terms of every epoch.

    Raises:
        InputError: No labelled row of a subject with neutral rows, or a loss that is not finite.
    """
    pairs = episodic_pairs(source)
    translator = new_translator(source.features.shape[1], config, seed)
    random = torch_generator(seed, "mlp")
    # The offset belongs to one person. Here every episode has its own, so the shared one stays at zero.
    trained = [parameter for name, parameter in translator.named_parameters() if name != "offset"]
    batch = min(config.batch, len(pairs))
    steps = len(pairs) // batch
    total = config.epochs * steps
    history: History = []
    epochs: History = []
    mean = [torch.zeros_like(parameter) for parameter in trained]

    def batches() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            for picked in shuffled_batches(len(pairs), batch, batch, random):
                yield pairs[picked]
                # Here the step has been taken.
                if len(history) > total // 2:
                    for average, parameter in zip(mean, trained, strict=True):
                        average += parameter.detach() / (total - total // 2)
            latest = history[-steps:]
            epochs.append({name: float(np.mean([terms[name] for terms in latest])) for name in latest[0]})
            if on_epoch is not None:
                on_epoch(epoch + 1, config.epochs, epochs[-1]["loss"])

    with seeded(seed, "dropout"):
        translator.train()
        train(
            [
                Phase(
                    Adam(trained, lr=config.lr),
                    lambda rows: _losses(source, translator, head, config, share, rows, random),
                )
            ],
            batches(),
            name="pretraining",
            advice=f"lower pretrain.lr ({config.lr})",
            rate=lambda step: one_cycle(step, total),
            max_norm=MAX_GRADIENT,
            history=history,
        )
    for average, parameter in zip(mean, trained, strict=True):
        parameter.data.copy_(average)
    return translator.eval().requires_grad_(False), epochs


def new_translator(dim: int, config: PretrainConfig, seed: int) -> Translator:
    """Return a fresh T for features of width ``dim``, the identity; the global random state is left alone."""
    with seeded(seed, "translator"):
        return Translator(dim, config.hidden or dim, dropout=config.dropout)


def episodic_pairs(source: SourceRows) -> Tensor:
    """Return (M, 2) rows that can be seen in an episode, each with its reference; -1 where it has none to be seen."""
    assert source.pairs is not None  # made where `reads_pairs` says so
    usable = source.episodic()
    row, reference = torch.from_numpy(source.pairs.row), torch.from_numpy(source.pairs.reference)
    kept = torch.isin(row, usable) & (source.clips.row_subject[reference] >= 0)
    pairs = torch.stack([row[kept], reference[kept]], dim=1)
    alone = usable[~torch.isin(usable, pairs[:, 0])]
    return torch.cat([pairs, torch.stack([alone, torch.full_like(alone, -1)], dim=1)])


def _losses(
    source: SourceRows,
    translator: Translator,
    head: SourceHead,
    config: PretrainConfig,
    share: float,
    pairs: Tensor,
    random: torch.Generator,
) -> dict[str, Tensor]:
    rows, references, clips = pairs[:, 0], pairs[pairs[:, 1] >= 0, 1], source.clips
    translated = translator(clips.seen(source.features, rows, share, random))
    logits, terms = head(translated), {}
    if config.classification:
        # Rows count as often as they would be tested: neutral rows that are adapted on are not.
        entropy = classification_loss(logits, source.labels[rows], clips.tested_share(rows))
        terms["classification"] = config.classification * entropy
    if config.style:
        # The reference is not translated: a target that moves along with T pulls it away without an end.
        paired = clips.seen(source.features, references, share, random)
        terms["style"] = config.style * batch_style(translated, paired, head, config.layers, config.axis)
    if config.expression:
        terms["expression"] = config.expression * expression_loss(head(source.features[rows]), logits)
    return terms


def batch_style(translated: Tensor, references: Tensor, head: SourceHead, layers: tuple[str, ...], axis: str) -> Tensor:
    """Return L_style summed over layers: statistics over the rows of a batch, or over each row's own features."""
    if not len(references):
        return translated.sum() * 0
    terms = []
    for layer in layers:
        ours = style_statistics(layer_values(layer, translated, head), axis)
        with torch.no_grad():
            theirs = style_statistics(layer_values(layer, references, head), axis)
        terms.append(style_loss(*ours, *theirs))
    return torch.stack(terms).sum()

"""Pretrain the translator T on source subjects, with B and C frozen.

The target stage is played at the source: in an episode a row's subject is seen through *other* neutral clips of theirs,
and T learns to make that row easy for C. T's hidden layer holds two parts, each trained on its own: a linear one (one
convex problem, `featlab.model.linear`) and an MLP (on pairs, with the style and expression losses,
`featlab.model.mlp`). T is their weighted mean, which is again one residual MLP with one hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from featlab.config.sections import PretrainConfig
from featlab.errors import InputError
from featlab.model.linear import fit_linear_translator
from featlab.model.losses import group_statistics
from featlab.model.mlp import fit_mlp_translator, new_translator
from featlab.model.networks import SourceHead, Translator
from featlab.model.style_bank import SourceRows, StyleBank
from featlab.model.training import History, OnEpoch


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


def make_style_bank(source: SourceRows, translator: Translator, head: SourceHead, share: float = 1.0) -> StyleBank:
    """Return the style bank of a pretrained T: each source subject translated with the share of their own offset."""
    clips = source.clips
    if not clips.subjects:
        raise InputError(
            "no source subject has neutral rows: there is no style to bank; set pretrain.style_bank = false"
        )
    neutral = torch.nonzero(clips.row_clip >= 0).squeeze(1)
    neutral = neutral[clips.row_subject[neutral] >= 0]
    group = clips.row_subject[neutral]
    means = clips.subject_mean()
    with torch.no_grad():
        features = source.features[neutral]
        translated = translator(features + share * (clips.centre - means)[group])
        layers = {"features": features, "embedding": translated, "bottleneck": head.bottleneck(translated)}
        statistics = {name: group_statistics(values, group, len(means)) for name, values in layers.items()}
    return StyleBank(clips.subjects, statistics)

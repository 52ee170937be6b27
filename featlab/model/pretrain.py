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

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from featlab.compute import one_cycle, seeded, torch_generator
from featlab.config.sections import PretrainConfig
from featlab.errors import InputError
from featlab.model.linear import fit_linear_translator
from featlab.model.losses import (
    classification_loss,
    expression_loss,
    group_statistics,
    layer_values,
    statistics_along,
    style_loss,
)
from featlab.model.networks import SourceHead, Translator, translator_from_state
from featlab.model.style_bank import SourceRows, StyleBank
from featlab.model.training import (
    Adam,
    Heads,
    History,
    OnEpoch,
    Phase,
    Terms,
    Translators,
    limit_gradients,
    train,
)

MAX_GRADIENT = 5.0
"""Largest norm of a step's gradient: style is a squared distance between people, and some are very far."""


def pretrain_translators(
    sources: Sequence[SourceRows],  # The same rows, of other subjects each; and their pairs unless T is linear.
    heads: Sequence[SourceHead],  # B and C of each; frozen, in evaluation mode.
    config: PretrainConfig,
    *,
    share: float = 1.0,  # The carried share of a person's offset.
    seed: int,  # Of initialisation, order, dropout and clips, the same for every T.
    on_epoch: OnEpoch | None = None,  # Called with the epoch, the number of epochs and the mean loss.
) -> tuple[list[Translator], History]:
    """Pretrain a T for each selection of the source rows, side by side.

    Each is in evaluation mode, without gradients, with a zero offset. The losses are the mean of each epoch, or those
    of each evaluation of the first where T is linear. No labelled row of a subject with neutral rows, or a loss that is
    not finite, is an InputError.
    """
    if not config.epochs:
        dim = sources[0].features.shape[1]
        return [new_translator(dim, config, seed).eval().requires_grad_(False) for _ in sources], []
    linear, mlp, history = list[Translator](), list[Translator](), History()
    if config.form != "mlp":
        for source, head in zip(sources, heads, strict=True):
            translator, losses = fit_linear_translator(source, head, config, share=share, seed=seed)
            linear.append(translator)
            history = history or losses
        if on_epoch is not None:
            on_epoch(1, 1, history[-1]["loss"])
    if config.paired:
        mlp, history = _fit_mlps(sources, heads, config, share, seed, on_epoch)
    if not linear or not mlp:
        return linear or mlp, history
    return [joined(*parts, config.balance) for parts in zip(linear, mlp, strict=True)], history


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
    state = {
        "offset": translator.offset,
        "first.weight": translator.first.weight[units],
        "first.bias": translator.first.bias[units],
        "last.weight": translator.last.weight[:, units] / weight,
        "last.bias": translator.last.bias * (part == "mlp") / weight,
    }
    return translator_from_state(state)


def joined(linear: Translator, mlp: Translator, balance: float) -> Translator:
    """Return the mean of both parts of T, ``balance`` the weight of the MLP, as one that holds the units of both."""
    parts = ((linear, 1 - balance), (mlp, balance))
    state = {
        "offset": torch.zeros_like(linear.offset),
        "first.weight": torch.cat([part.first.weight for part, _ in parts]),
        "first.bias": torch.cat([part.first.bias for part, _ in parts]),
        "last.weight": torch.cat([weight * part.last.weight for part, weight in parts], dim=1),
        "last.bias": torch.stack([weight * part.last.bias for part, weight in parts]).sum(dim=0),
    }
    return translator_from_state(state)


def weighed(translator: Translator, balance: float, config: PretrainConfig, classes: int) -> Translator:
    """Return a joint T with another weight of its MLP part."""
    linear, mlp = (part_of(translator, part, config, classes) for part in ("linear", "mlp"))
    return joined(linear, mlp, balance)


def make_style_bank(source: SourceRows, translator: Translator, head: SourceHead, share: float = 1.0) -> StyleBank:
    """Return the style bank of a pretrained T: source people translated with the share of their own offset."""
    if not source.subjects:
        raise InputError(
            "no source subject has neutral rows: there is no style to bank; set pretrain.style_bank = none"
        )
    neutral, group = source.neutral()
    means = source.subject_mean()
    with torch.no_grad():
        features = source.features[neutral]
        translated = translator(features + share * (source.centre - means)[group])
        layers = {"features": features, "embedding": translated, "bottleneck": head.bottleneck(translated)}
    centres = {}
    for name, values in layers.items():
        mean, std = group_statistics(values, group, len(means))
        centres[name] = mean.mean(dim=0), std.mean(dim=0)
    return StyleBank(centres, len(means))


def _fit_mlps(
    sources: Sequence[SourceRows],
    heads: Sequence[SourceHead],
    config: PretrainConfig,
    share: float,
    seed: int,
    on_epoch: OnEpoch | None,
) -> tuple[list[Translator], History]:
    """Train the MLP part of each T: Adam, one learning-rate cycle, weights averaged over the second half."""
    pairs = [episodic_pairs(source) for source in sources]
    translators = [new_translator(source.features.shape[1], config, seed) for source in sources]
    stack, frozen = Translators(translators), Heads(heads)
    # The offset belongs to one person. Here every episode has its own, so the shared one stays at zero.
    trained = [tensor for name, tensor in stack.tensors.items() if name != "offset"]
    batch = min(config.batch, *map(len, pairs))
    steps = max(map(len, pairs)) // batch
    total = config.epochs * steps
    history: History = []
    epochs: History = []
    means = [torch.zeros_like(tensor) for tensor in trained]
    models = [
        _steps(source, head, own, batch, config, share, torch_generator(seed, "mlp"))
        for source, head, own in zip(sources, heads, pairs, strict=True)
    ]

    def batches() -> Iterator[list[Tensor]]:
        for step in range(1, total + 1):
            yield [torch.stack(parts) for parts in zip(*map(next, models), strict=True)]
            # Here the step has been taken.
            if step > total // 2:
                for mean, tensor in zip(means, trained, strict=True):
                    mean += tensor.detach() / (total - total // 2)
            if step % steps == 0:
                latest = history[-steps:]
                epochs.append({name: float(np.mean([terms[name] for terms in latest])) for name in latest[0]})
                if on_epoch is not None:
                    on_epoch(step // steps, config.epochs, epochs[-1]["loss"])

    with seeded(seed, "dropout"):
        train(
            [Phase(Adam(trained, lr=config.lr), lambda step: _losses(step, stack, frozen, config))],
            batches(),
            name="pretraining",
            advice=f"lower pretrain.lr ({config.lr})",
            rate=lambda step: one_cycle(step, total),
            limit=lambda: limit_gradients(trained, MAX_GRADIENT),
            history=history,
        )
    for mean, tensor in zip(means, trained, strict=True):
        tensor.copy_(mean)
    stack.write(translators)
    return translators, epochs


def new_translator(dim: int, config: PretrainConfig, seed: int) -> Translator:
    """Return a fresh T for features of width ``dim``, the identity; the global random state is left alone."""
    with seeded(seed, "translator"):
        return Translator(dim, config.hidden or dim, dropout=config.dropout)


def episodic_pairs(source: SourceRows) -> Tensor:
    """Return (M, 2) rows that can be seen in an episode, each with its reference; -1 where it has none to be seen."""
    assert source.pairs is not None  # made where `reads_pairs` says so
    usable = source.episodic()
    row, reference = torch.from_numpy(source.pairs.row), torch.from_numpy(source.pairs.reference)
    kept = torch.isin(row, usable) & (source.row_subject[reference] >= 0)
    pairs = torch.stack([row[kept], reference[kept]], dim=1)
    alone = usable[~torch.isin(usable, pairs[:, 0])]
    return torch.cat([pairs, torch.stack([alone, torch.full_like(alone, -1)], dim=1)])


def _steps(
    source: SourceRows,
    head: SourceHead,
    pairs: Tensor,
    batch: int,
    config: PretrainConfig,
    share: float,
    random: torch.Generator,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield what each step of a model reads, pass after pass; many steps are made at once, which takes as long as one.

    (n, D) rows as they are seen through other neutral clips of their subject; (n,) their labels; (n,) weights: rows
    count as often as they would be tested, and neutral ones that are adapted on are not; (n, K) what the source model
    makes of them as they are; and for each layer the mean and deviation of their references, NaN where there are none.
    """
    with torch.no_grad():
        plain = torch.cat([head(rows) for rows in torch.split(source.features, _ROWS_AHEAD)])
    while True:
        order = torch.randperm(len(pairs), generator=random)
        steps = order[: len(order) // batch * batch].view(-1, batch)
        for places in torch.split(steps, max(1, _ROWS_AHEAD // batch)):
            rows, references = pairs[places].unbind(dim=2)
            shown = torch.cat([rows, references], dim=1)
            paired = (references >= 0) & bool(config.style)
            there = torch.cat([torch.ones_like(paired), paired], dim=1)
            seen = torch.full((*shown.shape, source.features.shape[1]), math.nan)
            seen[there] = source.seen(shown[there], share, random)
            seen, theirs = seen.chunk(2, dim=1)
            styles: list[Tensor] = []
            # The reference is not translated: a target that moves along with T pulls it away without an end.
            for layer in config.layers if config.style else ():
                with torch.no_grad():
                    values = layer_values(layer, theirs.flatten(0, 1), head).view(*rows.shape, -1)
                styles += statistics_along(values, _AXES[config.axis], some=not bool(paired.all()))
            yield from zip(seen, source.labels[rows], source.tested_share(rows), plain[rows], *styles, strict=True)


_ROWS_AHEAD = 8192
"""Rows whose steps are made at once."""
_AXES = {"subject": 1, "vector": 2}


def _losses(step: Sequence[Tensor], translators: Translators, frozen: Heads, config: PretrainConfig) -> Terms:
    """Return the loss terms of a step, summed over the models; of ``step`` see `_steps`."""
    seen, labels, weight, plain, *theirs = step
    translated = translators.translate(seen, config.dropout)
    bottleneck = frozen.bottleneck(translated)
    logits, terms = frozen.classify(bottleneck), {}
    if config.classification:
        terms["classification"] = config.classification * classification_loss(logits, labels, weight).sum()
    if config.style:
        values, style = {"embedding": translated, "bottleneck": bottleneck}, []
        for place, layer in enumerate(config.layers):
            own = statistics_along(values[layer], _AXES[config.axis])
            # A row without a reference has nothing to learn of style.
            goal = (torch.where(goal.isnan(), mine, goal) for mine, goal in zip(own, theirs[2 * place :], strict=False))
            style.append(style_loss(*own, *goal))
        terms["style"] = config.style * len(seen) * torch.stack(style).sum()
    if config.expression:
        divergence = expression_loss(plain.flatten(0, 1), logits.flatten(0, 1))
        terms["expression"] = config.expression * len(seen) * divergence
    return terms

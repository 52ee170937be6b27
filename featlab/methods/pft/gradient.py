"""Minimise the losses of the target stage that have no closed form: over all frames at once, or step by step."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import one_cycle, torch_generator
from featlab.methods.base import ordered_features
from featlab.methods.pft.adapt import neutral_warnings
from featlab.model.losses import expression_loss, layer_values, style_statistics
from featlab.model.networks import AdaptedModel, PersonalModel, SourceHead, Translator
from featlab.model.training import Adam, Phase, Terms, minimise, train
from featlab.protocol.splits import Target

if TYPE_CHECKING:
    from featlab.methods.pft.method import TranslatorAdaptation


def adapt_by_gradient(
    bundle: Bundle, translator: Translator, target: Target, config: TranslatorAdaptation, seed: int
) -> AdaptedModel:
    """Adapt a copy of T, by the optimiser that the configuration names."""
    features, translator, head = ordered_features(bundle, target), copy.deepcopy(translator).eval(), bundle.head
    tensors = {"offset": [translator.offset], "last": translator.last.parameters(), "all": translator.parameters()}
    trained, random = list(tensors[config.update]), torch_generator(seed, "adapt")
    translator.requires_grad_(False)
    for tensor in trained:
        tensor.requires_grad_(True)
    # Mean and standard deviation to align to, by layer: the carried share of the way from here to the bank's centre.
    goals = {}
    for layer in config.layers if config.style else ():
        assert bundle.bank is not None  # checked by adapt_translator
        centre, spread = bundle.bank.layers[layer]
        with torch.no_grad():
            mean, _ = _style(layer, features, translator, head)
        goals[layer] = (mean + bundle.share.value * (centre - mean), spread)

    def losses(frames: Tensor, others: Tensor) -> Terms:
        logits = head(translator(frames))
        terms = {}
        if config.style:
            aligned = []
            for layer, (wanted_mean, wanted_std) in goals.items():
                mean, std = _style(layer, frames, translator, head)
                aligned.append(F.mse_loss(mean, wanted_mean) + config.std * F.mse_loss(std, wanted_std))
            terms["style"] = config.style * torch.stack(aligned).sum()
        if config.consistency:
            terms["consistency"] = config.consistency * expression_loss(head(translator(others)), logits)
        if config.anchor:
            terms["anchor"] = config.anchor * expression_loss(head(frames), logits)
        return terms

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        batch = min(config.batch or len(features), len(features))
        for _ in range(config.iterations):
            order = torch.randperm(len(features), generator=random)
            yield features[order[:batch]], features[order.roll(1)[:batch]]

    iterations, history = 0, list[Mapping[str, float]]()
    if config.iterations and config.optimiser == "lbfgs":
        # Over all frames at once: people are further apart than any fixed step, and a line search finds out.
        others = features[torch.randperm(len(features), generator=random)]
        iterations, history = minimise(
            trained,
            lambda: losses(features, others),
            message=f"adaptation diverged; lower the weights of {config.section}",
            iterations=config.iterations,
            tolerance_change=1e-9,
        )
    elif config.iterations:
        # Adam on batches of frames, as published.
        iterations = train(
            [Phase(Adam(trained, lr=config.lr), lambda frames: losses(*frames))],
            batches(),
            advice=f"lower {config.key('lr')} ({config.lr})",
            rate=lambda step: one_cycle(step, config.iterations),
            history=history,
        ).iterations
    model = PersonalModel(bundle.projection, translator.requires_grad_(False), head)
    return AdaptedModel(
        model,
        iterations=iterations,
        trainable=sum(tensor.numel() for tensor in trained),
        history=tuple(history),
        warnings=neutral_warnings(bundle, head(translator(features))),
    )


def _style(layer: str, features: Tensor, translator: Translator, head: SourceHead) -> tuple[Tensor, Tensor]:
    if layer == "features":
        return style_statistics(features + translator.offset)
    return style_statistics(layer_values(layer, translator(features), head))

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
from featlab.model.training import Adam, History, Phase, Terms, minimise, train
from featlab.protocol.splits import Target

if TYPE_CHECKING:
    from featlab.methods.pft.method import TranslatorAdaptation

Goals = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and standard deviation to align to, by layer."""


def adapt_by_gradient(
    bundle: Bundle, translator: Translator, target: Target, config: TranslatorAdaptation, seed: int
) -> AdaptedModel:
    """Adapt a copy of T, by the optimiser that the configuration names."""
    features, translator = ordered_features(bundle, target), copy.deepcopy(translator).eval()
    trained, random = _trained(translator, config.update), torch_generator(seed, "adapt")
    goals = _goals(bundle, translator, features, config) if config.style else {}
    iterations = 0
    history: History = []

    def losses(frames: Tensor, others: Tensor) -> Terms:
        return _losses(bundle, translator, frames, others, config, goals)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        batch = min(config.batch or len(features), len(features))
        for _ in range(config.iterations):
            order = torch.randperm(len(features), generator=random)
            yield features[order[:batch]], features[order.roll(1)[:batch]]

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
        fit = train(
            [Phase(Adam(trained, lr=config.lr), lambda frames: losses(*frames))],
            batches(),
            advice=f"lower {config.key('lr')} ({config.lr})",
            rate=lambda step: one_cycle(step, config.iterations),
            history=history,
        )
        iterations = fit.iterations
    model = PersonalModel(bundle.projection, translator.requires_grad_(False), bundle.head)
    return AdaptedModel(
        model,
        iterations=iterations,
        trainable=sum(tensor.numel() for tensor in trained),
        history=tuple(history),
        warnings=neutral_warnings(bundle, model.head(model.translator(features))),
    )


def _trained(translator: Translator, update: str) -> list[torch.nn.Parameter]:
    translator.requires_grad_(False)
    tensors = {
        "offset": [translator.offset],
        "last": list(translator.last.parameters()),
        "all": list(translator.parameters()),
    }[update]
    for tensor in tensors:
        tensor.requires_grad_(True)
    return tensors


def _losses(
    bundle: Bundle,
    translator: Translator,
    features: Tensor,
    others: Tensor,
    config: TranslatorAdaptation,
    goals: Goals,
) -> Terms:
    head = bundle.head
    logits = head(translator(features))
    terms = {}
    if config.style:
        aligned = []
        for layer, (target_mean, target_std) in goals.items():
            mean, std = _style(layer, features, translator, head)
            aligned.append(F.mse_loss(mean, target_mean) + config.std * F.mse_loss(std, target_std))
        terms["style"] = config.style * torch.stack(aligned).sum()
    if config.consistency:
        terms["consistency"] = config.consistency * expression_loss(head(translator(others)), logits)
    if config.anchor:
        with torch.no_grad():
            source = head(features)
        terms["anchor"] = config.anchor * expression_loss(source, logits)
    return terms


def _goals(bundle: Bundle, translator: Translator, features: Tensor, config: TranslatorAdaptation) -> Goals:
    """Return where style is aligned to at each layer: the carried share of the way from here to the bank's centre."""
    assert bundle.bank is not None  # checked by adapt_translator
    goals, share = {}, bundle.share.value
    with torch.no_grad():
        for layer in config.layers:
            centre, std = bundle.bank.layers[layer]
            mean, _ = _style(layer, features, translator, bundle.head)
            goals[layer] = (mean + share * (centre - mean), std)
    return goals


def _style(layer: str, features: Tensor, translator: Translator, head: SourceHead) -> tuple[Tensor, Tensor]:
    if layer == "features":
        return style_statistics(features + translator.offset)
    return style_statistics(layer_values(layer, translator(features), head))

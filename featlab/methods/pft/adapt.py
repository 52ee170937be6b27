"""Fit a translator to one person: the losses of the target stage and the ways to minimise them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.compute import one_cycle
from featlab.config.options import Options, option
from featlab.config.sections import UPDATES
from featlab.errors import ConfigError, InputError
from featlab.methods.base import base_model, ordered_features
from featlab.methods.pft.closed_form import BANKS, WEIGHTINGS, align_style
from featlab.methods.pft.reliability import Reliability, clip_statistics
from featlab.model.losses import expression_loss, style_loss, style_statistics
from featlab.model.networks import PersonalModel, SourceHead, Translator, layer_values
from featlab.model.personal import AdaptedModel
from featlab.model.training import Phase, Terms, minimise, train
from featlab.protocol.splits import Target
from featlab.seeding import torch_generator

OPTIMISERS = ("closed", "lbfgs", "adam")
STYLE_LAYERS = ("features", "embedding", "bottleneck")


Goals = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and standard deviation to align to, by layer."""
_GRADIENT = "optimiser = lbfgs or optimiser = adam"


@dataclass(frozen=True)
class TranslatorAdaptation(Options):
    """Adaptation of T to one person."""

    removed = {"shrinkage": "the carried share is chosen at the source; see pretrain.share"}  # noqa: RUF012

    iterations: int = option(50, "Most steps; the last iterate is kept.", minimum=0)
    optimiser: str = option(
        "closed",
        "`closed` (the means of the features alone, whose minimum is known), `lbfgs` (all frames at once, a line "
        "search, stops when converged) or `adam` (a fixed budget).",
        choices=OPTIMISERS,
    )
    weighting: str = option(
        "auto",
        "Which frames of the clip count: `neutral` (as far as C calls them neutral), "
        "`mean` (all alike), `median`, or `auto`: the mean of a clip that is as uniform as the source "
        "subjects' neutral clips, `neutral` for any other, and where the bundle does not know theirs.",
        choices=("auto", *WEIGHTINGS),
        search=("auto", "neutral", "mean"),
        only="optimiser = closed",
    )
    bank: str = option(
        "all",
        "Where the clip is moved to: the centre of `all` source subjects, of the "
        "`nearest` five, or of all `weighted` by how near they are.",
        choices=BANKS,
        search=("all", "nearest", "weighted"),
        only="optimiser = closed",
    )
    lr: float = option(1e-2, "Peak learning rate.", minimum=0, only="optimiser = adam")
    batch: int = option(0, "Frames in a step; 0 takes them all.", minimum=0, only="optimiser = adam")
    update: str = option(
        "offset",
        "Which tensors of T move: its `offset`, its `last` layer, or `all`.",
        choices=UPDATES,
    )
    style: float = option(1.0, "Weight of the style alignment with the bundle's style bank.", minimum=0, only=_GRADIENT)
    std: float = option(0.0, "Weight of the standard deviations in it; the means weigh 1.", minimum=0)
    layers: tuple[str, ...] = option(
        ("features",),
        "Where style is aligned: the offset `features`, the translated `embedding`, the `bottleneck`.",
        choices=STYLE_LAYERS,
    )
    consistency: float = option(0.0, "Weight of the prediction consistency between two frames.", minimum=0)
    anchor: float = option(0.0, "Weight of KL to the source model's own predictions.", minimum=0)
    guard: bool = option(
        True,
        "Use the source model as it is where adapting did not help source people who were held out; `--force` adapts "
        "all the same.",
    )

    def check_together(self) -> None:
        """Refuse losses that the optimiser can't minimise, and losses that see nothing of what moves."""
        alone = self.layers == ("features",) and self.style and not (self.std or self.consistency or self.anchor)
        if self.optimiser == "closed" and not (alone and self.update == "offset"):
            raise ConfigError(
                f"{self.key('optimiser')} = closed: only the means of the features have a closed form, over the "
                "offset; for std, consistency, anchor, another update or other layers set "
                f"{self.key('optimiser')} = lbfgs (or adam)"
            )
        seen = self.update == "offset" or any(layer != "features" for layer in self.layers)
        if not (self.consistency or self.anchor or (self.style and self.layers and seen)):
            raise ConfigError(
                f"{self.key('update')} = {self.update}: nothing to minimise; give style (with layers that the "
                "update changes), consistency or anchor a weight"
            )


def adapt_translator(
    bundle: Bundle,
    translator: Translator,
    target: Target,
    config: TranslatorAdaptation,
    *,
    seed: int,
    reliability: Reliability | None = None,
) -> AdaptedModel:
    """Adapt T on the target's frames.

    Args:
        bundle: Head and style bank; unchanged.
        translator: T to adapt, in place.
        target: Neutral frames.
        config: Losses, weights, steps.
        seed: Of frame order and frame pairs.
        reliability: What source subjects told of the bundle; read in closed form.

    Returns:
        The adapted model, with the loss terms of every step.

    Raises:
        InputError: A loss that is not finite, or a style term without a style bank.
    """
    if config.style and bundle.bank is None:
        raise InputError(f"{config.key('style')} needs a style bank, and this bundle has none; set it to 0")
    if config.optimiser == "closed":
        return _aligned(bundle, translator, target, config, reliability if config.iterations else None)
    features = ordered_features(bundle, target)
    trained = _trained(translator, config.update)
    random = torch_generator(seed, "adapt")
    translator.eval()
    fit = _fit_lbfgs if config.optimiser == "lbfgs" else _fit_adam
    goals = _goals(bundle, translator, features, config) if config.style else {}
    iterations, history = fit(bundle, translator, trained, features, config, random, goals)
    model = PersonalModel(bundle.projection, translator.requires_grad_(False), bundle.head)
    return AdaptedModel(
        model,
        iterations=iterations,
        trainable=sum(tensor.numel() for tensor in trained),
        history=tuple(history),
        warnings=_warnings(bundle, model, target),
    )


def _aligned(
    bundle: Bundle,
    translator: Translator,
    target: Target,
    config: TranslatorAdaptation,
    reliability: Reliability | None,
) -> AdaptedModel:
    """Set the offset in closed form, and the temperature, and say what the bundle knows of such a clip."""
    features, bundle = ordered_features(bundle, target), replace(bundle, translator=translator)
    # Whatever the weighting is, a clip is judged by how it looks with its neutral frames in place.
    weighted = align_style(features, bundle, bank=config.bank, iterations=config.iterations)
    report = reliability.report(clip_statistics(features, weighted, bundle)) if reliability else None
    gain = reliability.source_gain if reliability else None
    if config.guard and gain is not None and not gain.helps:
        line = f"{gain.sentence()}: the source model is used as it is (--force adapts)"
        return AdaptedModel(base_model(bundle), warnings=(line,), report=report)
    weighting = config.weighting
    if weighting == "auto":
        # A clip as uniform as a source subject's is all neutral for what can be seen: every frame tells of the person.
        weighting = "mean" if report is not None and report.uniform else "neutral"
    aligned = weighted
    if weighting != "neutral":
        aligned = align_style(features, bundle, weighting=weighting, bank=config.bank, iterations=config.iterations)
    translator.offset.data.copy_(aligned.offset)
    temperature = float(reliability.temperature) if reliability else 1.0
    model = PersonalModel(bundle.projection, translator.requires_grad_(False), bundle.head, temperature)
    return AdaptedModel(
        model,
        iterations=len(aligned.history),
        trainable=len(aligned.offset) if aligned.history else 0,
        history=aligned.history,
        warnings=(*_warnings(bundle, model, target), *_doubts(reliability), *(report.warnings if report else ())),
        report=report,
    )


def _doubts(reliability: Reliability | None) -> tuple[str, ...]:
    """Say so when source subjects don't tell that adapting helps."""
    if reliability is None:
        return ("nobody was held out at the source, or too few: whether adapting helps is not known",)
    gain = reliability.source_gain
    return (f"adapting may not help: {gain.sentence()}",) if gain is not None and gain.low <= 0 else ()


def _fit_lbfgs(
    bundle: Bundle,
    translator: Translator,
    trained: list[torch.nn.Parameter],
    features: Tensor,
    config: TranslatorAdaptation,
    random: torch.Generator,
    goals: Goals,
) -> tuple[int, Sequence[Mapping[str, float]]]:
    """Minimise over all frames at once: people are further apart than any fixed step, and a line search finds out."""
    if not config.iterations:
        return 0, []
    others = features[torch.randperm(len(features), generator=random)]
    return minimise(
        trained,
        lambda: _losses(bundle, translator, features, others, config, goals),
        message=f"adaptation diverged; lower the weights of {config.section}",
        iterations=config.iterations,
        tolerance_change=1e-9,
    )


def _fit_adam(
    bundle: Bundle,
    translator: Translator,
    trained: list[torch.nn.Parameter],
    features: Tensor,
    config: TranslatorAdaptation,
    random: torch.Generator,
    goals: Goals,
) -> tuple[int, Sequence[Mapping[str, float]]]:
    """Take Adam steps on batches of frames, as published."""
    batch = min(config.batch or len(features), len(features))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(config.iterations):
            order = torch.randperm(len(features), generator=random)
            yield features[order[:batch]], features[order.roll(1)[:batch]]

    def losses(frames: tuple[Tensor, Tensor]) -> Terms:
        return _losses(bundle, translator, *frames, config, goals)

    fit = train(
        [Phase(torch.optim.Adam(trained, lr=config.lr), losses)],
        batches(),
        advice=f"lower {config.key('lr')} ({config.lr})",
        rate=lambda step: one_cycle(step, config.iterations),
    )
    return fit.iterations, fit.history


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
    translated = translator(features)
    terms = {}
    if config.style:
        aligned = []
        for layer, (target_mean, target_std) in goals.items():
            mean, std = _style(layer, features, translator, head)
            aligned.append(style_loss(mean, mean.detach(), target_mean, mean.detach()))
            if config.std:
                aligned.append(config.std * style_loss(std, std.detach(), target_std, std.detach()))
        terms["style"] = config.style * torch.stack(aligned).sum()
    if not (config.consistency or config.anchor):
        return terms
    logits = head(translated)
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
            centre, std = bundle.bank.centre(layer)
            mean, _ = _style(layer, features, translator, bundle.head)
            goals[layer] = (mean + share * (centre - mean), std)
    return goals


def _style(layer: str, features: Tensor, translator: Translator, head: SourceHead) -> tuple[Tensor, Tensor]:
    if layer == "features":
        return style_statistics(features + translator.offset)
    return style_statistics(layer_values(layer, translator(features), head))


def _warnings(bundle: Bundle, model: PersonalModel, target: Target) -> tuple[str, ...]:
    """Say so when the adapted model does not recognise the neutral clip itself."""
    with torch.no_grad():
        predicted = model.head(model.translator(ordered_features(bundle, target))).argmax(dim=1)
    share = float((predicted == bundle.neutral_code).float().mean())
    if share >= 0.5:
        return ()
    return (f"the adapted model calls only {share:.0%} of the neutral clip {bundle.neutral!r}: is the clip neutral?",)

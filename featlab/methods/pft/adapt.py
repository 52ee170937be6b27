"""Fit a translator to one person: what is minimised, and the closed form of the default.

The offset that moves the mean of a clip onto the bank's centre is their difference, of which the carried share is
taken. A "neutral" clip that holds other expressions has its mean in the wrong place, so frames are weighted by how
neutral C calls them once they are aligned, and the two steps alternate, from the median frame on:

    offset = share · (centre − Σ pᵢ fᵢ / Σ pᵢ)        pᵢ = softmax(C(B(T(fᵢ + offset))))[neutral]

On a clip whose frames are all alike this is the mean (SFDA-PFT's L_style over means, at its minimum).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import Options, option
from featlab.config.sections import UPDATES
from featlab.errors import ConfigError, InputError
from featlab.methods.base import base_model, ordered_features
from featlab.methods.pft.reliability import Reliability, clip_statistics
from featlab.model.networks import AdaptedModel, PersonalModel, Translator
from featlab.model.style_bank import StyleBank
from featlab.protocol.splits import Target

WEIGHTINGS = ("neutral", "mean", "median")
BANKS = ("all", "nearest", "weighted")
NEAREST = 5
"""Source subjects that ``nearest`` takes."""
TOLERANCE = 1e-4
"""Largest change of the clip's centre, in features of unit variance, at which the alternation has ended."""
OPTIMISERS = ("closed", "lbfgs", "adam")
STYLE_LAYERS = ("features", "embedding", "bottleneck")


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
        "Where the clip is moved to: the centre of `all` source subjects or, with `pretrain.style_bank = people`, of "
        "the `nearest` five, or of all `weighted` by how near they are.",
        choices=BANKS,
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
    """Adapt a T on a target's neutral frames; return the model, with the loss terms of every step.

    The seed is that of the frames' order and pairs; ``reliability``, what source subjects told of the bundle, is read
    in closed form.

    Raises:
        InputError: A loss that is not finite, or a style term without a style bank.
    """
    if config.style and bundle.bank is None:
        raise InputError(f"{config.key('style')} needs a style bank, and this bundle has none; set it to 0")
    if config.bank != "all" and (bundle.bank is None or bundle.bank.people is None):
        raise InputError(
            f"{config.key('bank')} = {config.bank} needs single people in the style bank, and this bundle has none; "
            "pretrain with pretrain.style_bank = people"
        )
    if config.optimiser == "closed":
        own = bundle if translator is bundle.translator else replace(bundle, translator=translator)
        return _aligned(own, target, config, reliability if config.iterations else None)
    # Only the closed form does without what trains networks.
    from featlab.methods.pft.gradient import minimise_losses

    features, translator = ordered_features(bundle, target), copy.deepcopy(translator)
    iterations, history, trained = minimise_losses(bundle, translator.eval(), features, config, seed)
    model = PersonalModel(bundle.projection, translator.requires_grad_(False), bundle.head)
    return AdaptedModel(
        model,
        iterations=iterations,
        trainable=trained,
        history=tuple(history),
        warnings=_warnings(bundle, model.head(model.translator(features))),
    )


def _aligned(
    bundle: Bundle, target: Target, config: TranslatorAdaptation, reliability: Reliability | None
) -> AdaptedModel:
    """Set the offset in closed form, and the temperature, and say what the bundle knows of such a clip."""
    features = ordered_features(bundle, target)
    # Whatever the weighting is, a clip is judged by how it looks with its neutral frames in place.
    weighted = align_style(features, bundle, bank=config.bank, iterations=config.iterations)
    report = None
    if reliability is not None:
        report = reliability.report(clip_statistics(features, weighted.offset, bundle, reliability.odds))
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
    temperature = float(reliability.temperature) if reliability else 1.0
    model = PersonalModel(bundle.projection, bundle.translator.moved(aligned.offset), bundle.head, temperature)
    warnings = (*_warnings(bundle, bundle.logits(features + aligned.offset)), *_doubts(reliability))
    return AdaptedModel(
        model,
        iterations=len(aligned.history),
        trainable=len(aligned.offset) if aligned.history else 0,
        history=aligned.history,
        warnings=(*warnings, *(report.warnings if report else ())),
        report=report,
    )


def _doubts(reliability: Reliability | None) -> tuple[str, ...]:
    """Say so when source subjects don't tell that adapting helps."""
    if reliability is None:
        return ("nobody was held out at the source, or too few: whether adapting helps is not known",)
    gain = reliability.source_gain
    return (f"adapting may not help: {gain.sentence()}",) if gain is not None and gain.low <= 0 else ()


def _warnings(bundle: Bundle, logits: Tensor) -> tuple[str, ...]:
    """Say so when the adapted model does not recognise the neutral clip itself."""
    share = float((logits.argmax(dim=1) == bundle.neutral_code).float().mean())
    if share >= 0.5:
        return ()
    return (f"the adapted model calls only {share:.0%} of the neutral clip {bundle.neutral!r}: is the clip neutral?",)


@dataclass(frozen=True, eq=False)
class Alignment:
    """What aligning a clip gave."""

    offset: Tensor  # (D,) to add to the person's features.
    weight: Tensor  # (n,) how neutral each frame is taken to be, in [0, 1].
    # An entry an iteration: ``style`` (L_style before it), ``neutral`` (mean weight), ``loss``.
    history: tuple[Mapping[str, float], ...]


def align_style(
    features: Tensor, bundle: Bundle, *, weighting: str = "neutral", bank: str = "all", iterations: int = 20
) -> Alignment:
    """Return the offset that moves a clip's neutral frames towards the centre of the bundle's style bank."""
    assert bundle.bank is not None  # what needs a bank has checked that there is one
    share = bundle.share.value
    centre = bank_centre(bundle.bank, features, bank)
    even = torch.ones(len(features), device=features.device)
    if not iterations:
        return Alignment(torch.zeros_like(centre), even, ())
    # The quantile is the middle of the two middle ones, as numpy's median; torch's is the lower.
    place = features.mean(dim=0) if weighting == "mean" else torch.quantile(features, 0.5, dim=0)
    if weighting != "neutral":
        return Alignment(share * (centre - place), even, _history([(features.mean(dim=0) - place, even)]))
    weight, steps = even, []
    for _ in range(iterations):
        logits = bundle.logits(features + share * (centre - place))
        # No frame is left out for good: the first place may be far from all that are neutral.
        weight = torch.softmax(logits, dim=1)[:, bundle.neutral_code].clamp_min(1e-6)
        moved = (weight @ features) / weight.sum()
        steps.append((moved - place, weight))
        place = moved
        if float(steps[-1][0].abs().max()) <= TOLERANCE:
            break
    return Alignment(share * (centre - place), weight, _history(steps))


def bank_centre(bank: StyleBank, features: Tensor | None = None, which: str = "all") -> Tensor:
    """Return (D,), the place that a clip is moved to."""
    if which == "all" or features is None:
        return bank.layers["features"][0]
    means = bank.people
    assert means is not None  # checked by adapt_translator
    distance = ((means - features.mean(dim=0)) ** 2).sum(dim=1)
    if which == "nearest":
        return means[distance.argsort()[:NEAREST]].mean(dim=0)
    # A bank of one subject at the clip's own mean has no distance at all.
    weight = torch.softmax(-distance / distance.median().clamp_min(1e-12), dim=0)
    return (weight[:, None] * means).sum(dim=0)


def _history(steps: Sequence[tuple[Tensor, Tensor]]) -> tuple[Mapping[str, float], ...]:
    """Return the terms of each iteration, of how far the clip's weighted mean was from its place, and the weights."""
    styles = torch.stack([left for left, _ in steps]).square().mean(dim=1).tolist()
    means = torch.stack([weight for _, weight in steps]).mean(dim=1).tolist()
    return tuple({"style": style, "neutral": mean, "loss": style} for style, mean in zip(styles, means, strict=True))

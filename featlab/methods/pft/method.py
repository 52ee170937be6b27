"""SFDA-PFT: adapt the translator T to one person from unlabelled neutral frames; B and C stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import Options, option
from featlab.config.sections import UPDATES
from featlab.errors import ConfigError, InputError
from featlab.methods.base import Method
from featlab.methods.pft.adapt import Reliability, adapt_in_closed_form, confidence_gap
from featlab.model.networks import AdaptedModel, GainEstimate, PersonalModel, SourceGain, Translator, as_tensor
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import Target

WEIGHTINGS = ("neutral", "mean", "median")
_GRADIENT = "optimiser = lbfgs or optimiser = adam"


@dataclass(frozen=True)
class TranslatorAdaptation(Options):
    """Adaptation of T to one person."""

    removed = {  # noqa: RUF012
        "shrinkage": "the carried share is chosen at the source; see pretrain.share",
        "bank": "a clip is moved to the centre of all source people",
    }

    iterations: int = option(50, "Most steps; the last iterate is kept.", minimum=0)
    optimiser: str = option(
        "closed",
        "`closed` (the means of the features alone, whose minimum is known), `lbfgs` (all frames at once, a line "
        "search, stops when converged) or `adam` (a fixed budget).",
        choices=("closed", "lbfgs", "adam"),
    )
    weighting: str = option(
        "auto",
        "Which frames of the clip count: `neutral` (as far as C calls them neutral), "
        "`mean` (all alike), `median`, or `auto`: the mean of a clip that is as uniform as four in five of the "
        "source subjects' neutral clips (19 in 20 for fewer than 8 frames), `neutral` for any other, and where the "
        "bundle does not know theirs.",
        choices=("auto", *WEIGHTINGS),
        search=("auto", "neutral", "mean"),
        only="optimiser = closed",
    )
    lr: float = option(1e-2, "Peak learning rate.", minimum=0, only="optimiser = adam")
    batch: int = option(0, "Frames in a step; 0 takes them all.", minimum=0, only="optimiser = adam")
    update: str = option(
        "offset", "Which tensors of T move: its `offset`, its `last` layer, or `all`.", choices=UPDATES
    )
    style: float = option(1.0, "Weight of the style alignment with the bundle's style bank.", minimum=0, only=_GRADIENT)
    std: float = option(0.0, "Weight of the standard deviations in it; the means weigh 1.", minimum=0)
    layers: tuple[str, ...] = option(
        ("features",),
        "Where style is aligned: the offset `features`, the translated `embedding`, the `bottleneck`.",
        choices=("features", "embedding", "bottleneck"),
    )
    consistency: float = option(0.0, "Weight of the prediction consistency between two frames.", minimum=0)
    anchor: float = option(0.0, "Weight of KL to the source model's own predictions.", minimum=0)
    guard: bool = option(
        True,
        "Use the source model where adapting did not help held-out source people; `--force` adapts all the same.",
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
    if config.optimiser == "closed":
        own = bundle if translator is bundle.translator else replace(bundle, translator=translator)
        return adapt_in_closed_form(own, target, config, reliability if config.iterations else None)
    # Only the closed form does without what trains networks.
    from featlab.methods.pft.gradient import adapt_by_gradient

    return adapt_by_gradient(bundle, translator, target, config, seed)


class PFT(Method):
    """Style alignment to the bundle's style bank, then what T learnt in episodes at the source does the rest."""

    name = "pft"
    published = (
        "PFT's parts (translate style, keep expression, C fixed, light T, neutral target frames, no source rows; at "
        "the source L_CE + L_style + L_expr on pairs) with these changes, each measured in docs/why.md: the target's "
        "style is aligned with stored statistics of the source subjects, because KL to the source model's own "
        "prediction carries no personal signal; in closed form, by the share of the offset at rest that carries to "
        "expressions, with the frames of an uneven clip weighted by how neutral C calls them; T learns in episodes, "
        "and holds a linear part beside the MLP; probabilities are calibrated on held-out source subjects, and where "
        "adapting did not help those the source model is used."
    )
    config_type = TranslatorAdaptation
    carries = (
        "temperature, limits of what a neutral clip looks like and the expected gain, from source subjects who were "
        "held out in folds (with a sorted list of what was left of their gains, without names)"
    )
    part = ""
    """The part of T that is taken; all of it where empty."""

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return what held-out source subjects tell of T and its parts; nothing where too few, or by choice."""
        if not bundle.config.pretrain.validation or bundle.bank is None:
            return {}
        # Here and below: what trains T is imported where it is trained, and not to adapt it.
        from featlab.methods.pft.validation import validate_on_source

        return validate_on_source(source, bundle)

    @classmethod
    def adopt(cls, source: SourceRows, bundle: Bundle) -> Bundle:
        """Return the bundle with the two parts of T weighed as they did best on held-out source subjects."""
        from featlab.model.pretrain import make_style_bank, weighed

        config, tensors = bundle.config.pretrain, bundle.extras.get(cls.name, {})
        balance = float(tensors.get("balance", config.balance))
        if config.form != "joint" or balance == config.balance:
            return bundle
        translator = weighed(bundle.translator, balance, config, len(bundle.classes))
        bank = make_style_bank(source, translator, bundle.head, bundle.share.value) if bundle.bank else None
        chosen = bundle.config.with_values({"pretrain.balance": balance}, "source people")
        return replace(bundle, translator=translator, bank=bank, config=chosen)

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(T'(f))), T' adapted from the bundle's T."""
        self.check(bundle, target)
        translator, reliability = self.translator(bundle), self.reliability(bundle)
        return adapt_translator(bundle, translator, target, self.config, seed=seed, reliability=reliability)

    def forced(self) -> PFT:
        """Return the method without its guard."""
        return type(self)(replace(self.config, guard=False))

    def translator(self, bundle: Bundle) -> Translator:
        """Return the T, or the part of it, that is adapted."""
        if not self.part:
            return bundle.translator
        from featlab.model.pretrain import part_of

        return part_of(bundle.translator, self.part, bundle.config.pretrain, len(bundle.classes))

    def reliability(self, bundle: Bundle) -> Reliability | None:
        """Return what held-out source subjects told of that T; ``None`` where the bundle doesn't know."""
        prefix = f"{self.part or bundle.config.pretrain.form}."
        carried = bundle.extras.get(PFT.name, {}).items()
        tensors = {name.removeprefix(prefix): tensor for name, tensor in carried if name.startswith(prefix)}
        return Reliability.of(tensors)

    def source_gain(self, bundle: Bundle) -> SourceGain | None:
        """Return what adapting gained on source people who were held out; ``None`` where the bundle doesn't know."""
        reliability, config = self.reliability(bundle), bundle.config.pretrain
        gain = reliability.source_gain if reliability else None
        chosen = config.form == "joint" and config.learn_balance and config.epochs
        if gain is None or self.part or not chosen:
            return gain
        weight = config.balance  # As `adopt` left it.
        return replace(
            gain, chose=f"; they chose T's parts: {100 - 100 * weight:.0f} % linear, {100 * weight:.0f} % MLP"
        )

    def expected_gain(
        self, bundle: Bundle, model: PersonalModel, embeddings: NDArray[np.float32]
    ) -> GainEstimate | None:
        """Return what source subjects tell of the gain, from unlabelled frames of the person; ``None`` if nothing."""
        reliability = self.reliability(bundle)
        if reliability is None or not isinstance(model.translator, Translator):
            return None
        if not len(embeddings):
            return reliability.estimate(None)
        rows = as_tensor(embeddings, model.projection.mean.device)
        with torch.no_grad():
            gap = confidence_gap(model(rows), bundle.head(bundle.projection(rows)))
        return reliability.estimate(gap, len(embeddings))


class LinearPFT(PFT):
    """PFT with the linear part of T alone: nothing of it was trained on pairs."""

    name = "pft-linear"
    published = "An ablation of pft: the part of T that is one convex problem. B and C cancel out of it."
    prepared_by = "pft"
    part = "linear"


class MLPPFT(PFT):
    """PFT with the MLP part of T alone: the seeds' form, with style, expression and classification losses on pairs."""

    name = "pft-mlp"
    published = "An ablation of pft: the part of T that is trained on pairs, from the identity."
    prepared_by = "pft"
    part = "mlp"

"""SFDA-PFT: adapt the translator T to one person from unlabelled neutral frames; B and C stay as they are."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.config.options import option
from featlab.methods.base import Method
from featlab.methods.pft.adapt import TranslatorAdaptation, adapt_translator
from featlab.methods.pft.reliability import Reliability, confidence_gap
from featlab.methods.pft.validation import validate_on_source
from featlab.methods.registry import PAIR_KEYS
from featlab.model.networks import PersonalModel, as_tensor
from featlab.model.personal import AdaptedModel, GainEstimate
from featlab.model.pretrain import SourceRows, new_translator, pretrain_translator
from featlab.protocol.splits import Target

_PRETRAINING = ("hidden", "residual", "epochs", "batch", "lr", "weight_decay", "axis", "layers")
"""Options of ``pretrain`` with which the poster's T is trained; its losses have a weight of 1."""


@dataclass(frozen=True)
class PosterConfig(TranslatorAdaptation):
    """The poster's target stage: frame consistency and KL to the source prediction, no style term."""

    iterations: int = option(25, search=(25, 100))
    weighting: str = "mean"
    optimiser: str = "adam"
    lr: float = option(1e-3, search=(1e-4, 1e-3, 1e-2))
    batch: int = 32
    update: str = option("last", search=("last", "all"))
    style: float = 0.0
    consistency: float = 1.0
    anchor: float = 1.0


class PosterPFT(Method):
    """The seeds' objective as written, at the source and at the target."""

    name = "pft-poster"
    title = "SFDA-PFT (poster)"
    setting = "SFDA-PFT"
    published = (
        "L_style + L_expr on source pairs, frame-to-frame consistency + L_expr at the target, as on the poster. "
        "Departures: T is a residual MLP on cached features with a zero start. It gives no loss weights: all are 1."
    )
    config_type = PosterConfig
    needs_extras = True
    reads = (*PAIR_KEYS, *(f"pretrain.{name}" for name in _PRETRAINING))
    carries = "weights of a T pretrained by the poster's losses"
    needs_neutral = True
    updates = ("translator",)

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return a T pretrained by the poster's losses."""
        weights = replace(
            bundle.config.pretrain, objective="poster", form="mlp", style=1.0, expression=1.0, dropout=0.0
        )
        pretrained = pretrain_translator(source, bundle.head, weights, seed=bundle.seed)
        return dict(pretrained.translator.state_dict())

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(T'(f))), T' adapted from the poster's T."""
        self.check(bundle, target)
        translator = new_translator(len(bundle.translator.offset), bundle.config.pretrain, bundle.seed)
        translator.load_state_dict(dict(bundle.extras[self.name]))
        return adapt_translator(bundle, translator, target, self.config, seed=seed)


class PFT(Method):
    """Style alignment to the bundle's style bank, then what T learnt in episodes at the source does the rest."""

    name = "pft"
    title = "SFDA-PFT (anchored)"
    setting = "SFDA-PFT"
    published = (
        "PFT's parts (translate style, keep expression, C fixed, light T, neutral target frames, no source rows) with "
        "these changes, each measured in docs/why.md: the target's style is aligned with stored statistics of the "
        "source subjects, because KL to the source model's own prediction carries no personal signal; in closed form, "
        "with the frames of an uneven clip weighted by how neutral C calls them; T is linear and learns from episodes "
        "by cross-entropy, because an MLP, the style loss and KL at the source bring nothing more; probabilities are "
        "calibrated on held-out source subjects."
    )
    config_type = TranslatorAdaptation
    needs_style_bank = True
    carries = (
        "temperature, limits of what a neutral clip looks like and the expected gain, from source subjects who were "
        "held out in folds (with a sorted list of what was left of their gains, without names)"
    )
    needs_neutral = True
    updates = ("translator",)

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return what held-out source subjects tell of the bundle; nothing where there are too few, or by choice."""
        if not bundle.config.pretrain.validation:
            return {}
        reliability = validate_on_source(source, bundle)
        return reliability.tensors() if reliability else {}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(T'(f))), T' adapted from the bundle's T."""
        self.check(bundle, target)
        translator, reliability = copy.deepcopy(bundle.translator), self._reliability(bundle)
        return adapt_translator(bundle, translator, target, self.config, seed=seed, reliability=reliability)

    def expected_gain(
        self, bundle: Bundle, model: PersonalModel, embeddings: NDArray[np.float32]
    ) -> GainEstimate | None:
        """Return what source subjects tell of the gain, from unlabelled frames of the person; ``None`` if nothing."""
        reliability = self._reliability(bundle)
        if reliability is None:
            return None
        if not len(embeddings):
            return reliability.estimate(None)
        rows = as_tensor(embeddings, model.projection.mean.device)
        with torch.no_grad():
            gap = confidence_gap(model(rows), bundle.head(bundle.projection(rows)))
        return reliability.estimate(gap, len(embeddings))

    def _reliability(self, bundle: Bundle) -> Reliability | None:
        return Reliability.of(bundle.extras.get(self.name, {}))

"""Neutral shift: move the target so that its neutral mean is where the source subjects' neutral means are."""

from __future__ import annotations

from featlab.bundle.bundle import Bundle
from featlab.methods.base import Method, target_features
from featlab.model.networks import PersonalModel
from featlab.model.personal import AdaptedModel, Affine
from featlab.protocol.splits import Target


class NeutralShift(Method):
    """One vector: the centre of the source subjects' neutral means minus the target's neutral mean."""

    name = "neutral-shift"
    title = "Neutral-mean shift"
    setting = "Baselines"
    published = "A light baseline of this package: mean alignment of the neutral class, in closed form."
    needs_style_bank = True
    needs_neutral = True
    updates = ("translator",)

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B(f + shift))."""
        self.check(bundle, target)
        assert bundle.bank is not None  # `check` refuses a bundle without a bank
        centre, _ = bundle.bank.centre("features")
        shift = centre - target_features(bundle, target).mean(dim=0)
        return AdaptedModel(PersonalModel(bundle.projection, Affine.shift(shift), bundle.head), trainable=len(shift))

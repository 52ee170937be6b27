"""CORAL on the neutral class: align mean and covariance of the target's neutral rows with the source's."""

from __future__ import annotations

import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.errors import InputError
from featlab.methods.base import Method, target_features
from featlab.model.networks import PersonalModel
from featlab.model.personal import AdaptedModel, Affine
from featlab.model.pretrain import SourceRows
from featlab.protocol.splits import Target


class Coral(Method):
    """Whiten by the target's neutral covariance, colour by the source's (Sun, Feng & Saenko, 2016)."""

    name = "coral"
    title = "CORAL on neutral"
    setting = "Baselines"
    published = (
        "The published map, with the published +I on both covariances, between neutral rows. It moves the target to "
        "the source, because the classifier stays, where the paper moves the source."
    )
    needs_style_bank = True
    needs_neutral = True
    updates = ("translator",)
    needs_extras = True
    carries = "covariance (D × D) of neutral rows within source subjects"

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the covariance of the source's neutral rows around their own subject's mean, (D, D)."""
        rows = torch.nonzero(source.clips.row_clip >= 0).squeeze(1)
        if not len(rows):
            raise InputError("coral needs neutral rows of source subjects, and none is labelled; label them")
        clips = source.clips
        deviations = source.features[rows] - clips.subject_mean()[clips.row_subject[rows]]
        return {"covariance": deviations.T @ deviations / len(rows)}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B((f − μ_t) A + μ_s)), A = (Σ_t + I)^−½ (Σ_s + I)^½."""
        self.check(bundle, target)
        assert bundle.bank is not None  # `check` refuses a bundle without a bank
        features = target_features(bundle, target)
        mean = features.mean(dim=0)
        centre, _ = bundle.bank.centre("features")
        covariance = (features - mean).T @ (features - mean) / len(features)
        weight = _power(covariance, -0.5) @ _power(bundle.extras[self.name]["covariance"], 0.5)
        affine = Affine(weight, centre - mean @ weight)
        trainable = weight.numel() + len(mean)
        return AdaptedModel(PersonalModel(bundle.projection, affine, bundle.head), trainable=trainable)


def _power(covariance: Tensor, exponent: float) -> Tensor:
    """Return (Σ + I)^exponent of a symmetric (D, D) matrix."""
    values, vectors = torch.linalg.eigh(covariance + torch.eye(len(covariance), device=covariance.device))
    power: Tensor = (vectors * values.clamp_min(1e-6) ** exponent) @ vectors.T
    return power

"""AdaBN: replace B's BatchNorm statistics by the target's."""

from __future__ import annotations

import copy

import torch

from featlab.bundle.bundle import Bundle
from featlab.methods.base import Method, target_features
from featlab.model.networks import PersonalModel
from featlab.model.personal import AdaptedModel
from featlab.protocol.splits import Target


class AdaBN(Method):
    """Batch-norm statistics of the target's neutral rows in place of the source's (Li et al., 2016)."""

    name = "adabn"
    title = "AdaBN"
    setting = "Baselines"
    published = (
        "As published (statistics of all target rows, no training), on the one BatchNorm of B. With neutral rows only, "
        "the class mean goes with the person's mean, so it is expected to hurt."
    )
    updates = ("bottleneck",)

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C(B'(f)), B' with the target's statistics."""
        self.check(bundle, target)
        head = copy.deepcopy(bundle.head)
        with torch.no_grad():
            values = head.linear(target_features(bundle, target))
            mean, variance = head.norm.running_mean, head.norm.running_var
            assert mean is not None  # BatchNorm1d tracks statistics unless told not to
            assert variance is not None
            mean.copy_(values.mean(dim=0))
            variance.copy_(values.var(dim=0, correction=0))
        return AdaptedModel(PersonalModel(bundle.projection, None, head), trainable=2 * values.shape[1])

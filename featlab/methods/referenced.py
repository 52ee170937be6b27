"""Neutral-referenced classifier: every subject minus their own neutral mean, at the source and at the target."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.errors import InputError
from featlab.methods.base import Method, target_features
from featlab.model.networks import PersonalModel
from featlab.model.personal import AdaptedModel, Affine, linear_head
from featlab.model.pretrain import SourceRows
from featlab.protocol.splits import Target
from featlab.seeding import torch_generator

INVERSE_PENALTY = 0.03
"""C of scikit-learn's LogisticRegression, in units of features with unit variance within subjects."""


class Referenced(Method):
    """Logistic regression on differences from the neutral mean: the strongest light baseline."""

    name = "referenced"
    title = "Neutral-referenced classifier"
    setting = "Baselines"
    published = (
        "A light baseline of this package: scikit-learn's LogisticRegression (C = 0.03) on source rows minus the mean "
        "of the subject's other neutral clips, in the same episodes as `pft`; it takes the place of B and C."
    )
    needs_extras = True
    carries = "weight (K × D) and bias (K) of a logistic regression"
    needs_neutral = True
    updates = ("translator", "bottleneck", "classifier")

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return the classifier: weight (K, D) and bias (K,); a class without rows gets a bias that never wins."""
        from sklearn.linear_model import LogisticRegression

        rows = torch.nonzero((source.clips.row_subject >= 0) & (source.labels >= 0)).squeeze(1)
        if len(np.unique(source.labels[rows].numpy())) < 2:
            raise InputError(
                "referenced needs source subjects with neutral rows and with others; label the source rows"
            )
        random = torch_generator(bundle.seed, "referenced")
        referenced = source.features[rows] - source.clips.episode_mean(rows, random)
        fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=5000)
        weight_of_rows = source.clips.tested_share(rows).numpy()
        fitted.fit(referenced.numpy().astype(np.float64), source.labels[rows].numpy(), sample_weight=weight_of_rows)
        coefficients, intercept = fitted.coef_, fitted.intercept_
        if len(fitted.classes_) == 2:
            # scikit-learn keeps one row for two classes; half of it each way gives the same probabilities.
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
        weight = torch.zeros(len(bundle.classes), referenced.shape[1])
        bias = torch.full((len(bundle.classes),), -1e4)
        weight[fitted.classes_] = torch.tensor(coefficients, dtype=torch.float32)
        bias[fitted.classes_] = torch.tensor(intercept, dtype=torch.float32)
        return {"weight": weight, "bias": bias}

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Return C'(f − μ_t)."""
        self.check(bundle, target)
        tensors = bundle.extras[self.name]
        head = linear_head(tensors["weight"], tensors["bias"])
        shift = Affine.shift(-target_features(bundle, target).mean(dim=0))
        return AdaptedModel(PersonalModel(bundle.projection, shift, head), trainable=len(shift.bias))

"""Methods that need labelled source rows beside the target's: unsupervised domain adaptation, never source-free.

They are here because the published tables have them. `featlab adapt` refuses them; `featlab evaluate` and `featlab
benchmark`, which hold source and target side by side, run them through `fit`, and every table marks them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featlab.bundle import Bundle
from featlab.cache import FeatureTable
from featlab.errors import InputError
from featlab.methods.base import AdaptedModel, Method
from featlab.models import as_tensor
from featlab.protocol import Target

__all__ = ["SourceAccess", "SourceFeatures"]


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """Labelled source rows, projected.

    Attributes:
        features: (N, D) float32.
        labels: (N,) int64 codes in [0, K); rows of unknown label are not among them.
    """

    features: Tensor
    labels: Tensor

    @classmethod
    def of(cls, bundle: Bundle, table: FeatureTable) -> SourceFeatures:
        """Project the labelled rows of a source table, in the order of subject, video and frame."""
        order = np.lexsort((table.frame, table.video, table.subject))
        known = order[table.label[order] >= 0]
        device = bundle.projection.mean.device
        with torch.no_grad():
            features: Tensor = bundle.projection(as_tensor(table.embeddings[known], device))
        return cls(features, torch.from_numpy(table.label[known].astype(np.int64)).to(device))


class SourceAccess(Method):
    """Base of the methods with source access."""

    setting = "UDA (source access)"
    needs_source = True

    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Refuse: there is no source here.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{self.name} needs the source rows beside the target's; it runs in featlab evaluate and featlab "
            "benchmark, never in featlab adapt"
        )

    @abstractmethod
    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Make a model for one person.

        Args:
            bundle: The source model to start from; left unchanged.
            source: Labelled source rows.
            target: The target's rows: no labels.
            seed: Of whatever is random.
        """

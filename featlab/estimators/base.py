"""What the estimators share: the source stage in `fit`, validation, pickling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from featlab.bundle import Bundle
from featlab.config import Config
from featlab.errors import InputError
from featlab.estimators.rows import EVERYONE, find_neutral, make_table
from featlab.estimators.source import fit_source, one_thread, pack_bundle, unpack_bundle

__all__ = ["SourceEstimator"]


class SourceEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator whose `fit` runs the source stage.

    Subclasses have the parameters ``neutral``, ``dim``, ``bottleneck``, ``epochs``, ``pretrain_epochs``, ``settings``
    and ``random_state``.
    """

    neutral: Any
    dim: int
    bottleneck: int
    epochs: int
    pretrain_epochs: int
    settings: Mapping[str, Any] | None
    random_state: Any

    bundle_: Bundle
    classes_: NDArray[Any]
    seed_: int

    def _config(self) -> Config:
        """Return the configuration that the parameters mean; ``settings`` beat the others."""
        values = {
            "features.dim": self.dim,
            "head.bottleneck": self.bottleneck,
            "head.epochs": self.epochs,
            "pretrain.epochs": self.pretrain_epochs,
        }
        return Config().with_values(values | dict(self.settings or {}), "settings")

    def _fit(self, X: Any, y: Any, subject: Any, video: Any, methods: tuple[str, ...]) -> Self:
        config = self._config()
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        table = make_table(X, codes, self.classes_, find_neutral(self.classes_, self.neutral), subject, video)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            # None, or a generator: another seed every time, as scikit-learn has it.
            seed = check_random_state(seed).randint(2**31)
        self.seed_ = int(seed)
        with one_thread():
            self.bundle_ = fit_source(table, config, seed=self.seed_, methods=methods)
        return self

    def _rows(self, X: Any) -> NDArray[np.float32]:
        """Return validated rows; the features are those of `fit`."""
        rows: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        return rows

    def _check_target(self, name: str) -> None:
        """Raise an InputError when a subject was fitted on: a person's source rows are no new person's."""
        if name in self.bundle_.source_subjects and self.bundle_.source_subjects != (EVERYONE,):
            raise InputError(f"subject {name!r} is one of those that were fitted on; personalize is for new people")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "bundle_" in state:
            state["bundle_"] = pack_bundle(state["bundle_"])
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        if "bundle_" in state:
            state["bundle_"] = unpack_bundle(state["bundle_"])
        super().__setstate__(state)


def as_double(rows: NDArray[np.float32]) -> Tensor:
    """Return rows as a float64 tensor of its own."""
    return torch.from_numpy(rows.astype(np.float64))

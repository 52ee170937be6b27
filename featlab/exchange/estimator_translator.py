"""A transformer: features as if everybody had the source subjects' style."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from featlab.errors import ConfigError
from featlab.exchange.estimator_rows import row_names
from featlab.exchange.estimator_source import frozen, in_blocks, one_thread
from featlab.exchange.estimators import SourceEstimator, as_double

__all__ = ["StyleTranslator"]


class StyleTranslator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SourceEstimator):  # type: ignore[misc]
    """Translate features: T(P(x) + offset of the person).

    `fit` pretrains T on source subjects. `transform` moves each person by an offset, the centre of the source
    subjects' neutral means minus the person's own neutral mean, and then applies T. The person's neutral mean is, in
    this order, that of the rows given to `personalize`; that of their neutral rows in `fit`; **or, without either, the
    mean of all of their rows in X**. The last looks at no label, and assumes that a person's rows in X are neutral on
    the whole: where they are not, the offset also takes away a part of the expression, and a row's translation depends
    on which other rows of the person are in X. Rows without a subject are moved by no offset.

    Where ``subject`` is left out in `fit`, all rows are one person's: no pairs are possible, and T is the identity.

    Args:
        neutral: The neutral class; by default the one called "neutral", or else the first.
        dim: Features kept of X, by the projection; 0 keeps as many as there are.
        bottleneck: Width of the bottleneck of the head that T is trained against.
        epochs: Passes over the rows that train the head.
        pretrain_epochs: 0 leaves T the identity; passes over the pairs where T is an MLP (``pretrain.form``).
        settings: Any other setting, as ``{"section.key": value}``, e.g. ``{"pretrain.lr": 0.01}``; they beat others.
        random_state: Seed; an int gives the same result every time.

    Attributes:
        classes_: (K,) the classes of y.
        bundle_: The source model as a `featlab.Bundle`.
        personal_: By subject, float64 (D,), the neutral mean that `personalize` measured.
        n_features_in_: Features of X.
        seed_: The seed that was used.
    """

    def __init__(
        self,
        *,
        neutral: Any = None,
        dim: int = 64,
        bottleneck: int = 128,
        epochs: int = 30,
        pretrain_epochs: int = 10,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.neutral = neutral
        self.dim = dim
        self.bottleneck = bottleneck
        self.epochs = epochs
        self.pretrain_epochs = pretrain_epochs
        self.settings = settings
        self.random_state = random_state

    def fit(self, X: Any, y: Any, subject: Any = None, video: Any = None) -> Self:
        """Run the source stage. What an earlier `personalize` measured is dropped.

        Args:
            X: (n, D0) embeddings; computed as float32.
            y: (n,) expressions.
            subject: (n,) names or numbers of people; None: all rows are one person's.
            video: (n,) which rows of a person come from one video; None: those of one class.

        Raises:
            InputError: Rows that don't fit, one class, or ``neutral`` is none of them.
            ConfigError: An unknown setting, or one that leaves the style bank out.
        """
        self._fit(X, y, subject, video, ())
        bank = self.bundle_.bank
        if bank is None:
            raise ConfigError("settings: offsets need the style bank; leave pretrain.style_bank at true")
        means, _ = bank.layers["features"]
        self._centre: NDArray[np.float64] = means.double().mean(dim=0).numpy()
        self._source_means = dict(zip(bank.subjects, means.double().numpy(), strict=True))
        self._projection = frozen(self.bundle_.projection)
        self._translator = frozen(self.bundle_.translator)
        self.personal_: dict[str, NDArray[np.float64]] = {}
        return self

    def personalize(self, X_neutral: Any, subject: Any) -> Self:
        """Measure the neutral mean of one new person.

        Args:
            X_neutral: (n, D0) neutral rows of the person; no labels.
            subject: Who.

        Raises:
            InputError: The subject was fitted on, or rows that don't fit.
        """
        check_is_fitted(self)
        (name,) = row_names(subject, 1, "subject")
        self._check_target(name)
        self.personal_[name] = self._features(X_neutral).mean(dim=0).numpy()
        return self

    def transform(self, X: Any, subject: Any = None) -> NDArray[np.float64]:
        """Return (n, D) translated features.

        Args:
            X: (n, D0) embeddings.
            subject: (n,) names or numbers of people, or one; None: nobody is moved.
        """
        check_is_fitted(self)
        features = self._features(X)
        if subject is not None:
            names = np.array(row_names(subject, len(features), "subject"))
            for name in np.unique(names):
                rows = np.flatnonzero(names == name)
                own = self.personal_.get(str(name), self._source_means.get(str(name)))
                if own is None:
                    own = features[rows].mean(dim=0).numpy()
                features[rows] += torch.from_numpy(self._centre - own)
        with one_thread():
            translated: NDArray[np.float64] = in_blocks(self._translator, features).numpy()
        return translated

    def fit_transform(self, X: Any, y: Any = None, subject: Any = None, video: Any = None) -> NDArray[np.float64]:
        """Return ``fit(X, y, subject, video).transform(X, subject)``."""
        translated: NDArray[np.float64] = self.fit(X, y, subject=subject, video=video).transform(X, subject=subject)
        return translated

    @property
    def _n_features_out(self) -> int:
        return int(self.bundle_.projection.components.shape[1])

    def _features(self, X: Any) -> Tensor:
        with one_thread():
            return in_blocks(self._projection, as_double(self._rows(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

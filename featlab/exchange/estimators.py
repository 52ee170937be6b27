"""scikit-learn estimators of arrays: a classifier that is personalised, and a transformer that takes styles away."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featlab.bundle.bundle import Bundle
from featlab.cache.schema import ExtractorInfo
from featlab.cache.table import FeatureTable, codes_of
from featlab.compute import one_thread
from featlab.config.load import Config
from featlab.errors import ConfigError, InputError
from featlab.exchange.arrays import frozen, in_blocks, row_names
from featlab.extraction.columns import as_text
from featlab.methods.base import base_model
from featlab.methods.registry import get_method, make_method
from featlab.model.networks import PersonalModel, head_from_state
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import Target
from featlab.workspace.stages import build_bundle

EVERYONE = "everyone"
"""Subject of rows that were given without one."""


@dataclass(kw_only=True, eq=False, repr=False)
class SourceEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both estimators share: the parameters, the source stage in `fit`, the checks, pickling."""

    neutral: Any = None
    dim: int = 64
    bottleneck: int = 128
    epochs: int = 30
    pretrain_epochs: int = 20
    settings: Mapping[str, Any] | None = None
    random_state: Any = None

    def _fit(self, X: Any, y: Any, subject: Any, video: Any, methods: tuple[str, ...]) -> FeatureTable:
        """Train the source model of some rows, and return them."""
        values = {
            "features.dim": self.dim,
            "head.bottleneck": self.bottleneck,
            "head.epochs": self.epochs,
            "pretrain.epochs": self.pretrain_epochs,
        }
        config = Config().with_values(values | dict(self.settings or {}), "settings")
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        table = self._table(X, codes, subject, video)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            # None, or a generator: another seed every time, as scikit-learn has it.
            seed = check_random_state(seed).randint(2**31)
        self.seed_ = int(seed)
        with one_thread():
            made_by = ExtractorInfo("array", "none", f"{table.dim} values")
            self.bundle_ = build_bundle(table, config, seed=self.seed_, extractor=made_by, methods=methods, alone=True)
        return table

    def _table(self, X: NDArray[np.float32], codes: NDArray[np.intp], subject: Any, video: Any) -> FeatureTable:
        """Return the rows as a feature table; without ``video``, those of one class are one."""
        classes = self.classes_.tolist()
        names = tuple(as_text(value) for value in classes)
        neutral = "neutral" if "neutral" in names else names[0]
        if self.neutral is not None:
            if self.neutral not in classes:
                raise InputError(f"neutral = {self.neutral!r} is none of the classes {classes[:8]}")
            neutral = names[classes.index(self.neutral)]
        labels = [names[code] for code in codes]
        subjects = row_names(EVERYONE if subject is None else subject, len(X), "subject")
        videos = labels if video is None else row_names(video, len(X), "video")
        return FeatureTable.named(X, labels, subjects, videos, np.arange(len(X)), classes=names, neutral=neutral)

    def _rows(self, X: Any) -> NDArray[np.float32]:
        """Validate rows against the features of `fit`."""
        rows: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        return rows

    def _new_person(self, subject: Any) -> str:
        """Return the name; refuse somebody who was fitted on."""
        check_is_fitted(self)
        (name,) = row_names(subject, 1, "subject")
        source = self.bundle_.source_subjects
        if name in source and not (len(source) == 1 and EVERYONE in source):
            raise InputError(f"subject {name!r} is one of those that were fitted on; personalize is for new people")
        return name

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "bundle_" in state:
            # A weight-normalised module can't be pickled.
            parts = {field.name: getattr(self.bundle_, field.name) for field in fields(self.bundle_)}
            state["bundle_"] = parts | {"head": dict(self.bundle_.head.state_dict())}
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        if (parts := state.get("bundle_")) is not None:
            state = {**state, "bundle_": Bundle(**parts | {"head": head_from_state(parts["head"])})}
        super().__setstate__(state)


@dataclass(kw_only=True, eq=False, repr=False)
class PersonalizedClassifier(ClassifierMixin, SourceEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The source model, and one adaptation of it a person.

    ``subject`` is metadata of `fit`, `predict`, `predict_proba`, `decision_function` and `score`. Without it in `fit`,
    all rows are one person's: the head is trained, there are no pairs, and T stays the identity.

    Args:
        method: How `personalize` adapts; see `featlab.method_names`.
        neutral: The neutral class; by default the one called "neutral", or else the first.
        dim: Features kept of X, by the projection; 0 keeps as many as there are.
        bottleneck: Width of the head's bottleneck.
        epochs: Passes over the rows that train the head.
        pretrain_epochs: Passes over the pairs for T's MLP part; 0 leaves T the identity.
        settings: Any other option, as ``{"section.key": value}``, e.g. ``{"head.lr": 0.01}``; they beat the others.
        random_state: Seed; an int gives the same result every time.

    Attributes:
        classes_: (K,) the classes of y.
        bundle_: The source model as a `featlab.Bundle`, which `featlab.save_bundle` writes.
        personal_: By subject, the model that `personalize` made.
        n_features_in_: Features of X.
        seed_: The seed that was used.
    """

    method: str = "pft"

    def fit(self, X: Any, y: Any, subject: Any = None, video: Any = None) -> Self:
        """Train the source model: projection, head, T, style bank. Adaptations of an earlier fit are dropped.

        Args:
            X: (n, D0) embeddings; computed as float32.
            y: (n,) expressions.
            subject: (n,) names or numbers of people; None: all rows are one person's.
            video: (n,) which rows of a person come from one video; None: those of one class.

        Raises:
            InputError: Rows that don't fit, one class, or ``neutral`` is none of them.
            ConfigError: An unknown method or option, or a method that needs the person's labels.
        """
        if get_method(self.method).needs_labels:
            raise ConfigError(f"method {self.method!r} needs the person's labels, and personalize has none")
        self._fit(X, y, subject, video, (self.method,))
        self.personal_: dict[str, PersonalModel] = {}
        self._source_model = frozen(base_model(self.bundle_))
        return self

    def personalize(self, X_neutral: Any, subject: Any, video: Any = None) -> Self:
        """Adapt to one new person; `predict` uses the adaptation for rows of that subject.

        Args:
            X_neutral: (n, D0) neutral rows of the person, in the order of their frames; no labels.
            subject: Who.
            video: (n,) which rows come from one video; None: all of them.

        Raises:
            InputError: The subject was fitted on, or rows that don't fit.
        """
        name = self._new_person(subject)
        rows = self._rows(X_neutral)
        _, clips = codes_of(row_names(EVERYONE if video is None else video, len(rows), "video"))
        target = Target(rows, clips, np.arange(len(rows), dtype=np.int32))
        method = make_method(self.method, self.bundle_.config.adapt.options)
        with one_thread():
            adapted = method.adapt(self.bundle_, target, seed=self.seed_)
        for line in adapted.warnings:
            warnings.warn(f"subject {name!r}: {line}", UserWarning, stacklevel=2)
        self.personal_[name] = frozen(adapted.model)
        return self

    def decision_function(self, X: Any, subject: Any = None) -> NDArray[np.float64]:
        """Return logits (n, K); of two classes (n,), that of the second minus that of the first."""
        logits = self._logits(X, subject)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any, subject: Any = None) -> NDArray[np.float64]:
        """Return (n, K) probabilities, in the order of ``classes_``."""
        return np.asarray(softmax(self._logits(X, subject), axis=1))

    def predict(self, X: Any, subject: Any = None) -> NDArray[Any]:
        """Return (n,) classes. Rows of a personalised subject use their adaptation, all others the source model."""
        winner = self._logits(X, subject).argmax(axis=1)
        return np.asarray(self.classes_[winner])

    def score(self, X: Any, y: Any, sample_weight: Any = None, subject: Any = None) -> float:
        """Return the accuracy of `predict`."""
        return float(accuracy_score(y, self.predict(X, subject=subject), sample_weight=sample_weight))

    def _logits(self, X: Any, subject: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        rows = self._rows(X)
        names = [""] * len(rows) if subject is None else row_names(subject, len(rows), "subject")
        models = [self.personal_.get(name, self._source_model) for name in names]
        logits = np.empty((len(rows), len(self.classes_)))
        with one_thread():
            for model in {id(model): model for model in models}.values():
                mine = np.flatnonzero([other is model for other in models])
                logits[mine] = in_blocks(model, rows[mine])
        return logits


class StyleTranslator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SourceEstimator):  # type: ignore[misc]
    """Translate features: T(P(x) + offset of the person).

    `fit` pretrains T on source subjects. `transform` moves each person by an offset, the centre of the source
    subjects' neutral means minus the person's own neutral mean, and then applies T. The person's neutral mean is that
    of the rows given to `personalize`; or that of their neutral rows in `fit`; **or, without either, the mean of all of
    their rows in X**. The last looks at no label, and assumes that the rows are neutral on the whole: where they are
    not, part of the expression is taken away too, and a row's translation depends on the person's other rows in X. Rows
    without a subject are not moved. Without ``subject`` in `fit`, all rows are one person's and T is the identity.

    The parameters are those of `PersonalizedClassifier` but ``method``.

    Attributes:
        classes_: (K,) the classes of y.
        bundle_: The source model as a `featlab.Bundle`.
        personal_: By subject, float64 (D,), the neutral mean that `personalize` measured.
        n_features_in_: Features of X.
        seed_: The seed that was used.
    """

    def fit(self, X: Any, y: Any, subject: Any = None, video: Any = None) -> Self:
        """Train the source model as `PersonalizedClassifier.fit`; what an earlier `personalize` measured is dropped."""
        table = self._fit(X, y, subject, video, ())
        source = SourceRows.of(table, self.bundle_.projection.of_rows(table.embeddings))
        means = source.neutral_means().double().numpy()
        self._centre: NDArray[np.float64] = means.mean(axis=0)
        self._source_means = dict(zip(source.subjects, means, strict=True))
        self._projection = frozen(self.bundle_.projection)
        self._translator = frozen(self.bundle_.translator)
        self.personal_: dict[str, NDArray[np.float64]] = {}
        return self

    def personalize(self, X_neutral: Any, subject: Any) -> Self:
        """Measure the neutral mean of one new person; arguments as of `PersonalizedClassifier.personalize`."""
        self.personal_[self._new_person(subject)] = self._features(X_neutral).mean(axis=0)
        return self

    def transform(self, X: Any, subject: Any = None) -> NDArray[np.float64]:
        """Return (n, D) translated features of (n, D0) embeddings; ``subject`` is (n,) or one name; None: no moves."""
        check_is_fitted(self)
        features = self._features(X)
        if subject is not None:
            names = np.array(row_names(subject, len(features), "subject"))
            for name in np.unique(names).tolist():
                mine = names == name
                own = self.personal_.get(name, self._source_means.get(name))
                features[mine] += self._centre - (features[mine].mean(axis=0) if own is None else own)
        with one_thread():
            return in_blocks(self._translator, features)

    def fit_transform(self, X: Any, y: Any = None, subject: Any = None, video: Any = None) -> NDArray[np.float64]:
        """Return ``fit(X, y, subject, video).transform(X, subject)``."""
        return self.fit(X, y, subject=subject, video=video).transform(X, subject=subject)

    @property
    def _n_features_out(self) -> int:
        return int(self.bundle_.projection.components.shape[1])

    def _features(self, X: Any) -> NDArray[np.float64]:
        with one_thread():
            return in_blocks(self._projection, self._rows(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

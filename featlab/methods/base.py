"""What a method is: a config, flags, and `adapt(bundle, target)`, which meets no label and no source row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.cache.table import FeatureTable
from featlab.config.options import Options, search_values
from featlab.errors import InputError
from featlab.methods.registry import declared
from featlab.model.networks import AdaptedModel, GainEstimate, PersonalModel, SourceGain
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import Target


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a method that has nothing to set."""


class Method(ABC):
    """One way to make a person's model out of a bundle; class attributes say what it is and what it may be given.

    Those of this package have some of them from the table in `featlab.methods.registry`, which needs no torch.
    """

    name: ClassVar[str]
    """Registry name."""
    title: ClassVar[str]
    """Name in tables."""
    setting: ClassVar[str]
    """Group in tables: ``Source-only``, ``Baselines``, ``SFDA (model-based)``, ``Oracle``, …"""
    published: ClassVar[str]
    """Where it comes from, and what is as published and what is a feature-space analogue."""
    config_type: ClassVar[type[Any]] = NoConfig
    needs_style_bank: ClassVar[bool] = False
    """Reads source statistics from the bundle's style bank."""
    needs_extras: ClassVar[bool] = False
    """Can not do without the tensors that its `prepare` made at the source."""
    carries: ClassVar[str] = ""
    """What those tensors are, in words: statistics and weights that leave the source site, for the bundle's card. A
    method that carries something has a `prepare`; it may still do without (``needs_extras = False``)."""
    prepared_by: ClassVar[str] = ""
    """The method whose `prepare` makes them, where that is another one of its family."""
    needs_labels: ClassVar[bool] = False
    """Its `adapt` takes the target's labels too: an oracle, never source-free."""
    needs_source: ClassVar[bool] = False
    """Its `adapt` takes labelled source rows too: never source-free (see `SourceAccess`)."""
    needs_neutral: ClassVar[bool] = False
    """Takes the target rows to be one person's neutral clip; can not be given a data set of people and classes."""
    supports_single_class: ClassVar[bool] = True
    """Is meant for target data of one class (neutral)."""
    updates: ClassVar[tuple[str, ...]] = ()
    """Which of `PARTS` it changes; the others come back bitwise as they were, buffers included."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Keys of other sections, such as ``pretrain.hidden``, that its `prepare` reads whatever form T has."""
    space: ClassVar[tuple[tuple[str, tuple[Any, ...]], ...]] = ()
    """Options that `featlab tune` searches, each with the values that it tries; from the options' declarations."""

    def __init_subclass__(cls) -> None:
        for name, value in declared(cls).items():
            setattr(cls, name, value)
        if "space" not in vars(cls):
            cls.space = tuple(search_values(cls.config_type()).items())

    def __init__(self, config: Any = None) -> None:
        config = self.config_type() if config is None else config
        # Messages name an option as it stands in the file.
        self.config: Any = replace(config, where=f"adapt.{self.name}") if isinstance(config, Options) else config

    @property
    def selection(self) -> str:
        """What it is allowed to see, as results say it; one of `featlab.evaluation.results.SELECTIONS`."""
        if self.needs_labels:
            return "oracle"
        return "source-access" if self.needs_source else "source-free"

    @classmethod
    def minimum_rows(cls, classes: int) -> int:
        """Return the fewest target rows that it can be given."""
        return 1

    @classmethod
    def prepare(cls, source: SourceRows, bundle: Bundle) -> dict[str, Tensor]:
        """Return tensors to carry in the bundle's extras. Runs at the source site, once a bundle."""
        return {}

    @classmethod
    def adopt(cls, source: SourceRows, bundle: Bundle) -> Bundle:
        """Return the bundle as what `prepare` has found out wants it; ``bundle`` has that in its extras."""
        return bundle

    @abstractmethod
    def adapt(self, bundle: Bundle, target: Target, *, seed: int = 0) -> AdaptedModel:
        """Make a model for one person.

        Args:
            bundle: The source model; left unchanged.
            target: The person's neutral rows: no labels.
            seed: Of whatever is random.
        """

    def forced(self) -> Method:
        """Return the method as it runs when the user wants to adapt whatever it knows."""
        return self

    def source_gain(self, bundle: Bundle) -> SourceGain | None:
        """Return what adapting gained on source people who were held out; ``None`` where the bundle doesn't know."""
        return None

    def expected_gain(
        self, bundle: Bundle, model: PersonalModel, embeddings: NDArray[np.float32]
    ) -> GainEstimate | None:
        """Return what adapting is expected to have gained, where the method can tell.

        Args:
            bundle: What was adapted.
            model: The person's.
            embeddings: (n, D0) unlabelled frames other than the clip; n = 0 asks for what source subjects gained.
        """
        return None

    def check(self, bundle: Bundle, target: Target) -> None:
        """Raise an InputError when the bundle lacks what the method needs, or the target doesn't fit the bundle."""
        width = len(bundle.projection.mean)
        if target.embeddings.shape[1] != width:
            raise InputError(f"the target's embeddings have {target.embeddings.shape[1]} values, the bundle's {width}")
        least = self.minimum_rows(len(bundle.classes))
        if len(target) < least:
            raise InputError(f"{self.name} needs {least} target rows or more, got {len(target)}; give it a longer clip")
        if self.needs_style_bank and bundle.bank is None:
            raise InputError(
                f"{self.name} needs a style bank, and this bundle has none; pretrain with pretrain.style_bank = centre"
            )
        if self.needs_extras and self.name not in bundle.extras:
            raise InputError(
                f"{self.name} needs tensors prepared at the source, and this bundle has none; "
                f"pretrain with --methods {self.name}"
            )


def base_model(bundle: Bundle) -> PersonalModel:
    """Return the source model without T: C(B(P(f)))."""
    return PersonalModel(bundle.projection, None, bundle.head)


def target_features(bundle: Bundle, target: Target) -> Tensor:
    """Return (n, D) projected features of a target's rows."""
    return bundle.projection.of_rows(target.embeddings)


def ordered_features(bundle: Bundle, target: Target) -> Tensor:
    """Return (n, D) projected features in the order of video and frame, whatever the order of the rows.

    What a seed draws depends then on which rows there are and not on how they were stored.
    """
    # Rows that are equal in both are told apart by a value.
    order = np.lexsort((target.embeddings[:, 0], target.frame, target.video))
    # Sorted before they are multiplied: a row's place in a product can change its last bits.
    return bundle.projection.of_rows(target.embeddings[order])


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """Labelled source rows, projected."""

    features: Tensor  # (N, D) float32.
    labels: Tensor  # (N,) int64 codes in [0, K); rows of unknown label are not among them.

    @classmethod
    def of(cls, bundle: Bundle, table: FeatureTable) -> SourceFeatures:
        """Project the labelled rows of a source table, in the order of subject, video and frame."""
        order = np.lexsort((table.frame, table.video, table.subject))
        known = order[table.label[order] >= 0]
        features = bundle.projection.of_rows(table.embeddings[known])
        return cls(features, torch.from_numpy(table.label[known].astype(np.int64)).to(features.device))


class SourceAccess(Method):
    """Base of the methods with source access: they implement `fit`."""

    setting = "UDA (source access)"
    needs_source = True

    def adapt(
        self, bundle: Bundle, target: Target, *, seed: int = 0, source: SourceFeatures | None = None
    ) -> AdaptedModel:
        """Make a model for one person, with the labelled source rows at hand; without them, an InputError."""
        if source is None:
            raise InputError(
                f"{self.name} needs the source rows beside the target's; it runs in featlab evaluate and featlab "
                "benchmark, never in featlab adapt"
            )
        self.check(bundle, target)
        return self.fit(bundle, source, target, seed=seed)

    @abstractmethod
    def fit(self, bundle: Bundle, source: SourceFeatures, target: Target, *, seed: int) -> AdaptedModel:
        """Make a model for one person out of what `adapt` was given and has checked."""

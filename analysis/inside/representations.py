"""Target subjects' rows as the parts of a model see them: before and after T, at the bottleneck, as identity codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.analysis.people import AdaptedPeople, AdaptedPerson
from featlab.cache import FeatureTable
from featlab.errors import InputError
from featlab.methods.dsfda.method import train_disentangler
from featlab.model.networks import as_tensor
from featlab.model.style_bank import neutral_clips

__all__ = ["METHOD", "REPRESENTATIONS", "LookedAt", "Representation", "looked_at", "representations"]

METHOD = "pft"
"""What adapts T to each person."""
REPRESENTATIONS = ("features-before", "features-after", "bottleneck-before", "bottleneck-after", "identity-code")
"""DSFDA's expression encoder is B: its codes are ``bottleneck-before``."""


@dataclass(frozen=True, eq=False)
class LookedAt:
    """Labelled test rows of target subjects, grouped by subject; no row that T was adapted on is among them.

    Attributes:
        people: S of them, each with at least one row.
        tables: Their rows, a table each.
    """

    people: tuple[AdaptedPerson, ...]
    tables: tuple[FeatureTable, ...]

    @property
    def subject(self) -> NDArray[np.int64]:
        """(N,) places in ``people``."""
        return np.repeat(np.arange(len(self.tables)), [len(table) for table in self.tables])

    def column(self, name: str) -> NDArray[Any]:
        """Return (N,) values of one of the tables' columns, e.g. ``label``."""
        return np.concatenate([getattr(table, name) for table in self.tables])


@dataclass(frozen=True, eq=False)
class Representation:
    """Rows as one part of the model sees them.

    Attributes:
        rows: (N, D) float64.
        centre: (D,) mean of the source rows there.
    """

    rows: NDArray[np.float64]
    centre: NDArray[np.float64]


def looked_at(adapted: AdaptedPeople) -> LookedAt:
    """Return the rows to look at.

    Raises:
        InputError: Fewer than two subjects have any.
    """
    rows = [person.table.take(person.split.test) for person in adapted.people]
    known = [table.take(table.label >= 0) for table in rows]
    kept = [place for place, table in enumerate(known) if len(table)]
    if len(kept) < 2:
        raise InputError("fewer than 2 targets have labelled rows beside their neutral clip; choose other --targets")
    return LookedAt(tuple(adapted.people[place] for place in kept), tuple(known[place] for place in kept))


def representations(adapted: AdaptedPeople, seen: LookedAt) -> dict[str, Representation]:
    """Return rows in each of `REPRESENTATIONS`, in that order.

    After T each person's rows pass their own T, adapted to their clip; the source rows, for the centre, pass T as it
    was pretrained. The identity encoder is trained here on the source rows as DSFDA does at the source site, with the
    same seed.

    Args:
        adapted: Bundle and source rows.
        seen: Rows and the people's models.
    """
    bundle = adapted.bundle
    head, device = bundle.head, bundle.projection.mean.device
    embeddings = [as_tensor(table.embeddings, device) for table in seen.tables]
    with torch.no_grad():
        source = bundle.projection(as_tensor(adapted.source.embeddings, device))
        before = bundle.projection(torch.cat(embeddings))
        after = torch.cat(
            [person.models[METHOD].model.features(rows) for person, rows in zip(seen.people, embeddings, strict=True)]
        )
        translated = bundle.translator(source)
        encoder = _identity_encoder(adapted, source)
        codes = {
            "features-before": (before, source),
            "features-after": (after, translated),
            "bottleneck-before": (head.bottleneck(before), head.bottleneck(source)),
            "bottleneck-after": (head.bottleneck(after), head.bottleneck(translated)),
            "identity-code": (encoder(before), encoder(source)),
        }
    return {key: Representation(_array(rows), _array(others).mean(axis=0)) for key, (rows, others) in codes.items()}


def _identity_encoder(adapted: AdaptedPeople, source: Tensor) -> torch.nn.Module:
    """Train DSFDA's networks on the labelled rows of source subjects with a neutral clip; B and C stay as they are."""
    table, bundle = adapted.source, adapted.bundle
    labels = torch.from_numpy(table.label.astype(np.int64)).to(source.device)
    person = neutral_clips(table, source).row_subject.to(source.device)
    rows = torch.nonzero((person >= 0) & (labels >= 0)).squeeze(1)
    with torch.enable_grad():
        networks = train_disentangler(
            source[rows], labels[rows], person[rows], bundle.head, classes=len(bundle.classes), seed=bundle.seed
        )
    return networks.identity_encoder


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.cpu().numpy().astype(np.float64)
    return found

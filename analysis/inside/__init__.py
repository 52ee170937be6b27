"""People with their adapted models: what figures that look inside are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featlab.bundle.bundle import Bundle
from featlab.cache.table import FeatureTable
from featlab.compute import run_seed
from featlab.errors import InputError
from featlab.evaluation.run import adapted_model
from featlab.methods.base import SourceFeatures, base_model
from featlab.methods.pft.method import PFT
from featlab.methods.registry import get_method, make_method
from featlab.model.networks import AdaptedModel, Affine, PersonalModel, as_tensor
from featlab.model.style_bank import SourceRows
from featlab.protocol.splits import Split, check_known, split_target
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace, bundle_folder

MAPPED = ("pft", "sfda-it")
"""What the picture of a plane compares by default."""


@dataclass(frozen=True, eq=False)
class AdaptedPerson:
    """One target subject."""

    subject: str
    table: FeatureTable  # Their rows, with labels: to look at, no model has met them.
    split: Split
    models: Mapping[str, AdaptedModel]  # By method.


@dataclass(frozen=True, eq=False)
class AdaptedPeople:
    """Target subjects and the source model that they were adapted from."""

    bundle: Bundle
    source: FeatureTable
    people: tuple[AdaptedPerson, ...]


def adapt_people(
    workspace: Workspace,
    subjects: Sequence[str],
    methods: Sequence[str],
    *,
    kept_out: Sequence[str] = (),
    splits: Mapping[str, Split] | None = None,
    on_person: Callable[[int, int], None] | None = None,
) -> AdaptedPeople:
    """Adapt methods as an evaluation does (same splits, seeds, numbers), on one source model without ``kept_out``."""
    config = workspace.config
    made = [make_method(name, config.adapt.options) for name in methods]
    check_known(subjects, workspace.table.subjects)
    tables = {subject: workspace.table.rows_of(subject) for subject in subjects}
    # Before anything is trained.
    splits = splits or {subject: split_target(table, config.protocol.gap) for subject, table in tables.items()}
    source = workspace.source(tuple(dict.fromkeys((*kept_out, *subjects))))
    # The source model of an evaluation, or of another picture, is that of its methods one by one, too.
    made_for = (methods, config.protocol.methods, (*methods, *MAPPED))
    there = (more for more in made_for if set(methods) <= set(more) and bundle_folder(source, more).exists())
    bundle, _ = bundle_stage(source, tuple(next(there, methods)))
    needed = any(get_method(name).needs_source for name in methods)
    rows = SourceFeatures.of(bundle, source.table) if needed else None
    people = []
    for done, subject in enumerate(subjects, start=1):
        table, split = tables[subject], splits[subject]
        models = {
            method.name: adapted_model(bundle, table, split, method, rows, run_seed(bundle.seed, method.name, subject))
            for method in made
        }
        people.append(AdaptedPerson(subject, table, split, models))
        if on_person is not None:
            on_person(done, len(subjects))
    return AdaptedPeople(bundle, source.table, tuple(people))


def can_be_split(workspace: Workspace, subjects: Sequence[str]) -> tuple[dict[str, Split], list[tuple[str, str]]]:
    """Return how the subjects split who can be, into adapt and test rows, and the others, each with why not."""
    check_known(subjects, workspace.table.subjects)
    splits, failures = {}, []
    for subject in subjects:
        try:
            splits[subject] = split_target(workspace.table.rows_of(subject), workspace.config.protocol.gap)
        except InputError as error:
            failures.append((subject, str(error)))
    return splits, failures


EXTRACTED = "as extracted"  # Name of the view that belongs to no method.
_BLOCK = 65536  # Rows at a time.


@dataclass(frozen=True, eq=False)
class View:
    """The rows of one target and of the source, as B is given them."""

    source: NDArray[np.float32]  # (N, d)
    target: NDArray[np.float32]  # (n, d)
    reference: str  # What was done to the source rows, in words.


def person_views(people: AdaptedPeople, person: AdaptedPerson) -> dict[str, View]:
    """Return a target's views by name: as extracted, and by each method."""
    bundle, embeddings = people.bundle, person.table.embeddings
    base = base_model(bundle)

    def view(name: str, source: Tensor, model: PersonalModel, reference: str) -> View:
        rows = source.cpu().numpy(), features_of(model, embeddings).numpy()
        if not all(np.isfinite(values).all() for values in rows):
            raise InputError(f"{name}: its features hold NaN or infinity; nothing to compare")
        return View(*rows, reference)

    extracted = features_of(base, people.source.embeddings)
    moved, centre = moved_source(bundle, people.source)
    views = {EXTRACTED: view(EXTRACTED, extracted, base, EXTRACTED)}
    for name, adapted in person.models.items():
        model, rows, reference = adapted.model, extracted, EXTRACTED
        if issubclass(get_method(name), PFT):
            with torch.no_grad():
                rows = bundle.translator(moved.to(bundle.projection.mean.device))
            reference = "through T, each with their own offset"
        elif isinstance(model.translator, Affine) and torch.equal(
            model.translator.weight.cpu(), torch.eye(len(centre))
        ):
            # Onto the point to which the method moves the target's neutral clip.
            place = features_of(model, embeddings[person.split.adapt]).mean(dim=0)
            rows, reference = moved + (place - centre), "each with their own offset"
        views[name] = view(name, rows, model, reference)
    return views


def features_of(model: PersonalModel, embeddings: NDArray[np.float32]) -> Tensor:
    """Return (n, D), what a model gives to B, of (n, D0) embeddings; computed block by block, on the CPU."""
    device = model.projection.mean.device
    starts = range(0, max(1, len(embeddings)), _BLOCK)
    with torch.no_grad():
        parts = [model.features(as_tensor(embeddings[start : start + _BLOCK], device)).cpu() for start in starts]
    return torch.cat(parts)


def moved_source(bundle: Bundle, source: FeatureTable) -> tuple[Tensor, Tensor]:
    """Return (N, D) features, each source subject's moved by their own offset, and (D,) where neutral means lie."""
    features = features_of(base_model(bundle), source.embeddings)
    rows = SourceRows.of(source, features)
    if not rows.subjects:
        return features, torch.zeros(features.shape[1])
    means = rows.subject_mean()
    centre = means.mean(dim=0)
    # The last one is for subjects without neutral rows, whose number is -1.
    offsets = torch.cat([centre - means, torch.zeros(1, len(centre))])
    return features + offsets[rows.row_subject], centre

"""People with their adapted models: what figures that look inside are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from featlab.bundle.bundle import Bundle
from featlab.cache.table import FeatureTable
from featlab.errors import InputError
from featlab.evaluation.run import adapted_model
from featlab.methods.base import SourceFeatures
from featlab.methods.registry import get_method, make_method
from featlab.model.personal import AdaptedModel
from featlab.protocol.splits import Split, check_known, split_target
from featlab.seeding import run_seed
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace


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
    on_person: Callable[[int, int], None] | None = None,
) -> AdaptedPeople:
    """Adapt methods to target subjects as an evaluation does: the same splits, the same seeds, the same numbers.

    All subjects share one source model, trained without any of them and without ``kept_out``.
    """
    config = workspace.config
    made = [make_method(name, config.adapt.options) for name in methods]
    check_known(subjects, workspace.table.subjects)
    tables = {subject: workspace.table.rows_of(subject) for subject in subjects}
    # Before anything is trained.
    splits = {subject: split_target(table, config.protocol.gap) for subject, table in tables.items()}
    source = workspace.source(tuple(dict.fromkeys((*kept_out, *subjects))))
    bundle, _ = bundle_stage(source, tuple(methods))
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


def can_be_split(workspace: Workspace, subjects: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the subjects who can be split into adapt and test rows, and the others, each with why not."""
    check_known(subjects, workspace.table.subjects)
    fit, failures = [], []
    for subject in subjects:
        try:
            split_target(workspace.table.rows_of(subject), workspace.config.protocol.gap)
            fit.append(subject)
        except InputError as error:
            failures.append((subject, str(error)))
    return tuple(fit), failures

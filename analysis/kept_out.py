"""Adapt people for a picture: who can be, and from the source model that `featlab adapt` and `evaluate` use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from featlab.analysis.adapted_people import AdaptedPeople, adapt_people
from featlab.errors import InputError
from featlab.protocol import check_known, split_target
from featlab.workspace import Workspace

__all__ = ["adapt_without", "can_be_split"]


def can_be_split(workspace: Workspace, subjects: Sequence[str]) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the subjects who can be split into rows to adapt on and rows to test, and the others, each with why not.

    Args:
        workspace: Cache and configuration.
        subjects: Candidates.

    Raises:
        InputError: An unknown subject.
    """
    check_known(subjects, workspace.table.subjects)
    fit, failures = [], []
    for subject in subjects:
        try:
            split_target(workspace.table.rows_of(subject), workspace.config.protocol.gap)
            fit.append(subject)
        except InputError as error:
            failures.append((subject, str(error)))
    return tuple(fit), failures


def adapt_without(
    workspace: Workspace,
    kept_out: Sequence[str],
    subjects: Sequence[str],
    methods: Sequence[str],
    *,
    on_person: Callable[[int, int], None] | None = None,
) -> AdaptedPeople:
    """Adapt methods to subjects from the source model of everyone who is not kept out.

    Args:
        workspace: Cache and configuration.
        kept_out: Whom the source stages must not see, the subjects among them.
        subjects: The targets.
        methods: Registry names.
        on_person: Called with the number of finished subjects and of all.

    Raises:
        InputError: A subject who can't be split (before anything is trained), or who is a source.
        ConfigError: An unknown method or option.
    """
    _, failures = can_be_split(workspace, subjects)
    for _, why in failures:
        raise InputError(why)
    protocol = workspace.config.protocol
    # Named one by one, the sources stay the same whoever of the targets is drawn.
    named = replace(protocol, sources=workspace.source(kept_out).subjects, source_limit=0)
    config = replace(workspace.config, protocol=named)
    return adapt_people(replace(workspace, config=config), subjects, methods, on_person=on_person)

"""Choose a method's options on source subjects: in each fold some of them play targets, the others are the source.

Every candidate of a fold starts from the same source model; what is finished is kept by `featlab.evaluation.runner`.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from featlab.cache.table import FeatureTable
from featlab.compute import generator, run_seed
from featlab.config.options import convert, options_of
from featlab.config.sections import ProtocolConfig
from featlab.errors import ConfigError, InputError, closest
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.runner import Run, Task, Where, refuse_unfinished, run_tasks
from featlab.methods.base import Method
from featlab.methods.registry import get_method, make_method
from featlab.protocol.splits import check_disjoint, check_known, split_target
from featlab.workspace.workspace import Notify, Workspace

Values = tuple[tuple[str, Any], ...]  # A value for each searched option, in the order of the space.
Rows = Mapping[int, Mapping[str, EvaluationRow]]  # Number of a candidate to subject to row.

_TRIES = 100  # Draws a wanted candidate: enough to find nearly every point of a space that hardly exceeds them.


@dataclass(frozen=True)
class SearchSpace:
    """Options of one method with the values to try."""

    method: str  # Registry name.
    options: tuple[tuple[str, tuple[Any, ...]], ...]  # Searched options, each with its values in their own type.
    fixed: Mapping[str, Any]  # Options that the command line fixes; part of what is chosen.
    kept: Mapping[str, Any]  # All options that are set and not searched: ``fixed``, and what the file says.
    current: Mapping[str, Any]  # What the file says of searched options.

    @property
    def size(self) -> int:
        """Points of the full grid."""
        return math.prod(len(values) for _, values in self.options)

    def make(self, values: Values | Mapping[str, Any] = ()) -> Method:
        """Return the method with these values and what is kept."""
        return make_method(self.method, {self.method: {**self.kept, **dict(values)}})


def search_space(
    method: str, *, options: Mapping[str, Any] | None = None, fixed: Collection[str] = (), items: Sequence[str] = ()
) -> SearchSpace:
    """Return what is searched: the method's declared space as the command line changes it.

    ``options`` are the method's settings; those that are ``fixed`` are not searched. ``items`` such as
    ``["lr=0.001,0.01", …]`` give an option that is declared these values instead, or add one. In an option that is
    itself a list, the items of one value are joined with ``+``.
    """
    kind = get_method(method)
    if kind.needs_labels:
        raise ConfigError(f"{method} is given the target's labels: it is a ceiling, not a method to tune")
    asked = _parse(items)
    if both := sorted(set(asked) & set(fixed)):
        raise ConfigError(f"--space {both[0]} and --set adapt.{method}.{both[0]} are both given; leave out one of them")
    given = dict(options or {})
    config, declared = make_method(method, {method: given}).config, options_of(kind.config_type)
    known = {name: values for name, values in kind.space if name in asked or declared[name].is_read(config)}
    searched = {name: values for name, values in {**known, **asked}.items() if name not in fixed}
    if not searched:
        why = "every option of its space is fixed by --set" if known else "it declares no search space"
        raise ConfigError(f"nothing to tune in {method}: {why}; name values to try, for example --space lr=0.001,0.01")
    space = SearchSpace(
        method=method,
        options=tuple((name, _typed(kind, name, values)) for name, values in searched.items()),
        fixed={name: value for name, value in given.items() if name in fixed},
        kept={name: value for name, value in given.items() if name not in searched},
        current={name: value for name, value in given.items() if name in searched},
    )
    for name in asked:
        for value in dict(space.options)[name]:
            # What was typed must work at least on its own; a declared value may not go with what is fixed.
            space.make({name: value})
    return space


def _parse(items: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    asked = {}
    for item in items:
        name, equals, text = item.partition("=")
        values = tuple(word.strip() for word in text.split(",") if word.strip())
        if not equals or not name.strip() or not values:
            raise ConfigError(f"--space {item}: expected option=value,value,…, for example --space lr=0.001,0.01")
        if name.strip() in asked:
            raise ConfigError(f"--space {name.strip()} is given twice; name all its values at once")
        asked[name.strip()] = values
    return asked


def _typed(method: type[Method], name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return an option's values in its own type, each once."""
    known = options_of(method.config_type)
    if name not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"--space {name}: {method.name} has no such option{closest(name, known)}; known: {names}")
    hint = typing.get_type_hints(method.config_type)[name]
    if typing.get_origin(hint) is tuple:
        values = [value.split("+") if isinstance(value, str) else value for value in values]
    return tuple(dict.fromkeys(convert(f"--space {name}", hint, value) for value in values))


def choose_candidates(space: SearchSpace, trials: int, seed: int) -> tuple[Values, ...]:
    """Return the configurations to try: the full grid if it is small enough, else a random sample of it.

    The default, and what the file sets, are always among them. Points whose values don't go together are left out. A
    sample doesn't depend on ``trials``: more of them are the same ones and others.
    """
    if trials < 2:
        raise ConfigError(f"--trials {trials}: there is nothing to choose from; give 2 or more")
    names, values_of = zip(*space.options, strict=True)
    configs = [space.make(given).config for given in ({}, space.current)]
    found: dict[Values, None] = {tuple((name, getattr(config, name)) for name in names): None for config in configs}
    whole = space.size <= trials
    points: Iterable[tuple[Any, ...]] = itertools.product(*values_of)
    if not whole:
        # One by one, each equally likely, with repetition.
        rng = generator("tuning sample", seed, space.method, space.options)
        points = (tuple(values[int(rng.integers(len(values)))] for values in values_of) for _ in range(_TRIES * trials))
    for point in points:
        if not whole and len(found) >= trials:
            break
        values = tuple(zip(names, point, strict=True))
        if values not in found:
            with suppress(ConfigError):
                space.make(values)
                found[values] = None
    if len(found) < 2:
        raise ConfigError(f"the space of {space.method} holds nothing but the default; give --space other values")
    return tuple(found)


@dataclass(frozen=True, eq=False)
class TuningPlan:
    """What is run."""

    workspace: Workspace  # Its table has the rows of the source subjects alone; names are those of the whole cache.
    # Names of everyone who is a target in one of the draws, or in the pool that they are drawn from; their rows were
    # not read.
    reported: tuple[str, ...]
    space: SearchSpace  # What is searched.
    candidates: tuple[Values, ...]  # The configurations that are tried, numbered from 1, which is the default.
    folds: Mapping[int, tuple[str, ...]]  # Number of a fold to the source subjects who play targets for the others.
    # Source subjects who can't play a target, each with the reason; they are trained on in every fold.
    bystanders: Mapping[str, str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Validation subjects, fold by fold."""
        return tuple(itertools.chain.from_iterable(self.folds.values()))

    @property
    def tasks(self) -> list[Task]:
        """A task for each fold; in its runs a candidate goes by its number."""
        config = self.workspace.config
        # Options are chosen on whole clips: how a table of results is made is nothing to the choice.
        whole = replace(config.protocol, frames=0, contamination=0.0, smoothing=0)
        source = replace(self.workspace, config=replace(config, protocol=whole)).source(())
        methods = {str(number): self.space.make(values) for number, values in enumerate(self.candidates, start=1)}
        tasks = []
        for playing in self.folds.values():
            others = tuple(name for name in source.subjects if name not in playing)
            tasks.append(Task(replace(source, subjects=others), playing, methods, folder="tune-runs"))
        return tasks


def open_sources(
    root: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    sources: Sequence[str] = (),
    device: str = "cpu",
    notify: Notify | None = None,
) -> tuple[Workspace, tuple[str, ...]]:
    """Return a workspace with the rows of those who are a target in no draw, and who is reported: see `TuningPlan`.

    ``protocol.targets``, ``draws`` and ``pool`` say who is reported; ``sources`` narrows who is left.
    """
    # Names alone: targets are chosen by name.
    names = Workspace.open(root, overrides, subjects=(), device=device, notify=notify)
    protocol = names.config.protocol
    drawn = {name for draw in range(protocol.draws) for name in names.targets(draw)}
    # The pool is kept for reporting, drawn or not.
    reported = tuple(sorted(drawn | set(names.pool())))
    asked = tuple(sources) or protocol.sources
    everyone = names.table.subjects
    check_known(asked, everyone)
    check_disjoint(asked, reported)
    left = [name for name in asked or everyone if name not in set(reported)]
    if not left:
        raise InputError(
            f"all {len(everyone)} subjects are targets in one of the {protocol.draws} draws, and nobody is left to "
            "tune on; choose fewer --targets or --draws"
        )
    return Workspace.open(root, overrides, subjects=left, device=device, notify=notify), reported


def plan_tuning(
    workspace: Workspace, reported: tuple[str, ...], space: SearchSpace, *, trials: int, folds: int
) -> TuningPlan:
    """Deal the folds and choose the candidates; the configuration's ``protocol`` has scope, gap and seed."""
    protocol = workspace.config.protocol
    if protocol.scope == "dataset" and get_method(space.method).needs_neutral:
        raise ConfigError(
            f"{space.method} takes one person's neutral clip, and a data set of people and classes is none; "
            "leave out --scope dataset"
        )
    bystanders, subjects = cannot_play(workspace.table, protocol), workspace.table.subject_names_present()
    dealt = deal_folds(subjects, [name for name in subjects if name not in bystanders], folds, protocol.seed)
    return TuningPlan(workspace, reported, space, choose_candidates(space, trials, protocol.seed), dealt, bystanders)


def run_tuning(plan: TuningPlan, **where: Unpack[Where]) -> Rows:
    """Run every candidate on every validation subject; what an earlier call finished is read, not run.

    A failed run is a row with its error, and is tried again the next time. ``where`` are the options of `run_tasks`; an
    UnfinishedError says that other shares have not run yet.
    """
    done = run_tasks(plan.tasks, **where)
    refuse_unfinished(plan.tasks, done)
    rows = {run: row for part in done for run, row in part.items()}
    return {
        number: {name: rows[Run(name, 0, 0, str(number))] for name in plan.subjects}
        for number in range(1, len(plan.candidates) + 1)
    }


def cannot_play(table: FeatureTable, protocol: ProtocolConfig) -> dict[str, str]:
    """Return the subjects who can't play a target, each with the reason; they stay sources in every fold."""
    reasons = {}
    for name in table.subject_names_present():
        rows = table.rows_of(name)
        try:
            tested = rows.label[split_target(rows, protocol.gap).test] if protocol.scope == "person" else rows.label
            if (tested < 0).all():
                reasons[name] = f"subject {name!r} has no labelled rows to test on"
        except InputError as error:
            reasons[name] = str(error)
    return reasons


def deal_folds(subjects: Sequence[str], players: Collection[str], count: int, seed: int) -> dict[int, tuple[str, ...]]:
    """Deal those who play targets into folds, each by a hash of the seed and the own name; empty folds are left out.

    A subject who comes or goes moves nobody else; that is why the folds are not all of one size.
    """
    if len(players) < 2:
        raise InputError(
            f"{len(players)} of the {len(subjects)} source subjects can play a target, and tuning needs 2 or more; "
            "choose fewer --targets or --draws, or extract more people"
        )
    dealt: dict[int, list[str]] = {}
    for name in sorted(players):
        dealt.setdefault(run_seed("tuning fold", seed, name) % count, []).append(name)
    largest = max(map(len, dealt.values()))
    left = len(subjects) - largest
    if left < 2:
        raise InputError(
            f"{largest} of the {len(subjects)} source subjects fall into one fold, which leaves {left} to train on; "
            "give more --folds or another --seed"
        )
    return {number: tuple(dealt[number]) for number in sorted(dealt)}

"""A published table beside our own numbers: its protocol on one's own cache, and where the two protocols differ."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featlab.analysis.evaluation import best_notes, competes, failure_notes, method_name
from featlab.analysis.page import Result
from featlab.analysis.table import Column, count_text, interval_text, make_table, number_text
from featlab.config.load import flat_values
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow, Field, run_facts, subject_means
from featlab.evaluation.statistics import bootstrap_interval, mean
from featlab.methods.registry import make_method

if TYPE_CHECKING:
    from featlab.evaluation.runner import OnStep
    from featlab.methods.base import Method
    from featlab.workspace.workspace import Workspace

LEAST = 4  # People: two to learn from, two to test on.
TIMED = 3  # Targets whose adaptation is timed for the table of costs.
_TOLD = ("targets", "draws", "seeds", "seed", "methods", "scope", "sources", "pool")  # Settings, by other words.

Rows = Mapping[str, Sequence[EvaluationRow]]  # By run.


@dataclass(frozen=True)
class Measure:
    """What a column is of."""

    key: str  # A field of what makes our numbers, or a class: its recall.
    title: str
    scale: float  # What our number is multiplied by to be in the published unit.
    decimals: int


@dataclass(frozen=True)
class PublishedTable:
    """A published table and its protocol, as far as it is known."""

    name: str
    title: str
    kind: str  # What makes our numbers: ``scores``, ``complexity`` or ``branches``.
    measures: tuple[Measure, ...]
    # What we run, a method with options as in ``clup-swav score=confidence``, to what the table calls it, and its
    # figures: one a measure, NaN where nothing is published.
    runs: Mapping[str, tuple[str, tuple[float, ...]]]
    proposed: str  # The run that stands for the paper's own method, and the one that it is compared with.
    against: str
    source: Mapping[str, str]  # ``of`` (short), ``cite``, ``read`` (what was read), ``licence``.
    page: str  # Where in what was read.
    classes: tuple[str, ...]  # That a cache must have; none where any will do.
    differs: tuple[str, ...]  # Where our protocol is another one; a run fills in the words in braces.
    optional: tuple[str, ...] = ()  # Classes that a cache may have besides.
    scope: str = "person"
    targets: int = 0  # People; 0 where the target is a data set.
    sources: int = 0
    make: str = "featlab merge SOURCE.h5 TARGET.h5 --out both.h5 --rename OLD=NEW"  # How to come by a cache.
    options: Mapping[str, Any] = field(default_factory=dict)  # Of the methods called ``clup-…``.


def published_tables() -> dict[str, PublishedTable]:
    """Return every table by name."""
    data = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
    tables = {}
    for name, own in data["tables"].items():
        facts = {**data["families"][own.pop("family")], **own}
        column = facts.pop("column", None)
        shown = slice(2, None) if column is None else slice(2 + column, 3 + column)
        facts["runs"] = {run: (line[0], tuple(line[shown])) for line in facts.pop("rows") for run in line[1].split(",")}
        facts["measures"] = [Measure(*line) for line in facts["measures"]]
        facts["differs"] = [*facts["differs"], *facts.pop("besides", [])]
        facts["source"] = data["sources"][facts["source"]]
        tuples = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
        tables[name] = PublishedTable(name, **(facts | tuples))
    return tables


@dataclass(frozen=True)
class Ours:
    """One number of ours in the published unit: a mean over targets with its interval, of costs a median without."""

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    targets: int = 0  # That it is of; 0 where nothing could be run.
    each: Mapping[str, float] = field(default_factory=dict)  # By target.
    video: float = math.nan  # The mean with a video as the unit.


Found = dict[tuple[str, str], Ours]  # By run and key of a measure.


@dataclass(frozen=True)
class Line:
    """One line of the table: what was published of a method, and what we found."""

    name: str
    run: str
    selection: str  # Of its method; empty where the line is of no method.
    published_as: str
    measure: Measure
    published: float
    ours: Ours

    def shown(self, value: float) -> str:
        """Return a number of this line as text."""
        return number_text(value, self.measure.decimals)


def fitted(workspace: Workspace, table: PublishedTable) -> Workspace:
    """Return the workspace with the table's number of targets, or half of the people where they are too few."""
    found, needed = workspace.table.classes, set(table.classes)
    if needed and not needed <= set(found) <= needed | set(table.optional):
        classes = f"{', '.join(table.classes)}, and the cache {', '.join(found)}"
        raise InputError(f"{table.name} has the classes {classes}; make a cache with them, as by `{table.make}`")
    if "protocol.targets" in workspace.config.given:
        return workspace
    if not table.targets:
        raise InputError(
            f"{table.name}: say which subjects are the target data set, as by --targets both.TARGET.subjects.txt"
        )
    people = len(workspace.pool() or workspace.table.subjects)
    if people < LEAST:
        raise InputError(f"{table.name} needs {LEAST} people, two to learn from, and here are {people}; add more")
    targets = {"protocol.targets": str(min(table.targets, people // 2))}
    return replace(workspace, config=workspace.config.with_values(targets, table.name))


def methods_of(
    table: PublishedTable, names: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Method]:
    """Return what to run of the named methods; ``given`` are options by method, which beat the table's."""
    runs = [run for run in table.runs if run.split()[0] in names]
    made = {}
    for run in [*runs, *(name for name in names if name not in runs)]:
        name, *own = run.split()
        options = {**(table.options if name.startswith("clup-") else {}), **given.get(name, {})}
        made[run] = make_method(name, {name: options | dict(item.split("=") for item in own)})
    return made


def found_in(table: PublishedTable, workspace: Workspace, rows: Rows, on_step: OnStep) -> Found:
    """Return our numbers: scores of evaluation rows, and what costs or branches have to be measured for the table."""
    classes = workspace.table.classes
    scores: dict[str, Field] = {"macro_f1": "macro_f1", "accuracy": "accuracy"}
    scores |= {name: _recall(place) for place, name in enumerate(classes)}
    found = {}
    for run, mine in rows.items():
        for name, score in scores.items():
            each = {who: 100 * value for who, value in subject_means(mine, score).items()}
            values = list(each.values())
            videos = [] if name in classes else list(subject_means(mine, f"video_{name}").values())
            found[run, name] = Ours(mean(values), *bootstrap_interval(values), len(values), each, 100 * mean(videos))
    if table.kind == "complexity":
        from featlab.analysis.cost import measure_complexity

        report = measure_complexity(workspace, workspace.targets(), list(rows), measured=TIMED, on_method=on_step)
        for cost, of in itertools.product(report.costs, table.measures[1:]):
            found[cost.method, of.key] = Ours(of.scale * getattr(cost, of.key), targets=cost.subjects)
    elif table.kind == "branches":
        from featlab.analysis.inside.branches import compare_branches

        for part, measures in compare_branches(workspace, on_step=on_step).found.items():
            for name, cosine in measures.items():
                found[part, name] = Ours(cosine.mean, cosine.low, cosine.high, len(cosine.by_subject))
    return found


def lines_of(table: PublishedTable, made: Mapping[str, Method], found: Found) -> list[Line]:
    """Return the lines of the table; those of methods that it hasn't are the last."""
    blank = ("not in the published table", (math.nan,) * len(table.measures))
    lines = []
    for run in made or table.runs:
        (title, figures), selection = table.runs.get(run, blank), made[run].selection if made else ""
        name = method_name(run, selection) if made else title
        for measure, published in zip(table.measures, figures, strict=True):
            lines.append(Line(name, run, selection, title, measure, published, found.get((run, measure.key), Ours())))
    return lines


def differences(table: PublishedTable, workspace: Workspace) -> list[str]:
    """Return where our protocol is another one than the published, a sentence each."""
    from featlab.evaluation.runner import plan

    config, first = workspace.config, plan(workspace)[0]
    words = {
        "people": f"{len(workspace.table.subjects)} people",
        "targets": len(first.targets),
        "sources": len(first.source.subjects),
        "published": f"{table.sources} source people and {table.targets} targets",
        "runs": f"{count_text(config.protocol.draws, 'draw')} with {count_text(config.protocol.seeds, 'seed')}",
        "extractor": workspace.extractor.id,
        "classes": ", ".join(workspace.table.classes),
        "timed": min(TIMED, len(first.targets)),
    }
    said = [text.format(**words) for text in table.differs]
    values, told = flat_values(config.to_dict()), {"cache", *(f"protocol.{name}" for name in _TOLD)}
    own = [f"{key} = {values[key]}" for key in config.given if key in values and key not in told]
    return [*said, *([f"Settings of your own: {', '.join(own)}."] if own else [])]


def paper_result(
    table: PublishedTable, workspace: Workspace, people: Sequence[str], lines: Sequence[Line], rows: Rows
) -> Result:
    """Return the table of these targets, what it says, and beneath it the source and every difference of protocol."""
    source, unlike = {**table.source, "page": table.page}, differences(table, workspace)
    notes = [f"Published: {source['cite']}. Read from {source['read']}: {table.page}. {source['licence']}", *unlike]
    notes += [*failure_notes(rows), *best_notes(line.selection for line in lines)]
    one = len(table.measures) == 1
    columns = [
        Column[Line]("Method", lambda line: line.name, text=True),
        Column("Published as", lambda line: line.published_as, text=True, wide=True),
        Column("Measure", lambda line: line.measure.title, text=True),
        Column("Published", lambda line: line.shown(line.published), best=one),
        Column("Ours", lambda line: line.shown(line.ours.mean), best=one),
        Column("95 % interval", lambda line: interval_text((line.ours.low, line.ours.high), line.shown)),
        Column("By video", lambda line: line.shown(line.ours.video)),
        Column("Targets", lambda line: str(line.ours.targets)),
    ]
    shown = [column for column in columns if column.head != ("Measure" if one else "By video")]
    title = table.title + (f", {table.measures[0].title}" if one else "")
    made = make_table(title, shown, lines, notes=notes, competes=lambda line: competes(line.selection), grouped=not one)
    return Result(
        kind="paper",
        title=f"Published and ours: {table.title}",
        summary=findings(table, lines),
        tables={"paper": made},
        metadata=run_facts(workspace, people),
        data={"table": table.name, "source": source, "lines": [*map(asdict, lines)], "differences": unlike},
    )


def findings(table: PublishedTable, lines: Sequence[Line]) -> list[str]:
    """Return how far the paper's method is from another one, here and as published, and what can be compared."""
    by_run = {line.run: line for line in lines if line.ours.targets}
    said = ["The protocols differ (see beneath the table): compare differences of methods, not levels."]
    ends = [by_run[run] for run in (table.proposed, table.against) if run in by_run]
    if len(table.measures) > 1 or len(ends) < 2:
        return said
    first, second = ends
    gaps = [value - second.ours.each[who] for who, value in first.ours.each.items() if who in second.ours.each]
    low, high = bootstrap_interval(gaps)
    sure = "" if math.isnan(low) else f", 95 % interval [{low:.1f}, {high:.1f}]"
    points = f"{first.name} minus {second.name}: {mean(gaps):+.1f} points here{sure}, over"
    published = f"{first.published - second.published:+.1f} published."
    return [f"{points} {count_text(len(gaps), 'target')}; {published}", *said]


def _recall(place: int) -> Field:
    return lambda row: row.class_recall[place] if row.class_recall else math.nan

"""`featlab plot …`: pictures of what happens inside, as SVG (and PDF, PNG), with the numbers behind them as csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from featlab.cli.complete import complete_subject
from featlab.cli.session import TO_REPORT, Session, command, names_in, workspace_command
from featlab.errors import ConfigError, InputError

if TYPE_CHECKING:
    from featlab.analysis.inside import AdaptedPeople
    from featlab.cli.output import Bars
    from featlab.workspace.workspace import Workspace

_SUBJECT = Option(
    "--subject",
    metavar="ID",
    help="The target subject; tsne takes several, a figure each. Default: the first target of the first draw.",
    autocompletion=complete_subject,
)


@workspace_command("methods", "targets", "pool", "device", then=TO_REPORT)
def tsne(
    session: Session,
    subject: Annotated[list[str] | None, _SUBJECT] = None,
    by: Annotated[
        str, Option(metavar="tsne|pca|umap", help="What makes a plane of them; umap needs its extra.")
    ] = "tsne",
) -> None:
    """A target among the source rows in one plane, as extracted and translated: a panel a method.

    Beneath it how many of the nearest source rows show the target's own class, before and after.
    """
    from featlab.analysis.inside import MAPPED
    from featlab.analysis.inside.map import check_plane, feature_map, map_result
    from featlab.analysis.page import folder_name

    check_plane(by)
    with session.output.progress() as bars:
        opened = session.open()
        people = _adapt(session, bars, opened, subject or [], _names(session["methods"] or ",".join(MAPPED)))
        maps = []
        for person in people.people:
            maps.append(feature_map(people, person, by))
            bars(by, len(maps), len(people.people))
    folder = folder_name(f"plot-{by}", [item.subject for item in maps])
    session.result(folder, map_result(maps), opened)


@workspace_command("method", "targets", "pool", "device", then=TO_REPORT)
def neighbours(session: Session, subject: Annotated[str | None, _SUBJECT] = None) -> None:
    """The source subjects in whom a target's frames have their nearest frame, before and after translation."""
    from featlab.analysis.inside.neighbours import neighbours_result, source_neighbours
    from featlab.analysis.page import folder_name

    with session.output.progress() as bars:
        opened = session.open()
        name = opened.config.adapt.method
        people = _adapt(session, bars, opened, [subject] if subject else [], [name])
    found = source_neighbours(people, people.people[0], name)
    session.result(folder_name("plot-neighbours", [found.subject]), neighbours_result(found), opened)


@workspace_command("targets", "methods", "pool", "device", "wide", then=TO_REPORT)
def style(session: Session) -> None:
    """How far the targets are from the source's style, layer by layer, before and after adapting.

    One unit is the distance of a typical source person. A figure a method.
    """
    from featlab.analysis.inside import adapt_people, can_be_split
    from featlab.analysis.inside.style_shift import style_result, style_shift

    names = _names(session["methods"] or "pft")
    with session.output.progress() as bars:
        opened = session.open()
        everyone = opened.targets()
        splits, failures = can_be_split(opened, everyone)
        if not splits:
            raise InputError(f"none of the {len(everyone)} targets can be adapted to, the first: {failures[0][1]}")
        session.warn_of_seen(opened.extractor, list(splits))
        people = adapt_people(opened, list(splits), names, kept_out=everyone, splits=splits, on_person=bars.of("adapt"))
    result = style_result([style_shift(people, name) for name in names])
    result = replace(result, data={"subjects": list(splits), "failures": failures, **result.data})
    session.result("plot-style", result, opened)
    session.end(failures, f"of {len(everyone)} targets were left out")


def _adapt(
    session: Session, bars: Bars, opened: Workspace, subjects: Sequence[str], methods: Sequence[str]
) -> AdaptedPeople:
    """Adapt to the named subjects, or to the first target where none is named."""
    from featlab.analysis.inside import adapt_people

    subjects, kept_out = _subjects(session, opened, subjects)
    return adapt_people(opened, subjects, methods, kept_out=kept_out, on_person=bars.of("adapt"))


def _subjects(session: Session, opened: Workspace, named: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the named subjects, or the first target where none is named, and whom the source must not see."""
    subjects = list(dict.fromkeys(named))
    if not subjects:
        subjects = [opened.targets()[0]]
        session.output.note(f"no --subject: {subjects[0]}, the first target of the first draw")
    session.warn_of_seen(opened.extractor, subjects)
    return subjects, session.held_out(opened, subjects)


def _names(methods: str | None) -> list[str]:
    names = names_in(methods)
    if not names:
        raise ConfigError("--methods names no method; see featlab methods")
    return list(dict.fromkeys(names))


@workspace_command("label_rule", "subjects", "targets", "images", "faces", then=TO_REPORT)
def pairs(
    session: Session,
    strategies: Annotated[
        str, Option(metavar="NAME,…", help="Of random, cosine, landmark; a strip each.")
    ] = "random,cosine,landmark",
    rows: Annotated[int, Option(min=1, max=12, metavar="N", help="Example rows, one a subject.")] = 8,
) -> None:
    """Example source rows with the reference that each pairing strategy chose; numbers over all rows."""
    from featlab.analysis.inside.faces import find_faces
    from featlab.analysis.inside.pairs import example_pairs, known_strategies, pairs_result

    opened = session.open()
    shown, left_out = known_strategies(names_in(strategies), opened.table)
    pictures = find_faces(opened, session["images"])
    source = opened.source(session.held_out(opened, session["subjects"] or ()))
    with session.output.progress() as bars:
        examples = example_pairs(source, shown, rows, on_strategy=bars.of("pairs"))
    result = pairs_result(examples, pictures, opened.config.pair.label_rule)
    session.result("plot-pairs", result, opened)
    if left_out:
        session.output.note(left_out)


@workspace_command("method", "targets", "pool", "device", "images", "faces", then=TO_REPORT)
def clip(
    session: Session,
    subject: Annotated[str | None, _SUBJECT] = None,
    video: Annotated[
        str, Option(metavar="NAME", help="A test video; default: that with the most non-neutral frames.")
    ] = "",
    shown: Annotated[str, Option("--class", metavar="NAME", help="Whose probability; default: all but neutral.")] = "",
) -> None:
    """One test video of a person: the probability of a class over time, before and after adapting, with frames."""
    from featlab.analysis.inside.clip import clip_over_time, clip_result
    from featlab.analysis.inside.faces import find_faces
    from featlab.analysis.page import safe_name

    with session.output.stages() as progress:
        opened = session.open(on_epoch=progress)
        pictures = find_faces(opened, session["images"])
        (name,), kept_out = _subjects(session, opened, [subject] if subject else [])
        made = clip_over_time(opened, name, kept_out, video=video, shown=shown)
    which = "-".join(filter(None, (made.subject, made.video, made.method, shown)))
    session.result(f"plot-clip-{safe_name(which)}", clip_result(made, pictures), opened)
    session.output.warn(*made.warnings)


@command("methods", "workspace", "json_mode", "quiet", then=TO_REPORT)
def confusion(
    session: Session,
    results: Annotated[
        Path | None,
        Argument(
            metavar="[RESULTS]",
            help="A results folder of evaluate or benchmark, or its results.jsonl; default: the newest.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Which class is taken for which, a panel a method: shares of each true class, mean over target subjects."""
    from featlab.analysis.evaluation.confusion import confusion_result
    from featlab.analysis.evaluation.stored import open_results

    stored = open_results(session.workspace, results)
    if results is None:
        session.output.note(f"results: {stored.path.parent}, the newest")
    session.result(f"plot-confusion-{stored.name}", confusion_result(stored, names_in(session["methods"])))


plot_app = typer.Typer(name="plot", no_args_is_help=True, help="Pictures of what happens inside, as SVG, PDF and PNG.")
for _command in (tsne, neighbours, pairs, clip, confusion, style):
    plot_app.command()(_command)

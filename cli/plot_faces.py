"""`featlab plot pairs | clip | confusion`: who is paired with whom, one video over time, what is taken for what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featlab.cli.complete import complete_subject
from featlab.cli.group import typed_command
from featlab.cli.session import Session, command, names_in, workspace_command

ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="What the cache's image names are relative to, the manifest's folder; default: beside the cache.",
    ),
]
FacesOption = Annotated[
    str | None,
    typer.Option(
        "--faces",
        metavar="photographs|landmarks|none",
        help="What stands for a face; landmarks are dots in which nobody is recognised.",
    ),
]


@workspace_command("label_rule", "subjects", "targets")
def pairs(
    session: Session,
    strategies: Annotated[
        str, typer.Option("--strategies", metavar="NAME,…", help="Of random, cosine, landmark; a strip each.")
    ] = "random,cosine,landmark",
    rows: Annotated[int, typer.Option("--rows", min=1, max=12, metavar="N", help="Example rows, one a subject.")] = 8,
    images: ImagesOption = None,
    faces: FacesOption = None,
) -> None:
    """Example source rows with the reference that each pairing strategy chose; numbers over all rows."""
    from featlab.analysis.inside.faces import find_faces
    from featlab.analysis.inside.pairs import example_pairs, known_strategies, pairs_result
    from featlab.evaluation.results import run_facts

    output = session.output
    opened = session.open({"plot.faces": faces})
    shown, left_out = known_strategies(names_in(strategies), opened.table)
    pictures = find_faces(opened, images)
    source = opened.source(session.held_out(opened, session["subjects"] or ()))
    with output.progress() as bars:
        bar = bars.add_task("pairs", total=len(shown))
        examples = example_pairs(
            source, shown, rows, on_strategy=lambda done, total: bars.update(bar, completed=done, total=total)
        )
    result = pairs_result(examples, pictures, opened.config.pair.label_rule, run_facts(opened))
    output.result(session.workspace / "results" / "plot-pairs", result, typed_command())
    if left_out:
        output.note(left_out)


@workspace_command("method", "targets", "pool", "device")
def clip(
    session: Session,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject",
            metavar="ID",
            help="The target subject; default: the first of the first draw of targets.",
            autocompletion=complete_subject,
        ),
    ] = None,
    video: Annotated[
        str,
        typer.Option("--video", metavar="NAME", help="A test video; default: that with the most non-neutral frames."),
    ] = "",
    shown: Annotated[
        str, typer.Option("--class", metavar="NAME", help="Whose probability; default: all but neutral.")
    ] = "",
    smooth: Annotated[
        int, typer.Option("--smooth", min=0, metavar="N", help="Average probabilities over N (odd) frames; 0: none.")
    ] = 0,
    images: ImagesOption = None,
    faces: FacesOption = None,
) -> None:
    """One test video of a person: the probability of a class over time, before and after adapting, with frames."""
    from featlab.analysis.inside.clip import clip_name, clip_over_time, clip_result
    from featlab.analysis.inside.faces import find_faces
    from featlab.config.sections import check_window
    from featlab.evaluation.results import run_facts

    output = session.output
    check_window("--smooth", smooth)
    with output.stages() as progress:
        opened = session.open({"plot.faces": faces}, on_epoch=progress)
        pictures = find_faces(opened, images)
        name = subject or opened.targets()[0]
        if subject is None:
            output.note(f"subject: {name}, the first target of the first draw (--subject takes another)")
        session.warn_of_seen(opened.extractor, [name])
        kept_out = session.held_out(opened, [name])
        made = clip_over_time(opened, name, kept_out, video=video, shown=shown, smoothing=smooth)
    result = clip_result(made, pictures, run_facts(opened))
    output.result(session.workspace / "results" / f"plot-clip-{clip_name(made)}", result, typed_command())
    for line in made.warnings:
        output.warn(line)


@command("methods", "workspace", "cache", "json_mode", "quiet")
def confusion(
    session: Session,
    results: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RESULTS]",
            help="A results folder of evaluate or benchmark, or its results.jsonl; default: the newest.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Which class is taken for which, a panel a method: shares of each true class, mean over target subjects."""
    from featlab.analysis.evaluation.confusion import confusion_result
    from featlab.analysis.evaluation.stored_results import open_results

    output = session.output
    stored = open_results(session.workspace, results)
    if results is None:
        output.note(f"results: {stored.path.parent}, the newest")
    found = confusion_result(stored, names_in(session["methods"]), session.workspace, session["cache"])
    output.result(session.workspace / "results" / f"plot-confusion-{stored.name}", found, typed_command())

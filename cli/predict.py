"""`featlab predict`: a person's probabilities, for rows of the cache or for new images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from featlab.analysis.table import count_text
from featlab.cli.backbone import embedder
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS, PIXEL_FLAGS
from featlab.cli.output import Output
from featlab.cli.session import REFUSED, SKIPPED, Session, people_of, workspace_command
from featlab.errors import ConfigError, InputError

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.cache.table import FeatureTable
    from featlab.model.networks import AdaptedModel
    from featlab.workspace.predict import Predicted


@dataclass(frozen=True, eq=False)
class Person:
    """One person's model."""

    subject: str
    bundle: Bundle  # The source model.
    model: AdaptedModel  # The person's.
    method: str  # Registry name of the method.
    reused: bool  # Whether the adaptation was stored.
    rows: FeatureTable | None  # The person's rows; ``None`` where no cache was needed.


def open_person(session: Session, spec: str) -> Person:
    """Return the model of the one person whom a text names, as `people_of`."""
    bundle, method = session["bundle"], session["method"]
    if needs_no_cache(session):
        from featlab.bundle.bundle import load_bundle
        from featlab.cache.schema import one_form
        from featlab.workspace.predict import stored_model

        loaded, subject = load_bundle(bundle), one_form(spec)
        model, stored = stored_model(loaded, bundle, subject)
        if method is not None and method != stored:
            raise InputError(
                f"{subject} is adapted by {stored}, not {method}, and there is no cache to adapt on; name a --cache"
            )
        return Person(subject, loaded, model, stored, True, None)
    opened, loaded, folder, people = people_of(session, spec)
    if len(people) > 1:
        raise InputError(f"--subject {spec} names {len(people)} people; name one person here")
    from featlab.workspace.predict import adaptation_of

    (subject,) = people
    adapted, reused = adaptation_of(opened, loaded, folder, subject)
    return Person(subject, loaded, adapted, opened.config.adapt.method, reused, opened.table.rows_of(subject))


def needs_no_cache(session: Session) -> bool:
    """Return whether what is stored in a named bundle is taken, since there is no cache to adapt on."""
    return session["bundle"] is not None and session["cache"] is None and not session.cache_file(None).exists()


def _predict_images(
    session: Session, person: Person, images: Path, out: Path, smooth: int, overlay: Path | None
) -> None:
    """Embed and predict; write csv and video, and beside the csv the list of what could not be read (exit code 3)."""
    from featlab.extraction.shards import list_path, write_list
    from featlab.workspace.predict import Predicted, write_predictions

    output, classes = session.output, person.bundle.classes
    found = embedder(session, person.bundle)(images, person.subject)
    raw = person.model.predict_proba(found.table.embeddings)
    done = _smoothed(Predicted(person.subject, found.table, raw, person.reused), smooth)
    write_predictions(out, [done], classes)
    write_list(out, found.failures)
    session.then = "the same with --overlay FILE.mp4 draws it over a video" if overlay is None else "play {overlay}"
    if overlay is not None:
        from featlab.analysis.inside.overlay import write_overlay

        title = f"{person.subject}, {person.method}"
        with output.progress() as bars:
            write_overlay(overlay, images, title, classes, found, done.probabilities, bars.of("overlay"))
    facts = {"path": out, "method": person.method, "smoothing": smooth, "classes": classes, "overlay": overlay}
    _tell_one(output, done, facts | {"failures": len(found.failures)})
    session.end(found.failures, f"images have no line; they are listed in {list_path(out)}")


def _predict_rows(session: Session, out: Path, smooth: int) -> None:
    """Predict rows of the cache, of one person or of many in one csv; those who are refused are told, and why."""
    output = session.output
    opened, bundle, folder, people = people_of(session, session["people"])
    # Not sooner, for they need torch: a wrong name is told at once.
    from featlab.workspace.adapt import Refused
    from featlab.workspace.predict import predict_one, predict_people, write_predictions

    facts = {"path": out, "method": opened.config.adapt.method, "smoothing": smooth, "classes": bundle.classes}
    if len(people) == 1:
        one = _smoothed(predict_one(opened, bundle, folder, people[0]), smooth)
        write_predictions(out, [one], bundle.classes)
        _tell_one(output, one, facts | {"failures": 0})
        return
    targets = targets_of(output, bundle, people)
    predicted: list[dict[str, Any]] = []
    refused: list[tuple[str, str]] = []

    def parts() -> Iterator[Predicted]:
        for done in predict_people(opened, bundle, folder, targets):
            bars("predict", len(predicted) + len(refused) + 1, len(targets), done.subject)
            if isinstance(done, Refused):
                refused.append((done.subject, done.reason))
                continue
            done = _smoothed(done, smooth)
            predicted.append(_facts(done, bundle.classes))
            yield done

    with output.progress() as bars:
        write_predictions(out, parts(), bundle.classes)
    stored = sum(done["reused"] for done in predicted)
    said = {
        "people": f"{len(predicted)} of {count_text(len(targets), 'subject')} ({stored} adapted to already)",
        "rows": sum(done["rows"] for done in predicted),
    }
    facts |= {"path": out if predicted else None, "people": predicted}
    output.tell("predict", facts, said, **left_out(people, targets, refused))
    end_with(output, refused, done=bool(predicted))


def _smoothed(done: Predicted, smooth: int) -> Predicted:
    from featlab.evaluation.metrics import smooth_probabilities

    rows = done.rows
    return replace(done, probabilities=smooth_probabilities(done.probabilities, rows.video, rows.frame, smooth))


def _tell_one(output: Output, done: Predicted, facts: dict[str, Any]) -> None:
    """Print what was predicted of one person, by video."""
    told, classes, smooth = _facts(done, facts["classes"]), facts["classes"], facts["smoothing"]
    output.json(facts | told)
    over = f", averaged over {smooth} frames of a video" if smooth > 1 else ""
    rows = f"{facts['path']}: {len(done.rows)} rows of {done.subject}{over}"
    output.show(f"{rows}; share of frames predicted as each class, by video:")
    lines = [
        (line["video"], line["rows"], *(f"{100 * line[name]:.1f} %" for name in classes)) for line in told["videos"]
    ]
    output.columns(("Video", "Frames", *classes), lines)


def _facts(done: Predicted, classes: Sequence[str]) -> dict[str, Any]:
    from featlab.workspace.predict import video_shares

    shares = [
        {"video": video, "rows": count, **dict(zip(classes, share, strict=True))}
        for video, count, share in video_shares(done.rows, done.probabilities)
    ]
    return {"subject": done.subject, "reused": done.reused, "rows": len(done.rows), "videos": shares}


def targets_of(output: Output, bundle: Bundle, people: Sequence[str]) -> list[str]:
    """Return those of several people whom a bundle can be adapted to, and say how many it knows from the source."""
    targets = [name for name in people if name not in bundle.source_subjects]
    if len(targets) < len(people):
        output.note(f"{count_text(len(people) - len(targets), 'source subject')} of the bundle left out")
    return targets


def left_out(people: Sequence[str], targets: Sequence[str], refused: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return what --json says of those whom nothing was done for."""
    reasons = [{"subject": subject, "reason": reason} for subject, reason in refused]
    return {"refused": reasons, "source_subjects_left_out": len(people) - len(targets)}


def end_with(output: Output, refused: Sequence[tuple[str, str]], *, done: bool) -> None:
    """Print who was refused and why, and end with the exit code for it: 3, or 2 where nobody was not."""
    if refused:
        output.columns(("Refused", "Why"), refused, text_columns=2)
        raise typer.Exit(SKIPPED if done else REFUSED)


@workspace_command(
    *("people", "method", "bundle", *INPUT_FLAGS, "backbone", *NETWORK_FLAGS, "batch", "targets", "device", "jobs"),
    then="featlab plot clip --subject ID{method}{targets}{at}",
)
def predict(
    session: Session,
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The csv to write.")] = Path("predictions.csv"),
    images: Annotated[
        Path | None,
        Option(
            metavar="SOURCE", help="Predict these and not the cache's: an image, a video, a folder of them, a manifest."
        ),
    ] = None,
    smooth: Annotated[
        int, Option(min=0, metavar="N", help="Average probabilities over N (odd) frames of a video; 0: as they are.")
    ] = 0,
    overlay: Annotated[
        Path | None, Option(metavar="FILE", help="With --images CLIP: an mp4 of it with the probabilities drawn below.")
    ] = None,
) -> None:
    """Predict every frame of people with their adaptations; adapts first where one is missing."""
    from featlab.config.sections import check_window

    check_window("--smooth", smooth)
    people = session["people"]
    if overlay is not None:
        from featlab.analysis.inside.overlay import check_overlay

        check_overlay(overlay, images)
    if images is not None:
        _predict_images(session, open_person(session, people), images, out, smooth, overlay)
        return
    given = [name for name in PIXEL_FLAGS if session[name] != PIXEL_FLAGS[name].default]
    if given:
        flag = {"options": "option", "layout_options": "layout-option"}.get(given[0], given[0].replace("_", "-"))
        raise ConfigError(f"--{flag} says how images are read and embedded; name them with --images SOURCE")
    if needs_no_cache(session):
        raise InputError(f"there is no cache with rows of {people}; name one with --cache, or images with --images")
    _predict_rows(session, out, smooth)

"""The stages of a workspace, one command each: `featlab train`, `pair`, `pretrain` and `adapt`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from featlab.analysis.table import count_text
from featlab.cli.output import Output
from featlab.cli.predict import end_with, left_out, targets_of
from featlab.cli.session import Session, names_in, people_of, workspace_command
from featlab.errors import listed

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.workspace.stages import StageOutput
    from featlab.workspace.workspace import Source, Workspace


@workspace_command("subjects", "targets", "dim", "device", then="featlab pretrain{targets}{at}")
def train(session: Session) -> None:
    """Train the source head: bottleneck B and classifier C, on everyone who is no target."""
    from featlab.workspace.stages import train_stage

    output = session.output
    with output.stages() as progress:
        source = _source(session, progress)
        trained, made = train_stage(source)
    facts = {
        "rows": len(source.table),
        "source_subjects": len(source.subjects),
        "classes": source.table.classes,
        "features": trained.projection.components.shape[1],
        "bottleneck": trained.head.linear.out_features,
        "carried_share": trained.share.value,
    }
    _tell(output, "train", made, facts, {"carried_share": trained.share.sentence()})


@workspace_command("strategy", "label_rule", "index", "subjects", "targets", then="featlab pretrain{targets}{at}")
def pair(session: Session) -> None:
    """Give each source row a reference: a row of another subject."""
    from featlab.config.options import refuse_inert
    from featlab.pairing.pairs import pairs_summary
    from featlab.workspace.stages import pair_stage

    output = session.output
    source = _source(session)
    if session["index"]:
        refuse_inert(source.workspace.config.pair, ["index"], "pair")
    pairs, made = pair_stage(source)
    summary = pairs_summary(pairs, source.table)
    used = sorted(summary["references"].items(), key=lambda item: (-item[1], item[0]))[:5]
    same, recall = summary["same_label_share"], summary["recall"]
    said = {
        "skipped": f"{summary['skipped']:,} rows, which have no reference" if summary["skipped"] else None,
        "same_label_share": None if same is None else f"{100 * same:.1f} %",
        "references": "most often " + ", ".join(f"{name} ({count:,})" for name, count in used),
        "recall": None if recall is None else f"{100 * recall:.1f} % of the true references, on a sample",
        "list": made.folder / "pairs.csv",
    }
    _tell(output, "pair", made, summary, said)


@workspace_command(
    *("strategy", "label_rule", "index", "methods", "subjects", "targets", "dim", "device"),
    then="featlab adapt --subject ID{targets}{at}",
)
def pretrain(session: Session) -> None:
    """Pretrain the translator T and write the model bundle: all that leaves the source site."""
    from featlab.methods.registry import refuse_unread
    from featlab.model.style_bank import membership_sentence
    from featlab.workspace.stages import bundle_stage

    output = session.output
    with output.stages() as progress:
        source = _source(session, progress)
        config = source.workspace.config
        # What adapt asks for by default, so that it finds this bundle.
        names = names_in(session["methods"]) or [config.adapt.method]
        refuse_unread(config, names)
        bundle, made = bundle_stage(source, names)
    first, last = (bundle.history[0], bundle.history[-1]) if bundle.history else ({}, {})
    pretrain = bundle.config.pretrain
    facts = {
        "source_subjects": len(bundle.source_subjects),
        "translator": pretrain.form,
        "mlp_weight": pretrain.balance if pretrain.form == "joint" else None,
        "carried_share": bundle.share.value,
        "epochs" if pretrain.paired else "evaluations": len(bundle.history),
        "translator_parameters": sum(item.numel() for item in bundle.translator.parameters()),
        "bank_subjects": bundle.bank.size if bundle.bank else 0,
        "extras": sorted(bundle.extras),
        "membership": dict(bundle.membership),
        "first": first,
        "last": last,
    }
    said = {
        "carried_share": bundle.share.sentence(),
        "bank_subjects": None,
        "extras": ", ".join(sorted(bundle.extras)) or None,
        "membership": membership_sentence(bundle.membership),
        "style bank": bundle.bank.sentence() if bundle.bank else "none",
        "first": None,
        "last": None,
        **{name: f"{first[name]:.4f} to {last[name]:.4f}" for name in last},
    }
    _tell(output, "pretrain", made, facts, said)
    output.show(*outlook(bundle, names))


def outlook(bundle: Bundle, methods: Iterable[str]) -> list[str]:
    """Return what a bundle knows of adapting, a line a method."""
    from featlab.methods.registry import make_method

    lines = []
    for name in methods:
        gain = make_method(name).source_gain(bundle)
        if gain is not None:
            lines.append(f"{name}: {gain.sentence()}" + ("" if gain.helps else "; adapt will use the source model"))
        elif name == "pft":
            lines.append("pft: whether adapting helps is not known (too few source people, or nobody was held out)")
    return lines


def _source(session: Session, on_epoch: Callable[[str, int, int, float], None] | None = None) -> Source:
    """Open the workspace for the source subjects; rows of who is held out are never read."""
    workspace = session.open(on_epoch=on_epoch, subjects=lambda everyone: ())
    output, kept_out = session.output, session.held_out(workspace, session["subjects"] or ())
    source = workspace.source(kept_out)
    if not kept_out and not workspace.config.protocol.sources:
        output.note(f"nobody is held out: all {len(source.subjects)} subjects are source (--targets holds some out)")
    elif kept_out:
        output.note(f"held out: {listed(kept_out, 8)}; {len(source.subjects)} source subjects")
    return source


def _tell(output: Output, stage: str, made: StageOutput, facts: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Print what a stage made and where it is."""
    reused = " (reused: the same inputs were run before)" if made.reused else ""
    output.tell(f"{stage}: {made.folder}{reused}", facts, said, stage=stage, folder=made.folder, reused=made.reused)


@workspace_command(
    *("people", "method", "bundle", "targets", "device", "jobs", "engine"),
    then="featlab predict{people}{method}{bundle}{targets}{at}",
)
def adapt(
    session: Session,
    force: Annotated[bool, Option("--force", help="Adapt to a clip that looks too short, or not neutral.")] = False,
) -> None:
    """Adapt to people from their neutral frames, without labels. Runs the source stages that are missing."""
    opened, model, folder, people = people_of(session, session["people"])
    # Not sooner, for they need torch: a wrong name is told at once.
    from featlab.methods.registry import make_method
    from featlab.workspace.adapt import adapt_subject, before_and_after

    session.warn_of_untested(opened, people)
    if len(people) > 1:
        _adapt_many(session, opened, model, folder, people, force)
        return
    (subject,) = people
    rows = opened.table.rows_of(subject)
    adapted, done = adapt_subject(model, folder, rows, opened.extractor, subject, opened.config, force=force)
    scores = before_and_after(model, rows, adapted.model, opened.config.protocol.gap)
    facts = {
        "method": done.method,
        "frames": done.frames,
        "videos": done.videos,
        "iterations": adapted.iterations,
        "seconds": round(done.seconds, 3),
        "parameters": adapted.trainable,
        "folder": done.folder,
        "expected_gain": asdict(done.expected_gain) if done.expected_gain else None,
    }
    said = {"frames": f"{done.frames} neutral frames of {', '.join(done.videos)}", "videos": None}
    if done.expected_gain:
        said["expected_gain"] = done.expected_gain.sentence()
    if scores:
        said["macro F1"] = (
            f"{100 * scores[0]:.2f} before, {100 * scores[1]:.2f} after, on {scores[2]} other "
            "frames (labels used for this line only, never by adapt)"
        )
    warnings = list(done.warnings)
    if done.unlabelled:
        warnings.append(f"no row of {subject!r} has a label: all {done.frames} were taken to be neutral")
    before, after, tested = scores or (None, None, 0)
    session.output.tell(
        f"adapt: {subject}",
        facts,
        said,
        subject=subject,
        bundle=folder,
        macro_f1_before=before,
        macro_f1_after=after,
        test_rows=tested,
        report=asdict(adapted.report) if adapted.report else None,
        warnings=warnings,
    )
    session.output.warn(*warnings)
    known = make_method(done.method).source_gain(model)
    # Where it is less, a warning says so.
    if known is not None and known.low > 0:
        session.output.show(f"{done.method}: {known.sentence()}")


def _adapt_many(
    session: Session, opened: Workspace, bundle: Bundle, folder: Path, people: Sequence[str], force: bool
) -> None:
    """Adapt to one person after the other; say of how many, and who was refused and why (exit code 3, or 2 for all)."""
    from featlab.workspace.adapt import Adapted, adapt_people

    output = session.output
    targets = targets_of(output, bundle, people)
    found = []
    with output.progress() as bars:
        for done in adapt_people(opened, folder, targets, force=force, jobs=session.jobs):
            found.append(done)
            bars("adapt", len(found), len(targets), done.subject)
    # As they were named: they come as they finish.
    place = {name: number for number, name in enumerate(targets)}
    found.sort(key=lambda done: place[done.subject])
    adapted = [done for done in found if isinstance(done, Adapted)]
    refused = [(done.subject, done.reason) for done in found if not isinstance(done, Adapted)]
    stored = sum(done.reused for done in adapted)
    gains = [100 * done.expected_gain.expected for done in adapted if done.expected_gain]
    said: dict[str, Any] = {
        "people": f"{len(adapted)} of {count_text(len(targets), 'subject')}"
        + (f" ({stored} stored already, from the same clips)" if stored else ""),
        "bundle": folder / "subjects",
    }
    if gains:
        said["expected gain"] = f"{sum(gains) / len(gains):+.0f} points of macro F1 on average (no label used)"
    facts = {"method": opened.config.adapt.method, "people": [asdict(done) for done in adapted], "bundle": folder}
    output.tell("adapt", facts, said, **left_out(people, targets, refused))
    warnings = [(done.subject, line) for done in adapted for line in done.warnings]
    output.warn_of_failures(warnings, "warnings in all; --json has each")
    end_with(output, refused, done=bool(adapted))

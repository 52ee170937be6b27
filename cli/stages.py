"""The stages of a workspace, one command each: `featlab train`, `pair`, `pretrain` and `adapt`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    from featlab.model.networks import AdaptedModel
    from featlab.workspace.adapt import Adapted
    from featlab.workspace.stages import StageOutput
    from featlab.workspace.workspace import Source, Workspace

_TOP = 5
"""Reference subjects that are named."""


@workspace_command("subjects", "targets", "dim", "device", then="featlab pretrain{targets}{at}")
def train(session: Session) -> None:
    """Train the source head: bottleneck B and classifier C, on everyone who is no target."""
    from featlab.workspace.stages import train_stage

    output = session.output
    with output.stages() as progress:
        opened = session.open(on_epoch=progress, subjects=_nobody)
        source = _source(opened, session)
        trained, made = train_stage(source)
    losses = progress.losses.get("train", [])
    facts = {
        "rows": len(source.table),
        "source_subjects": len(source.subjects),
        "classes": list(source.table.classes),
        "features": trained.projection.components.shape[1],
        "bottleneck": trained.head.linear.out_features,
        "final_loss": losses[-1] if losses else None,
        "carried_share": trained.share.value,
    }
    said = {
        "classes": ", ".join(source.table.classes),
        "final_loss": f"{losses[-1]:.4f}" if losses else "–",
        "carried_share": trained.share.sentence(),
    }
    output.tell(_title("train", made), facts, said, stage="train", **_where(made))


@workspace_command("strategy", "label_rule", "index", "subjects", "targets", then="featlab pretrain{targets}{at}")
def pair(session: Session) -> None:
    """Give each source row a reference: a row of another subject."""
    from featlab.config.options import refuse_inert
    from featlab.pairing.pairs import pairs_summary
    from featlab.workspace.stages import pair_stage

    output = session.output
    opened = session.open(subjects=_nobody)
    if session["index"]:
        refuse_inert(opened.config.pair, ["index"], "pair")
    source = _source(opened, session)
    pairs, made = pair_stage(source)
    summary = pairs_summary(pairs, source.table)
    output.json({"stage": "pair", **_where(made), **summary})
    used = sorted(summary["references"].items(), key=lambda item: (-item[1], item[0]))[:_TOP]
    score, same = summary["median_score"], summary["same_label_share"]
    found = None
    if summary["recall"] is not None:
        found = f"{100 * summary['recall']:.1f} % of the true ones, on a sample; {summary['searched_in_full']:,} rows "
        found += "searched in full"
    shown = {
        "strategy": summary["strategy"],
        "label rule": summary["label_rule"],
        "pairs": f"{summary['pairs']:,}",
        "rows without a reference": summary["skipped"],
        "references that the index found": found,
        "median score": None if score is None else f"{score:.4f}",
        "same label share": None if same is None else f"{100 * same:.1f} %",
        "different reference rows": f"{summary['reference_rows']:,}",
        "most used reference row": f"{summary['most_used_row']} times",
        "most used reference subjects": ", ".join(f"{name} ({count:,})" for name, count in used),
        "list": made.folder / "pairs.csv",
    }
    output.facts(_title("pair", made), shown)


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
        opened = session.open(on_epoch=progress, subjects=_nobody)
        source = _source(opened, session)
        # What adapt asks for by default, so that it finds this bundle.
        names = names_in(session["methods"]) or [opened.config.adapt.method]
        refuse_unread(opened.config, names)
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
    }
    more = {
        "bank_subjects": bundle.bank.size if bundle.bank else 0,
        "extras": sorted(bundle.extras),
        "membership": dict(bundle.membership),
        "first_loss": first.get("loss"),
        "last_loss": last.get("loss"),
        "first": dict(first),
        "last": dict(last),
    }
    said = {
        "carried_share": bundle.share.sentence(),
        "style bank": bundle.bank.sentence() if bundle.bank else "none",
        "loss": f"{first['loss']:.4f} to {last['loss']:.4f}" if bundle.history else "–",
        **{f"  {name}": f"{first[name]:.4f} to {last[name]:.4f}" for name in last if name != "loss"},
        "prepared for": ", ".join(sorted(bundle.extras)) or None,
        "membership test": membership_sentence(bundle.membership),
    }
    output.tell(_title("pretrain", made), facts, said, stage="pretrain", **_where(made), **more)
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


def _nobody(names: tuple[str, ...]) -> tuple[str, ...]:
    """Whose rows are read before it is known who is a source subject: rows that are held out never are."""
    return ()


def _source(workspace: Workspace, session: Session) -> Source:
    output, kept_out = session.output, session.held_out(workspace, session["subjects"] or ())
    source = workspace.source(kept_out)
    if not kept_out and not workspace.config.protocol.sources:
        output.note(f"nobody is held out: all {len(source.subjects)} subjects are source (--targets holds some out)")
    elif kept_out:
        output.note(f"held out: {listed(kept_out, 8)}; {len(source.subjects)} source subjects")
    return source


def _where(made: StageOutput) -> dict[str, object]:
    return {"folder": made.folder, "reused": made.reused}


def _title(stage: str, made: StageOutput) -> str:
    reused = " (reused: the same inputs were run before)" if made.reused else ""
    return f"{stage}: {made.folder}{reused}"


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
    _report(session.output, adapted, done, folder, scores)
    gain = make_method(done.method).source_gain(model)
    # Where it is less, a warning says so.
    if gain is not None and gain.low > 0:
        session.output.show(f"{done.method}: {gain.sentence()}")


def _report(
    output: Output, model: AdaptedModel, done: Adapted, bundle: Path, scores: tuple[float, float, int] | None
) -> None:
    report, gain, warnings = model.report, done.expected_gain, list(done.warnings)
    if done.unlabelled:
        warnings.append(f"no row of {done.subject!r} has a label: all {done.frames} were taken to be neutral")
    output.json(
        {
            "subject": done.subject,
            "method": done.method,
            "frames": done.frames,
            "videos": done.videos,
            "iterations": model.iterations,
            "seconds": done.seconds,
            "parameters": model.trainable,
            "bundle": bundle,
            "folder": done.folder,
            "macro_f1_before": scores[0] if scores else None,
            "macro_f1_after": scores[1] if scores else None,
            "test_rows": scores[2] if scores else 0,
            "report": asdict(report) if report else None,
            "expected_gain": asdict(gain) if gain else None,
            "warnings": warnings,
        }
    )
    shown = {
        "method": done.method,
        "adapted on": f"{done.frames} neutral frames of {', '.join(done.videos)}",
        "iterations": f"{model.iterations} in {done.seconds:.2f} s",
        "parameters changed": f"{model.trainable:,}",
        "written to": done.folder,
    }
    if gain:
        seen = f"{gain.frames} other frames" if gain.frames else "source people alone"
        shown["expected gain"] = (
            f"{100 * gain.expected:+.0f} points of macro F1, four in five times {100 * gain.low:+.0f} to "
            f"{100 * gain.high:+.0f}; no loss in {gain.chance:.0%} of cases (from {seen}, no label used)"
        )
    if scores:
        shown["macro F1"] = (
            f"{100 * scores[0]:.2f} before, {100 * scores[1]:.2f} after, on {scores[2]} other "
            "frames (labels used for this line only, never by adapt)"
        )
    output.facts(f"adapt: {done.subject}", shown)
    output.warn(*warnings)


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
    facts: dict[str, Any] = {"method": opened.config.adapt.method}
    done_to = {"bundle": folder, "people": [asdict(done) for done in adapted]}
    output.json(facts | done_to | left_out(people, targets, refused))
    stored = sum(done.reused for done in adapted)
    facts["adapted"] = f"{len(adapted)} of {count_text(len(targets), 'subject')}"
    facts["adapted"] += f" ({stored} stored already, from the same clips)" if stored else ""
    facts["written to"] = folder / "subjects"
    gains = [100 * done.expected_gain.expected for done in adapted if done.expected_gain]
    if gains:
        facts["expected gain"] = f"{sum(gains) / len(gains):+.0f} points of macro F1 on average (no label used)"
    output.facts("adapt", facts)
    warnings = [(done.subject, line) for done in adapted for line in done.warnings]
    output.warn_of_failures(warnings, "warnings in all; --json has each")
    end_with(output, refused, done=bool(adapted))

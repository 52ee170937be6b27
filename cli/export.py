"""`featlab export`: a person's model, or the source model, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.complete import complete_backbone, complete_subject
from featlab.cli.output import Output, print_error
from featlab.cli.predict import network_device, open_person
from featlab.cli.session import FAILED, Session, workspace_command

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.exchange.export import ExportReport


@workspace_command("method", "bundle", "weights", "layers", "options", "targets", "device")
def export(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject", metavar="ID", help="The person; default: the source model.", autocompletion=complete_subject
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="safetensors|onnx|pt2", help="Default: what the file's name ends in."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Put the network that made the features in front: images go in, not embeddings.",
            autocompletion=complete_backbone,
        ),
    ] = None,
) -> None:
    """Write a person's model to a file whose outputs are checked against ours. Adapts first where that is missing."""
    from featlab.exchange.export import ExportMismatch, export_model, exportable_network, format_of
    from featlab.exchange.formats import export_metadata
    from featlab.methods.base import base_model

    wanted = format_of(out, format)
    made = None
    if backbone is not None:
        # The file is compared with ours on the CPU, so the network belongs there.
        where = network_device(backbone, "cpu")
        made = session.backbone(backbone, where)
    rows = None
    if subject is None:
        source = _source_bundle(session)
        model, name = base_model(source), "source-only"
    else:
        person = open_person(session, subject)
        source, model, name = person.bundle, person.model.model, person.method
        rows = person.rows.embeddings if person.rows is not None else None
    network = exportable_network(made, source.extractor) if made is not None else None
    images = network.input_metadata() if network is not None else None
    metadata = export_metadata(source, subject=subject, method=name, network=images)
    try:
        report = export_model(model, out, wanted, metadata, embeddings=rows, network=network)
    except ExportMismatch as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    _tell(session.output, report)


def _source_bundle(session: Session) -> Bundle:
    """Return the bundle that was named, or the workspace's own of everyone who is no target."""
    from featlab.bundle.bundle import load_bundle
    from featlab.methods.registry import refuse_unread
    from featlab.workspace.stages import bundle_stage

    if session["bundle"] is not None:
        return load_bundle(session["bundle"])
    with session.output.stages() as progress:
        opened = session.open(on_epoch=progress)
        refuse_unread(opened.config, [opened.config.adapt.method])
        kept_out = session.held_out(opened)
        made, stage = bundle_stage(opened.source(kept_out), [opened.config.adapt.method])
    if stage.reused:
        session.output.note(f"bundle: {stage.folder}, of {len(made.source_subjects)} source subjects")
    return made


def _tell(output: Output, report: ExportReport) -> None:
    output.json(
        {
            "path": report.path,
            "format": report.format,
            "bytes": report.bytes,
            "rows_checked": report.rows,
            "random_rows_checked": report.random_rows,
            "max_difference": report.difference,
            "facts": report.metadata,
        }
    )
    metadata = report.metadata
    checked = f"{report.rows:,} rows of {metadata['subject']} and " if report.rows else ""
    side = metadata["images"]["size"] if "images" in metadata else 0
    inputs = f"images {side}x{side}" if side else f"embeddings of {metadata['dim']} values"
    output.facts(
        str(report.path),
        {
            "model": f"{metadata['method']}, {metadata['subject'] or 'nobody in particular'}",
            "in": inputs,
            "out": f"logits and probabilities of {', '.join(metadata['classes'])}",
            "size": f"{report.bytes / 1024:,.0f} KiB",
            "checked": f"{checked}{report.random_rows} random inputs: logits differ by {report.difference:.1e} at most",
        },
    )

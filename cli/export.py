"""`featlab export`: a person's model, or the source model, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.common import (
    BundleOption,
    CacheOption,
    DeviceOption,
    JsonOption,
    MethodOption,
    Output,
    QuietOption,
    SeedOption,
    SetOption,
    TargetsOption,
    WorkspaceOption,
    flag_values,
    held_out,
    open_workspace,
)
from featlab.cli.complete import complete_backbone, complete_subject
from featlab.cli.group import FAILED
from featlab.cli.input_options import LayersOption, OptionsOption, WeightsOption, backbone_options
from featlab.cli.output import print_error
from featlab.cli.person import open_person
from featlab.cli.predict_images import network_device

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.exchange.export import ExportReport

__all__ = ["export"]


def export(
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
    method: MethodOption = None,
    bundle: BundleOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="Put the network that made the features in front: images go in, not embeddings.",
            autocompletion=complete_backbone,
        ),
    ] = None,
    weights: WeightsOption = None,
    layers: LayersOption = None,
    options: OptionsOption = None,
    targets: TargetsOption = None,
    workspace: WorkspaceOption = Path("."),
    cache: CacheOption = None,
    settings: SetOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    json_mode: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a person's model to a file whose outputs are checked against ours. Adapts first where that is missing."""
    from featlab.exchange.export import ExportMismatch, export_model, exportable_network, format_of
    from featlab.exchange.formats import export_metadata
    from featlab.extraction.backbones import make_backbone
    from featlab.methods import base_model

    output = Output(json_mode=json_mode, quiet=quiet)
    wanted = format_of(out, format)
    made = None
    if backbone is not None:
        # The file is compared with ours on the CPU, so the network belongs there.
        where = network_device(backbone, "cpu")
        given = backbone_options(options, weights=weights, layers=layers, device=where)
        made = make_backbone(backbone, **given)
    rows = None
    if subject is None:
        source = _source_bundle(output, bundle, targets, workspace, cache, settings, seed, device)
        model, name = base_model(source), "source-only"
    else:
        person = open_person(
            subject,
            output,
            method=method,
            bundle=bundle,
            targets=targets,
            workspace=workspace,
            cache=cache,
            settings=settings,
            seed=seed,
            device=device,
        )
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
    _tell(output, report)


def _source_bundle(
    output: Output,
    folder: Path | None,
    targets: str | None,
    workspace: Path,
    cache: Path | None,
    settings: list[str] | None,
    seed: int | None,
    device: str,
) -> Bundle:
    """Return the bundle that was named, or the workspace's own of everyone who is no target."""
    from featlab.bundle.bundle import load_bundle
    from featlab.workspace.stages import bundle_stage

    if folder is not None:
        return load_bundle(folder)
    values = flag_values(workspace, cache=cache, settings=settings, seed=seed, targets=targets)
    with output.stages() as progress:
        opened = open_workspace(workspace, values, output, device=device, on_epoch=progress)
        kept_out = held_out(opened, targets_given=targets is not None)
        made, stage = bundle_stage(opened.source(kept_out), [opened.config.adapt.method])
    if stage.reused:
        output.note(f"bundle: {stage.folder}, of {len(made.source_subjects)} source subjects")
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

"""`featlab export` and `featlab bundle …`: models for other programs, and models from their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from featlab.cli.backbone import network_device, recipe_of
from featlab.cli.complete import complete_backbone, complete_subject
from featlab.cli.output import Output
from featlab.cli.predict import open_person
from featlab.cli.session import Session, command, names_in, workspace_command
from featlab.errors import InputError

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.cache.schema import ExtractorInfo
    from featlab.cache.table import FeatureTable
    from featlab.exchange.checkpoint_bundle import ImportedBundle


@workspace_command(
    *("method", "bundle", "weights", "layers", "options", "trust_code", "targets", "device"),
    then="featlab verify {out}",
)
def export(
    session: Session,
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The file to write.")],
    subject: Annotated[
        str | None, Option(metavar="ID", help="The person; default: the source model.", autocompletion=complete_subject)
    ] = None,
    format: Annotated[
        str | None, Option(metavar="safetensors|onnx|pt2", help="Default: what the file's name ends in.")
    ] = None,
    backbone: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Put the network that made the features in front: images go in, not embeddings.",
            autocompletion=complete_backbone,
        ),
    ] = None,
) -> None:
    """Write a person's model to a file whose outputs are checked against ours. Adapts first where that is missing."""
    from featlab.exchange.export import export_model, exportable_network, format_of
    from featlab.exchange.formats import export_metadata
    from featlab.methods.base import base_model

    wanted = format_of(out, format, images=backbone is not None)
    # The file is compared with ours on the CPU, so the network belongs there.
    made = recipe_of(session, backbone, network_device(backbone, "cpu")).make() if backbone is not None else None
    rows = None
    if subject is None:
        source = _source_bundle(session)
        model, name = base_model(source), "source-only"
    else:
        person = open_person(session, subject)
        source, model, name = person.bundle, person.model.model, person.method
        rows = person.rows.embeddings if person.rows is not None else None
    network = exportable_network(made, source.extractor) if made is not None else None
    metadata = export_metadata(source, subject=subject, method=name, network=network)
    report = export_model(model, out, wanted, metadata, embeddings=rows, network=network)
    facts = {
        "format": report.format,
        "bytes": report.bytes,
        "rows_checked": report.rows,
        "random_rows_checked": report.random_rows,
        "max_difference": report.difference,
    }
    said = {
        "model": f"{name}, {subject or 'nobody in particular'}",
        "input": metadata["input"],
        "output": f"logits and probabilities of {', '.join(source.classes)}",
    }
    session.output.tell(str(out), facts, said, path=out, facts=report.metadata)


def _source_bundle(session: Session) -> Bundle:
    """Return the bundle that was named, or the workspace's own of everyone who is no target."""
    from featlab.bundle.bundle import load_bundle
    from featlab.workspace.adapt import open_bundle

    if session["bundle"] is not None:
        return load_bundle(session["bundle"])
    with session.output.stages() as progress:
        opened = session.open(on_epoch=progress, subjects=lambda names: ())
        return open_bundle(opened, None, session.held_out(opened))[0]


bundle_app = typer.Typer(name="bundle", no_args_is_help=True, help="Model bundles: as one file, or of checkpoints.")


@bundle_app.command()
@command(
    *("json_mode", "quiet"),
    then="give the file and its sha256; there: featlab bundle unpack {out} --out FOLDER",
)
def pack(
    session: Session,
    folder: Annotated[Path, Argument(metavar="FOLDER", help="The bundle.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="One file, such as bundle.zip.")],
) -> None:
    """Put a bundle into one file to give away, with its card; nobody's adaptation goes with it."""
    from featlab.bundle.pack import pack_bundle

    digest = pack_bundle(folder, out)
    session.output.tell(str(out), {"path": out, "bytes": out.stat().st_size, "sha256": digest}, {"path": None})


@bundle_app.command()
@command("json_mode", "quiet", then="featlab inspect --bundle {out}")
def unpack(
    session: Session,
    file: Annotated[Path, Argument(metavar="FILE", help="What `pack` wrote.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FOLDER", help="The bundle to write.")],
) -> None:
    """Make the bundle's folder again, every digest in it checked. Compare the digest of the file with the sender's."""
    from featlab.bundle.pack import unpack_bundle
    from featlab.cache.atomic import sum_of

    digest = sum_of(file) if file.is_file() else ""
    unpack_bundle(file, out)
    session.output.tell(str(out), {"folder": out, "sha256": digest}, {"folder": None})


@bundle_app.command("import")
@command(
    *("subjects", "targets", "methods", "seed", "json_mode", "quiet"),
    then="featlab adapt --subject ID --bundle {out}",
)
def import_checkpoints(
    session: Session,
    bottleneck: Annotated[Path, Option("--b", metavar="FILE", help="netB: .pt or .safetensors.")],
    classifier: Annotated[Path, Option("--c", metavar="FILE", help="netC.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FOLDER", help="The bundle to write.")],
    translator: Annotated[
        Path | None, Option("--t", metavar="FILE", help="A translator, two linear layers; default: the identity.")
    ] = None,
    backbone: Annotated[
        Path | None, Option("--f", metavar="FILE", help="netF, to check that it made the cache's features.")
    ] = None,
    cache: Annotated[Path | None, Option(metavar="FILE", help="Source subjects' features: the style bank.")] = None,
    extractor: Annotated[
        Path | None, Option(metavar="JSON", help="Without a cache: who will make the features.")
    ] = None,
    classes: Annotated[
        str | None, Option(metavar="A,B,…", help="In the checkpoint's order; default: the cache's.")
    ] = None,
    neutral: Annotated[str | None, Option(metavar="NAME", help="The neutral class; default: the cache's.")] = None,
) -> None:
    """Import netB, netC and a translator of the SHOT family. Subjects held out can be adapted to afterwards."""
    from featlab.exchange.checkpoint_bundle import import_bundle, save_imported
    from featlab.exchange.checkpoints import check_backbone_file, read_parts
    from featlab.methods.registry import get_method

    seed, preparing = session["seed"] or 0, names_in(session["methods"])
    for name in preparing:
        get_method(name)
    parts = read_parts(bottleneck, classifier, translator)
    made_by, source, digest = _features(cache, extractor, session["subjects"] or (), session["targets"], seed)
    if backbone is not None:
        parts = check_backbone_file(parts, backbone, made_by)
    imported = import_bundle(
        parts,
        made_by,
        classes=names_in(classes),
        neutral=neutral,
        source=source,
        cache_digest=digest,
        methods=preparing,
        seed=seed,
    )
    _show_import(session.output, imported, save_imported(out, imported), classes)


def _features(
    cache: Path | None, extractor: Path | None, subjects: Sequence[str], targets: str | None, seed: int
) -> tuple[ExtractorInfo, FeatureTable | None, str]:
    """Return who made the features, the source subjects' rows, and the cache's digest."""
    from featlab.cache.reader import open_cache
    from featlab.exchange.checkpoints import read_extractor
    from featlab.protocol.splits import subjects_held_out

    if cache is None:
        if extractor is None:
            raise InputError(
                "a bundle has to know who makes its features: name the --cache, or without one a JSON file, --extractor"
            )
        if subjects or targets:
            raise InputError(
                "without a --cache there is no source to keep a subject out of; leave --subject and --targets out"
            )
        return read_extractor(extractor), None, ""
    if extractor is not None:
        raise InputError("--cache says who made its features; leave --extractor out")
    with open_cache(cache) as opened:
        table, made_by, digest = opened.read(), opened.extractor, opened.digest
    source = table.without(*subjects_held_out(table.subjects, targets or None, seed=seed, named=subjects))
    if not len(source):
        raise InputError("every subject of the cache is held out: nobody is left for the style bank; leave --cache out")
    return made_by, source, digest


def _show_import(output: Output, imported: ImportedBundle, folder: Path, classes: str | None) -> None:
    bundle, rows = imported.bundle, imported.rows
    facts = {
        "classes": bundle.classes,
        "neutral": bundle.neutral,
        "extractor": bundle.extractor.id,
        "features": bundle.head.linear.in_features,
        "bottleneck": bundle.head.linear.out_features,
        "translator": "imported" if "t" in imported.files else "identity",
        "source_subjects": len(bundle.source_subjects),
        "bank_subjects": bundle.bank.size if bundle.bank is not None else 0,
        "prepared": sorted(bundle.extras),
        "accuracy": imported.accuracy,
    }
    said = {"accuracy": f"{100 * imported.accuracy:.1f} % of {rows:,} labelled rows" if rows else None}
    output.tell(str(folder), facts, said, folder=folder, rows=rows, files=imported.files)
    if classes is None:
        known = ", ".join(bundle.classes)
        output.note(f"the outputs were taken to be {known}, as in the cache; --classes gives another order")
    if imported.better_order is not None:
        order = ", ".join(imported.better_order)
        output.warn(f"the source rows fit the outputs in the order {order} much better; check --classes")
    if bundle.bank is None:
        output.note(
            "no style bank: pft, neutral-shift and coral need one; import with a --cache of the source subjects"
        )
    elif "t" not in imported.files:
        output.note("no translator was imported: pft adapts the offset of an identity")

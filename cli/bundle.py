"""`featlab bundle …`: a model bundle out of checkpoints that another program trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featlab.cli.output import Output
from featlab.cli.session import Session, command, names_in

if TYPE_CHECKING:
    from featlab.cache.schema import ExtractorInfo
    from featlab.cache.table import FeatureTable
    from featlab.exchange.checkpoint_bundle import ImportedBundle

bundle_app = typer.Typer(name="bundle", no_args_is_help=True, help="Model bundles: bring in checkpoints.")


@bundle_app.callback()
def bundle() -> None:
    """Model bundles: bring in checkpoints."""


@bundle_app.command("import")
@command("subjects", "targets", "methods", "seed", "json_mode", "quiet")
def import_checkpoints(
    session: Session,
    bottleneck: Annotated[Path, typer.Option("--b", metavar="FILE", help="netB: .pt or .safetensors.")],
    classifier: Annotated[Path, typer.Option("--c", metavar="FILE", help="netC.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The bundle to write.")],
    translator: Annotated[
        Path | None, typer.Option("--t", metavar="FILE", help="A translator, two linear layers; default: the identity.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option("--f", metavar="FILE", help="netF, to check that it made the cache's features.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="FILE", help="Source subjects' features: the style bank.")
    ] = None,
    extractor: Annotated[
        Path | None, typer.Option("--extractor", metavar="JSON", help="Without a cache: who will make the features.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B,…", help="In the checkpoint's order; default: the cache's.")
    ] = None,
    neutral: Annotated[
        str | None, typer.Option("--neutral", metavar="NAME", help="The neutral class; default: the cache's.")
    ] = None,
) -> None:
    """Import netB, netC and a translator of the SHOT family. Subjects held out can be adapted to afterwards."""
    from featlab.exchange.checkpoint_bundle import import_bundle, save_imported
    from featlab.exchange.checkpoints import check_backbone_file, read_parts
    from featlab.methods.registry import get_method

    output = session.output
    preparing = names_in(session["methods"])
    for name in preparing:
        get_method(name)
    parts = read_parts(bottleneck, classifier, translator)
    made_by, source, digest = _features(cache, extractor, session["subjects"], session["targets"], session["seed"] or 0)
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
        seed=session["seed"] or 0,
    )
    folder = save_imported(out, imported)
    _tell(output, imported, folder, classes)


def _features(
    cache: Path | None, extractor: Path | None, subjects: list[str] | None, targets: str | None, seed: int
) -> tuple[ExtractorInfo, FeatureTable | None, str]:
    """Return who made the features, the source subjects' rows, and the cache's digest."""
    from featlab.cache.reader import open_cache
    from featlab.errors import InputError
    from featlab.exchange.checkpoints import read_extractor
    from featlab.protocol.splits import check_known, choose_targets

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
    check_known(subjects or (), table.subjects)
    held_out = {*(subjects or ()), *(choose_targets(table.subjects, targets, seed=seed) if targets else ())}
    source = table.without(*held_out)
    if not len(source):
        raise InputError("every subject of the cache is held out: nobody is left for the style bank; leave --cache out")
    return made_by, source, digest


def _tell(output: Output, imported: ImportedBundle, folder: Path, classes: str | None) -> None:
    bundle = imported.bundle
    bank = len(bundle.bank.subjects) if bundle.bank is not None else 0
    facts = {
        "folder": folder,
        "classes": list(bundle.classes),
        "neutral": bundle.neutral,
        "extractor": bundle.extractor.id,
        "features": bundle.head.linear.in_features,
        "bottleneck": bundle.head.linear.out_features,
        "translator": "imported" if "t" in imported.files else "identity",
        "source_subjects": len(bundle.source_subjects),
        "bank_subjects": bank,
        "prepared": sorted(bundle.extras),
        "rows": imported.rows,
        "accuracy": imported.accuracy,
    }
    output.json({**facts, "files": imported.files})
    shown = {
        name.replace("_", " "): value for name, value in facts.items() if name not in ("folder", "rows", "accuracy")
    }
    shown |= {"classes": ", ".join(bundle.classes), "prepared": ", ".join(bundle.extras) or "nothing"}
    if imported.rows:
        shown["source rows recognised"] = f"{100 * imported.accuracy:.1f} % of {imported.rows:,} labelled rows"
    output.facts(str(folder), shown)
    if classes is None:
        output.note(
            f"the outputs were taken to be {', '.join(bundle.classes)}, as in the cache; --classes gives another order"
        )
    if imported.better_order is not None:
        output.warn(
            f"the source rows fit the outputs in the order {', '.join(imported.better_order)} much better; "
            "check --classes"
        )
    if not bank:
        output.note(
            "no style bank: pft, neutral-shift and coral need one; import with a --cache of the source subjects"
        )
    elif bank and "t" not in imported.files:
        output.note("no translator was imported: pft adapts the offset of an identity")

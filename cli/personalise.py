"""`featlab personalise`: from a clip of one person at rest to a checked model of this person, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from featlab.cli.complete import complete_backbone
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS
from featlab.cli.output import print_error
from featlab.cli.pixels import input_config, recipe_of
from featlab.cli.predict import network_device
from featlab.cli.session import FAILED, Session, command, typed_command

if TYPE_CHECKING:
    from featlab.bundle.bundle import Bundle
    from featlab.extraction.backbones import Backbone
    from featlab.workspace.predict_images import Embedded

_FLAGS = (*INPUT_FLAGS, *NETWORK_FLAGS, "method", "batch", "jobs", "device", "settings", "json_mode", "quiet")


@command(*_FLAGS)
def personalise(
    session: Session,
    clips: Annotated[list[Path], Argument(metavar="CLIP…", help="Videos or pictures of the person at rest.")],
    bundle: Annotated[Path, Option(metavar="FOLDER", help="The source model, as pretrain or demo makes it.")],
    out: Annotated[
        Path, Option("--out", "-o", metavar="FILE", help="The person's model: .onnx, .safetensors or .pt2.")
    ],
    subject: Annotated[str | None, Option(metavar="NAME", help="The person; default: the name of --out.")] = None,
    other: Annotated[
        Path | None, Option(metavar="CLIP", help="Another clip of the person, to see before and after on.")
    ] = None,
    backbone: Annotated[
        str | None,
        Option(metavar="NAME", help="Default: the one that the bundle names.", autocompletion=complete_backbone),
    ] = None,
    force: Annotated[bool, Option("--force", help="Adapt to a clip that would be refused.")] = False,
) -> None:
    """Make a model of one person from a neutral clip: embed it, judge it, adapt, export, and write a page about it.

    The page lies beside the model, as .html, and loads nothing.
    """
    import numpy as np

    from featlab.analysis.inside.person import PersonPage, SeenClip, together
    from featlab.bundle.bundle import load_bundle
    from featlab.config.load import Config
    from featlab.errors import InputError
    from featlab.exchange.export import ExportMismatch, export_model, format_of
    from featlab.exchange.formats import export_metadata
    from featlab.methods.base import base_model
    from featlab.methods.registry import make_method
    from featlab.model.networks import AdaptedModel
    from featlab.protocol.splits import Target
    from featlab.seeding import run_seed
    from featlab.workspace.predict_images import default_backbone

    wanted, name = format_of(out), subject or out.stem
    source = load_bundle(bundle)
    source.check_new([name])
    where = backbone or default_backbone(source)
    made = recipe_of(session, where, network_device(where, session["device"])).make()
    embedded = [_embed(session, source, made, path, name) for path in clips]
    shown = None if other is None else _embed(session, source, made, other, name)
    tables = [each.table for each in embedded]
    target = Target(
        np.concatenate([table.embeddings for table in tables]),
        np.concatenate([np.full(len(table), number, dtype=np.int32) for number, table in enumerate(tables)]),
        np.concatenate([np.arange(len(table), dtype=np.int32) for table in tables]),
    )
    config = Config().with_values(session.values(), "--set")
    method = make_method(config.adapt.method, config.adapt.options)
    if force:
        method = method.forced()
    model = method.adapt(source, target, seed=run_seed(source.seed, method.name, name))
    if model.report is not None and model.report.refusal and not force:
        raise InputError(
            f"{', '.join(map(str, clips))}: {model.report.refusal}; give a longer or cleaner neutral clip, or --force"
        )
    others = target.embeddings[:0] if shown is None else shown.table.embeddings
    before = AdaptedModel(base_model(source))

    def seen(path: Path, each: Embedded, adapted: bool) -> SeenClip:
        rows = each.table.embeddings
        return SeenClip(path.name, each.items, before.predict_proba(rows), model.predict_proba(rows), adapted)

    shown_clips = together([seen(path, each, True) for path, each in zip(clips, embedded, strict=True)])
    if other is not None and shown is not None:
        shown_clips.append(seen(other, shown, False))
    page = PersonPage(
        name,
        source,
        method.name,
        shown_clips,
        method.expected_gain(source, model.model, others),
        method.source_gain(source),
        model.warnings,
    )
    metadata = export_metadata(source, subject=name, method=method.name, network=None)
    try:
        report = export_model(model.model, out, wanted, metadata, embeddings=target.embeddings)
    except ExportMismatch as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    html = out.with_suffix(".html")
    page.write(html, typed_command())
    output, summary = session.output, page.summary()
    output.json(
        {
            "model": out,
            "page": html,
            "subject": name,
            "method": method.name,
            "frames": len(target),
            "max_difference": report.difference,
            "words": summary,
        }
    )
    for line in summary:
        output.show(line)
    output.show(f"model: {out} (checked on {report.rows} frames: logits differ by {report.difference:.1e} at most)")
    output.show(f"page: {html}")


def _embed(session: Session, bundle: Bundle, backbone: Backbone, path: Path, name: str) -> Embedded:
    from featlab.errors import InputError
    from featlab.extraction.extract import ExtractConfig
    from featlab.workspace.predict_images import embed_source

    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    with session.output.progress() as bars:
        found = embed_source(
            bundle,
            path,
            name,
            backbone,
            input_config(session),
            config=ExtractConfig(jobs=session["jobs"], batch=session["batch"]),
            notify=session.output.note,
            on_stage=bars,
            on_progress=lambda now: bars("embed", now.done, now.total),
        )
    session.output.warn_of_failures(found.failures, f"images of {path} were left out")
    return found

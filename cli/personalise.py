"""`featlab personalise`: from a clip of one person at rest to a checked model of this person, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from featlab.cli.backbone import embedder
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS
from featlab.cli.session import Session, command, typed_command
from featlab.errors import ConfigError, InputError


@command(
    *(*INPUT_FLAGS, "backbone", *NETWORK_FLAGS),
    *("method", "batch", "jobs", "device", "settings", "json_mode", "quiet"),
    then="open the page in a browser",
)
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
    force: Annotated[bool, Option("--force", help="Adapt to a clip that would be refused.")] = False,
) -> None:
    """Make a model of one person from a neutral clip: embed it, judge it, adapt, export, and write a page about it.

    The page lies beside the model, as .html, and loads nothing.
    """
    import numpy as np

    from featlab.analysis.inside.person import PersonPage, SeenClip, together
    from featlab.bundle.bundle import load_bundle
    from featlab.config.load import Config
    from featlab.exchange.export import export_model, format_of
    from featlab.exchange.formats import export_metadata
    from featlab.methods.base import base_model
    from featlab.methods.registry import make_method
    from featlab.model.networks import AdaptedModel
    from featlab.protocol.splits import Target
    from featlab.workspace.adapt import adapt_to_clip

    output, wanted, name = session.output, format_of(out), subject or out.stem
    paths, values = [*clips, *([other] if other else [])], session.values()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    source = load_bundle(bundle)
    source.check_new([name])
    config = Config().with_values(values, "--set")
    method = make_method(config.adapt.method, config.adapt.options)
    for key in values:
        if key != "adapt.method" and not key.startswith(f"adapt.{method.name}."):
            raise ConfigError(f"{key} has no effect here: the bundle is made; set adapt.{method.name}.OPTION alone")
    if method.selection != "source-free":
        raise InputError(f"{method.name} needs labels or source rows beside the clip; it runs in featlab evaluate only")
    # What else it lacks is said before anything is embedded.
    count = np.zeros(method.minimum_rows(len(source.classes)), dtype=np.int32)
    method.check(source, Target(np.zeros((len(count), len(source.projection.mean)), dtype=np.float32), count, count))
    embed = embedder(session, source)
    found = [embed(path, name) for path in paths]
    for path, each in zip(paths, found, strict=True):
        output.warn_of_failures(each.failures, f"images of {path} were left out")
    rows = [each.table.embeddings for each in found]
    mine = rows[: len(clips)]
    video = np.repeat(np.arange(len(mine), dtype=np.int32), [*map(len, mine)])
    frame = np.concatenate([np.arange(len(part), dtype=np.int32) for part in mine])
    target = Target(np.concatenate(mine), video, frame)
    model = adapt_to_clip(source, method, target, name, force=force)
    before = AdaptedModel(base_model(source))
    seen = [
        SeenClip(path.name, each.items, before.predict_proba(part), model.predict_proba(part), place < len(clips))
        for place, (path, each, part) in enumerate(zip(paths, found, rows, strict=True))
    ]
    gain = method.expected_gain(source, model.model, rows[-1] if other else target.embeddings[:0])
    shown = [*together(seen[: len(clips)]), *seen[len(clips) :]]
    page = PersonPage(name, source, method.name, shown, gain, method.source_gain(source), model.warnings)
    metadata = export_metadata(source, subject=name, method=method.name)
    report = export_model(model.model, out, wanted, metadata, embeddings=target.embeddings)
    html, summary = out.with_suffix(".html"), page.summary()
    page.write(html, typed_command())
    facts = {"page": html, "method": method.name, "frames": len(target), "max_difference": report.difference}
    output.tell(str(out), facts, model=out, subject=name, words=summary)
    output.show(*summary)

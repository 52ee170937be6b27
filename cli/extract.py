"""`featlab extract` and `featlab import`: images and videos, or features of somebody else, into a cache; `layouts`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from featlab.cli.backbone import input_config, recipe_of
from featlab.cli.complete import complete_backbone
from featlab.cli.flags import INPUT_FLAGS, NETWORK_FLAGS, TABLE_FLAGS, WRITE_FLAGS, SourceArgument
from featlab.cli.output import Output
from featlab.cli.session import Session, command, leave
from featlab.errors import listed

if TYPE_CHECKING:
    from featlab.extraction.backbones import Backbone
    from featlab.extraction.embed import Elsewhere, Progress, Recipe
    from featlab.extraction.extract import ExtractionReport
    from featlab.extraction.inputs import Inputs
    from featlab.extraction.layouts import Layout
    from featlab.extraction.tables import ImportReport


_MADE = "featlab inspect{dir}{cache} shows what it holds; featlab evaluate{dir}{cache} compares methods"


@command(
    *(*WRITE_FLAGS, *INPUT_FLAGS, *NETWORK_FLAGS),
    *("batch", "workspace", "device", "jobs", "engine", "json_mode", "quiet"),
    then=_MADE,
)
def extract(
    session: Session,
    source: SourceArgument,
    neutral: Annotated[str | None, Option(metavar="NAME", help="The neutral label; default: the layout's.")] = None,
    backbone: Annotated[
        str,
        Option(
            metavar="NAME",
            help="hog, geometry, resnet18, torchvision:NAME, timm:NAME, clip:NAME, hf:FOLDER, "
            "emotiefflib:NAME, pyfeat:v2, face-api, fer, pt2:FILE, onnx:FILE, python:MODULE:FACTORY.",
            autocompletion=complete_backbone,
            rich_help_panel="Backbone",
        ),
    ] = "hog",
) -> None:
    """Embed images or video frames once into a cache. A killed run goes on where it stopped."""
    from featlab.cache.atomic import atomic_write_text
    from featlab.extraction.extract import ExtractConfig
    from featlab.extraction.extract import extract as run_extract
    from featlab.extraction.inputs import read_inputs, with_face_crop
    from featlab.extraction.items import read_pseudonyms

    output = session.output
    config = ExtractConfig(jobs=session["jobs"], batch=session["batch"], dtype=session["dtype"])
    secret = read_pseudonyms(session["pseudonymise"], output.note)
    wanted = replace(input_config(session), neutral=neutral, merge_names=session["merge_names"], pseudonyms=secret)
    path = session.cache_file(session["out"])
    recipe = recipe_of(session, backbone, session["device"])
    made = recipe.make()
    with output.progress() as bars:
        inputs = read_inputs(source, wanted, beside=path, jobs=session["jobs"], notify=output.note, on_progress=bars)
    made = with_face_crop(made, wanted, inputs)
    elsewhere = _cluster(session, replace(recipe, align=wanted.align), made, path)
    with output.progress() as bars:
        report = run_extract(
            inputs.items,
            made,
            path,
            neutral=inputs.neutral,
            landmarks=inputs.landmarks,
            faces=inputs.face_counts,
            failures=inputs.failures,
            config=config,
            if_exists=session["if_exists"],
            on_progress=lambda now: bars("extract", now.done, now.total, _rates(now)),
            elsewhere=elsewhere,
            pseudonyms=secret,
        )
    if secret is None:
        # Figures look there for the pictures; relative, so that both may be moved.
        folder = source if source.is_dir() else source.parent
        atomic_write_text(path.with_suffix(".images.txt"), os.path.relpath(folder, path.parent))
    _show_extraction(output, report, inputs)
    leave(failed=len(report.failures))


def _cluster(session: Session, recipe: Recipe, made: Backbone, out: Path) -> Elsewhere | None:
    """Return what embeds on the engine that was named, or that the workspace's file names; None: this machine."""
    from featlab.config.load import load_config
    from featlab.extraction.embed import Cluster

    named = {} if session["engine"] is None else {"engine.name": session["engine"]}
    engine = load_config(session.workspace / "featlab.toml", named).engine
    if engine.name == "local":
        return None
    return Cluster(recipe, made.info().fingerprint, engine, session.jobs, out.with_name("engine")).embed


def _rates(now: Progress) -> str:
    """Return how fast the stages of an extraction are."""
    rates = " ".join(f"{stage} {now.rate(stage):.0f}/s" for stage in now.processes)
    return rates + (f", {now.failed} failed" if now.failed else "")


def _show(
    output: Output,
    report: ExtractionReport | ImportReport,
    warnings: Sequence[str],
    facts: Mapping[str, Any],
    said: Mapping[str, Any],
    left_out: str,
) -> None:
    """Print the facts of a cache that was written, as `Output.tell`."""
    from featlab.cache.reader import inspect_cache
    from featlab.extraction.shards import list_path

    output.warn(*warnings)
    lost = report.storage_error
    summary, listed = inspect_cache(report.path), list_path(report.path) if report.failures else None
    facts = {
        "rows": report.rows,
        "subjects": len(summary.subjects),
        "classes": list(summary.classes),
        "dim": report.dim,
        **facts,
        "extractor": report.extractor.id,
        "float16_error": lost,
        "failures": len(report.failures),
        "seconds": round(report.seconds, 3),
        "digest": report.digest,
    }
    more = {"path": report.path, "warnings": list(warnings), "failures_file": listed}
    words = {"float16_error": lost and f"{lost:.1e} of a row's length at most", "digest": report.digest[:12], **said}
    output.tell(str(report.path), facts, words, **more)
    output.warn_of_failures(report.failures, f"{left_out} {listed}")


def _show_extraction(output: Output, report: ExtractionReport, inputs: Inputs) -> None:
    from featlab.extraction.shards import DOUBT, NO_FACE, list_path

    facts = {
        "layers": report.extractor.layers,
        "landmarks": inputs.landmark_source,
        "licence": report.extractor.about.get("licence"),
        "no_face": len(inputs.no_face),
        "in_doubt": len(inputs.in_doubt),
        "resumed_rows": report.resumed_rows,
    }
    warnings = [*inputs.warnings, *report.equal_rows]
    _show(output, report, warnings, facts, {}, "pictures or folders have no row, listed in")
    unsure = (inputs.no_face, "no face was found", NO_FACE), (inputs.in_doubt, "the face is in doubt", DOUBT)
    for rows, why, what in unsure:
        if rows:
            output.warn(f"{why} in {len(rows)} images; they are listed in {list_path(report.path, what)}")


@command(*WRITE_FLAGS, *TABLE_FLAGS, "workspace", "json_mode", "quiet", then=_MADE)
def import_features(
    session: Session,
    source: Annotated[
        Path, Argument(help="Features: .csv, .tsv, .npy, .npz, .parquet, or a folder of a tool's tables.")
    ],
    neutral: Annotated[str, Option(metavar="NAME", help="The neutral label.")] = "neutral",
    landmarks: Annotated[
        Path | None, Option(metavar="FILE", help="Landmarks, a row each; default: what the source has.")
    ] = None,
    extractor: Annotated[
        str, Option(metavar="NAME", help="What made the features; two names never meet.")
    ] = "imported",
) -> None:
    """Write features that you already have into a cache."""
    from featlab.cache.reader import inspect_cache
    from featlab.extraction.items import read_pseudonyms
    from featlab.extraction.tables import ImportConfig
    from featlab.extraction.tables import import_features as run_import
    from featlab.extraction.tables.rows import Selection

    output = session.output
    config = ImportConfig(
        neutral=neutral,
        manifest=session["manifest"],
        landmarks=landmarks,
        selection=Selection(session["columns"], session["features"], session["tool"]),
        extractor=extractor,
        dtype=session["dtype"],
        skip_bad=session["skip_bad"],
        merge_names=session["merge_names"],
        if_exists=session["if_exists"],
        pseudonyms=read_pseudonyms(session["pseudonymise"], output.note),
    )
    with output.progress() as bars:
        report = run_import(source, session.cache_file(session["out"]), config, on_progress=bars.of("import"))
    output.note(*(f"import: {note}" for note in report.notes))
    summary = inspect_cache(report.path)
    facts = {
        "videos": summary.videos,
        "features": report.columns,
        "landmarks": summary.landmarks,
        "was_there": report.was_there,
    }
    said = {
        "features": listed(report.columns),
        "extractor": f"{report.extractor.id}: {report.extractor.preprocessing}",
    }
    _show(output, report, report.warnings, facts, said, "rows or files are left out; they are listed in")
    leave(failed=len(report.failures))


@command("json_mode", then="featlab layouts NAME shows its tree; featlab extract SOURCE --layout NAME")
def layouts(
    session: Session,
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="Show one: the tree that it expects, and its options.")
    ] = None,
) -> None:
    """List the layouts of data sets that `featlab extract --layout` knows."""
    from featlab.config.options import value_text
    from featlab.extraction.layouts import LAYOUTS

    output = session.output
    if name is None:
        known = [LAYOUTS.get(item) for item in LAYOUTS.names()]
        output.json({"layouts": [_facts(layout) for layout in known]})
        lines = [(each.name, each.title, each.subject, each.neutral, _sampling(each) or "–") for each in known]
        output.columns(("Name", "Data set", "Subject", "Neutral", "Of videos"), lines, text_columns=5)
        return
    layout, session.then = LAYOUTS.get(name), "featlab extract SOURCE --layout {name}"
    facts, title = _facts(layout), f"{layout.name}: {layout.title}"
    output.json(facts | {"description": layout.description})
    words = {"neutral class": layout.neutral, "of videos": _sampling(layout) or "every frame"}
    output.facts(title, {"subject": layout.subject, **words})
    output.show("", layout.description.replace("::\n\n", "").replace("``", ""))
    if facts["options"]:
        entries = {f"{key}={value_text(entry['default'])}": entry["help"] for key, entry in facts["options"].items()}
        output.show("")
        output.facts("Options, as --layout-option KEY=VALUE", entries)


def _facts(layout: Layout) -> dict[str, Any]:
    from featlab.config.options import options_of

    facts = {name: getattr(layout, name) for name in ("name", "title", "subject", "neutral")}
    declared, defaults = options_of(layout.options), asdict(layout.options())
    help_of = {key: (declared[key].help or "").replace("`", "") for key in defaults}
    options = {key: {"default": default, "help": help_of[key]} for key, default in defaults.items()}
    return {**facts, "sampling": asdict(layout.sampling), "options": options}


def _sampling(layout: Layout) -> str:
    window, fps = layout.sampling.window, layout.sampling.fps
    words = [] if window is None else ["from {:g} to {:g} s".format(*window)]
    return ", ".join(words if fps is None else [*words, f"{fps:g} a second"])

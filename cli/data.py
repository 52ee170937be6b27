"""Commands about data: start a workspace, calibrate a table, look at a cache, put several into one."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from featlab.cli.flags import TABLE_FLAGS, PlotsOption
from featlab.cli.output import print_error
from featlab.cli.session import REFUSED, Session, command, leave, typed_command
from featlab.errors import CacheError, InputError, listed

if TYPE_CHECKING:
    from featlab.cache.reader import CacheSummary
    from featlab.cli.output import Output


@command("json_mode", then="featlab extract SOURCE --backbone hog -C {folder}")
def init(
    session: Session,
    folder: Annotated[Path, Argument(metavar="[DIR]", help="Where; made when it isn't there.")] = Path("."),
    force: Annotated[bool, Option("--force", help="Replace a featlab.toml that is there.")] = False,
) -> None:
    """Start a workspace: write a featlab.toml that shows every setting."""
    from featlab.cache.atomic import atomic_write_text
    from featlab.config.load import Config, config_template

    path = folder / "featlab.toml"
    if path.exists() and not force:
        raise InputError(f"{path} exists; --force replaces it with the defaults")
    atomic_write_text(path, config_template())
    cache = folder / Config().cache
    session.output.json({"path": path, "cache": cache, "cache_exists": cache.exists()})
    session.output.show(f"wrote {path}")
    if cache.exists():
        session.then = "featlab adapt -C {folder} --subject ID; featlab evaluate -C {folder}"


@command(*TABLE_FLAGS, "merge_names", "json_mode", "quiet", then="featlab import {out}")
def calibrate(
    session: Session,
    table: Annotated[Path, Argument(help="Features, as `featlab import` reads them; a column session is a visit.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The calibrated table, .csv or .parquet.")],
    neutral: Annotated[
        str,
        Option(
            metavar="LABEL|video:NAME,…|FILE", help="Which rows rest: a label, videos (* and ? fit any), or a table."
        ),
    ] = "neutral",
    mark: Annotated[float, Option(metavar="VALUE", help="The value that is looked for in each person.")] = 0.5,
    plots: PlotsOption = True,
) -> None:
    """Give every feature as its distance from this person's own resting face. No model, no label but neutral."""
    from featlab.analysis import calibration
    from featlab.extraction.shards import list_path, write_list
    from featlab.extraction.tables.calibrate import calibrate as rest_of
    from featlab.extraction.tables.calibrate import cautions
    from featlab.extraction.tables.rows import Selection

    output, selection = session.output, Selection(session["columns"], session["features"], session["tool"])
    if out.suffix.lower() not in (".csv", ".parquet") or out.resolve() == table.resolve():
        raise InputError(f"--out {out}: give the calibrated table a name of its own that ends in .csv or .parquet")
    read = partial(calibration.read_recordings, skip_bad=session["skip_bad"], merge_names=session["merge_names"])
    rows, failures, source = read(table, session["manifest"], selection, neutral)
    resting = calibration.resting_rows(rows, neutral, lambda path: read(path, None, selection, "")[0])
    found = rest_of(rows, resting)
    if len(found.left_out) == len(set(rows.index.subject)):
        raise InputError(f"{neutral} has a neutral frame of nobody in {table}; people need the same names in both")
    rest_file = out.with_suffix(".rest.csv")
    calibration.write_columns(out, calibration.calibrated_columns(rows, found))
    calibration.write_columns(rest_file, calibration.rest_columns(found, rows.names))
    write_list(out, failures)
    known = cautions(found, rows, resting)
    data = {"out": out, "rest": rest_file, "left_out": found.left_out, "failures": len(failures)}
    data["cautions"] = [f"{who}: {why}" for each in known.values() for who, why in each]
    result = calibration.calibration_result(found, rows, mark, plots=plots, data=data)
    output.result(out.with_suffix(".rest"), result, typed_command())
    output.note(*(f"calibrate: {note}" for note in source.notes))
    output.show(f"{out}: every row's distance from its person's rest; {rest_file}: the resting faces")
    output.warn(*dict.fromkeys((*rows.index.warnings, *resting.index.warnings)))
    left_out = f"rows or files are left out; they are listed in {list_path(out)}"
    for what, each in (known | {left_out: failures}).items():
        output.warn_of_failures(each, what)
    leave(failed=len(failures) + len(found.left_out))


@command("cache", "workspace", "json_mode", "quiet", "bundle", then="featlab evaluate{at}")
def inspect(
    session: Session,
    file: Annotated[Path | None, Argument(metavar="[CACHE]", help="Default: the workspace's cache.")] = None,
) -> None:
    """Show what a cache holds, or, with --bundle, what a model bundle knows of itself."""
    from featlab.cache.reader import inspect_cache

    if session["bundle"] is not None:
        _inspect_bundle(session, session["bundle"])
        return
    summary = inspect_cache(_cache(session, file))
    if file is not None:
        session.then = "featlab evaluate{dir} --cache {file}"
    _show_cache(session.output, summary)


def _show_cache(output: Output, summary: CacheSummary, **more: Any) -> None:
    extractor, rows = summary.extractor, sorted(summary.subjects.values())
    output.json(summary.to_dict() | more)
    facts = {
        "rows": summary.rows,
        "subjects": f"{len(rows)}, {rows[0]} to {rows[-1]} rows each (median {rows[len(rows) // 2]})",
        "videos": summary.videos,
        "neutral class": summary.neutral,
        "embeddings": f"{summary.dim} values, {summary.dtype}",
        "landmarks": f"{summary.landmarks} points" if summary.landmarks else "none",
        **({} if summary.several_faces is None else {"rows with more than one face": summary.several_faces}),
        "extractor": f"{extractor.id}: {extractor.preprocessing}",
        **extractor.about,
        "fingerprint": extractor.fingerprint[:12],
        "digest": f"{summary.digest[:12]}, as the file says (featlab verify reads all of it)",
        "size": f"{summary.file_bytes / 1e6:.1f} MB",
    }
    output.facts(summary.path, facts)
    counts = {**summary.classes, **({"unknown": summary.unknown_labels} if summary.unknown_labels else {})}
    lines = [(name, f"{count:,}", f"{100 * count / summary.rows:.1f} %") for name, count in counts.items()]
    output.columns(("Class", "Rows", "Share"), lines)


def _inspect_bundle(session: Session, folder: Path) -> None:
    from featlab.bundle.bundle import load_bundle
    from featlab.cli.stages import outlook
    from featlab.model.style_bank import membership_sentence

    bundle = load_bundle(folder)
    known = outlook(bundle, dict.fromkeys(["pft", *bundle.extras]))
    facts = {
        "classes": bundle.classes,
        "neutral_class": bundle.neutral,
        "source_people": len(bundle.source_subjects),
        "features": bundle.projection.components.shape[1],
        "carried_share": bundle.share.value,
        "style_bank": bundle.bank.sentence() if bundle.bank else "none",
        "membership_test": membership_sentence(bundle.membership),
        "extractor": f"{bundle.extractor.id}: {bundle.extractor.preprocessing}",
        **bundle.extractor.about,
    }
    session.output.tell(str(folder), facts, {"carried_share": bundle.share.sentence()}, folder=folder, known=known)
    session.output.show(*known)
    session.then = "featlab personalise CLIP{bundle} --out person.onnx"


@command("cache", "workspace", "json_mode", "quiet", then="featlab inspect{at}")
def verify(
    session: Session,
    file: Annotated[
        Path | None,
        Argument(metavar="[PATH]", help="A cache, or any file or folder of featlab's. Default: the workspace's cache."),
    ] = None,
) -> None:
    """Read all of a cache and check it: checksums, digest, pictures under two names. Exit code 2 when it is wrong.

    Of a workspace, a bundle, results, an adaptation or an export, every file is checked against its digest.
    """
    from h5py import is_hdf5

    from featlab.cache.names import alike
    from featlab.cache.reader import inspect_cache
    from featlab.cache.verify import check_cache

    output, path = session.output, _cache(session, file)
    warnings: list[str] = []
    if path.is_dir() or not (path.suffix in ("", ".h5") or is_hdf5(path)):
        from featlab.workspace.contents import check_files

        findings, without = check_files(path)
        if without:
            warnings.append(f"no digest tells whether these are whole: {listed(without)}")
    else:
        try:
            findings, warnings = check_cache(path)
            summary = inspect_cache(path)
            if may_be := alike({"subject": summary.subjects, "class": summary.classes}):
                warnings.append(f"names that may be one: {may_be}; make the cache again with --merge-names")
        except CacheError as error:
            findings = [str(error)]
    output.json({"path": path, "ok": not findings, "findings": findings, "warnings": warnings})
    output.warn(*warnings)
    for finding in findings:
        print_error(finding)
    if findings:
        raise typer.Exit(REFUSED)
    output.show(f"{path}: all is well")
    if file is not None:
        session.then = ""


def _cache(session: Session, file: Path | None) -> Path:
    path = session.cache_file(file or session["cache"])
    if not path.exists():
        raise InputError(f"{path}: no such cache; make one with `featlab extract SOURCE --out {path}`")
    return path


@command("json_mode", "quiet")
def merge(
    session: Session,
    caches: Annotated[list[Path], Argument(metavar="CACHE CACHE…", help="Two or more, of one extractor.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="The cache to make.")],
    rename: Annotated[
        list[str] | None, Option(metavar="OLD=NEW", help="Rename a class in every cache first; repeatable.")
    ] = None,
    prefix: Annotated[bool, Option("--prefix", help="Put the cache's name before every subject: fer/s01.")] = False,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Put caches of several data sets into one, to compare them."""
    from featlab.cache.merge import merge_caches
    from featlab.cache.reader import inspect_cache
    from featlab.cache.schema import one_form

    output, renames = session.output, dict[str, str]()
    for item in rename or ():
        old, _, new = map(one_form, item.partition("="))
        if not old or not new:
            raise InputError(f"--rename {item}: expected OLD=NEW, for example happy=joy")
        if old in renames:
            raise InputError(f"--rename {item}: {old!r} is renamed twice; give it one new name")
        renames[old] = new
    with output.progress() as bars:
        report = merge_caches(caches, out, rename=renames, prefix=prefix, force=force, on_progress=bars.of("merge"))
    output.note(*(f"merge: {note}" for note in report.notes))
    output.warn(*report.warnings)
    inputs = [(str(item.path), str(item.subjects_file), item.rows, len(item.subjects)) for item in report.inputs]
    more = {"inputs": [asdict(item) for item in report.inputs], "notes": report.notes, "warnings": report.warnings}
    _show_cache(output, inspect_cache(report.path), **more)
    output.columns(("Cache", "List of its subjects", "Rows", "Subjects"), inputs, text_columns=2)
    # The last one as the target, the rest as the source.
    words = ["featlab", "benchmark", "--scope", "dataset", "--cache", str(report.path), "--targets", inputs[-1][1]]
    session.then = shlex.join(words)

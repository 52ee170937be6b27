"""The demo: draw people, extract, train, pair, pretrain, adapt to new people, compare, and show it all on one page.

It makes a workspace like any other, step by step with the functions behind the commands, so that every command works
in it afterwards. What an earlier run finished is kept.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featlab.analysis.demo_figures import FIGURES, DemoFigure, Scene, draw_figures
from featlab.analysis.demo_page import render_page
from featlab.analysis.render import write_table
from featlab.analysis.tables import Table, per_subject_table, summary_table
from featlab.cache import atomic_write_text
from featlab.campaign import plan, run_campaign, versions
from featlab.config import AdaptConfig, Config
from featlab.config_file import config_template
from featlab.errors import InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.landmarks import find_landmarks, read_landmarks
from featlab.extraction.pipeline import ExtractConfig, ExtractionReport, extract
from featlab.extraction.sources import names_by_row, read_source
from featlab.extraction.synthetic import SyntheticConfig, write_faces
from featlab.methods import get_method
from featlab.results import EvaluationRow, write_results
from featlab.seeding import stable_hash
from featlab.stages import StageOutput, bundle_stage, pair_stage, train_stage
from featlab.summary import MethodSummary, summarise
from featlab.workspace import CONFIG_FILE, Workspace, adapt_subject

__all__ = ["NO_CLAIM", "DemoConfig", "DemoReport", "Step", "run_demo"]

NO_CLAIM = (
    "These faces are drawn. The numbers show that the parts work together and what each method does; "
    "they are no claim about real people."
)
_MARK = "demo.json"
_STEPS = ("faces", "extract", "train", "pair", "pretrain", "adapt", "evaluate", "pictures")
_METHOD = "pft"

Notify = Callable[[str], None]
OnProgress = Callable[[str, int, int], None]
"""Called with the step's name, what is done of it, and all of it."""


@dataclass(frozen=True)
class DemoConfig:
    """What the demo draws and runs.

    Attributes:
        faces: The people.
        targets: How many of them are target subjects.
        settings: ``{"section.key": value}`` that the workspace's ``featlab.toml`` gets beside the seed and the targets.
    """

    faces: SyntheticConfig = field(default_factory=lambda: SyntheticConfig(people=48, clips=4, frames=8))
    targets: int = 10
    settings: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return the settings of the workspace that are not the defaults."""
        values = {"protocol.seed": self.faces.seed, "protocol.targets": str(self.targets)} | dict(self.settings)
        default = Config()
        changed = default.with_values(values, "demo")
        return {key: value for key, value in values.items() if _setting(default, key) != _setting(changed, key)}


@dataclass(frozen=True)
class Step:
    """One step of the demo.

    Attributes:
        name: As in the list of steps.
        text: What it did.
        seconds: Wall time.
        reused: Whether an earlier run had done it.
    """

    name: str
    text: str
    seconds: float
    reused: bool

    def line(self) -> str:
        """Return it for people."""
        took = "there already" if self.reused else f"{self.seconds:.1f} s"
        return f"{_STEPS.index(self.name) + 1}/{len(_STEPS)}  {self.name:<9} {self.text} ({took})"


@dataclass(frozen=True, eq=False)
class DemoReport:
    """What the demo made.

    Attributes:
        folder: The workspace.
        config: Its configuration.
        cache_digest: Of its cache.
        rows: Results: every method on every target subject.
        summaries: One a method.
        per_subject: The table of subjects.
        summary: The table of methods.
        figures: The pictures, in ``figures/`` as .png and .svg.
        page: The page that shows everything.
        steps: What was done.
        next_steps: Commands to type next.
    """

    folder: Path
    config: Config
    cache_digest: str
    rows: tuple[EvaluationRow, ...]
    summaries: tuple[MethodSummary, ...]
    per_subject: Table
    summary: Table
    figures: tuple[DemoFigure, ...]
    page: Path
    steps: tuple[Step, ...]
    next_steps: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return sum(step.seconds for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints: the object of `featlab evaluate`, and where things are."""
        return {
            "note": NO_CLAIM,
            "config": self.config.to_dict(),
            "cache_digest": self.cache_digest,
            "versions": versions(),
            "results": [row.to_dict() for row in self.rows],
            "summary": [item.to_dict() for item in self.summaries],
            "folder": self.folder.as_posix(),
            "page": self.page.as_posix(),
            "figures": [(self.folder / "figures" / f"{item.name}.png").as_posix() for item in self.figures],
            "steps": [asdict(step) for step in self.steps],
            "seconds": self.seconds,
            "next": list(self.next_steps),
        }


def run_demo(
    folder: Path,
    config: DemoConfig | None = None,
    *,
    jobs: int = 1,
    notify: Notify = lambda line: None,
    on_progress: OnProgress = lambda name, done, total: None,
) -> DemoReport:
    """Make the demo's workspace, or finish the one that is there.

    Args:
        folder: Where; made if missing. ``faces/``, ``cache.h5``, ``featlab.toml``, ``results/``, ``figures/`` and
            ``index.html`` are written into it. A ``featlab.toml`` that is there is kept, and counts.
        config: What to draw and run.
        jobs: Processes that draw and extract.
        notify: Called with one line a finished step.
        on_progress: Called often.

    Raises:
        InputError: The folder holds something else, or a demo made with other settings.
        FeatlabError: What the steps raise.
    """
    config = config or DemoConfig()
    _claim(folder, config)
    steps = _Steps(notify, on_progress)
    extraction = _cache(folder, config, jobs, steps)
    workspace = Workspace.open(folder, on_epoch=lambda stage, epoch, epochs, loss: on_progress(stage, epoch, epochs))
    targets = workspace.targets()
    protocol = workspace.config.protocol
    source = workspace.source(targets)
    with steps.step("train") as now:
        trained, made = train_stage(source)
        now.reused = made.reused
        now.text = (
            f"projection to {trained.projection.components.shape[1]} features, bottleneck and classifier: "
            f"{len(source.table):,} rows of {len(source.subjects)} source subjects"
        )
    with steps.step("pair") as now:
        pairs, made = pair_stage(source)
        now.reused = made.reused
        now.text = f"{len(pairs):,} pairs of source subjects by {pairs.strategy}"
    with steps.step("pretrain") as now:
        bundle, made = bundle_stage(source, protocol.methods)
        now.reused = made.reused
        now.text = f"translator, {bundle.config.pretrain.objective}; the model bundle is {_shown(made, folder)}"
    with steps.step("adapt") as now:
        models = {}
        showing = Config.with_values(workspace.config, {"adapt.method": _METHOD}, "demo")
        for done, subject in enumerate(targets):
            rows = workspace.table.rows_of(subject)
            models[subject] = adapt_subject(bundle, made.folder, rows, workspace.extractor, subject, showing).model
            on_progress("adapt", done + 1, len(targets))
        now.text = f"{_METHOD} to {len(targets)} target subjects, each from neutral clips without labels"
    with steps.step("evaluate") as now:
        results = run_campaign(workspace, plan(workspace), jobs=jobs)
        summaries = summarise(results)
        now.text = f"{len(protocol.methods)} methods on {len(targets)} target subjects"
    names = {name: get_method(name).title for name in protocol.methods}
    settings = {name: (get_method(name).setting, names[name]) for name in protocol.methods}
    per_subject = per_subject_table(results, settings=settings)
    summary = summary_table(summaries, settings=settings)
    _write_results(folder / "results", results, per_subject, summary)
    scene = Scene(
        faces=folder / "faces",
        table=workspace.table,
        bundle=bundle,
        models=models,
        method=_METHOD,
        rows=results,
        summaries=summaries,
        names=names,
        gap=protocol.gap,
        seed=protocol.seed,
    )
    with steps.step("pictures") as now:
        figures, now.reused = _pictures(scene, folder / "figures", extraction.digest, on_progress)
        now.text = f"{len(figures)} figures as .png and .svg"
    report = DemoReport(
        folder=folder,
        config=workspace.config,
        cache_digest=workspace.cache_digest,
        rows=tuple(results),
        summaries=tuple(summaries),
        per_subject=per_subject,
        summary=summary,
        figures=figures,
        page=folder / "index.html",
        steps=tuple(steps.done),
        next_steps=_next_steps(folder, workspace.table.subjects),
    )
    atomic_write_text(report.page, _page(report))
    return report


class _Steps:
    """Times the steps and says each when it is done."""

    def __init__(self, notify: Notify, on_progress: OnProgress) -> None:
        self.done: list[Step] = []
        self._notify = notify
        self._on_progress = on_progress

    @contextmanager
    def step(self, name: str) -> Iterator[_Now]:
        self._on_progress(name, 0, 0)
        now, start = _Now(), time.perf_counter()
        yield now
        self.done.append(Step(name, now.text, time.perf_counter() - start, now.reused))
        self._notify(self.done[-1].line())


@dataclass
class _Now:
    """What the running step tells of itself."""

    text: str = ""
    reused: bool = False


def _claim(folder: Path, config: DemoConfig) -> None:
    """Mark the folder as this demo's, or refuse it."""
    mark = folder / _MARK
    wanted = json.loads(json.dumps(asdict(config)))
    if mark.is_file():
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != wanted:
            raise InputError(f"{folder} holds a demo made with other settings; choose another folder with --out")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and holds no demo; choose another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error.strerror}); choose another folder with --out") from error
    atomic_write_text(folder / CONFIG_FILE, _with_settings(config_template(), config.values()))
    atomic_write_text(mark, json.dumps(wanted, indent=2) + "\n")


def _cache(folder: Path, config: DemoConfig, jobs: int, steps: _Steps) -> ExtractionReport:
    manifest = folder / "faces" / "manifest.csv"
    faces = config.faces
    with steps.step("faces") as now:
        # The manifest is written last, so one that is there is complete.
        now.reused = manifest.is_file()
        if not now.reused:
            write_faces(
                manifest.parent,
                faces,
                jobs=jobs,
                on_progress=lambda done, total: steps._on_progress("faces", done, total),
            )
        pictures = faces.people * len(faces.classes) * faces.clips * faces.frames
        now.text = f"{pictures:,} pictures of {faces.people} drawn people, {' and '.join(faces.classes)}"
    with steps.step("extract") as now:
        items = read_source(manifest)
        found = find_landmarks(manifest)
        report = extract(
            items,
            make_backbone("hog"),
            folder / "cache.h5",
            neutral=faces.classes[0],
            landmarks=None if found is None else read_landmarks(found, len(items), names_by_row(items)),
            config=ExtractConfig(jobs=jobs),
            on_progress=lambda now: steps._on_progress("extract", now.done, now.total),
        )
        now.reused = report.resumed_rows == report.rows
        now.text = f"hog embeddings of {report.rows:,} pictures, {report.dim} values each, with landmarks"
    return report


def _pictures(scene: Scene, folder: Path, digest: str, on_progress: OnProgress) -> tuple[tuple[DemoFigure, ...], bool]:
    """Draw the pictures, unless those that are there show the same results."""
    inputs = (digest, json.dumps([row.to_dict() for row in scene.rows], sort_keys=True), sorted(versions().items()))
    key, index = stable_hash(*inputs), folder / "figures.json"
    if index.is_file():
        made = json.loads(index.read_text(encoding="utf-8"))
        files = [folder / f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")]
        if made["key"] == key and all(path.is_file() for path in files):
            return tuple(DemoFigure(**item) for item in made["figures"]), True
    figures = draw_figures(scene, folder, lambda done, total: on_progress("pictures", done, total))
    made = {"key": key, "figures": [asdict(item) for item in figures]}
    atomic_write_text(index, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return figures, False


def _write_results(folder: Path, rows: Sequence[EvaluationRow], per_subject: Table, summary: Table) -> None:
    write_results(folder / "demo.jsonl", rows)
    for ending in ("md", "csv"):
        write_table(folder / f"subjects.{ending}", per_subject)
        write_table(folder / f"summary.{ending}", summary)


def _page(report: DemoReport) -> str:
    return render_page(
        note=NO_CLAIM,
        words=_in_words(report),
        tables=(report.per_subject, report.summary),
        figures=report.figures,
        folder=report.folder / "figures",
        steps=[step.line() for step in report.steps],
        commands=report.next_steps,
        facts={
            "people": len(report.config.protocol.sources) or "all who are no target",
            "cache digest": report.cache_digest,
            "seed": report.config.protocol.seed,
        }
        | versions(),
    )


def _in_words(report: DemoReport) -> list[str]:
    """Return what the numbers say, a sentence each."""
    by_name = {item.method: item for item in report.summaries}
    source, shown, oracle = by_name.get("source-only"), by_name.get(_METHOD), by_name.get("oracle")
    lines = []
    if source and shown:
        lines.append(
            f"Adapting with {get_method(_METHOD).title} takes the mean macro F1 of {shown.subjects} new people from "
            f"{100 * source.macro_f1:.1f} to {100 * shown.macro_f1:.1f}: {shown.wins} of them gain, {shown.losses} lose."
        )
    light = [item for item in report.summaries if get_method(item.method).setting == "Baselines"]
    if light and shown:
        best = max(light, key=lambda item: item.macro_f1)
        lines.append(f"The best light baseline, {get_method(best.method).title}, reaches {100 * best.macro_f1:.1f}.")
    if oracle and shown and oracle.macro_f1 < shown.macro_f1:
        lines.append(
            f"The oracle stays below it at {100 * oracle.macro_f1:.1f}: fine-tuned on a few dozen frames of one "
            "person, it overfits to how the clips were filmed, so here it marks no upper bound."
        )
    return lines


def _next_steps(folder: Path, subjects: Sequence[str]) -> tuple[str, ...]:
    subject = "s041" if "s041" in subjects else subjects[-1]
    return (
        f"cd {os.path.relpath(folder)}",
        f"featlab adapt --subject {subject}",
        "featlab pair --strategy landmark",
        "featlab evaluate --draws 3",
        "featlab ablate dims",
    )


def _shown(made: StageOutput, folder: Path) -> str:
    return made.folder.relative_to(folder).as_posix()


def _setting(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


def _with_settings(template: str, values: Mapping[str, Any]) -> str:
    """Uncomment settings in the text of a `featlab.toml`."""
    section, lines, left = "", [], dict(values)
    for line in template.splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        key = section + line.removeprefix("# ").partition(" = ")[0]
        if line.startswith("# ") and key in left:
            line = f"{key.removeprefix(section)} = {json.dumps(left.pop(key), ensure_ascii=False)}"
        lines.append(line)
    if left:
        raise InputError(f"the demo can't set {', '.join(left)}: no such key in {CONFIG_FILE}")
    return "\n".join(lines) + "\n"

"""The demo: draw people, extract, train, pair, pretrain, adapt to new people, compare, and show it all on one page.

It makes a workspace like any other, step by step with the functions behind the commands, so that every command works
in it afterwards. What an earlier run finished is kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from featlab.analysis.demo.config import DemoConfig, claim_folder
from featlab.analysis.demo.figures import FIGURES, DemoFigure, Scene, draw_figures
from featlab.analysis.demo.report import DemoReport, Step, next_steps
from featlab.analysis.evaluation.result import evaluation_result
from featlab.analysis.page import write_result
from featlab.cache import atomic_write_text
from featlab.compute import one_thread
from featlab.evaluation.results import run_facts, versions
from featlab.evaluation.runner import count_finished, plan, run_tasks
from featlab.evaluation.summary import summarise
from featlab.extraction.backbones import make_backbone
from featlab.extraction.drawn_faces import write_faces
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.items import names_by_row
from featlab.extraction.layouts import read_layout
from featlab.methods import AdaptedModel, get_method
from featlab.seeding import stable_hash
from featlab.workspace.adapt import adapt_subject
from featlab.workspace.stages import bundle_stage, pair_stage, train_stage
from featlab.workspace.workspace import Workspace

__all__ = ["DemoConfig", "run_demo"]

_METHOD = "pft"

Notify = Callable[[str], None]
OnProgress = Callable[[str, int, int], None]
"""Called with the step's name, what is done of it, and all of it (0 when that isn't known)."""


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
        folder: Where; made if missing. ``faces/``, ``cache.h5``, ``featlab.toml``, ``results/demo/``, ``figures/`` and
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
    claim_folder(folder, config)
    with one_thread():
        return _run(folder, config, jobs, _Steps(notify, on_progress))


def _run(folder: Path, config: DemoConfig, jobs: int, steps: _Steps) -> DemoReport:
    _extract(folder, config, jobs, steps)
    workspace = Workspace.open(folder, on_epoch=lambda stage, epoch, epochs, loss: steps.report(stage, epoch, epochs))
    protocol, targets = workspace.config.protocol, workspace.targets()
    source = workspace.source(targets)
    with steps.step("train") as now:
        trained, made = train_stage(source)
        now.reused = made.reused
        now.text = f"bottleneck and classifier on {len(source.table):,} rows of {len(source.subjects)} source subjects"
        now.text += f", {trained.projection.components.shape[1]} features each"
    with steps.step("pair") as now:
        pairs, made = pair_stage(source)
        now.reused = made.reused
        now.text = f"{len(pairs):,} pairs of source subjects by {pairs.strategy}"
    with steps.step("pretrain") as now:
        bundle, made = bundle_stage(source, protocol.methods)
        now.reused = made.reused
        now.text = f"the translator, {bundle.config.pretrain.objective}, into {made.folder.relative_to(folder)}"
    with steps.step("adapt") as now:
        models: dict[str, AdaptedModel] = {}
        shown = workspace.config.with_values({"adapt.method": _METHOD}, "demo")
        for done, subject in enumerate(targets):
            rows = workspace.table.rows_of(subject)
            models[subject] = adapt_subject(bundle, made.folder, rows, workspace.extractor, subject, shown).model
            steps.report("adapt", done + 1, len(targets))
        now.text = f"{_METHOD} to {len(targets)} target subjects, to each from neutral clips without labels"
    with steps.step("evaluate") as now:
        tasks = plan(workspace)
        now.reused = count_finished(tasks) == sum(len(task.runs) for task in tasks)
        results = [row for done in run_tasks(tasks, jobs=jobs) for row in done.values()]
        now.text = f"{len(protocol.methods)} methods on {len(targets)} target subjects"
    summaries = summarise(results)
    settings = {name: (get_method(name).setting, get_method(name).title) for name in protocol.methods}
    found = evaluation_result(
        results,
        summaries,
        metadata=run_facts(workspace),
        plots=False,
        classes=workspace.table.classes,
        smoothing=protocol.smoothing,
    )
    write_result(folder / "results" / "demo", found, "featlab demo")
    scene = Scene(
        faces=folder / "faces",
        table=workspace.table,
        bundle=bundle,
        models=models,
        method=_METHOD,
        rows=results,
        summaries=summaries,
        names={name: title for name, (_, title) in settings.items()},
        gap=protocol.gap,
        seed=protocol.seed,
    )
    with steps.step("pictures") as now:
        figures, now.reused = _pictures(scene, folder / "figures", workspace.cache_digest, steps)
        now.text = f"{len(figures)} figures as .png and .svg"
    report = DemoReport(
        folder=folder,
        config=workspace.config,
        cache_digest=workspace.cache_digest,
        method=_METHOD,
        rows=tuple(results),
        summaries=tuple(summaries),
        per_subject=found.tables["subjects"],
        summary=found.tables["summary"],
        figures=figures,
        steps=tuple(steps.done),
        next_steps=next_steps(folder, workspace.table.subjects),
    )
    atomic_write_text(report.page, report.to_html())
    return report


@dataclass
class _Now:
    """What the running step tells of itself."""

    text: str = ""
    reused: bool = False


class _Steps:
    """Times the steps and says each when it is done."""

    def __init__(self, notify: Notify, on_progress: OnProgress) -> None:
        self.done: list[Step] = []
        self.report = on_progress
        self._notify = notify

    @contextmanager
    def step(self, name: str) -> Iterator[_Now]:
        self.report(name, 0, 0)
        now, start = _Now(), time.perf_counter()
        yield now
        self.done.append(Step(name, now.text, time.perf_counter() - start, now.reused))
        self._notify(self.done[-1].line())


def _extract(folder: Path, config: DemoConfig, jobs: int, steps: _Steps) -> None:
    """Draw the faces and embed them, as far as it isn't done."""
    faces, manifest = config.faces, folder / "faces" / "manifest.csv"
    with steps.step("faces") as now:
        # The manifest is written last, so one that is there is complete.
        now.reused = manifest.is_file()
        if not now.reused:
            write_faces(
                manifest.parent, faces, jobs=jobs, on_progress=lambda done, all_: steps.report("faces", done, all_)
            )
        pictures = faces.people * len(faces.classes) * faces.clips * faces.frames
        now.text = f"{pictures:,} pictures of {faces.people} drawn people: {', '.join(faces.classes)}"
    with steps.step("extract") as now:
        items = read_layout("auto", manifest)
        found = find_landmarks(manifest)
        done = extract(
            items,
            make_backbone("hog"),
            folder / "cache.h5",
            neutral=faces.classes[0],
            landmarks=None if found is None else read_landmarks(found, len(items), names_by_row(items)),
            config=ExtractConfig(jobs=jobs),
            on_progress=lambda at: steps.report("extract", at.done, at.total),
        )
        now.reused = done.resumed_rows == done.rows
        now.text = f"hog embeddings of {done.dim:,} values, and landmarks, into cache.h5"


def _pictures(scene: Scene, folder: Path, digest: str, steps: _Steps) -> tuple[tuple[DemoFigure, ...], bool]:
    """Draw the pictures, unless those that are there show the same results; say which."""
    # Seconds and the like differ between runs that give the same pictures.
    scores = [(row.method, row.subject, row.macro_f1) for row in scene.rows]
    key, index = stable_hash(digest, scores, sorted(versions().items())), folder / "figures.json"
    if index.is_file() and all((folder / f"{name}.{kind}").is_file() for name in FIGURES for kind in ("png", "svg")):
        drawn = json.loads(index.read_text(encoding="utf-8"))
        if drawn["key"] == key:
            return tuple(DemoFigure(**item) for item in drawn["figures"]), True
    figures = draw_figures(scene, folder, lambda done, total: steps.report("pictures", done, total))
    drawn = {"key": key, "figures": [asdict(item) for item in figures]}
    atomic_write_text(index, json.dumps(drawn, indent=2, ensure_ascii=False) + "\n")
    return figures, False

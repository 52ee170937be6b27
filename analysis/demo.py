"""The demo: draw people, extract, evaluate, and show it all on one page, in a workspace for every command."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featlab.analysis.evaluation.result import evaluation_result
from featlab.analysis.page import DrawnFigure, Result, write_result
from featlab.analysis.table import columns_of
from featlab.cache.atomic import atomic_write_text
from featlab.compute import one_thread
from featlab.config.load import Config, config_template, set_in_section
from featlab.errors import InputError
from featlab.evaluation.results import run_facts
from featlab.evaluation.runner import count_finished, plan, run_tasks
from featlab.extraction.backbones import make_backbone
from featlab.extraction.drawn_faces import FacesConfig, write_faces
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks
from featlab.extraction.items import names_by_row
from featlab.extraction.layouts import read_layout
from featlab.workspace.workspace import CONFIG_FILE, Workspace

NO_CLAIM = (
    "These faces are drawn, for teaching and to see that every part works. The numbers are no claim about real people."
)
STEPS = ("faces", "extract", "evaluate", "page")
_COMMAND = "featlab demo"
_MARK = "demo.json"
_PEOPLE_SHOWN = 10

OnProgress = Callable[[str, int, int], None]
"""Called with the step's name, what is done of it, and all of it (0 when that isn't known)."""


@dataclass(frozen=True)
class DemoConfig:
    """The people to draw, how many are targets, and settings for ``featlab.toml``, any but a method's own."""

    faces: FacesConfig = field(default_factory=lambda: FacesConfig(people=48, clips=4, frames=10))
    targets: int = 10
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def sized(
        cls, *, people: int | None = None, expressions: int = 2, seed: int = 0, quick: bool = False
    ) -> DemoConfig:
        """Return the full demo of 48 people, or a quick one of 24 with less of everything; two must stay sources."""
        people = people or (24 if quick else 48)
        clips, frames, targets = (2, 6, 6) if quick else (4, 10, 10)
        if people < targets + 2:
            raise InputError(
                f"--people {people}: {targets} become targets, and 2 must stay sources; draw {targets + 2}"
            )
        faces = FacesConfig(people, expressions, clips, frames, seed=seed)
        return cls(faces, targets, {"head.epochs": 15, "pretrain.epochs": 10} if quick else {})

    def values(self) -> dict[str, Any]:
        """Return the workspace's settings that the demo makes, checked."""
        values = {"protocol.targets": str(self.targets), "protocol.seed": self.faces.seed} | dict(self.settings)
        Config().with_values(values, "demo")
        return values


@dataclass
class Step:
    """One step of the demo: what it did, how long it took, whether an earlier run had done it."""

    name: str
    text: str = ""
    seconds: float = 0.0
    reused: bool = False


_Steps = Callable[[str], AbstractContextManager[Step]]  # Times a step, by its name.


def run_demo(
    folder: Path,
    config: DemoConfig | None = None,
    *,
    jobs: int = 1,
    notify: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress = lambda name, done, total: None,
) -> tuple[Result, dict[str, Any]]:
    """Make the demo's workspace, or finish the one that is there; return its evaluation, and what ``--json`` prints."""
    config = config or DemoConfig()
    _claim_folder(folder, config)
    steps: list[Step] = []

    @contextmanager
    def step(name: str) -> Iterator[Step]:
        """Time a step, and say it when it is done."""
        on_progress(name, 0, 0)
        now, start = Step(name), time.perf_counter()
        yield now
        now.seconds = time.perf_counter() - start
        steps.append(now)
        took = "there already" if now.reused else f"{now.seconds:.1f} s"
        notify(f"{len(steps)}/{len(STEPS)}  {name:<9} {now.text} ({took})")

    with one_thread():
        _extract(folder, config, jobs, step, on_progress)
        workspace = Workspace.open(folder, on_epoch=lambda stage, done, total, _: on_progress(stage, done, total))
        result = _evaluate(workspace, jobs, step)
        with step("page") as now:
            now.text = "tables and pictures in results/, all of them in index.html"
            _write_page(workspace, result)
    return result, {
        "note": NO_CLAIM,
        "folder": folder,
        "page": folder / "index.html",
        "steps": [asdict(step) for step in steps],
        "seconds": sum(step.seconds for step in steps),
        "next": next_steps(folder, workspace.table.subjects),
    }


def next_steps(folder: Path, subjects: Sequence[str]) -> tuple[str, ...]:
    """Return the commands to type next."""
    return (
        f"cd {os.path.relpath(folder)}",
        f"featlab adapt --subject {'s041' if 's041' in subjects else subjects[-1]}",
        "featlab pair --strategy landmark",
        "featlab evaluate --draws 3",
        "featlab ablate dims",
        "featlab report",
    )


def _claim_folder(folder: Path, config: DemoConfig) -> None:
    """Mark the folder as this demo's and write its ``featlab.toml``; one that is there is kept."""
    values = config.values()
    mark, wanted = folder / _MARK, json.dumps(asdict(config), indent=2) + "\n"
    if mark.is_file():
        if mark.read_bytes() != wanted.encode():
            raise InputError(f"{folder} holds a demo made with other settings; choose another folder with --out")
    else:
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise InputError(f"{folder} is there and holds no demo; choose another folder with --out")
        except OSError as error:
            raise InputError(f"{folder}: can't be made ({error.strerror}); choose another folder with --out") from error
        atomic_write_text(mark, wanted)
    if not (folder / CONFIG_FILE).exists():
        text = config_template()
        for key, value in values.items():
            section, _, name = key.partition(".")
            text = set_in_section(text, (section,), {name: value}, CONFIG_FILE)
        atomic_write_text(folder / CONFIG_FILE, text)


def _extract(folder: Path, config: DemoConfig, jobs: int, step: _Steps, on_progress: OnProgress) -> None:
    """Draw the faces and embed them, as far as it isn't done."""
    faces, manifest = config.faces, folder / "faces" / "manifest.csv"
    with step("faces") as now:
        # The manifest is written last, so one that is there is complete.
        now.reused = manifest.is_file()
        if not now.reused:
            write_faces(manifest.parent, faces, jobs=jobs, on_progress=partial(on_progress, "faces"))
        pictures = faces.people * len(faces.classes) * faces.clips * faces.frames
        now.text = f"{pictures:,} pictures of {faces.people} drawn people: {', '.join(faces.classes)}"
    with step("extract") as now:
        items = read_layout("auto", manifest)
        found = find_landmarks(manifest)
        done = extract(
            items,
            make_backbone("hog"),
            folder / "cache.h5",
            neutral=faces.classes[0],
            landmarks=None if found is None else read_landmarks(found, len(items), names_by_row(items)),
            config=ExtractConfig(jobs=jobs),
            on_progress=lambda at: on_progress("extract", at.done, at.total),
        )
        now.reused = done.resumed_rows == done.rows
        now.text = f"hog embeddings of {done.dim:,} values, and landmarks, into cache.h5"


def _evaluate(workspace: Workspace, jobs: int, step: _Steps) -> Result:
    """Train at the source, adapt to every target with every method, and score."""
    protocol = workspace.config.protocol
    with step("evaluate") as now:
        tasks = plan(workspace)
        now.reused = count_finished(tasks) == sum(len(task.runs) for task in tasks)
        rows = [row for done in run_tasks(tasks, jobs=jobs) for row in done.values()]
        now.text = f"{len(protocol.methods)} methods, trained on the others, on {len(workspace.targets())} targets"
    result = evaluation_result(
        rows,
        metadata=run_facts(workspace),
        classes=workspace.table.classes,
        smoothing=protocol.smoothing,
    )
    return replace(result, summary=(NO_CLAIM, *result.summary))


def _write_page(workspace: Workspace, result: Result) -> None:
    """Write the evaluation, who there is, one clip over time, and the report of these."""
    from featlab.analysis.inside.clip import clip_over_time, clip_result
    from featlab.analysis.inside.faces import find_faces
    from featlab.analysis.report import write_report
    from featlab.analysis.report.collect import read_report

    targets = workspace.targets()
    clip = clip_over_time(workspace, targets[0], targets)
    made = {
        "demo": result,
        "people": _people(workspace),
        "clip": clip_result(clip, find_faces(workspace, workspace.root / "faces")),
    }
    folders = [workspace.root / "results" / name for name in made]
    for folder, item in zip(folders, made.values(), strict=True):
        write_result(folder, replace(item, metadata=result.metadata), _COMMAND)
    write_report(workspace.root / "index.html", read_report(folders, _COMMAND))


_PICTURE = (88, 88)  # What is seen of a face in a panel of half an inch; more makes the page large.


def _people(workspace: Workspace) -> Result:
    """Return the strip of drawn people: each at rest, and at the peak of every expression."""
    from PIL import Image

    from featlab.analysis.inside.faces import plot_pairs

    faces, table = workspace.root / "faces", workspace.table
    with (faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    classes = (table.neutral, *(name for name in table.classes if name != table.neutral))
    names = table.subjects[:_PEOPLE_SHOWN]
    # The last one stays: the stillest moment of a neutral clip, the strongest one of any other.
    lines.sort(key=lambda line: float(line["intensity"]) * (-1 if line["label"] == table.neutral else 1))
    best = {(line["subject"], line["label"]): line["path"] for line in lines}
    shown = [(name, label, best[name, label]) for label in classes for name in names]
    strips: list[list[Any]] = [[] for _ in classes]
    for _, label, path in shown:
        with Image.open(faces / path) as picture:
            picture.thumbnail(_PICTURE)
            strips[classes.index(label)].append(np.asarray(picture.convert("RGB")))
    drawn = plot_pairs(strips, classes, [*([""] * len(names) for _ in classes[1:]), names])
    caption = (
        f"The first {len(names)} of {len(table.subjects)} drawn people, at rest and in their strongest frame of each "
        "expression: resting faces smile or frown a little, so no one border between the classes fits everybody."
    )
    data = columns_of(("subject", "label", "path"), shown)
    figure = DrawnFigure("people", "The drawn people", caption, drawn, data)
    return Result("plot", "The drawn people", [NO_CLAIM], {}, [figure])

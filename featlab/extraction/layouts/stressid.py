"""StressID: videos of people at tasks that stress them or don't."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tables import Row, header, read_table
from featlab.extraction.layouts.tree import child, clips, folders, mismatch, numbered
from featlab.extraction.video.times import Sampling

EXPECTED = "labels.csv with the column subject/task, and Videos/SUBJECT/SUBJECT_TASK.mp4 (2ea4_Math.mp4)"
BASELINE = "Baseline"
_KEY = "subject/task"
_CLASSES = {"binary-stress": ("neutral", "stress"), "affect3-class": ("relaxed", "neutral", "stress")}


@dataclass(frozen=True)
class StressIDOptions(Options):
    """Options of the layout stressid."""

    labels: str = option(
        "binary-stress",
        "Column of labels.csv: binary-stress (0 neutral, 1 stress) or affect3-class (0 relaxed, 1 neutral, 2 stress).",
        choices=tuple(_CLASSES),
    )
    baseline: str = option(
        "neutral",
        "What the Baseline recording is, which has no label of its own: neutral, unknown or drop.",
        choices=("neutral", "unknown", "drop"),
    )
    tasks: tuple[str, ...] = option((), "Which tasks are kept, by name; empty keeps all of them.")


def _recognises(root: Path) -> bool:
    labels = child(root, "labels.csv") if root.is_dir() else None
    return labels is not None and _KEY in header(labels)


@register_layout(
    "stressid",
    title="StressID",
    subject="a person",
    options=StressIDOptions,
    recognises=_recognises,
    sampling=Sampling(fps=1.0),
)
def read_stressid(root: Path, options: StressIDOptions) -> list[Item]:
    """StressID: a video a task, labelled by what the person said about it afterwards.

    ::

        ROOT/
          labels.csv                    subject/task,binary-stress,affect3-class (2ea4_Math,1,2)
          Videos/                       or the subjects straight below ROOT
            2ea4/
              2ea4_Baseline.mp4         or a folder of that name with the frames in it
              2ea4_Math.mp4

    A subject is a person, and each recording is one clip. labels.csv also lists tasks of people without video: what
    counts is what is on disk, and a recording without a label is kept as unknown. The Baseline recording, rest before
    the tasks, has no label; it is taken as ``neutral``, and it comes first in name order, so that people are adapted
    on it. All other labels are a person's own report on a whole task: a face may look calm in a stressful one.
    """
    table = child(root, "labels.csv")
    folder = child(root, "Videos", "Video") or root
    found = [(person, clip) for person in folders(folder) for clip in clips(person) if "_" in clip.name]
    if table is None or not found:
        raise mismatch(root, EXPECTED, folder if table is not None else None)
    labels = {
        row.values[_KEY].lower(): _label(row, options.labels) for row in read_table(table, (_KEY, options.labels))
    }
    items: list[Item] = []
    tasks: set[str] = set()
    for _, clip in found:
        subject, _, task = clip.name.partition("_")
        tasks.add(task)
        if options.tasks and task not in options.tasks:
            continue
        label = labels.get(clip.name.lower())
        if task.lower() == BASELINE.lower() and label is None:
            if options.baseline == "drop":
                continue
            label = "neutral" if options.baseline == "neutral" else None
        items += clip.items(root, subject, label, clip.name)
    unknown = sorted(set(options.tasks) - tasks)
    if unknown:
        raise InputError(f"{root}: no recording of the task {unknown[0]} (there are: {', '.join(sorted(tasks))})")
    if not any(clip.name.lower() in labels for _, clip in found):
        raise InputError(
            f"{root}: none of the {len(found)} recordings is in {table.name}: the first is {found[0][1].name}, "
            f"and the table begins with {next(iter(labels))}"
        )
    return numbered(items)


def _label(row: Row, column: str) -> str | None:
    text = row.values[column]
    if not text or text.lower() == "nan":
        return None
    names = _CLASSES[column]
    codes = {str(code): name for code, name in enumerate(names)} | {
        f"{code}.0": name for code, name in enumerate(names)
    }
    if text not in codes:
        raise InputError(f"{row.where}: {column} is {text!r}, expected 0 to {len(names) - 1} or nothing")
    return codes[text]

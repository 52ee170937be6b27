"""Videos made in a laboratory: BioVid (heat pain at four levels and none) and StressID (tasks)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.video import Sampling

BASELINE = "BL1"
LEVELS = (BASELINE, "PA1", "PA2", "PA3", "PA4")
_BIOVID_TREE = "video/SUBJECT/SUBJECT-LEVEL-NUMBER.mp4 (071309_w_21-BL1-081.mp4), or a folder of frames of that name"
_SAMPLE = re.compile(r"(?P<subject>.+)-(?P<level>BL1|PA[1-4])-(?P<number>\d+)")
_COLUMNS = ("subject_name", "class_name", "sample_name")


@dataclass(frozen=True)
class BioVidOptions(Options):
    """Options of the layout biovid."""

    levels: tuple[str, ...] = option(
        (BASELINE, "PA4"),
        "Which of BL1, PA1, PA2, PA3, PA4 are kept. BL1, without pain, is the neutral class.",
        choices=LEVELS,
    )
    merge: bool = option(
        True, "Whether every pain level is one class, `pain`; false leaves a class for each level (PA1 to PA4)."
    )

    def check_together(self) -> None:
        """Refuse levels without the neutral one."""
        if BASELINE not in self.levels:
            raise ConfigError(f"{self.key('levels')} = {','.join(self.levels)} must have {BASELINE}, the neutral level")


def _is_biovid(root: Path) -> bool:
    if not root.is_dir():
        return False
    base = tree.child(root, "PartA") or root
    samples = tree.child(base, "samples.csv")
    if samples is not None and set(_COLUMNS) <= set(tree.header(samples)):
        return True
    people = tree.folders(tree.child(base, "video", "videos") or base)
    if not people:
        return False
    inside = [*tree.folders(people[0]), *people[0].glob("*.mp4")]
    return any(_SAMPLE.fullmatch(path.stem) for path in inside)


@register_layout(
    "biovid",
    title="BioVid Heat Pain Database, part A",
    subject="a person",
    recognises=_is_biovid,
    sampling=Sampling(window=(2.0, 5.0)),
)
def read_biovid(root: Path, options: BioVidOptions) -> list[Item]:
    """BioVid, part A: a video of 5.5 s a stimulus, its level in the file's name.

    ::

        ROOT/                                        or ROOT/PartA/
          samples.csv                                optional: subject_name, class_name, sample_name
          video/                                     or videos/, or the subjects straight below ROOT
            071309_w_21/
              071309_w_21-BL1-081.mp4                or a folder of that name with the frames in it
              071309_w_21-PA4-006.mp4

    A subject is a person, as the sample's name says, and each sample is one clip. BL1 is the class ``neutral``. With a
    samples.csv the list is what it says, without it what is on disk. The face answers some seconds after the heat: the
    window 2.0 to 5.0 s is taken, unless ``--window`` says otherwise.
    """
    base = tree.child(root, "PartA") or root
    folder = tree.child(base, "video", "videos") or base
    found: dict[str, tree.Clip] = {}
    for person in tree.folders(folder):
        for clip in tree.clips(person):
            if _SAMPLE.fullmatch(clip.name) is None:
                continue
            if (other := found.setdefault(clip.name, clip)) is not clip:
                raise InputError(f"{root}: the sample {clip.name} is there twice: {other.path} and {clip.path}")
    samples = tree.child(base, "samples.csv")
    if samples is not None:
        wanted = [_listed(row, folder, found) for row in tree.read_table(samples, _COLUMNS)]
    elif found:
        wanted = list(found.values())
    else:
        raise tree.mismatch(root, _BIOVID_TREE, (tree.folders(folder) or [folder])[0])
    items: list[Item] = []
    levels: Counter[str] = Counter()
    for clip in wanted:
        subject, level, _ = clip.name.rsplit("-", 2)
        levels[level] += 1
        if level in options.levels:
            label = "neutral" if level == BASELINE else "pain" if options.merge else level
            items += clip.items(root, subject, label, clip.name)
    for level in options.levels:
        if not levels[level]:
            there = ", ".join(f"{name} {count}" for name, count in sorted(levels.items()))
            raise InputError(f"{root}: no sample of level {level} (there are: {there}); choose others with levels=…")
    tree.check_present(items, root, "samples.csv")
    return tree.numbered(items)


def _listed(row: tree.Row, folder: Path, found: dict[str, tree.Clip]) -> tree.Clip:
    """Return the clip of a row of samples.csv, also when it isn't on disk."""
    values, where = row
    name, subject, level = (values[column] for column in ("sample_name", "subject_name", "class_name"))
    match = _SAMPLE.fullmatch(name)
    if match is None or match["subject"] != subject:
        raise InputError(
            f"{where()}: the sample_name {name!r} isn't {subject}-LEVEL-NUMBER, LEVEL one of BL1, PA1 to PA4"
        )
    if level not in (match["level"], match["level"][:2]):
        raise InputError(f"{where()}: the class_name {level!r} isn't the level of {name}")
    return found.get(name, tree.Clip(folder / subject / f"{name}.mp4", None))


_STRESSID_TREE = "labels.csv with the column subject/task, and Videos/SUBJECT/SUBJECT_TASK.mp4 (2ea4_Math.mp4)"
_REST = "Baseline"
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


def _is_stressid(root: Path) -> bool:
    labels = tree.child(root, "labels.csv") if root.is_dir() else None
    return labels is not None and _KEY in tree.header(labels)


@register_layout("stressid", title="StressID", subject="a person", recognises=_is_stressid, sampling=Sampling(fps=1.0))
def read_stressid(root: Path, options: StressIDOptions) -> list[Item]:
    """StressID: a video a task, labelled by what the person said about it afterwards.

    ::

        ROOT/
          labels.csv                    subject/task,binary-stress,affect3-class (2ea4_Math,1,2)
          Videos/                       or the subjects straight below ROOT
            2ea4/
              2ea4_Baseline.mp4         or a folder of that name with the frames in it
              2ea4_Math.mp4

    A subject is a person, and each recording that is on disk is one clip; one without a label is kept as unknown. The
    Baseline recording, rest before the tasks, has no label; it is taken as ``neutral``, and it comes first in name
    order, so that people are adapted on it.
    """
    table = tree.child(root, "labels.csv")
    folder = tree.child(root, "Videos", "Video") or root
    found = [(person, clip) for person in tree.folders(folder) for clip in tree.clips(person) if "_" in clip.name]
    if table is None or not found:
        raise tree.mismatch(root, _STRESSID_TREE, folder if table is not None else None)
    labels = {
        row[0][_KEY].lower(): _stress(row, options.labels) for row in tree.read_table(table, (_KEY, options.labels))
    }
    items: list[Item] = []
    tasks: set[str] = set()
    for _, clip in found:
        subject, _, task = clip.name.partition("_")
        tasks.add(task)
        if options.tasks and task not in options.tasks:
            continue
        label = labels.get(clip.name.lower())
        if task.lower() == _REST.lower() and label is None:
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
    return tree.numbered(items)


def _stress(row: tree.Row, column: str) -> str | None:
    values, where = row
    text = values[column]
    if not text or text.lower() == "nan":
        return None
    names = _CLASSES[column]
    codes = {f"{code}{end}": name for code, name in enumerate(names) for end in ("", ".0")}
    if text not in codes:
        raise InputError(f"{where()}: {column} is {text!r}, expected 0 to {len(names) - 1} or nothing")
    return codes[text]

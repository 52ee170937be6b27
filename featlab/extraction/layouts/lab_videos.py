"""Videos made in a laboratory: BioVid (heat pain at four levels and none) and StressID (tasks)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts import register_layout, tree
from featlab.extraction.text import first_names, read_columns
from featlab.extraction.video import Sampling

BASELINE = "BL1"
LEVELS = (BASELINE, "PA1", "PA2", "PA3", "PA4")
_BIOVID_TREE = "video/SUBJECT/SUBJECT-LEVEL-NUMBER.mp4 (071309_w_21-BL1-081.mp4), or a folder of frames of that name"
_SAMPLE = re.compile(r"(?P<subject>.+)-(?P<level>BL1|PA[1-4])-(?P<number>\d+)")
_LISTED = ("sample_name",)


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
    base = tree.find(root, "PartA") or root
    return bool(tree.clips(tree.folders(tree.find(base, "video", "videos") or base)[:1], _SAMPLE))


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
          samples.csv                                optional: which samples are read, by sample_name
          video/                                     or videos/, or the subjects straight below ROOT
            071309_w_21/
              071309_w_21-BL1-081.mp4                or a folder of that name with the frames in it
              071309_w_21-PA4-006.mp4

    Each sample is one clip, and BL1 the class ``neutral``. Without a samples.csv all samples on disk are read. The face
    answers some seconds after the heat: the window 2.0 to 5.0 s is taken, unless ``--window`` says otherwise.
    """
    base = tree.find(root, "PartA") or root
    folder = tree.find(base, "video", "videos") or base
    people = tree.folders(folder)
    found: Mapping[str, Sequence[Path]] = tree.clips(people, _SAMPLE)
    samples = tree.find(base, "samples.csv")
    if samples is not None:
        columns, where = read_columns(samples, _LISTED, _LISTED)
        for row, name in enumerate(columns["sample_name"]):
            if not _SAMPLE.fullmatch(name):
                raise InputError(f"{where(row)}: the sample_name {name!r} isn't SUBJECT-LEVEL-NUMBER (x-BL1-081)")
        # What is listed and isn't on disk fails later.
        people_of = {name: name.rsplit("-", 2)[0] for name in columns["sample_name"]}
        found = {name: found.get(name, [folder / who / f"{name}.mp4"]) for name, who in people_of.items()}
    elif not found:
        raise tree.mismatch(root, _BIOVID_TREE, (people or [folder])[0])
    items: list[Item] = []
    levels: Counter[str] = Counter()
    for name, paths in found.items():
        subject, level, _ = name.rsplit("-", 2)
        levels[level] += 1
        if level in options.levels:
            label = "neutral" if level == BASELINE else "pain" if options.merge else level
            items += tree.in_clip(paths, root, subject, label, name)
    for level in options.levels:
        if not levels[level]:
            there = ", ".join(f"{name} {count}" for name, count in sorted(levels.items()))
            raise InputError(f"{root}: no sample of level {level} (there are: {there}); choose others with levels=…")
    tree.check_present(items, root, "samples.csv")
    return items


_STRESSID_TREE = "labels.csv with the column subject/task, and Videos/SUBJECT/SUBJECT_TASK.mp4 (2ea4_Math.mp4)"
_TASK = re.compile(r"(?P<subject>[^_]*)_(?P<task>.*)")
_KEY = "subject/task"
_CLASSES = {"binary-stress": ("neutral", "stress"), "affect3-class": ("relaxed", "neutral", "stress")}


@dataclass(frozen=True)
class StressIDOptions(Options):
    """Options of the layout stressid."""

    removed = {"baseline": "Baseline is the class neutral; leave it out with tasks=…"}  # noqa: RUF012

    labels: str = option(
        "binary-stress",
        "Column of labels.csv: binary-stress (0 neutral, 1 stress) or affect3-class (0 relaxed, 1 neutral, 2 stress).",
        choices=tuple(_CLASSES),
    )
    tasks: tuple[str, ...] = option((), "Which tasks are kept, by name; empty keeps all of them.")


def _is_stressid(root: Path) -> bool:
    labels = tree.find(root, "labels.csv")
    return labels is not None and _KEY in first_names(labels)


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

    Each recording on disk is one clip; one without a label is kept as unknown. The Baseline recording, rest before the
    tasks, has no label; it is taken as ``neutral``, and comes first in name order, so that people are adapted on it.
    """
    table = tree.find(root, "labels.csv")
    folder = tree.find(root, "Videos", "Video") or root
    found = tree.clips(tree.folders(folder), _TASK)
    if table is None or not found:
        raise tree.mismatch(root, _STRESSID_TREE, folder if table is not None else None)
    columns = _KEY, options.labels
    labels = _stress(*read_columns(table, columns, columns), options.labels)
    if not any(name.lower() in labels for name in found):
        raise InputError(
            f"{root}: none of the {len(found)} recordings is in {table.name}: the first is {next(iter(found))}, and "
            f"the table begins with {next(iter(labels))}"
        )
    items: list[Item] = []
    tasks: set[str] = set()
    for name, paths in found.items():
        subject, _, task = name.partition("_")
        tasks.add(task)
        if not options.tasks or task in options.tasks:
            label = labels.get(name.lower()) or ("neutral" if task.lower() == "baseline" else None)
            items += tree.in_clip(paths, root, subject, label, name)
    if unknown := sorted(set(options.tasks) - tasks):
        raise InputError(f"{root}: no recording of the task {unknown[0]} (there are: {', '.join(sorted(tasks))})")
    return items


def _stress(columns: Mapping[str, Sequence[str]], where: Callable[[int], str], column: str) -> dict[str, str | None]:
    """Return the class of each recording, by its name in lower case; None where the table has none."""
    names = _CLASSES[column]
    codes = {f"{code}{end}": name for code, name in enumerate(names) for end in ("", ".0")}
    labels: dict[str, str | None] = {}
    for row, (recording, text) in enumerate(zip(columns[_KEY], columns[column], strict=True)):
        if text and text not in codes:
            raise InputError(f"{where(row)}: {column} is {text!r}, expected 0 to {len(names) - 1} or nothing")
        labels[recording.lower()] = codes.get(text)
    return labels

"""The BioVid Heat Pain Database, part A: short videos of heat pain at four levels and of none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from featlab.config.options import Options, option
from featlab.errors import ConfigError, InputError
from featlab.extraction.items import Item
from featlab.extraction.layouts.base import register_layout
from featlab.extraction.layouts.tables import Row, header, read_table
from featlab.extraction.layouts.tree import Clip, check_present, child, clips, folders, mismatch, numbered
from featlab.extraction.video.times import Sampling

BASELINE = "BL1"
LEVELS = (BASELINE, "PA1", "PA2", "PA3", "PA4")
EXPECTED = "video/SUBJECT/SUBJECT-LEVEL-NUMBER.mp4 (071309_w_21-BL1-081.mp4), or a folder of frames of that name"
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


def _recognises(root: Path) -> bool:
    if not root.is_dir():
        return False
    base = child(root, "PartA") or root
    samples = child(base, "samples.csv")
    if samples is not None and set(_COLUMNS) <= set(header(samples)):
        return True
    people = folders(child(base, "video", "videos") or base)
    if not people:
        return False
    inside = [*folders(people[0]), *people[0].glob("*.mp4")]
    return any(_SAMPLE.fullmatch(path.stem) for path in inside)


@register_layout(
    "biovid",
    title="BioVid Heat Pain Database, part A",
    subject="a person",
    options=BioVidOptions,
    recognises=_recognises,
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

    A subject is a person, as the sample's name says (the folder's name doesn't count). Each sample is one clip. BL1 is
    the class ``neutral``. With a samples.csv the list is what it says, and a sample that isn't on disk fails at
    extraction and is listed; without it, the list is what is on disk. Its columns may be apart by tabs, semicolons or
    commas. The face answers some seconds after the heat: the window 2.0 to 5.0 s is taken, unless ``--window`` says
    otherwise.
    """
    base = child(root, "PartA") or root
    folder = child(base, "video", "videos") or base
    found: dict[str, Clip] = {}
    for person in folders(folder):
        for clip in clips(person):
            if _SAMPLE.fullmatch(clip.name) is None:
                continue
            if (other := found.setdefault(clip.name, clip)) is not clip:
                raise InputError(f"{root}: the sample {clip.name} is there twice: {other.path} and {clip.path}")
    samples = child(base, "samples.csv")
    if samples is not None:
        wanted = [_listed(row, folder, found) for row in read_table(samples, _COLUMNS)]
    elif found:
        wanted = list(found.values())
    else:
        raise mismatch(root, EXPECTED, _example(folder))
    items: list[Item] = []
    levels: Counter[str] = Counter()
    for clip in wanted:
        match = _SAMPLE.fullmatch(clip.name)
        if match is None:
            raise AssertionError(clip.name)
        levels[match["level"]] += 1
        if match["level"] in options.levels:
            items += clip.items(root, match["subject"], _label(match["level"], options), clip.name)
    for level in options.levels:
        if not levels[level]:
            there = ", ".join(f"{name} {count}" for name, count in sorted(levels.items()))
            raise InputError(f"{root}: no sample of level {level} (there are: {there}); choose others with levels=…")
    check_present(items, root, "samples.csv")
    return numbered(items)


def _listed(row: Row, folder: Path, found: dict[str, Clip]) -> Clip:
    """Return the clip of a row of samples.csv, also when it isn't on disk."""
    name, subject = row.values["sample_name"], row.values["subject_name"]
    match = _SAMPLE.fullmatch(name)
    if match is None or match["subject"] != subject:
        raise InputError(
            f"{row.where}: the sample_name {name!r} isn't {subject}-LEVEL-NUMBER, LEVEL one of BL1, PA1 to PA4"
        )
    if row.values["class_name"] not in (match["level"], match["level"][:2]):
        raise InputError(f"{row.where}: the class_name {row.values['class_name']!r} isn't the level of {name}")
    return found.get(name, Clip(folder / subject / f"{name}.mp4", None))


def _label(level: str, options: BioVidOptions) -> str:
    if level == BASELINE:
        return "neutral"
    return "pain" if options.merge else level


def _example(folder: Path) -> Path:
    """Return the deepest folder that shows what is wrong."""
    inside = folders(folder)
    return inside[0] if inside else folder

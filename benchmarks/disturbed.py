"""The commands that are disturbed, small: nine people drawn from a seed, a few rows each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import forked
import numpy as np
from forked import contents, copied, run
from PIL import Image

from featlab import ExtractorInfo, FeatureTable, write_table

SMALL = ("--set", "head.epochs=2", "--set", "features.dim=6", "--set", "head.bottleneck=8", "--device", "cpu")
METHODS = ("--methods", "source-only,neutral-shift,pft")
PERSON = ("--subject", "p01")
RUNS = ("--targets", "3", *METHODS, "--jobs", "1", "--no-plots", *SMALL)
EXTRACTOR = ExtractorInfo("toy", "none", "random numbers")


@dataclass(frozen=True)
class Job:
    """A command, the folder that it starts from, and what came of it when nothing went wrong."""

    name: str
    words: tuple[str, ...]
    before: Path
    use: tuple[str, ...] = ()  # A command that uses what is there, and has to give the same after a kill.
    expected: Mapping[str, object] = field(default_factory=dict)
    used: Mapping[str, object] = field(default_factory=dict)
    operations: int = 0
    seconds: float = 0.0


def people(count: int, first: int = 0, clips: int = 2, frames: int = 4, dim: int = 16) -> FeatureTable:
    """Return rows of random people: a person, an expression, and noise."""
    rng = np.random.default_rng(first)
    per_clip = count * 2 * clips
    label = np.tile(np.repeat([0, 1], clips * frames), count)
    who = np.repeat(np.arange(count), 2 * clips * frames)
    rows = 2 * rng.normal(size=(2, dim))[label] + 3 * rng.normal(size=(count, dim))[who]
    rows += 0.3 * rng.normal(size=rows.shape)
    points = rng.uniform(0, 100, size=(count, 7, 2))[who] + rng.normal(size=(len(who), 7, 2))
    return FeatureTable(
        embeddings=rows.astype(np.float32),
        label=label.astype(np.int16),
        subject=who.astype(np.int32),
        video=np.tile(np.repeat(np.arange(2 * clips), frames), count).astype(np.int32),
        frame=np.tile(np.arange(frames), per_clip).astype(np.int32),
        subjects=tuple(f"p{first + number:02}" for number in range(count)),
        videos=tuple(f"clip-{number}" for number in range(2 * clips)),
        classes=("neutral", "smile"),
        neutral="neutral",
        landmarks=points.astype(np.float32),
    )


def jobs(folder: Path) -> Iterator[Job]:
    """Yield the commands, each with what it needs drawn and made."""
    rng = np.random.default_rng(0)
    for row in range(9 * 8):
        place = folder / "faces" / f"p{row // 8:02}" / ("neutral" if row % 2 else "smile")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(place / f"{row:03}.png")
    table = people(9)
    columns = ["subject", "label", "video", "frame", *(f"f{number}" for number in range(16))]
    lines = [
        ",".join(
            [table.subjects[who], table.classes[label], table.videos[video], str(frame), *map(str, values.tolist())]
        )
        for who, label, video, frame, values in zip(
            table.subject, table.label, table.video, table.frame, table.embeddings, strict=True
        )
    ]
    (folder / "features.csv").write_text("\n".join([",".join(columns), *lines]) + "\n", encoding="utf-8")
    for name, first in (("one.h5", 0), ("two.h5", 20)):
        write_table(folder / name, people(4, first), EXTRACTOR)
    for name in ("empty", "space"):
        (folder / name).mkdir()
    write_table(folder / "space" / "cache.h5", table, EXTRACTOR)
    empty, space, faces = folder / "empty", folder / "space", str(folder / "faces")
    out = ("--out", "cache.h5")
    yield Job("extract", ("extract", faces, *out, "--jobs", "1", "--batch", "4"), empty)
    yield Job("import", ("import", str(folder / "features.csv"), *out), empty)
    yield Job("merge", ("merge", str(folder / "one.h5"), str(folder / "two.h5"), "--out", "merged.h5"), empty)
    yield Job("train", ("train", "--targets", "3", *SMALL), space)
    yield Job("pretrain", ("pretrain", "--targets", "3", *SMALL), space)
    yield Job("adapt", ("adapt", *PERSON, *SMALL), space)
    adapted = copied(space, folder / "adapted")
    made = run(("pretrain", *PERSON, "--methods", "pft,shot", *SMALL), adapted)
    bundle = ("--bundle", str(next(adapted.glob("bundles/*")).relative_to(adapted)))
    adapted_to = run(("adapt", *PERSON, *bundle, *SMALL), adapted)
    assert not made.code
    assert not adapted_to.code
    predict = ("predict", *PERSON, *bundle, "--out", "predictions.csv", *SMALL)
    yield Job("adapt again, another method", ("adapt", *PERSON, *bundle, "--method", "shot", *SMALL), adapted, predict)
    yield Job("evaluate", ("evaluate", *RUNS), space)
    yield Job("benchmark", ("benchmark", *RUNS), space)
    tune = ("--targets", "3", "--jobs", "1", "--folds", "2", "--space", "lr=0.001,0.01", *SMALL)
    yield Job("tune", ("tune", "shot", *tune), space)
    network = ("--arch", "small", "--size", "16", "--epochs", "2", "--out", "own.pt2")
    yield Job("backbone train", ("backbone", "train", faces, "--targets", "2", "--jobs", "1", *network), empty)


def prepared(job: Job, place: Path) -> Job:
    """Return the job with what it gives when nothing goes wrong."""
    operations = forked.operations(job.words, copied(job.before, place))
    start = time.monotonic()
    well(run(job.words, copied(job.before, place)))
    done = replace(job, expected=contents(place), operations=operations, seconds=time.monotonic() - start)
    return replace(done, used=used(done, place)) if job.use else done


def well(ended: forked.Ended) -> None:
    if ended.code:
        raise SystemExit(ended.err)


def used(job: Job, place: Path) -> Mapping[str, object]:
    other = copied(place, place.with_name(f"{place.name}-used"))
    well(run(job.use, other))
    return {name: value for name, value in contents(other).items() if name.endswith(".csv")}

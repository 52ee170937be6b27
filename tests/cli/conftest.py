"""A tiny cache in an empty folder, and a way to type commands there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.cli.app import app

EXTRACTOR = ExtractorInfo("toy", "none", "random numbers")
CLASSES = ("neutral", "smile")
SUBJECTS = tuple(f"s{number:03}" for number in range(38, 46))
CLIPS, FRAMES, DIM, POINTS = 2, 6, 12, 5

Run = Callable[..., Result]


def make_table(subjects: tuple[str, ...] = SUBJECTS) -> FeatureTable:
    """Rows whose embedding is a person plus an expression; two neutral and two smile clips of each."""
    rng = np.random.default_rng(7)
    smile = rng.normal(size=DIM)
    mouth = rng.normal(size=(POINTS, 2))
    rows: dict[str, list[Any]] = {name: [] for name in ("f", "label", "subject", "video", "frame", "points")}
    videos = sorted({f"{name}-{clip}" for name in CLASSES for clip in "ab"[:CLIPS]})
    for code in range(len(subjects)):
        person, face = rng.normal(size=DIM), rng.normal(size=(POINTS, 2))
        for video, name in enumerate(videos):
            label = CLASSES.index(name.partition("-")[0])
            for frame in range(FRAMES):
                rows["f"].append(person + label * smile + 0.3 * rng.normal(size=DIM))
                rows["points"].append(face + 0.2 * label * mouth + 0.02 * rng.normal(size=(POINTS, 2)))
                rows["label"].append(label)
                rows["subject"].append(code)
                rows["video"].append(video)
                rows["frame"].append(frame)
    return FeatureTable(
        embeddings=np.array(rows["f"], dtype=np.float32),
        label=np.array(rows["label"], dtype=np.int16),
        subject=np.array(rows["subject"], dtype=np.int32),
        video=np.array(rows["video"], dtype=np.int32),
        frame=np.array(rows["frame"], dtype=np.int32),
        subjects=subjects,
        videos=tuple(videos),
        classes=CLASSES,
        neutral="neutral",
        landmarks=np.array(rows["points"], dtype=np.float32),
    )


def quick(*more: str) -> list[str]:
    """Settings that make every stage take a moment."""
    values = ("head.epochs=2", "features.dim=6", "head.bottleneck=8", *more)
    return [part for value in values for part in ("--set", value)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nothing in it but a cache."""
    write_table(tmp_path / "cache.h5", make_table(), EXTRACTOR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Types a command; the result has exit_code, stdout and stderr."""

    def type_in(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return type_in


@pytest.fixture
def run_json(run: Run) -> Callable[..., dict[str, Any]]:
    """Types a command with --json, and reads the one object that stdout must hold."""

    def type_in(*words: str) -> dict[str, Any]:
        result = run(*words, "--json")
        assert result.exit_code == 0, result.stderr
        data = json.loads(result.stdout)
        assert isinstance(data, dict)
        return data

    return type_in


def _refused(result: Result) -> str:
    """Return the one line of a refusal, after a look at all that makes it one."""
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("featlab: error: ")
    return lines[0]


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Types a command that must be refused, and returns the line that says why."""

    def type_in(*words: str) -> str:
        return _refused(run(*words))

    return type_in


@pytest.fixture
def quickly() -> list[str]:
    """Flags that make every stage take a moment."""
    return quick()


@pytest.fixture
def table() -> FeatureTable:
    """The rows of the cache in `folder`."""
    return make_table()


@pytest.fixture
def extractor() -> ExtractorInfo:
    """Who made them."""
    return EXTRACTOR

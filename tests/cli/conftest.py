"""A tiny cache in an empty folder, a trained workspace to copy, and a way to type commands there."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from featlab import ExtractorInfo, FeatureTable, write_table
from featlab.cli.app import make_app

EXTRACTOR = ExtractorInfo("toy", "none", "random numbers")
CLASSES = ("neutral", "smile")
SUBJECTS = tuple(f"s{number:03}" for number in range(38, 46))
QUICK = "head.epochs = 2\nfeatures.dim = 6\nhead.bottleneck = 8\npretrain.epochs = 3\n"
EVALUATION = "evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots --jobs 1 --device cpu"

Run = Callable[..., Result]


def make_table(people: Callable[..., FeatureTable]) -> FeatureTable:
    """Two neutral and two smile clips of eight people; a row is a person plus an expression."""
    table = people(8, 2, 6, 12, 2, seed=7, expression=1.0, identity=1.0, resting=0.0)
    videos = tuple(f"{name}-{clip}" for name in CLASSES for clip in "ab")
    return replace(table, subjects=SUBJECTS, videos=videos, classes=CLASSES, neutral="neutral")


@pytest.fixture
def folder(tmp_path: Path, table: FeatureTable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nothing in it but a cache and the settings that make every stage take a moment."""
    write_table(tmp_path / "cache.h5", table, EXTRACTOR)
    (tmp_path / "featlab.toml").write_text(QUICK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_once(people: Callable[..., FeatureTable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which s041 is adapted to, and three methods are evaluated on three targets."""
    root = tmp_path_factory.mktemp("trained")
    write_table(root / "cache.h5", make_table(people), EXTRACTOR)
    (root / "featlab.toml").write_text(QUICK)
    with chdir(root):
        for line in ("adapt --subject s041", EVALUATION):
            result = CliRunner().invoke(make_app(), shlex.split(line))
            assert result.exit_code == 0, result.stderr
    return root


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the trained workspace."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(trained: Path) -> str:
    """The bundle in the current folder, which is the trained workspace, in which s041 is adapted to."""
    return next(str(path.parents[1]) for path in Path("bundles").glob("*/subjects/s041"))


@pytest.fixture
def evaluated(trained: Path) -> Path:
    """The results of the evaluation in the current folder, which is the trained workspace."""
    return next(Path("results").glob("evaluate-*"))


@pytest.fixture
def run() -> Run:
    """Types a command, whose first words may be one text; the result has exit_code, stdout and stderr."""
    return lambda line="", *words: CliRunner().invoke(make_app(), [*shlex.split(line), *words])


@pytest.fixture
def run_well(run: Run) -> Run:
    """Types a command that must end in 0, or in ``code``."""

    def type_in(*words: str, code: int = 0) -> Result:
        result = run(*words)
        assert result.exit_code == code, result.output + result.stderr
        return result

    return type_in


class Told(dict[str, Any]):
    """The one object that stdout holds with --json, and beside it what stderr says."""

    stderr = ""


@pytest.fixture
def run_json(run_well: Run) -> Callable[..., Told]:
    """Types a command as `run_well`, with --json."""

    def type_in(*words: str, code: int = 0) -> Told:
        result = run_well(*words, "--json", code=code)
        told = Told(json.loads(result.stdout))
        told.stderr = result.stderr
        return told

    return type_in


@pytest.fixture
def lines_of() -> Callable[[Any], list[dict[str, str]]]:
    """Reads a csv file: one dict a line."""
    return lambda path: list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Types a command that must be refused, and returns the one line that says why."""

    def type_in(*words: str) -> str:
        result = run(*words)
        lines = result.stderr.splitlines()
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("featlab: error: ")
        return lines[0]

    return type_in


@pytest.fixture
def refusals(refused: Callable[..., str]) -> Callable[..., None]:
    """``refusals({"words": "part of the line"}, "first words")``: each command is refused, and makes no folder."""

    def check(table: Mapping[str, str], first: str = "") -> None:
        before = {path for path in Path.cwd().iterdir() if path.is_dir()}
        for words, expected in table.items():
            line = refused(f"{first} {words}")
            assert expected in line, (words, line)
        assert {path for path in Path.cwd().iterdir() if path.is_dir()} == before

    return check


@pytest.fixture
def table(people: Callable[..., FeatureTable]) -> FeatureTable:
    """The rows of the cache in `folder`."""
    return make_table(people)


@pytest.fixture
def extractor() -> ExtractorInfo:
    """Who made them."""
    return EXTRACTOR

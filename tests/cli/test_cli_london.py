"""`featlab london` as typed, with a mesh that needs no model."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import featlab.extraction.faces.detectors
from featlab.cli.group import FeatlabGroup
from featlab.cli.london import london


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs of two people in the current folder, and a detector that finds the same face in all of them."""
    rng = np.random.default_rng(0)
    for number in (1, 3):
        for kind, where in (("03", "neutral_front"), ("08", "smiling_front")):
            path = tmp_path / "download" / where / f"{number:03d}_{kind}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(path)
    mesh = rng.uniform(10, 50, (478, 2))
    mesh[[33, 133, 362, 263]] = [(15, 25), (25, 25), (35, 25), (45, 25)]
    detect = functools.partial(getattr, SimpleNamespace(mesh=mesh), "mesh")
    made = {"mediapipe": SimpleNamespace(info="a made-up mesh", detect=detect)}
    monkeypatch.setattr(featlab.extraction.faces.detectors, "make_detector", lambda spec, points: made[spec])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    app = typer.Typer(cls=FeatlabGroup, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command()(london)
    return CliRunner().invoke(app, ["london", "download", "--size", "32", "--jobs", "1", *words])


def test_the_clips_are_made_and_the_next_command_is_named(folder: Path) -> None:
    result = run("--people", "all", "--out", "clips")
    assert result.exit_code == 0, result.stderr
    assert "featlab extract clips/manifest.csv" in result.stdout.replace("\\", "/")
    assert "CC BY 4.0" in result.stdout
    assert len(list((folder / "clips" / "frames").iterdir())) == 96


def test_json_is_one_object_and_a_second_run_finds_everything_done(folder: Path) -> None:
    for resumed in (0, 2):
        result = run("--people", "1,3", "--json", "--quiet")
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        data = json.loads(result.stdout)
        assert data.pop("seconds") >= 0
        assert data == {
            "manifest": "london-morph/manifest.csv",
            "subjects": ["s001", "s003"],
            "rows": 96,
            "resumed_subjects": resumed,
            "failures": 0,
            "failures_file": None,
        }


def test_people_who_are_not_there_are_listed_and_the_exit_code_says_so(folder: Path) -> None:
    result = run("--out", "clips")
    assert result.exit_code == 3
    assert "s002: no photograph 002_03.jpg and 002_08.jpg" in result.stderr
    assert "60 people have no clips; they are listed in" in result.stderr
    assert len((folder / "clips" / "manifest.failures.jsonl").read_text().splitlines()) == 60


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--people", "nobody"), "expected morph, all, or photograph numbers"),
        (("--people", "7"), "nobody of people 007; found 001, 003"),
        (("--people", "all", "--out", "download"), "holds something else"),
        (("--size", "8"), "'--size'"),
    ],
)
def test_bad_input_is_one_line(folder: Path, words: tuple[str, ...], reason: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("featlab: error: ")
    assert reason in result.stderr
    assert result.stdout == ""

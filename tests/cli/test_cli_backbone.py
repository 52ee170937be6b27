"""`featlab backbone train` as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from featlab.cli.app import FeatlabGroup
from featlab.cli.backbone import backbone_app
from featlab.extraction.training.export import read_card
from featlab.protocol.splits import choose_targets

Run = Callable[..., Result]
QUICK = ("--size", "12", "--epochs", "1", "--batch", "8", "--no-refit", "--jobs", "1", "--layers", "maxpool")
PEOPLE = tuple(f"s{person}" for person in range(6))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """subject/label/image for six people, below the current folder."""
    random = np.random.default_rng(0)
    for person in PEOPLE:
        for label, text in enumerate(("neutral", "smile")):
            folder = tmp_path / "faces" / person / text
            folder.mkdir(parents=True)
            for frame in range(3):
                image = random.integers(0, 136, (12, 12, 3)) + 120 * label
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{frame}.png")
    monkeypatch.chdir(tmp_path)
    return Path("faces")


@pytest.fixture
def run() -> Run:
    """Types a command."""
    app = typer.Typer(cls=FeatlabGroup)
    app.add_typer(backbone_app, name="backbone")

    @app.callback()
    def root() -> None:
        """Be a group of commands."""

    def type_in(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return type_in


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the file: an export takes longer than the training here."""
    monkeypatch.setattr("featlab.extraction.training.train.export_backbone", lambda module, path, meta: 0.0)


def _refused(result: Result) -> str:
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert lines[-1].startswith("featlab: error: ")
    assert sum(line.startswith("featlab: error: ") for line in lines) == 1
    return lines[-1]


def test_it_writes_a_backbone_and_says_how_to_go_on(source: Path, run: Run) -> None:
    result = run("backbone", "train", str(source), "--targets", "2", "--draws", "2", "--out", "net.pt2", *QUICK)
    assert result.exit_code == 0, result.output
    held = sorted({name for draw in range(2) for name in choose_targets(PEOPLE, "2", seed=0, draw=draw)})
    assert read_card(Path("net.pt2"))["held_out_subjects"] == held
    assert "featlab extract faces --backbone pt2:net.pt2 --out cache.h5" in result.stdout
    assert f"{6 - len(held)} source subjects, {len(held)} held out" in result.stderr
    assert not Path("net.training").exists()


def test_json_has_the_card_and_quiet_says_nothing(source: Path, run: Run) -> None:
    words = ("backbone", "train", str(source), "--subject", "s1", "--subject", "s4", "--json", "--quiet", *QUICK)
    result = run(*words, "--set", "augment.flip=0", "--set", "lr=0.002")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    data: dict[str, Any] = json.loads(result.stdout)
    assert data["path"] == "backbone.pt2"
    assert data["card"]["held_out_subjects"] == ["s1", "s4"]
    assert (data["card"]["request"]["lr"], data["card"]["request"]["augment.flip"]) == (0.002, 0.0)
    assert data["card"]["request"]["layers"] == ["maxpool"]
    again = json.loads(run(*words, "--set", "augment.flip=0", "--set", "lr=0.002").stdout)
    assert again["resumed_epochs"] == 1
    assert "lr was 0.002 and is" in _refused(run(*words, "--set", "augment.flip=0"))


@pytest.mark.usefixtures("unwritten")
def test_unreadable_source_images_are_listed_and_the_exit_code_says_so(source: Path, run: Run) -> None:
    (source / "s1" / "smile" / "0.png").write_bytes(b"")
    (source / "s2" / "smile" / "0.png").write_bytes(b"")
    result = run("backbone", "train", str(source), "--subject", "s2", *QUICK)
    assert result.exit_code == 3, result.output
    assert "s1/smile/0.png: the file is empty" in result.stderr
    assert "s2/smile/0.png" not in result.stderr


@pytest.mark.usefixtures("unwritten")
def test_nobody_held_out_is_allowed_with_a_warning(source: Path, run: Run) -> None:
    result = run("backbone", "train", str(source), "--quiet", *QUICK)
    assert result.exit_code == 0, result.output
    assert "warning: nobody is held out" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--targets", "6"), "at least one must stay a source"),
        (("--targets", "5"), "2 or more source subjects"),
        (("--subject", "s9"), "unknown subject 's9'"),
        (("--arch", "smal"), "did you mean 'small'"),
        (("--set", "flip"), "expected key=value"),
        (("--set", "augment.flop=1"), "did you mean 'flip'"),
        (("--if-exists", "skip"), "if-exists must be one of"),
        (("--device", "tpu"), "is not one of auto, cpu, cuda"),
        (("--weights", "absent.pt"), "absent.pt"),
        (("--fps", "5"), "has no videos"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(words: tuple[str, ...], said: str, source: Path, run: Run) -> None:
    assert said in _refused(run("backbone", "train", str(source), *QUICK, *words))
    assert not Path("backbone.pt2").exists()


def test_no_source_is_refused(run: Run, tmp_path: Path) -> None:
    assert "absent" in _refused(run("backbone", "train", str(tmp_path / "absent"), *QUICK))

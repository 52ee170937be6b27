"""`featlab demo` as typed."""

import json
from dataclasses import replace

import pytest

from featlab.analysis.demo import DemoConfig

QUICK = {"head.epochs": 2, "protocol.methods": "source-only,pft,pft-poster"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sized(monkeypatch):
    """Make the demo that is asked for tiny; returns what was asked for."""
    real, asked = DemoConfig.sized, []

    def tiny(**options):
        asked.append(options)
        config = real(**options)
        faces = replace(config.faces, frames=4, size=48)
        return replace(config, faces=faces, targets=2, settings={**config.settings, **QUICK})

    monkeypatch.setattr(DemoConfig, "sized", tiny)
    return asked


def test_the_demo_makes_a_workspace_in_which_the_next_command_works(here, run, monkeypatch, sized):
    first = run("demo", "--quick", "--people", "9", "--jobs", "1", "--json")
    assert first.exit_code == 0, first.stderr
    data = json.loads(first.stdout)
    assert data["folder"] == "featlab-demo"
    assert sized == [{"people": 9, "expressions": 2, "seed": 0, "quick": True}]
    assert len({row["subject"] for row in data["results"]}) == 2
    assert [line.split()[0] for line in first.stderr.splitlines()[1:5]] == [f"{n}/4" for n in range(1, 5)]
    assert (here / "featlab-demo" / "index.html").is_file()

    again = run("demo", "--quick", "--people", "9", "--jobs", "1")
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count("there already") == 3
    assert "no claim about real people" in again.stdout
    assert "Macro F1 of each target subject" in again.stdout
    assert "featlab adapt --subject s009" in again.stdout

    monkeypatch.chdir(here / "featlab-demo")
    adapted = run("adapt", "--subject", "s009")
    assert adapted.exit_code == 0, adapted.stderr


def test_a_folder_that_is_in_use_is_refused(here, refused):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("keep")
    assert "holds no demo" in refused("demo", "--out", "mine", "--quiet")


def test_too_few_people_are_refused(here, refused):
    assert "draw 8" in refused("demo", "--quick", "--people", "5")
    assert not list(here.iterdir())

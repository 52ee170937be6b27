"""report, and the demo, which ends in one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from featlab.analysis import demo

QUICK = {"head.epochs": 2, "protocol.methods": "source-only,pft,pft-poster"}


def test_an_evaluation_becomes_a_page(evaluated, run_well):
    result = run_well("report", "--title", "Ours & <theirs>")
    assert result.stdout.splitlines()[-1].startswith("report.html: 1 section, ")
    assert str(evaluated) in result.stdout
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in text
    assert "featlab evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots" in text
    assert "--jobs" not in text
    run_well("report", "--title", "Ours & <theirs>", "--out", "deep/again.html")
    assert Path("deep/again.html").read_text(encoding="utf-8") == text


def test_json_names_the_file_and_its_sections_and_older_runs_are_left_out(evaluated, run_well, run_json):
    older = shutil.copytree(evaluated, evaluated.parent / "evaluate-000000000000")
    os.utime(older / "page.json", (1, 1))
    assert "left out: evaluate-000000000000" in run_well("report").stderr
    data = run_json("report")
    assert [(item["kind"], item["folder"]) for item in data["sections"]] == [("evaluate", str(evaluated))]
    assert data["skipped"] == []
    assert data["bytes"] == Path(data["file"]).stat().st_size
    assert len(run_json("report", str(older), str(evaluated))["sections"]) == 2


def test_a_damaged_page_is_skipped_with_a_warning(evaluated, run):
    broken = Path("results/plot-tsne")
    broken.mkdir()
    (broken / "page.json").write_text("{", encoding="utf-8")
    result = run("report", "--quiet")
    assert result.exit_code == 3
    assert "warning: plot-tsne is left out: results/plot-tsne/page.json: damaged" in result.stderr
    assert Path("report.html").is_file()
    assert json.loads(run("report", "--json").stdout)["skipped"][0]["folder"] == "results/plot-tsne"


@pytest.fixture
def sized(monkeypatch):
    """Make the demo that is asked for tiny, and only once; returns what was asked for."""
    real, run, asked, made = demo.DemoConfig.sized, demo.run_demo, [], []

    def tiny(**options):
        asked.append(options)
        config = real(**options)
        faces = replace(config.faces, frames=4, size=48)
        return replace(config, faces=faces, targets=2, settings={**config.settings, **QUICK})

    def once(*words, **options):
        made.extend([] if made else [run(*words, **options)])
        return made[0]

    monkeypatch.setattr(demo.DemoConfig, "sized", tiny)
    monkeypatch.setattr(demo, "run_demo", once)
    return asked


def test_the_demo_makes_a_workspace_in_which_the_next_command_works(tmp_path, run_well, run_json, monkeypatch, sized):
    monkeypatch.chdir(tmp_path)
    words = ("demo", "--quick", "--people", "9", "--jobs", "1")
    first = run_well(*words)
    assert sized == [{"people": 9, "expressions": 2, "seed": 0, "quick": True}]
    assert [line.split()[0] for line in first.stderr.splitlines()[1:5]] == [f"{n}/4" for n in range(1, 5)]
    for said in ("no claim about real people", "Macro F1 of each target subject", "featlab adapt --subject s009"):
        assert said in first.stdout
    data = run_json(*words)
    assert data["folder"] == "featlab-demo"
    assert len({row["subject"] for row in data["results"]}) == 2
    monkeypatch.chdir("featlab-demo")
    assert Path("index.html").is_file()
    run_well("adapt", "--subject", "s009")

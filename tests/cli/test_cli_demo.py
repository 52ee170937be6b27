"""`featlab demo` as typed."""

from dataclasses import replace
from pathlib import Path

import pytest

from featlab.analysis import demo

QUICK = {"head.epochs": 2, "protocol.methods": "source-only,pft,pft-poster"}


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

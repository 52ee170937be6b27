"""The demo on eight tiny people: what it leaves, what it reuses, what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featlab.analysis.demo import STEPS, DemoConfig, next_steps, run_demo
from featlab.config.load import load_config
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.drawn_faces import FacesConfig

FACES = FacesConfig(people=8, clips=2, frames=3, size=48, seed=3)
METHODS = ("source-only", "pft")
SETTINGS = {"head.epochs": 2, "features.dim": 16, "protocol.methods": METHODS}
CONFIG = DemoConfig(FACES, targets=3, settings=SETTINGS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    lines = []
    return *run_demo(tmp_path_factory.mktemp("demo") / "it", CONFIG, notify=lines.append), lines


def test_every_method_is_run_on_every_target_in_the_steps_that_are_named(made):
    result, done, lines = made
    rows = result.data["results"]
    subjects = {row["subject"] for row in rows}
    assert (len(subjects), len(rows), {row["error"] for row in rows}) == (3, 3 * len(METHODS), {""})
    assert [line.split()[:2] for line in lines] == [[f"{place}/4", name] for place, name in enumerate(STEPS, start=1)]
    assert not any(step["reused"] for step in done["steps"])


def test_a_second_run_reuses_what_is_there_and_makes_again_what_is_not(made):
    result, done, _ = made
    folder, page, content = done["folder"], done["page"], done["page"].read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (folder / "faces").rglob("*.jpg")}
    (folder / "cache.h5").unlink()
    page.unlink()
    again, redone = run_demo(folder, CONFIG)
    assert [step["name"] for step in redone["steps"] if not step["reused"]] == ["extract", "page"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.metadata["cache_digest"] == result.metadata["cache_digest"]
    assert again.data["results"] == result.data["results"]
    assert page.read_bytes() == content


def test_the_workspace_has_the_demos_settings_and_what_can_not_be_made_is_refused_and_left_alone(made, tmp_path):
    result, done, _ = made
    config = load_config(done["folder"] / "featlab.toml")
    assert (config.protocol.targets, config.protocol.seed, config.head.epochs) == ("3", 3, 2)
    assert config.to_dict() == result.metadata["config"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    before = torch.get_num_threads()
    few = replace(CONFIG, targets=12, faces=FacesConfig(2, clips=1, frames=1, size=32))
    for folder, options, kind, said in (
        (done["folder"], replace(CONFIG, targets=4), InputError, "made with other settings"),
        (tmp_path / "mine", CONFIG, InputError, "holds no demo"),
        (tmp_path / "it", replace(CONFIG, settings={"head.epoch": 2}), ConfigError, "epochs"),
        (tmp_path / "few", few, FeatlabError, "sub"),
    ):
        with pytest.raises(kind, match=said):
            run_demo(folder, options)
    assert torch.get_num_threads() == before
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert not list((tmp_path / "it").rglob("*.jpg"))


def test_the_quick_demo_is_shorter_and_the_full_one_has_the_subject_of_the_documents():
    full, quick = DemoConfig.sized(people=20, seed=3), DemoConfig.sized(people=20, seed=3, quick=True)
    assert replace(quick.faces, clips=full.faces.clips, frames=full.faces.frames) == full.faces
    assert (quick.faces.clips, quick.faces.frames, quick.targets) == (2, 6, 6)
    assert quick.values()["protocol.targets"] == "6"
    for quick, fewest in ((False, 12), (True, 8)):
        with pytest.raises(InputError, match=f"draw {fewest}"):
            DemoConfig.sized(people=fewest - 1, quick=quick)
    assert DemoConfig.sized().faces.people >= 41
    assert "featlab adapt --subject s041" in next_steps(Path("it"), [f"s{n:03}" for n in range(1, 49)])
    assert "featlab adapt --subject s012" in next_steps(Path("it"), [f"s{n:03}" for n in range(1, 13)])

"""The demo on a dozen tiny people: what it leaves, what it reuses, what it refuses."""

import csv
import html
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from featlab.analysis.demo import NO_CLAIM, STEPS, DemoConfig, next_steps, run_demo
from featlab.analysis.page import read_page
from featlab.config.load import load_config
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.drawn_faces import FacesConfig

FACES = FacesConfig(people=12, clips=2, frames=4, size=48, seed=3)
CONFIG = DemoConfig(FACES, targets=3, settings={"head.epochs": 2, "features.dim": 16})


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    lines = []
    report = run_demo(tmp_path_factory.mktemp("demo") / "it", CONFIG, notify=lines.append)
    return report, lines


def test_every_method_is_run_on_every_target_and_the_tables_show_the_scores(made):
    report, lines = made
    methods = report.result.metadata["config"]["protocol"]["methods"]
    subjects = {row.subject for row in report.rows}
    assert len(subjects) == 3
    assert {(row.method, row.subject) for row in report.rows} == {(m, s) for m in methods for s in subjects}
    assert not [row.error for row in report.rows if row.error]
    table = report.result.tables["subjects"]
    score = {(row.method, row.subject): row.macro_f1 for row in report.rows}
    for line in table.rows:
        shown = dict(zip(table.columns[2:-1], line[2:-1], strict=True))
        assert shown == {subject: f"{100 * score[line[1], subject]:.2f}" for subject in shown}
        assert line[-1] == f"{100 * np.mean([score[line[1], subject] for subject in shown]):.2f}"
    assert [step.line() for step in report.steps] == lines
    assert [line.split()[:2] for line in lines] == [[f"{place}/4", name] for place, name in enumerate(STEPS, start=1)]
    assert not any(step.reused for step in report.steps)


def test_the_page_is_a_report_of_the_evaluation_the_people_and_a_clip(made):
    report, _ = made
    page = html.unescape(report.page.read_text(encoding="utf-8")).replace("\u00a0", " ")
    pages = [read_page(report.folder / "results" / name) for name in ("demo", "people", "clip")]
    assert {item.command for item in pages} == {"featlab demo"}
    assert all(item.title in page and all(line in page for line in item.summary) for item in pages)
    assert NO_CLAIM in page
    assert all(figure.caption in page for item in pages for figure in item.figures)
    assert page.startswith("<!doctype html>")
    assert "Content-Security-Policy" in page
    results = report.folder / "results"
    drawn = {
        (line["method"], line["subject"]): float(line["score"]) for line in lines_of(results / "demo/subjects.csv")
    }
    assert drawn == {(r.method, r.subject): r.macro_f1 for r in report.rows if r.method != "source-only"}
    lines = lines_of(results / "clip" / "clip.csv")
    assert [int(line["frame"]) for line in lines] == [0, 1, 2, 3]
    assert all(line["shown"] == "1" and 0 <= float(line["after"]) <= 1 for line in lines)


def test_the_strip_shows_each_person_at_rest_and_at_the_peak(made):
    report, _ = made
    shown, lines = (lines_of(report.folder / name) for name in ("results/people/people.csv", "faces/manifest.csv"))
    wanted = [(f"s{n:03}", label) for label in CONFIG.faces.classes for n in range(1, 11)]
    assert [(line["subject"], line["label"]) for line in shown] == wanted
    for item in shown:
        same = [line for line in lines if all(line[key] == item[key] for key in ("subject", "label"))]
        mine = {line["path"]: float(line["intensity"]) for line in same}
        assert mine[item["path"]] == (min if item["label"] == "neutral" else max)(mine.values())


def test_a_second_run_reuses_what_is_there_and_makes_again_what_is_not(made):
    report, _ = made
    before = {path: path.stat().st_mtime_ns for path in (report.folder / "faces").rglob("*.jpg")}
    page = report.page.read_bytes()
    again = run_demo(report.folder, CONFIG)
    assert [step.name for step in again.steps if not step.reused] == ["page"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in report.rows]
    assert report.page.read_bytes() == page
    (report.folder / "cache.h5").unlink()
    report.page.unlink()
    again = run_demo(report.folder, CONFIG)
    assert [step.name for step in again.steps if not step.reused] == ["extract", "page"]
    assert again.result.metadata["cache_digest"] == report.result.metadata["cache_digest"]
    assert report.page.read_bytes() == page


def test_the_workspace_has_the_demos_settings_and_is_of_no_other_demo(made):
    report, _ = made
    config = load_config(report.folder / "featlab.toml")
    assert (config.protocol.targets, config.protocol.seed, config.head.epochs) == ("3", 3, 2)
    assert config.to_dict() == report.result.metadata["config"]
    with pytest.raises(InputError, match="made with other settings"):
        run_demo(report.folder, replace(CONFIG, targets=4))


def test_what_can_not_be_made_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="holds no demo"):
        run_demo(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="epochs"):
        run_demo(tmp_path / "it", replace(CONFIG, settings={"head.epoch": 2}))
    assert not list(tmp_path.rglob("*.jpg"))
    before = torch.get_num_threads()
    with pytest.raises(FeatlabError):
        run_demo(tmp_path / "it", replace(CONFIG, targets=12, faces=FacesConfig(2, clips=1, frames=1, size=32)))
    assert torch.get_num_threads() == before


def test_the_quick_demo_is_shorter_and_the_full_one_has_the_subject_of_the_documents():
    full, quick = DemoConfig.sized(people=20, seed=3), DemoConfig.sized(people=20, seed=3, quick=True)
    assert replace(quick.faces, clips=full.faces.clips, frames=full.faces.frames) == full.faces
    assert (quick.faces.clips, quick.faces.frames, quick.targets) == (2, 6, 6)
    assert quick.values()["protocol.targets"] == "6"
    with pytest.raises(InputError, match="draw 12"):
        DemoConfig.sized(people=11)
    assert DemoConfig.sized().faces.people >= 41
    assert "featlab adapt --subject s041" in next_steps(Path("it"), [f"s{n:03}" for n in range(1, 49)])
    assert "featlab adapt --subject s012" in next_steps(Path("it"), [f"s{n:03}" for n in range(1, 13)])

"""The demo on a dozen tiny people: what it leaves, what it reuses, what it refuses."""

import csv
import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featlab.analysis.demo.demo import DemoConfig, run_demo
from featlab.analysis.demo.page import render_page
from featlab.analysis.demo.plot_people import plot_people
from featlab.analysis.demo.report import NO_CLAIM, next_steps
from featlab.analysis.table import Table
from featlab.config.load import load_config
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.drawn_faces import FacesConfig

CONFIG_FOLDER = Path("featlab-demo")
CONFIG = DemoConfig(
    FacesConfig(people=12, clips=2, frames=4, size=48, seed=3),
    targets=3,
    settings={"head.epochs": 2, "pretrain.epochs": 2, "pretrain.hidden": 8, "features.dim": 16},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    lines = []
    report = run_demo(tmp_path_factory.mktemp("demo") / "it", CONFIG, notify=lines.append)
    return report, lines


def test_every_method_is_run_on_every_target(made):
    report, _ = made
    methods = report.config.protocol.methods
    subjects = {row.subject for row in report.rows}
    assert len(subjects) == 3
    assert {(row.method, row.subject) for row in report.rows} == {(m, s) for m in methods for s in subjects}
    assert not [row.error for row in report.rows if row.error]


def test_the_table_shows_the_scores_of_the_rows(made):
    report, _ = made
    table = report.per_subject
    score = {(row.method, row.subject): row.macro_f1 for row in report.rows}
    line = next(row for row in table.rows if row[0] == "Source-only")
    shown = dict(zip(table.columns[2:-1], line[2:-1], strict=True))
    assert shown == {subject: f"{100 * score['source-only', subject]:.2f}" for subject in shown}
    assert line[-1] == f"{100 * np.mean([score['source-only', subject] for subject in shown]):.2f}"


def test_each_step_is_said_once_and_in_order(made):
    report, lines = made
    assert [step.line() for step in report.steps] == lines
    assert [line.split()[0] for line in lines] == [f"{number}/8" for number in range(1, 9)]
    assert not any(step.reused for step in report.steps)


def test_the_pictures_are_there_as_png_and_svg(made):
    report, _ = made
    assert [path.stem for path in report.pictures] == ["people", "subjects", "summary", "pairs", "projection", "clip"]
    for path in report.pictures:
        assert Image.open(path).width == 2100
        assert path.with_suffix(".svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_the_numbers_behind_a_picture_are_those_of_the_results(made):
    report, _ = made
    with (report.folder / "figures" / "subjects.csv").open(encoding="utf-8", newline="") as file:
        drawn = {(line["method"], line["subject"]): float(line["score"]) for line in csv.DictReader(file)}
    assert drawn == {(r.method, r.subject): r.macro_f1 for r in report.rows if r.method != "source-only"}


def test_the_clip_is_one_test_clip_of_a_target(made):
    report, _ = made
    with (report.folder / "figures" / "clip.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["frame"]) for line in lines] == [0, 1, 2, 3]
    assert all(line["label"] == "1" and 0 <= float(line["after"]) <= 1 for line in lines)


def test_the_page_stands_alone(made):
    report, _ = made
    page = report.page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{5})', page)
    assert sources == ["data:"] * len(report.figures)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)
    assert "<script" not in page


def test_the_page_says_what_was_found_and_that_it_is_no_claim(made):
    report, _ = made
    page = html.unescape(report.page.read_text(encoding="utf-8"))
    assert NO_CLAIM in page
    assert all(figure.caption in page for figure in report.figures)
    assert f"<td>{report.per_subject.rows[0][2]}</td>" in page or f"<b>{report.per_subject.rows[0][2]}</b>" in page
    assert report.words()[0] in page


def test_names_are_shown_on_the_page_as_they_are(tmp_path):
    table = Table("<t>", ("Subject",), (("<b>s1</b>",),), ((False,),))
    text = {"note": "", "words": ["a < b"], "steps": [], "commands": [], "facts": {}}
    page = render_page(tables=[table], figures=[], folder=tmp_path, **text)
    assert "&lt;b&gt;s1&lt;/b&gt;" in page
    assert "a &lt; b" in page


def test_a_second_run_reuses_what_is_there(made):
    report, _ = made
    before = {path: path.stat().st_mtime_ns for path in (report.folder / "faces").rglob("*.jpg")}
    before |= {path: path.stat().st_mtime_ns for path in report.pictures}
    again = run_demo(report.folder, CONFIG)
    assert [step.name for step in again.steps if not step.reused] == ["adapt"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.rows == report.rows
    assert again.figures == report.figures


def test_what_is_missing_is_made_again_and_is_the_same(made):
    report, _ = made
    clip = report.folder / "figures" / "clip.svg"
    drawn = clip.read_bytes()
    clip.unlink()
    (report.folder / "cache.h5").unlink()
    again = run_demo(report.folder, CONFIG)
    assert [step.name for step in again.steps if not step.reused] == ["extract", "adapt", "pictures"]
    assert again.cache_digest == report.cache_digest
    assert clip.read_bytes() == drawn


def test_the_workspace_has_the_demos_settings(made):
    report, _ = made
    config = load_config(report.folder / "featlab.toml")
    assert (config.protocol.targets, config.protocol.seed, config.head.epochs) == ("3", 3, 2)
    assert config == report.config


def test_a_demo_of_other_settings_is_refused(made):
    report, _ = made
    with pytest.raises(InputError, match="made with other settings"):
        run_demo(report.folder, replace(CONFIG, targets=4))


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="holds no demo"):
        run_demo(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_unknown_settings_are_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ConfigError, match="epochs"):
        run_demo(tmp_path / "it", replace(CONFIG, settings={"head.epoch": 2}))
    assert not list(tmp_path.rglob("*.jpg"))


def test_the_number_of_threads_is_put_back(tmp_path):
    before = torch.get_num_threads()
    with pytest.raises(FeatlabError):
        run_demo(tmp_path / "it", replace(CONFIG, targets=12, faces=FacesConfig(2, clips=1, frames=1, size=32)))
    assert torch.get_num_threads() == before


def test_the_full_demo_has_the_subject_of_the_documents():
    assert "featlab adapt --subject s041" in next_steps(CONFIG_FOLDER, [f"s{n:03}" for n in range(1, 49)])
    assert "featlab adapt --subject s012" in next_steps(CONFIG_FOLDER, [f"s{n:03}" for n in range(1, 13)])
    assert DemoConfig.sized().faces.people >= 41


def test_the_quick_demo_is_shorter_and_its_settings_are_settings():
    full, quick = DemoConfig.sized(people=20, seed=3), DemoConfig.sized(people=20, seed=3, quick=True)
    assert replace(quick.faces, clips=full.faces.clips, frames=full.faces.frames) == full.faces
    assert (quick.faces.clips, quick.faces.frames, quick.targets) == (2, 6, 6)
    assert quick.values() == {"protocol.targets": "6", "protocol.seed": 3, "head.epochs": 15, "pretrain.epochs": 10}


def test_too_few_people_are_refused():
    with pytest.raises(InputError, match="draw 12"):
        DemoConfig.sized(people=11)


def test_the_contact_sheet_shows_each_face_under_its_name():
    faces = [[np.full((8, 8, 3), 10 * row + column, np.uint8) for column in range(5)] for row in range(3)]
    drawn = plot_people(faces, ["neutral", "joy", "anger"], ["a", "b", "c", "d", "e"], across=3)
    shown = [int(axes.images[0].get_array().flat[0]) for axes in drawn.axes]
    assert sorted(shown) == sorted(int(face.flat[0]) for strip in faces for face in strip)
    assert [text.get_text() for text in drawn.texts].count("neutral") == 2
    bounds = [axes.get_position().bounds for axes in drawn.axes]
    assert all(x >= 0 and y >= 0 and x + w <= 1.001 and y + h <= 1.001 for x, y, w, h in bounds)


def test_a_contact_sheet_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="strips"):
        plot_people([[np.zeros((2, 2))]], ["neutral"], ["a", "b"])

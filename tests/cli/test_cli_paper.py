"""`featlab paper`: every published table once, on drawn trees and tables, and what it says of the two protocols."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featlab import write_table
from featlab.analysis.paper import methods_of, published_tables
from featlab.methods import method_names

TABLES = published_tables()
WHO = [f"p{number}" for number in range(5)]
WILD = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
SEVEN = ("anger", "neutral", "disgust", "fear", "happiness", "sadness", "surprise")


@pytest.fixture
def fast(tmp_path, monkeypatch):
    """The current folder, where little is trained."""
    monkeypatch.chdir(tmp_path)
    values = ("head.epochs=2", "features.dim=6", "head.bottleneck=8", "pretrain.epochs=1")
    Path("featlab.toml").write_text("\n".join([*values, "pretrain.validation=false", "adapt.clup-swav.epochs=1"]))


@pytest.fixture
def draw(fast):
    """Write a small picture for each class: ``draw(name, code)``."""
    random = np.random.default_rng(0)

    def write(name, code):
        pixels = random.integers(0, 200, (24, 24)) + 8 * code
        pixels[3 * code :, :12] //= 2
        path = Path("tree") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    return write


def biovid(draw):
    clips = [(who, level, number) for who in WHO for level in ("BL1", "PA4") for number in (1, 2)]
    for who, level, number in clips:
        for frame in range(4):
            draw(f"video/{who}/{who}-{level}-{number:03}/image{frame}.png", int(level == "PA4"))


def stressid(draw):
    lines = ["subject/task,binary-stress,affect3-class"]
    for who in WHO:
        for task in ("Baseline", "Math", "Relax", "Stroop"):
            lines += [f"{who}_{task},{int(task in ('Math', 'Stroop'))},1"] if task != "Baseline" else []
            for frame in range(4):
                draw(f"Videos/{who}/{who}_{task}/image{frame}.png", int(task in ("Math", "Stroop")))
    Path("tree/labels.csv").write_text("\n".join(lines) + "\n")


def bah(draw):
    lines = []
    for who in WHO:
        for video in range(3):
            name = f"Videos/{who}/Visite_1/{who}_Question_{video}_Video.mp4"
            for frame in range(4):
                draw(f"cropped-aligned-faces/{name}/frame-{frame}.jpg", video % 2)
                lines.append(f"{name}/frame-{frame}.jpg,{video % 2}")
    Path("tree/split-frames").mkdir()
    Path("tree/split-frames/train.txt").write_text("\n".join(lines) + "\n")


def affwild2(draw):
    folder = Path("tree/EXPR_Recognition_Challenge/Train_Set")
    folder.mkdir(parents=True)
    for who in WHO:
        codes = [0] * 12 + [code for code in range(1, 7) for _ in range(3)]
        (folder / f"{who}.txt").write_text("\n".join([WILD, *map(str, codes)]) + "\n")
        for place, code in enumerate(codes, start=1):
            draw(f"cropped_aligned/{who}/{place:05}.jpg", code)


@pytest.mark.parametrize("tree", [biovid, stressid, bah, affwild2])
def test_a_table_of_the_poster_runs_on_its_layout_as_an_evaluation_does(tree, draw, run_well, run_json):
    tree(draw)
    name = f"poster-{tree.__name__}"
    table, words = TABLES[name], "--methods source-only,pft --jobs 1"
    hog = "--backbone hog --option size=24 --landmarks none --jobs 1 --out cache.h5"
    run_well(f"extract tree {hog}", *table.make.split()[3:])
    shown = run_well(f"paper {name} {words}")
    assert f"paper {name}: 2 targets, 3 source subjects; published: 10 and {table.sources}" in shown.stderr
    data, same = run_json(f"paper {name} {words}"), run_json(f"evaluate --targets 2 --no-plots {words}")
    assert same["runs"] == {"all": 4, "reused": 4, "failed": 0, "missing": 0}
    for line, item in zip(data["lines"], same["summary"], strict=True):
        assert line["run"] == item["method"]
        assert line["published"] == table.runs[line["run"]][1][0]
        found = [line["ours"][key] for key in ("mean", "low", "video")]
        assert found == pytest.approx([100 * item["macro_f1"], 100 * item["ci95"][0], 100 * item["video_macro_f1"]])
        for said in (line["run"], f"{line['published']:.2f}", f"{line['ours']['mean']:.2f}"):
            assert said in shown.stdout
    printed = " ".join(shown.stdout.split())
    assert all(said in printed for said in (*data["differences"], "ICLR 2026, arXiv:2508.09202", *data["words"]))
    assert f"{table.sources} source people and 10 targets, whose names are not given; here 2" in data["differences"][0]
    assert "head.epochs = 2" in data["differences"][-1]
    points = table.runs["pft"][1][0] - table.runs["source-only"][1][0]
    assert data["words"][0].endswith(f"{points:+.1f} published.")
    assert data["words"][-1].startswith("The protocols differ")
    shares = [run_well(f"paper {name} {words} --seed 1 --share {part}").stdout for part in ("1/2", "2/2")]
    assert ("share 1/2 is done" in shares[0], "Targets" in shares[1]) == (True, True)


@pytest.fixture
def workspace(people, extractor, fast):
    """``workspace(subjects, classes)``: a cache of drawn people in the current folder."""

    def make(subjects, classes):
        table = people(subjects, 2, 12, 12, len(classes), seed=7)
        write_table("cache.h5", replace(table, classes=classes, neutral=classes[1]), extractor)

    return make


def test_costs_and_branches_are_those_of_their_commands(workspace, run_json):
    workspace(6, ("smile", "calm"))
    some = "--methods source-only,shot,pft"
    data, costs = run_json(f"paper complexity {some} --jobs 1"), run_json(f"complexity --targets 3 {some}")
    found = {(line["run"], line["measure"]["key"]): line for line in data["lines"]}
    for cost in costs["costs"]:
        lines = [found[cost["method"], key]["ours"] for key in ("iterations", "trainable", "predict_flops")]
        expected = [cost["iterations"], cost["trainable"], pytest.approx(cost["predict_flops"] / 1e6)]
        assert ([line["mean"] for line in lines], lines[0]["targets"]) == (expected, 3)
    assert found["pft", "iterations"]["published"] == 135
    assert found["source-only", "accuracy"]["published"] is None  # The table hasn't it.
    data, there = run_json("paper branches"), run_json("branches --targets 3")
    branches = {row["representation"]: row for row in there["rows"]}
    for line in data["lines"]:
        own = branches[line["run"]][line["measure"]["key"]]
        assert (line["ours"]["mean"], line["ours"]["low"]) == pytest.approx((own["mean"], own["low"]))
    assert [line["published"] for line in data["lines"]] == [0.75, 0.40, 0.53, 0.85]
    assert "here smile, calm" in data["differences"][0]
    # Nobody is named in these tables, and `forget` knows whom they count.
    gone = {Path(path).name for path, _ in run_json("forget --dry-run --subject", data["targets"][0])["goes"]}
    gone = {re.sub("-[0-9a-f]{12}$", "", name) for name in gone}
    assert gone >= {"paper-complexity", "paper-branches", "complexity", "branches"}
    # A run with other targets has a folder of its own.
    run_json("paper branches --targets 2")
    assert len([*Path("results").glob("paper-branches-*")]) == 2


def test_tables_of_clup_adapt_to_a_data_set(workspace, run_json):
    workspace(4, SEVEN)
    for table in ("clup-classes", "clup-raf-expw"):
        data = run_json(f"paper {table} --methods source-only,shot --targets s02,s03 --jobs 1")
        assert data["config"]["protocol"]["scope"] == "dataset"
        assert "the 2 target subjects of the cache together" in data["differences"][0]
        for line in data["lines"]:
            assert (line["ours"]["targets"], 0 <= line["ours"]["mean"] <= 100) == (2, True)
    assert data["words"][-1].startswith("The protocols differ")


def test_published_figures_are_those_of_the_papers_and_all_can_be_run():
    averages = {"source-only": 65.17, "shot": 47.82, "nrc": 48.44, "tpds": 62.27, "dsfda": 68.48, "sfit": 70.47}
    averages |= {"sfda-it": 71.74, "pft": 78.31, "pft-poster": 78.31, "oracle": 90.40}
    assert {run: figures[0] for run, (_, figures) in TABLES["poster-biovid"].runs.items()} == averages
    for name, run, figures in (
        *(("poster-stressid", "pft", (69.92,)), ("poster-bah", "pft", (57.40,)), ("poster-affwild2", "pft", (54.46,))),
        ("clup-classes", "clup-swav", (37.89, 30.63, 13.57, 80.72, 50.85, 44.51, 74.49)),
    ):
        assert TABLES[name].runs[run][1] == figures
    assert TABLES["complexity"].runs["pft"][1][1:] == (135, 0.95, 500_000, 3600)
    people = {name: (table.targets, table.sources) for name, table in TABLES.items() if name.startswith("poster-")}
    assert [*people.values()] == [(10, 77), (10, 44), (10, 214), (10, 282)]
    for name, table in TABLES.items():
        assert all([table.page, *(table.source[key] for key in ("of", "cite", "read", "licence"))])
        assert {len(figures) for _, figures in table.runs.values()} == {len(table.measures)}
        assert {table.proposed, table.against} <= set(table.runs)
        if table.kind != "branches":
            assert {run.split()[0] for run in table.runs} <= set(method_names()), name
    made = methods_of(TABLES["clup-raf-fer2013"], ["clup-swav"], {"clup-swav": {"keep": "0.5"}})
    kept = [(one.config.keep, one.config.prototypes, one.config.start) for one in made.values()]
    assert kept == [(0.5, 1000, "fresh"), (0.5, 1000, "source"), (0.5, 1000, "source"), (0.5, 1000, "fresh")]


def test_what_makes_no_sense_is_refused_before_anything_is_trained(workspace, run_json, run_well, refusals):
    workspace(3, ("pain", "neutral"))
    table = {
        "poster-biovid": "needs 4 people, two to learn from, and here are 3",
        "poster-stressid": "the cache pain, neutral; make a cache with them, as by `featlab extract STRESSID",
        "clup-afe-expw": "featlab merge",
        **{f"branches {flag}": "leave out --methods" for flag in ("--methods pft", "--share 1/2", "--collect")},
        "poster-biovdi": "did you mean 'poster-biovid'",
        "poster-biovid --targets 1 --methods pff": "did you mean 'pft'",
    }
    refusals(table, "paper")
    workspace(3, SEVEN)
    refusals({"clup-afe-expw": "which subjects"}, "paper")
    failing = "--methods source-only,pft --targets 1 --jobs 1 --set pretrain.style_bank=none"
    result = run_well(f"paper poster-affwild2 {failing}", code=3)
    assert ("notes of the table say why" in result.stderr, "style bank" in result.stdout) == (True, True)
    assert [item["name"] for item in run_json("paper")["tables"]] == list(TABLES)
    assert all(name in run_well("paper").stdout for name in TABLES)

"""`featlab plot …`, `branches`, `complexity` and `ablate` as typed, in a workspace that is trained already."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featlab import write_table
from featlab.analysis.page import read_page

FAST = ["--set", "pretrain.validation=false"]
# What is typed: the folder, its figures, its tables, and what is printed besides the sentences of the page.
PICTURES = {
    "plot pairs --rows 2 --subject s038": ("plot-pairs", ["pairs"], "pairs", "random"),
    "plot clip --subject s041 --faces none": ("plot-clip-s041-smile-a-pft", ["clip"], "clip", "Before"),
    "plot confusion --methods pft,source-only": ("plot-confusion-evaluate-*", ["confusion"], "confusion", "neutral"),
    "plot tsne --subject s040 --subject s041 --by pca": (
        *("plot-pca-2-targets-*", ["pca-s040", "pca-s041"], "scores", "as extracted"),
    ),
    "plot neighbours --subject s041": ("plot-neighbours-s041", ["neighbours-s041"], "spread", "s041"),
    "plot style --targets s040,s041 --methods pft": ("plot-style", ["style-pft"], "style", "features"),
    "branches --targets 4 --name mine": ("mine", ["branches"], "branches", "Features before T"),
    "complexity --methods source-only,pft --targets 2 --repeat 1 --batch 8": (
        *("complexity", ["complexity"], "complexity", "Computational complexity"),
    ),
    "ablate dims --targets 3 --values 4,64,full --methods source-only,pft": (
        *("ablate-dims", ["dims"], "scores differences", "left out: 64"),
    ),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("typed", PICTURES)
def test_a_picture_is_printed_left_as_a_page_and_the_same_in_json(typed, trained, run_well, run_json):
    where, figures, tables, printed = PICTURES[typed]
    result = run_well(typed, *(["--jobs", "1"] if typed.startswith("ablate") else []))
    (made,) = Path("results").glob(where)
    files = {f"{figure}.{ending}" for figure in figures for ending in ("svg", "csv")}
    files |= {f"table_{name}.{ending}" for name in tables.split() for ending in ("json", "jsonl", "csv", "md", "tex")}
    first = contents(made)
    assert set(first) - {"run.json"} == files | {"page.json", "SHA256SUMS"}
    page = read_page(made)
    assert page.command.startswith(f"featlab {typed}")
    assert "--jobs" not in page.command
    assert page.metadata["cache_digest"]
    assert [figure.name for figure in page.figures] == figures
    assert all(said in result.stdout for said in (*page.summary, printed))
    *_, last, step = result.stdout.splitlines()
    assert step == "next: featlab report puts all results on one page"
    assert (last.startswith(f"{made}: "), f"{figures[0]}.svg" in last) == (True, True)
    data = run_json(typed)
    assert {Path(file).parent for file in data["files"]} == {made}
    # Seconds differ from run to run.
    if not typed.startswith("complexity"):
        again = contents(made)
        assert data["words"] == list(page.summary)
        assert {name for name in files if again[name] == first[name]} == files


def test_pairs_are_of_nobody_who_is_held_out_and_the_first_target_is_shown_and_pictures_are_found(
    folder, run_well, table, extractor, lines_of
):
    write_table("cache.h5", replace(table, paths=tuple(f"{row}.png" for row in range(len(table)))), extractor)
    Path("elsewhere").mkdir()
    for row in range(len(table)):
        Image.new("RGB", (8, 8), (200, 100, 50)).save(f"elsewhere/{row}.png")
    clip = "plot clip --targets s040,s041 --method source-only"
    for typed in (clip, "plot pairs --rows 2 --label-rule same --subject s038"):
        assert "--images DIR" in run_well(typed).stderr
        said = run_well(typed, "--images", "elsewhere").stderr
        assert ("images" in said, "no --subject: s040, the first target" in said) == (False, typed is clip)
    rows = lines_of("results/plot-pairs/pairs.csv")
    assert [row["strategy"] for row in rows] == ["random"] * 2 + ["cosine"] * 2 + ["landmark"] * 2
    assert "s038" not in {row[side] for row in rows for side in ("row_subject", "reference_subject")}
    assert all(row["row_label"] == row["reference_label"] for row in rows)


def test_style_measures_every_target_and_leaves_out_who_cannot_be_adapted_to(
    folder, run_json, run_well, table, extractor
):
    joyless = np.where(table.subject == 3, 1, table.label).astype(np.int16)
    write_table("cache.h5", replace(table, label=joyless), extractor)
    flags = ("plot", "style", "--methods", "pft,adabn", *FAST, "--targets")
    data = run_json(*flags, "s040,s041", code=3)
    assert set(data["distances"]) == {"pft", "adabn"}
    for said in ("s041: subject 's041' has no 'neutral' rows", "1 of 2 targets were left out"):
        assert said in data.stderr
    assert "none of the 1 targets can be adapted to" in run_well(*flags, "s041", code=2).stderr


def test_complexity_says_who_failed_and_ends_in_3_or_where_nobody_ran_in_1(folder, run_json, run_well):
    few = "complexity --targets 1 --repeat 1 --batch 16 --set pretrain.style_bank=none --methods"
    data = run_json(few, "source-only,neutral-shift", code=3)
    assert "style bank" in data.stderr
    assert [bool(cost["failures"]) for cost in data["costs"]] == [False, True]
    assert (len(data["subjects"]), data["repeat"], data["batch"], data["device"]) == (1, 1, 16, "cpu")
    run_well(few, "neutral-shift", code=1)


def test_a_grid_is_stated_in_the_workspace_file_a_flag_beats_it_and_caches_are_told_apart(folder, run_json):
    with Path("featlab.toml").open("a") as file:
        file.write('[ablate]\nframes = [2, 0]\nmethods = ["pft"]\n')
    words = "ablate neutral --targets 2 --jobs 1"
    for more, expected in (([], ["2", "all"]), (["--values", "1,all"], ["1", "all"])):
        data = run_json(words, *more)
        assert [(item["setting"], item["method"]) for item in data["summary"]] == [(name, "pft") for name in expected]
    caches = [word for name in ("here", "there") for word in ("--cache", f"{name}/cache.h5")]
    for name in ("here", "there"):
        shutil.copytree(".", name, ignore=lambda *_: {"here", "there", "results", "stages", "bundles"})
    data = run_json(words, "--values", "1", "--methods", "source-only", *caches)
    assert [item["data"] for item in data["summary"]] == ["here", "there"]


def test_pairing_shows_example_pairs_of_every_strategy(folder, run_well, lines_of):
    run_well("ablate pairing --targets 3 --methods pft --jobs 1")
    assert [figure.name for figure in read_page(Path("results/ablate-pairing")).figures] == ["pairing", "examples"]
    assert {line["strategy"] for line in lines_of("results/ablate-pairing/examples.csv")} == {
        "random",
        "cosine",
        "landmark",
    }

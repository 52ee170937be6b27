"""`featlab plot …`, `branches`, `complexity` and `ablate` as typed, in a workspace that is trained already."""

import json
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
    "plot confusion": ("plot-confusion-evaluate-*", ["confusion"], "confusion", "neutral"),
    "plot tsne --subject s040 --subject s041 --by pca": (
        *("plot-pca-2-targets-*", ["pca-s040", "pca-s041"], "scores"),
        "as extracted",
    ),
    "plot neighbours --subject s041": ("plot-neighbours-s041", ["neighbours-s041"], "spread", "s041"),
    "plot style --targets s040,s041 --methods pft": ("plot-style", ["style-pft"], "style", "features"),
    "branches --targets 4 --name mine": ("mine", ["branches"], "branches", "Features before T"),
    "complexity --methods source-only,pft --targets 2 --repeat 1 --batch 8": (
        *("complexity", ["complexity"], "complexity"),
        "Computational complexity",
    ),
    "ablate dims --targets 3 --values 4,64,full --methods source-only,pft": (
        *("ablate-dims", ["dims"], "scores differences"),
        "left out: 64",
    ),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("typed", PICTURES)
def test_a_picture_is_printed_left_as_a_page_and_the_same_in_json(typed, trained, run_well, run_json, quickly):
    where, figures, tables, printed = PICTURES[typed]
    words = [*typed.split(), *([] if where.startswith(("plot-pairs", "plot-conf")) else quickly)]
    result = run_well(*words, *(["--jobs", "1"] if typed.startswith("ablate") else []))
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
    data = run_json(*words)
    assert data["words"] == list(page.summary) or typed.startswith("complexity")
    assert {Path(file).parent for file in data["files"]} == {made}
    again = contents(made)
    same = {name for name in files if again[name] == first[name]}
    assert same == files or typed.startswith("complexity")


def test_pairs_are_of_every_strategy_there_is_and_of_nobody_who_is_held_out(
    folder, run_well, table, extractor, lines_of
):
    flags = ("plot", "pairs", "--rows", "2", "--label-rule", "same", "--subject", "s038")
    assert "no images beside the cache: landmarks are drawn" in run_well(*flags).stderr
    rows = lines_of("results/plot-pairs/pairs.csv")
    assert [row["strategy"] for row in rows] == ["random"] * 2 + ["cosine"] * 2 + ["landmark"] * 2
    assert "s038" not in {row[side] for row in rows for side in ("row_subject", "reference_subject")}
    assert all(row["row_label"] == row["reference_label"] for row in rows)
    write_table(folder / "bare.h5", replace(table, landmarks=None), extractor)
    assert "strategy landmark is left out" in run_well(*flags, "--cache", "bare.h5").stderr


@pytest.fixture
def pictured(folder, table, extractor):
    """The folder ``faces`` beside the cache, with a picture of each row; s040 has no labels."""
    names = tuple(f"frames/{row}.png" for row in range(len(table)))
    label = np.where(table.subject == 2, -1, table.label).astype(np.int16)
    write_table(folder / "cache.h5", replace(table, paths=names, label=label), extractor)
    (folder / "faces" / "frames").mkdir(parents=True)
    for row, name in enumerate(names):
        Image.new("RGB", (8, 8), (row, 100, 50)).save(folder / "faces" / name)
    return folder / "faces"


def test_images_beside_the_cache_named_by_flag_and_by_file_are_found(pictured, run, table, quickly):
    flags = ["plot", "pairs", "--rows", "1", "--strategies", "random"]
    clip = ["plot", "clip", "--targets", "s040,s041", "--method", "source-only", *quickly]
    for typed in (flags, clip):
        assert "images" not in run(*typed).stderr
    pictured.rename("elsewhere")
    for typed in (flags, clip):
        assert "--images DIR" in run(*typed).stderr
        assert "images" not in run(*typed, "--images", "elsewhere").stderr
    result = run(*clip)
    assert "subject: s040," in result.stderr
    assert "featlab: warning: no row of 's040' has a label" in result.stderr
    assert "images" not in run(*clip, "--faces", "landmarks").stderr
    Path("featlab.toml").write_text('[plot]\nimages = "elsewhere"\n', encoding="utf-8")
    for row in range(1, len(table)):
        Path("elsewhere", "frames", f"{row}.png").unlink()
    assert "missing or damaged in elsewhere: 2 images; landmarks are drawn" in run(*flags).stderr


def test_confusion_takes_the_newest_or_named_results_and_methods(evaluated, run_well, run_json):
    assert f"results: results/{evaluated.name}, the newest" in run_well("plot", "confusion").stderr
    data = run_json("plot", "confusion", str(evaluated), "--methods", "pft,source-only")["confusion"]
    assert list(dict.fromkeys(data["method"])) == ["pft", "source-only"]
    Path("moved").mkdir()
    (evaluated / "results.jsonl").rename("moved/results.jsonl")
    bare = run_well("plot", "confusion", "moved/results.jsonl", "--workspace", "moved")
    assert "the classes are numbered" in bare.stderr
    assert "Class 1" in bare.stdout


def test_style_measures_every_target_and_leaves_out_who_cannot_be_adapted_to(folder, run, table, extractor, quickly):
    joyless = np.where(table.subject == 3, 1, table.label).astype(np.int16)
    write_table("joyless.h5", replace(table, label=joyless), extractor)
    flags = ["--cache", "joyless.h5", "--methods", "pft,adabn", *quickly, *FAST]
    result = run("plot", "style", "--targets", "s040,s041", "--json", *flags)
    data = json.loads(result.stdout)
    assert result.exit_code == 3, result.stderr
    assert "s041: subject 's041' has no 'neutral' rows" in result.stderr
    assert "1 of 2 targets were left out" in result.stderr
    assert set(data["distances"]) == {"pft", "adabn"}
    assert set(data["distances"]["pft"]["group"]) == {"adapted rows", "other rows", "source"}
    alone = run("plot", "style", "--targets", "s041", *flags)
    assert alone.exit_code == 2
    assert "none of the 1 targets can be adapted to" in alone.stderr


def test_complexity_says_who_failed_and_ends_in_3_or_where_nobody_ran_in_1(folder, run, quickly):
    few = ("--targets", "1", "--repeat", "1", "--batch", "16", "--set", "pretrain.style_bank=none", *quickly)
    result = run("complexity", "--methods", "source-only,neutral-shift", *few, "--json")
    assert result.exit_code == 3, result.stderr
    assert "style bank" in result.stderr
    data = json.loads(result.stdout)
    assert [bool(cost["failures"]) for cost in data["costs"]] == [False, True]
    assert (len(data["subjects"]), data["repeat"], data["batch"], data["device"]) == (1, 1, 16, "cpu")
    assert run("complexity", "--methods", "neutral-shift", *few).exit_code == 1
    assert "svg" not in Path("results/complexity/page.json").read_text(encoding="utf-8")


def test_a_grid_is_stated_in_the_workspace_file_and_a_flag_beats_it(folder, run_json, quickly):
    Path("featlab.toml").write_text('[ablate]\nframes = [2, 0]\nmethods = ["pft"]\n', encoding="utf-8")
    for more, expected in (([], ["2", "all"]), (["--values", "1,all"], ["1", "all"])):
        data = run_json("ablate", "neutral", "--targets", "2", "--jobs", "1", *more, *quickly)
        assert [(item["setting"], item["method"]) for item in data["summary"]] == [(name, "pft") for name in expected]
        stored = json.loads(Path("results/ablate-neutral/run.json").read_text(encoding="utf-8"))
        assert stored["summary"] == data["summary"]


def test_pairing_shows_example_pairs_of_every_strategy(folder, run_well, quickly, lines_of):
    run_well("ablate", "pairing", "--targets", "3", "--methods", "pft", "--jobs", "1", *quickly)
    assert [figure.name for figure in read_page(Path("results/ablate-pairing")).figures] == ["pairing", "examples"]
    examples = lines_of("results/ablate-pairing/examples.csv")
    assert {line["strategy"] for line in examples} == {"random", "cosine", "landmark"}
    assert all(line["row_subject"] != line["reference_subject"] for line in examples)


def test_caches_of_one_name_are_called_as_their_folders(folder, run_json, quickly):
    flags = ["--targets", "2", "--values", "1", "--methods", "source-only", "--jobs", "1", *quickly]
    for name in ("here", "there"):
        Path(name).mkdir()
        Path(name, "cache.h5").write_bytes(Path("cache.h5").read_bytes())
        flags += ["--cache", f"{name}/cache.h5"]
    data = run_json("ablate", "neutral", *flags)
    assert [item["data"] for item in data["summary"]] == ["here", "there"]

"""`featlab ablate` as typed, in a folder that holds nothing but a cache."""

import csv
import json

from featlab.analysis.ablation.grids import ABLATIONS
from featlab.analysis.page import read_page
from featlab.cli import complete
from featlab.cli.explain import _LISTS


def test_dims_are_tried_each_with_every_method(folder, run_well, quickly):
    flags = ["--targets", "3", "--values", "4,64,full", "--methods", "source-only,pft", "--jobs", "1", *quickly]
    result = run_well("ablate", "dims", *flags)
    assert "left out: 64" in result.stdout
    assert "full (12)" in result.stdout
    made = folder / "results" / "ablate-dims"
    page = read_page(made)
    assert page.command.startswith("featlab ablate dims --targets 3 --values 4,64,full --methods source-only,pft --set")
    assert "--jobs" not in page.command
    assert all(word in result.stdout for word in page.summary)
    assert {path.suffix for path in made.glob("dims.*")} == {".svg", ".pdf", ".png", ".csv"}
    summary = json.loads((made / "run.json").read_text(encoding="utf-8"))["summary"]
    methods = [(item["setting"].split()[0], item["method"]) for item in summary]
    assert methods == [("4", "source-only"), ("4", "pft"), ("full", "source-only"), ("full", "pft")]


def test_a_grid_is_stated_in_the_workspace_file_and_a_flag_beats_it(folder, run_json, quickly):
    (folder / "featlab.toml").write_text('[ablate]\nframes = [2, 0]\nmethods = ["pft"]\n', encoding="utf-8")
    for more, expected in (([], ["2", "all"]), (["--values", "1,all"], ["1", "all"])):
        data = run_json("ablate", "neutral", "--targets", "2", "--jobs", "1", *more, *quickly)
        assert [(item["setting"], item["method"]) for item in data["summary"]] == [(name, "pft") for name in expected]
        stored = json.loads((folder / "results" / "ablate-neutral" / "run.json").read_text(encoding="utf-8"))
        assert stored["summary"] == data["summary"]


def test_pairing_shows_example_pairs_of_every_strategy(folder, run_well, quickly):
    run_well("ablate", "pairing", "--targets", "3", "--methods", "pft", "--jobs", "1", *quickly)
    made = folder / "results" / "ablate-pairing"
    assert [figure.name for figure in read_page(made).figures] == ["pairing", "examples"]
    with (made / "examples.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["strategy"] for line in lines} == {"random", "cosine", "landmark"}
    assert all(line["row_subject"] != line["reference_subject"] for line in lines)


def test_caches_of_one_name_are_called_as_their_folders(folder, run_json, quickly):
    for name in ("here", "there"):
        (folder / name).mkdir()
        (folder / name / "cache.h5").write_bytes((folder / "cache.h5").read_bytes())
    caches = ["--cache", "here/cache.h5", "--cache", "there/cache.h5"]
    flags = ["--targets", "2", "--values", "1", "--methods", "source-only", "--jobs", "1"]
    data = run_json("ablate", "neutral", *caches, *flags, *quickly)
    assert [item["data"] for item in data["summary"]] == ["here", "there"]


def test_refusals(folder, refusals):
    table = {
        "dims --values big": "whole number",
        "dims --values 512 --targets 3 --quiet": "no dimension of 512",
        "dimensions --targets 3 --quiet": "unknown ablation 'dimensions'",
        "pairing --values nearest --targets 3 --quiet": "is not one of",
    }
    refusals(table, "ablate")


def test_names_and_grids_are_those_of_the_ablations():
    assert list(complete.ABLATIONS) == list(ABLATIONS) == list(_LISTS)
    assert complete.complete_ablation("la") == ["lambda", "layers"]

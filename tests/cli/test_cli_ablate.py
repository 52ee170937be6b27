"""`featlab ablate` as typed, in a folder that holds nothing but a cache."""

import csv
import json

from featlab.analysis.ablation.grids import ABLATIONS
from featlab.analysis.page import read_page
from featlab.cli import complete
from featlab.cli.explain import _LISTS


def test_it_works_in_a_folder_with_only_a_cache(folder, run, quickly):
    flags = ["--targets", "3", "--values", "4,64,full", "--jobs", "1", *quickly]
    result = run("ablate", "dims", *flags)
    assert result.exit_code == 0, result.stderr
    assert "left out: 64" in result.stdout
    assert "full (12)" in result.stdout
    made = folder / "results" / "ablate-dims"
    page = read_page(made)
    assert page.command.startswith("featlab ablate dims --targets 3 --values 4,64,full --set head.epochs=2")
    assert "--jobs" not in page.command
    assert all(word in result.stdout for word in page.summary)
    assert {path.suffix for path in made.glob("dims.*")} == {".svg", ".pdf", ".png", ".csv"}


def test_json_has_each_dimension_and_method(folder, run_json, quickly):
    flags = ["--targets", "3", "--values", "4,8", "--methods", "source-only,pft", "--jobs", "1"]
    data = run_json("ablate", "dims", *flags, *quickly)
    entries = [(item["setting"], item["method"]) for item in data["summary"]]
    assert entries == [("4", "source-only"), ("4", "pft"), ("8", "source-only"), ("8", "pft")]
    on_disk = json.loads((folder / "results" / "ablate-dims" / "run.json").read_text(encoding="utf-8"))
    assert on_disk["summary"] == data["summary"]


def test_a_grid_is_stated_in_the_workspace_file(folder, run_json, quickly):
    (folder / "featlab.toml").write_text('[ablate]\nframes = [2, 0]\nmethods = ["pft"]\n', encoding="utf-8")
    data = run_json("ablate", "neutral", "--targets", "2", "--jobs", "1", *quickly)
    assert [(item["setting"], item["method"]) for item in data["summary"]] == [("2", "pft"), ("all", "pft")]
    data = run_json("ablate", "neutral", "--targets", "2", "--values", "1,all", "--jobs", "1", *quickly)
    assert [item["setting"] for item in data["summary"]] == ["1", "all"]


def test_pairing_shows_example_pairs_of_every_strategy(folder, run, quickly):
    result = run("ablate", "pairing", "--targets", "3", "--methods", "pft", "--jobs", "1", *quickly)
    assert result.exit_code == 0, result.stderr
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


def test_bad_grids_are_refused(folder, refused, quickly):
    few = ("--targets", "3", "--quiet", *quickly)
    assert "whole number" in refused("ablate", "dims", "--values", "big")
    assert "no dimension of 512" in refused("ablate", "dims", "--values", "512", *few)
    assert "unknown ablation 'dimensions'" in refused("ablate", "dimensions", *few)
    assert "is not one of random" in refused("ablate", "pairing", "--values", "nearest", *few).replace(
        "landmark, cosine, random", "random"
    )


def test_names_and_grids_are_those_of_the_ablations():
    assert list(complete.ABLATIONS) == list(ABLATIONS) == list(_LISTS)
    assert complete.complete_ablation("la") == ["lambda", "layers"]

"""`featlab ablate dims` as typed, in a folder that holds nothing but a cache."""

import json


def test_it_works_in_a_folder_with_only_a_cache(folder, run, quickly):
    result = run("ablate", "dims", "--targets", "3", "--dims", "4,64,full", "--jobs", "1", *quickly)
    assert result.exit_code == 0, result.stderr
    assert "left out: 64" in result.stdout
    assert "full (12)" in result.stdout
    made = {path.name for path in (folder / "results" / "ablate-dims").iterdir()}
    assert made == {"dims.svg", "dims.png", "dims.csv", "table.md", "table.tex", "run.json"}


def test_json_has_each_dimension_and_method(folder, run_json, quickly):
    flags = ["--targets", "3", "--dims", "4,8", "--methods", "source-only,pft", "--jobs", "1"]
    data = run_json("ablate", "dims", *flags, *quickly)
    entries = [(item["dim"], item["method"]) for item in data["summary"]]
    assert entries == [(4, "source-only"), (4, "pft"), (8, "source-only"), (8, "pft")]
    on_disk = json.loads((folder / "results" / "ablate-dims" / "run.json").read_text(encoding="utf-8"))
    assert on_disk["summary"] == data["summary"]


def test_bad_dimensions_are_refused(folder, refused):
    assert "whole numbers" in refused("ablate", "dims", "--dims", "big")
    assert "no dimension of 512" in refused("ablate", "dims", "--dims", "512", "--targets", "3", "--quiet")

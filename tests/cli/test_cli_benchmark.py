"""benchmark: every method in one table, in shares, collected; a method of another package in it; merged data sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featlab import write_table
from featlab.methods import method_names

METHODS = "source-only,adabn,shot-im,ftdnn,oracle"
FEW = ["--set", "adapt.ftdnn.iterations=10", "--set", "adapt.shot-im.epochs=2", "--set", "adapt.oracle.iterations=5"]


@pytest.fixture
def words(quickly):
    return ["benchmark", "--targets", "2", "--jobs", "1", "--device", "cpu", "--no-plots", *FEW, *quickly]


def results_of(data):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in data["results"]]


def test_without_names_it_is_of_every_method_and_collecting_runs_none(folder, run, run_json, words):
    first = run_json(*words, "--methods", "source-only")
    data = json.loads(run(*words, "--collect", "--json").stdout)
    count = 2 * len(method_names())
    assert data["runs"] == {"all": count, "reused": 2, "failed": 0, "missing": count - 2}
    assert data["results"] == first["results"]


def test_shares_are_collected_into_the_table_of_one_run(folder, run, run_json, run_well, words):
    some = [*words, "--methods", METHODS]
    assert run(*some, "--collect").exit_code == 2
    first = run_json(*some, "--share", "1/2")
    assert first["runs"] == {"all": 10, "reused": 0, "failed": 0, "missing": 5}
    shown = run(*some, "--collect")
    assert "5 not run yet" in shown.stdout
    assert "5 of 10 runs have not been made" in shown.stderr
    assert run_json(*some, "--share", "2/2")["runs"] == {"all": 10, "reused": 5, "failed": 0, "missing": 0}
    collected = run_json(*some, "--collect")
    assert collected["runs"] == {"all": 10, "reused": 10, "failed": 0, "missing": 0}
    for command in (
        ["ablate", "share", "--values", "0,1", "--methods", "pft"],
        ["tune", "shot", "--space", "epochs=1,2", "--folds", "2"],
    ):
        shared = [*command, *(word for word in words[1:] if word != "--no-plots")]
        assert "when all shares have run" in run_json(*shared, "--share", "1/2")["unfinished"]
        assert run(*shared, "--collect").exit_code == 2
        assert "unfinished" not in run_json(*shared, "--share", "2/2")
    Path("other").mkdir()
    whole = run_json(*some, "-C", "other", "--cache", "cache.h5")
    assert results_of(collected) == results_of(whole)
    assert "source access" in run_well(*some).stdout


def test_a_plug_in_of_one_file_is_in_the_benchmark(folder, tmp_path, quickly):
    """The example of CONTRIBUTING.md, word for word, as an installed package."""
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    site = tmp_path / "site"
    info = site / "half_shift-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_package").mkdir()
    (site / "my_package" / "half_shift.py").write_text(guide.split("```python\n")[1].split("```")[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-shift\nVersion: 1.0\n")
    points = guide.split("```toml\n")[1].split("```")[0]
    assert points.startswith('[project.entry-points."featlab.methods"]\n')
    line = points.splitlines()[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[featlab.methods]\n{line}\n")
    flags = ["--methods", "source-only,half-shift", "--targets", "2", "--jobs", "1", "--json", "--no-plots", *quickly]
    found = subprocess.run(
        [sys.executable, "-c", "from featlab.cli.app import main; main()", "benchmark", *flags],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(found.stdout)
    assert [item["method"] for item in data["summary"]] == ["source-only", "half-shift"]
    assert not any(row["error"] for row in data["results"])


@pytest.fixture
def caches(folder, table, extractor):
    """Four people as one data set and four as another, which is shifted a little."""
    names = table.subjects
    shifted = table.rows_of(*names[4:]).take(slice(None))
    shifted.embeddings[:] += 0.5
    write_table(folder / "raf.h5", table.rows_of(*names[:4]), extractor)
    write_table(folder / "fer.h5", shifted, extractor)
    return names


def test_a_merged_cache_is_benchmarked_across_its_data_sets(caches, run, run_well, quickly):
    step = run_well("merge", "raf.h5", "fer.h5", "--out", "both.h5").stdout.splitlines()[-1]
    assert step == "next: featlab benchmark --scope dataset --cache both.h5 --targets both.fer.subjects.txt"
    few = ["--methods", "source-only,adabn,ftdnn,pft,oracle", "--set", "adapt.ftdnn.iterations=5"]
    result = run(*step.split()[2:], *few, "--jobs", "1", "--no-plots", "--json", *quickly)
    assert result.exit_code == 3, result.stderr  # pft takes one person's neutral clip
    rows = json.loads(result.stdout)["results"]
    assert {row["subject"] for row in rows} == set(caches[4:])
    assert {row["method"] for row in rows if row["error"]} == {"pft"}
    assert {row["scope"] for row in rows} == {"dataset"}


def test_what_came_out_of_a_merge_is_told_and_refusals_leave_what_is_there(caches, run_well, refusals):
    table = {
        "raf.h5 nowhere.h5": "nowhere.h5",
        "raf.h5 fer.h5 --rename smile": "OLD=NEW",
        "raf.h5 fer.h5 --rename smile=joy --rename smile=fun": "renamed twice",
        "raf.h5 fer.h5 --rename smil=joy": "did you mean 'smile'",
    }
    refusals(table, "merge", "--out", "both.h5")
    assert not Path("both.h5").exists()
    Path("both.h5").write_bytes(b"mine")
    refusals({"merge raf.h5 fer.h5 --out both.h5": "--force"})
    assert Path("both.h5").read_bytes() == b"mine"
    result = run_well("merge", "raf.h5", "fer.h5", "--out", "both.h5", "--force")
    for words in ("both.raf.subjects.txt", "192", "featlab benchmark --scope dataset --cache both.h5"):
        assert words in result.stdout
    assert Path("both.fer.subjects.txt").read_text().split() == list(caches[4:])

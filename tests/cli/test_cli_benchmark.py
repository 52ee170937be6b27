"""benchmark: every method in one table, in shares, collected; a method of another package in it; merged data sets."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from featlab import write_table
from featlab.methods import method_names

METHODS = "source-only,adabn,shot-im,ftdnn,oracle"
FEW = ["--set", "adapt.ftdnn.iterations=10", "--set", "adapt.shot-im.epochs=2", "--set", "adapt.oracle.iterations=5"]


WORDS = f"benchmark --targets 2 --jobs 1 --device cpu --no-plots {' '.join(FEW)}"


def results_of(data):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in data["results"]]


def test_without_names_it_is_of_every_method_and_collecting_runs_none(folder, run_json):
    first = run_json(f"{WORDS} --methods source-only")
    data = run_json(f"{WORDS} --collect")
    count = 2 * len(method_names())
    assert data["runs"] == {"all": count, "reused": 2, "failed": 0, "missing": count - 2}
    assert data["results"] == first["results"]


def test_shares_are_collected_into_the_table_of_one_run(folder, run_json, run_well):
    some, runs = f"{WORDS} --methods {METHODS}", {"all": 10, "reused": 10, "failed": 0, "missing": 0}
    run_well(some, "--collect", code=2)
    assert run_json(some, "--share", "1/2")["runs"] == runs | {"reused": 0, "missing": 5}
    shown = run_well(some, "--collect")
    assert "5 not run yet" in shown.stdout
    assert "5 of 10 runs have not been made" in shown.stderr
    assert run_json(some, "--share", "2/2")["runs"] == runs | {"reused": 5}
    collected = run_json(some, "--collect")
    assert collected["runs"] == runs
    for command in ("ablate share --values 0,1 --methods pft", "tune shot --space epochs=1,2 --folds 2"):
        shared = f"{command} --targets 2 --jobs 1 --device cpu"
        assert "when all shares have run" in run_json(shared, "--share", "1/2")["unfinished"]
        run_well(shared, "--collect", code=2)
        assert "unfinished" not in run_json(shared, "--share", "2/2")
    Path("other").mkdir()
    shutil.copy("featlab.toml", "other")
    assert results_of(collected) == results_of(run_json(some, "-C", "other", "--cache", "cache.h5"))
    assert "source access" in run_well(some).stdout


def test_a_plug_in_of_one_file_is_in_the_benchmark(folder, tmp_path):
    """The example of CONTRIBUTING.md, word for word, as an installed package."""
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    site = tmp_path / "site"
    info = site / "half_shift-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_package").mkdir()
    (site / "my_package" / "half_shift.py").write_text(guide.split("```python\n")[1].split("```")[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-shift\nVersion: 1.0\n")
    head, line, *_ = guide.split("```toml\n")[1].splitlines()
    assert head == '[project.entry-points."featlab.methods"]'
    (info / "entry_points.txt").write_text("[featlab.methods]\n" + line.replace('"', "") + "\n")
    code = "from featlab.cli.app import main; main()"
    words = ["benchmark", "--methods=source-only,half-shift", "--targets=2", "--jobs=1", "--json", "--no-plots"]
    here = os.environ | {"PYTHONPATH": str(site)}
    found = subprocess.run([sys.executable, "-c", code, *words], env=here, capture_output=True, text=True, check=True)
    data = json.loads(found.stdout)
    assert [item["method"] for item in data["summary"]] == ["source-only", "half-shift"]
    assert not any(row["error"] for row in data["results"])


@pytest.fixture
def caches(folder, table, extractor):
    """Four people as one data set and four as another, which is shifted a little."""
    names = table.subjects
    shifted = table.rows_of(*names[4:]).take(slice(None))
    shifted.embeddings[:] += 0.5
    write_table("raf.h5", table.rows_of(*names[:4]), extractor)
    write_table("fer.h5", shifted, extractor)
    return names


def test_a_merged_cache_is_benchmarked_across_its_data_sets(caches, run_json, run_well, refusals):
    table = {
        "raf.h5 nowhere.h5": "nowhere.h5",
        "raf.h5 fer.h5 --rename smile": "OLD=NEW",
        "raf.h5 fer.h5 --rename smile=joy --rename smile=fun": "renamed twice",
        "raf.h5 fer.h5 --rename smil=joy": "did you mean 'smile'",
        "raf.h5 fer.h5 --out cache.h5": "--force",
    }
    refusals(table, "merge --out both.h5")
    assert not Path("both.h5").exists()
    result = run_well("merge raf.h5 fer.h5 --out cache.h5 --force")
    *_, step = result.stdout.splitlines()
    assert step == "next: featlab benchmark --scope dataset --cache cache.h5 --targets cache.fer.subjects.txt"
    assert all(words in result.stdout for words in ("cache.raf.subjects.txt", "192"))
    few = "--methods source-only,adabn,ftdnn,pft,oracle --set adapt.ftdnn.iterations=5 --jobs 1 --no-plots"
    data = run_json(step.partition(" featlab ")[2], *few.split(), code=3)  # pft takes one person's neutral clip
    assert {row["subject"] for row in data["results"]} == set(caches[4:])
    assert {row["method"] for row in data["results"] if row["error"]} == {"pft"}
    assert {row["scope"] for row in data["results"]} == {"dataset"}

"""benchmark: every method in one table, in shares, collected; a method of another package in it."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from featlab.methods import get_method, method_names

METHODS = "source-only,adabn,shot-im,ftdnn,oracle"


@pytest.fixture
def words(quickly):
    few = (
        "--set",
        "adapt.ftdnn.iterations=10",
        "--set",
        "adapt.shot-im.epochs=2",
        "--set",
        "adapt.oracle.iterations=5",
    )
    return ["benchmark", "--targets", "2", "--jobs", "1", "--device", "cpu", "--no-plots", *few, *quickly]


def results_of(data):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in data["results"]]


def test_without_names_every_method_is_run(folder, run, words):
    few = ["--set", "adapt.oracle.iterations=2"]
    for name in method_names():
        options = get_method(name).config_type.__dataclass_fields__
        few += [
            part for key in ("iterations", "epochs") if key in options for part in ("--set", f"adapt.{name}.{key}=1")
        ]
    result = run(*words, *few, "--json")
    data = json.loads(result.stdout)
    assert [item["method"] for item in data["summary"]] == list(method_names())
    # One neutral clip of six frames is too short for some, and they say so.
    failed = {row["method"]: row["error"] for row in data["results"] if row["error"]}
    assert set(failed) == {name for name in method_names() if get_method(name).minimum_rows(2) > 6}
    assert all("target rows or more, got 6" in error for error in failed.values())
    assert result.exit_code == 3
    selections = {row["method"]: row["selection"] for row in data["results"]}
    for name in method_names():
        assert (selections[name] == "source-access") == get_method(name).needs_source


def test_the_tables_say_who_had_source_access(folder, run, words):
    result = run(*words, "--methods", METHODS)
    assert result.exit_code == 0, result.stderr
    assert "source access" in result.stdout
    (made,) = Path("results").glob("benchmark-*")
    names = {path.name for path in made.iterdir()}
    kinds = ("subjects", "summary", "classes", "costs")
    assert names >= {f"table_{kind}.{ending}" for kind in kinds for ending in ("md", "csv", "tex", "jsonl")}


def test_shares_are_collected_into_the_table_of_one_run(folder, run, run_json, words):
    some = [*words, "--methods", METHODS]
    assert run(*some, "--collect").exit_code == 2
    first = run_json(*some, "--share", "1/2")
    assert first["cells"] == {"all": 10, "reused": 0, "failed": 0, "missing": 5}
    shown = run(*some, "--collect")
    assert "5 not run yet" in shown.stdout
    assert "5 of 10 cells have not been run" in shown.stderr
    run_json(*some, "--share", "2/2")
    collected = run_json(*some, "--collect")
    assert collected["cells"] == {"all": 10, "reused": 10, "failed": 0, "missing": 0}
    Path("other").mkdir()
    whole = run_json(*some, "-C", "other", "--cache", "cache.h5")
    assert results_of(collected) == results_of(whole)


@pytest.mark.parametrize("share", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_a_share_that_is_none_is_refused(folder, refused, words, share):
    assert "for example 2/8" in refused(*words, f"--share={share}")


def test_an_unknown_scope_is_refused(folder, refused, words):
    assert "did you mean 'dataset'" in refused(*words, "--scope", "datasets")


@pytest.mark.parametrize(("flag", "value"), [("--frames", "3"), ("--contamination", "0.1")])
def test_a_data_set_has_no_clip_to_change(folder, refused, words, flag, value):
    assert f"leave out {flag}" in refused(*words, "--scope", "dataset", flag, value)


def test_a_data_set_is_a_scope_of_its_own(folder, run_json, words):
    data = run_json(*words, "--methods", METHODS, "--scope", "dataset")
    assert {row["scope"] for row in data["results"]} == {"dataset"}
    assert len(data["results"]) == 10
    assert all(len(row["class_recall"]) == 2 for row in data["results"])


def test_what_can_not_run_on_a_data_set_says_why_in_its_cell(folder, run, words):
    result = run(*words, "--methods", "source-only,pft", "--scope", "dataset")
    assert result.exit_code == 3
    assert "failed" in result.stdout
    assert result.stdout.count("pft takes one person's neutral clip") == 1


# --- a package of someone else's --------------------------------------------------------------------------------------


def test_a_plug_in_of_one_file_is_in_the_benchmark(folder, tmp_path, quickly):
    """The example of CONTRIBUTING.md, word for word, as an installed package."""
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    site = tmp_path / "site"
    info = site / "half_shift-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_package").mkdir()
    (site / "my_package" / "half_shift.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-shift\nVersion: 1.0\n")
    points = guide.split("```toml\n")[1].split("```")[0]
    assert points.startswith('[project.entry-points."featlab.methods"]\n')
    line = points.splitlines()[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[featlab.methods]\n{line}\n")
    script = """
        import sys
        from featlab.cli.app import app
        sys.argv[0] = "featlab"
        app()
    """
    flags = ["--methods", "source-only,half-shift", "--targets", "2", "--jobs", "1", "--json", "--no-plots", *quickly]
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), "benchmark", *flags],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(found.stdout)
    assert [item["method"] for item in data["summary"]] == ["source-only", "half-shift"]
    assert not any(row["error"] for row in data["results"])

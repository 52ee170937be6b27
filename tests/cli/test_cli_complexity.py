"""`featlab complexity` as typed, in a folder that holds nothing but a cache."""

import csv
import json

import pytest

from featlab.methods import method_names

SOME = "source-only,neutral-shift,shot,pft,oracle"
FLAGS = ["--methods", SOME, "--targets", "2", "--repeat", "1", "--batch", "8"]


def test_table_figure_and_page_are_written(folder, run, quickly):
    result = run("complexity", *FLAGS, *quickly)
    assert result.exit_code == 0, result.stderr
    for words in ("Computational complexity", "shot", "pft adapts to one person in"):
        assert words in result.stdout
    made = {path.name for path in (folder / "results" / "complexity").iterdir()}
    tables = {f"table_complexity.{ending}" for ending in ("json", "jsonl", "csv", "md", "tex")}
    assert made == {"page.json", *tables, *(f"complexity.{ending}" for ending in ("svg", "pdf", "png", "csv"))}
    page = json.loads((folder / "results" / "complexity" / "page.json").read_text(encoding="utf-8"))
    assert page["command"].startswith("featlab complexity --methods")
    assert page["facts"]["cache_digest"]


def test_json_holds_the_numbers_of_table_and_figure(folder, run_json, quickly):
    data = run_json("complexity", *FLAGS, "--name", "mine", *quickly)
    costs = {cost["method"]: cost for cost in data["costs"]}
    assert list(costs) == SOME.split(",")
    assert len(data["subjects"]) == 2
    assert (data["repeat"], data["batch"], data["device"]) == (1, 8, "cpu")
    with (folder / "results" / "mine" / "complexity.csv").open(encoding="utf-8") as file:
        drawn = {line["method"]: line for line in csv.DictReader(file)}
    for method, cost in costs.items():
        assert float(drawn[method]["seconds"]) == cost["seconds"] > 0
        assert int(drawn[method]["trainable"]) == cost["trainable"]
    lines = (folder / "results" / "mine" / "table_complexity.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["Trainable"] for line in lines] == [costs[name]["trainable"] for name in SOME.split(",")]


def test_every_method_is_the_default_and_a_few_of_the_targets(folder, run, quickly):
    steps = [part for name in method_names() for part in _short(name)]
    flags = ["--repeat", "1", "--batch", "16", "--set", "protocol.targets=4", *quickly, *steps]
    result = run("complexity", *flags, "--json")
    # Clips of six frames are too short for one method and its twin, and for nobody else.
    assert result.exit_code == 3, result.stderr
    data = json.loads(result.stdout)
    assert {cost["method"] for cost in data["costs"]} == set(method_names())
    assert len(data["subjects"]) == 3
    failed = {cost["method"] for cost in data["costs"] if cost["failures"]}
    assert failed == {"clup-swav", "clup-deepcluster"}
    assert "needs 12 target rows" in result.stderr


def test_who_fails_is_skipped_and_said(folder, run, quickly):
    broken = ["--set", "pretrain.style_bank=false"]
    result = run("complexity", "--methods", "source-only,neutral-shift", "--targets", "1", *broken, *quickly)
    assert result.exit_code == 3
    assert "style bank" in result.stderr
    assert "neutral-shift failed on" in result.stdout
    result = run("complexity", "--methods", "neutral-shift", "--targets", "1", *broken, *quickly)
    assert result.exit_code == 1
    assert not (folder / "results" / "complexity" / "page.json").read_text(encoding="utf-8").count("svg")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "shoot"], "did you mean 'shot'"),
        (["--targets", "nobody"], "unknown subject"),
        (["--targets", "2", "--repeat", "0"], "--repeat"),
        (["--batch", "1"], "--batch"),
    ],
)
def test_bad_flags_are_refused(folder, refused, words, said):
    assert said in refused("complexity", *words, "--quiet")
    assert not (folder / "results").exists()


def _short(name):
    """Settings that make a method take a moment."""
    from featlab.methods import get_method

    options = get_method(name).config_type.__dataclass_fields__
    steps = [key for key in options if key in ("iterations", "epochs", "ssl_iterations", "teacher_epochs")]
    values = [f"adapt.{name}.{key}=2" for key in steps if name != "pft"]
    return [part for value in values for part in ("--set", value)]

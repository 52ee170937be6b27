"""`featlab branches` as typed, in a folder that holds nothing but a cache."""

import csv
import json

import pytest


def test_table_figure_and_page_are_written(folder, run, quickly):
    result = run("branches", "--targets", "4", *quickly)
    assert result.exit_code == 0, result.stderr
    for words in ("Identity branch", "A linear probe names the person in", "before T and", "chance 25.0 %"):
        assert words in result.stdout
    made = {path.name for path in (folder / "results" / "branches").iterdir()}
    tables = {f"table_branches.{ending}" for ending in ("json", "jsonl", "csv", "md", "tex")}
    assert made == {"page.json", *tables, *(f"branches.{ending}" for ending in ("svg", "pdf", "png", "csv"))}
    page = json.loads((folder / "results" / "branches" / "page.json").read_text(encoding="utf-8"))
    assert (page["kind"], page["command"][:27]) == ("branches", "featlab branches --targets ")


def test_json_holds_the_numbers_of_the_figure(folder, run_json, quickly):
    flags = ["--targets", "3", "--draws", "2", "--pool", "s038,s039,s040,s041,s042", "--name", "mine"]
    data = run_json("branches", *flags, *quickly)
    assert [len(draw) for draw in data["draws"]] == [3, 3]
    assert {name for draw in data["draws"] for name in draw} <= {"s038", "s039", "s040", "s041", "s042"}
    found = {row["representation"]: row for row in data["rows"]}
    with (folder / "results" / "mine" / "branches.csv").open(encoding="utf-8") as file:
        drawn = {(line["representation"], line["measure"]): line for line in csv.DictReader(file)}
    for name, key in (("Features after T", "features-after"), ("Identity branch", "identity-code")):
        for measure in ("fixed_expression", "fixed_subject", "neither", "identity", "expression"):
            assert float(drawn[name, measure]["mean"]) == found[key][measure]["mean"]
    # One neutral video of each is adapted on, so one is left: no half of it can be tested.
    people = {name for draw in data["draws"] for name in draw}
    assert data["single"] == {"neutral": len(people)}


def test_the_same_command_gives_the_same_bytes(folder, run, quickly):
    files = []
    for name in ("one", "two"):
        assert run("branches", "--targets", "3", "--name", name, *quickly).exit_code == 0
        made = sorted((folder / "results" / name).iterdir())
        files.append({path.name: path.read_bytes() for path in made if path.name != "page.json"})
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--targets", "1"], "--targets 2 or more"),
        (["--targets", "s038,s039", "--draws", "2"], "give --targets a number"),
        (["--targets", "s038,s39"], "did you mean"),
        (["--targets", "3", "--pool", "s038"], "the pool has 1 subjects"),
        (["--draws", "0"], "--draws"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, refused, words, said):
    assert said in refused("branches", *words, "--quiet")
    assert not (folder / "results").exists()

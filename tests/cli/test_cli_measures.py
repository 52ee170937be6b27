"""`featlab branches` and `featlab complexity` as typed, in a folder that holds nothing but a cache."""

import csv
import json

from featlab.methods import get_method, method_names

TABLE = ("json", "jsonl", "csv", "md", "tex")
FIGURE = ("svg", "pdf", "png", "csv")


def files_of(name):
    """What a page of one table and one figure of a name consists of."""
    return {"page.json", *(f"table_{name}.{ending}" for ending in TABLE), *(f"{name}.{ending}" for ending in FIGURE)}


def lines(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- branches ---------------------------------------------------------------------------------------------------------


def test_branches_writes_table_figure_and_page_and_the_same_bytes_again(folder, run_well, quickly):
    written = []
    for name in ("branches", "again"):
        result = run_well("branches", "--targets", "4", "--name", name, *quickly)
        made = folder / "results" / name
        written.append({path.name: path.read_bytes() for path in made.iterdir() if path.name != "page.json"})
    assert written[0] == written[1]
    for words in ("Identity branch", "A linear probe names the person in", "before T and", "chance 25.0 %"):
        assert words in result.stdout
    assert {path.name for path in made.iterdir()} == files_of("branches")
    page = json.loads((made / "page.json").read_text(encoding="utf-8"))
    assert (page["kind"], page["command"][:27]) == ("branches", "featlab branches --targets ")


def test_branches_json_holds_the_numbers_of_the_figure(folder, run_json, quickly):
    flags = ["--targets", "3", "--draws", "2", "--pool", "s038,s039,s040,s041,s042", "--name", "mine"]
    data = run_json("branches", *flags, *quickly)
    people = {name for draw in data["draws"] for name in draw}
    assert [len(draw) for draw in data["draws"]] == [3, 3]
    assert people <= {"s038", "s039", "s040", "s041", "s042"}
    found = {row["representation"]: row for row in data["rows"]}
    drawn = {
        (line["representation"], line["measure"]): line for line in lines(folder / "results" / "mine" / "branches.csv")
    }
    for name, key in (("Features after T", "features-after"), ("Identity branch", "identity-code")):
        for measure in ("fixed_expression", "fixed_subject", "neither", "identity", "expression"):
            assert float(drawn[name, measure]["mean"]) == found[key][measure]["mean"]
    # One neutral video of each is adapted on, so one is left: no half of it can be tested.
    assert data["single"] == {"neutral": len(people)}


# --- complexity -------------------------------------------------------------------------------------------------------

SOME = "source-only,neutral-shift,shot,pft,oracle"


def test_complexity_writes_what_it_measured(folder, run_json, run_well, quickly):
    flags = ["--methods", SOME, "--targets", "2", "--repeat", "1", "--batch", "8", *quickly]
    result = run_well("complexity", *flags)
    for words in ("Computational complexity", "shot", "pft adapts to one person in"):
        assert words in result.stdout
    made = folder / "results" / "complexity"
    assert {path.name for path in made.iterdir()} == files_of("complexity")
    page = json.loads((made / "page.json").read_text(encoding="utf-8"))
    assert page["command"].startswith("featlab complexity --methods")
    assert page["facts"]["cache_digest"]

    data = run_json("complexity", *flags, "--name", "mine")
    costs = {cost["method"]: cost for cost in data["costs"]}
    assert list(costs) == SOME.split(",")
    assert len(data["subjects"]) == 2
    assert (data["repeat"], data["batch"], data["device"]) == (1, 8, "cpu")
    mine = folder / "results" / "mine"
    drawn = {line["method"]: line for line in lines(mine / "complexity.csv")}
    for method, cost in costs.items():
        assert float(drawn[method]["seconds"]) == cost["seconds"] > 0
        assert int(drawn[method]["trainable"]) == cost["trainable"]
    rows = (mine / "table_complexity.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["Trainable"] for row in rows] == [cost["trainable"] for cost in costs.values()]


def test_every_method_is_the_default_and_a_few_of_the_targets(folder, run, quickly):
    known = ("iterations", "epochs", "ssl_iterations", "teacher_epochs")
    steps = [
        part
        for name in method_names()
        for key in get_method(name).config_type.__dataclass_fields__
        if key in known and name != "pft"
        for part in ("--set", f"adapt.{name}.{key}=2")
    ]
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
    broken = ["--targets", "1", "--set", "pretrain.style_bank=false", *quickly]
    result = run("complexity", "--methods", "source-only,neutral-shift", *broken)
    assert result.exit_code == 3
    assert "style bank" in result.stderr
    assert "neutral-shift failed on" in result.stdout
    assert run("complexity", "--methods", "neutral-shift", *broken).exit_code == 1
    assert "svg" not in (folder / "results" / "complexity" / "page.json").read_text(encoding="utf-8")


def test_refusals(folder, refusals):
    table = {
        "branches --targets 1": "--targets 2 or more",
        "branches --targets s038,s039 --draws 2": "give --targets a number",
        "branches --targets s038,s39": "did you mean",
        "branches --targets 3 --pool s038": "the pool has 1 subjects",
        "branches --draws 0": "--draws",
        "complexity --methods shoot": "did you mean 'shot'",
        "complexity --targets nobody": "unknown subject",
        "complexity --targets 2 --repeat 0": "--repeat",
        "complexity --batch 1": "--batch",
    }
    refusals({f"{words} --quiet": said for words, said in table.items()})

import json
import tomllib
from dataclasses import replace
from pathlib import Path

from featlab import write_table
from featlab.errors import InputError
from featlab.methods import get_method

TABLE = {f"table_trials.{ending}" for ending in ("md", "csv", "tex", "json", "jsonl")}
FILES = TABLE | {"SHA256SUMS", "chosen.toml", "trials.jsonl", "run.json", "page.json"}
MADE = Path("results/tune-shot-im")


WORDS = (
    "tune shot-im --targets 2 --folds 3 --jobs 1 --device cpu --space epochs=1,2 --space lr=0.01 "
    "--set adapt.shot-im.bn_mode=eval"
)


def fail_when(monkeypatch, wrong):
    """Let the method fail where its configuration is wrong."""
    method = get_method("shot-im")
    real = method.adapt

    def adapt(self, bundle, target, *, seed=0):
        if wrong(self.config):
            raise InputError("the clip is too dark")
        return real(self, bundle, target, seed=seed)

    monkeypatch.setattr(method, "adapt", adapt)


def test_it_prints_what_the_files_and_json_say_leaves_the_config_and_reuses_every_run(
    folder, run_well, run_json, lines_of
):
    before = Path("featlab.toml").read_text()
    result = run_well(WORDS)
    for said in (
        *("Tuning of shot-im on source subjects", "Chosen: candidate", " --set adapt.shot-im.lr=0.01"),
        "--set adapt.shot-im.bn_mode=eval --set adapt.shot-im.epochs=",
    ):
        assert said in result.stdout
    # Two clips of each expression in 6 people: nothing can be shown.
    assert "Within noise" in result.stdout or "No candidate scored higher" in result.stdout
    # The default, epochs = 15, is outside the grid of two.
    for said in ("3 candidates on 6 source subjects in", "0 of 18 runs are there", "2 target subjects are left out"):
        assert said in result.stderr
    data = run_json(WORDS, "--quiet")
    assert (data.stderr, Path("featlab.toml").read_text()) == ("", before)
    assert {path.name for path in MADE.iterdir()} == FILES
    chosen = data["chosen"]
    assert {"config", "versions", "space", "command", "cache_digest"} <= set(data)
    assert (data["method"], data["fixed"], data["applied"]) == ("shot-im", {"bn_mode": "eval"}, None)
    assert data["runs"] == {"all": 18, "reused": 18, "failed": 0}
    assert (chosen["options"]["bn_mode"], chosen["better_than_default"]) == ("eval", False)

    assert json.loads((MADE / "run.json").read_text())["folds"] == data["folds"]
    assert [json.loads(line) for line in (MADE / "trials.jsonl").read_text().splitlines()] == data["trials"]
    text = (MADE / "chosen.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {"adapt": {"shot-im": chosen["options"]}}
    for part in ("# featlab tune shot-im --targets 2", data["cache_digest"], "6 source subjects", data["verdict"]):
        assert part in text
    lines = lines_of(MADE / "table_trials.csv")
    assert {"epochs", "lr", "95 % interval", "p vs default", "SD"} <= set(lines[0])
    assert lines[0]["Candidate"].startswith(str(chosen["number"]))

    evaluated = run_json("evaluate --targets 2 --methods shot-im --no-plots --jobs 1", *chosen["flags"])
    options = evaluated["config"]["adapt"]["options"]["shot-im"]
    assert {name: str(value) for name, value in chosen["options"].items()} == options


def test_a_data_set_has_a_folder_of_its_own_and_a_network_that_has_seen_the_players_is_a_warning(
    folder, run_json, table, extractor
):
    write_table("cache.h5", table, replace(extractor, trained_on=table.subjects))
    data = run_json(WORDS, "--scope", "dataset")
    assert "trained on images of 6 of the 6 subjects who play targets" in data.stderr
    assert data["config"]["protocol"]["scope"] == "dataset"
    assert {path.name for path in Path("results/tune-shot-im-dataset").iterdir()} == FILES


def test_a_candidate_that_fails_is_not_chosen_and_when_all_fail_nothing_is(folder, run_json, monkeypatch):
    with monkeypatch.context() as patch:
        fail_when(patch, lambda config: config.epochs == 15)
        data = run_json(WORDS, code=3)
    assert (data["runs"]["failed"], "the clip is too dark" in data.stderr) == (6, True)
    assert "failed: the clip is too dark" in (MADE / "table_trials.md").read_text()
    before = Path("featlab.toml").read_text()
    fail_when(monkeypatch, lambda config: True)
    data = run_json(WORDS, "--set", "adapt.shot-im.diversity=0.5", "--apply", code=1)
    assert (data["chosen"], data["verdict"].startswith("Nothing was chosen")) == (None, True)
    assert {path.name for path in MADE.iterdir()} == FILES - {"chosen.toml"}
    assert Path("featlab.toml").read_text() == before


def test_apply_keeps_the_rest_of_the_file_evaluate_reads_it_and_tuning_again_chooses_the_same(folder, run_json):
    mine = '# Mine: do not touch.\n[adapt.shot-im]\nlr = 0.5  # by hand\n\n[protocol]\ntargets = "2"\n'
    before = (Path("featlab.toml").read_text() + mine).replace("\n", "\r\n")
    Path("featlab.toml").write_bytes(before.encode())
    data = run_json(WORDS, "--apply")
    chosen, after = data["chosen"]["options"], Path("featlab.toml").read_bytes().decode()
    assert data["applied"] == "featlab.toml"
    assert tomllib.loads(after)["adapt"]["shot-im"] == chosen
    added = f'bn_mode = "eval"\r\nepochs = {chosen["epochs"]}\r\n'
    assert after == before.replace("lr = 0.5 ", f"lr = {chosen['lr']} ").replace("by hand\r\n", f"by hand\r\n{added}")
    evaluated = run_json("evaluate --methods shot-im --no-plots --jobs 1 --targets 6")
    assert evaluated["config"]["adapt"]["options"]["shot-im"] == chosen
    assert any("its options were chosen on" in line for line in evaluated["words"])
    again = run_json(WORDS)
    assert (again["chosen"]["options"], again["runs"]["reused"]) == (chosen, again["runs"]["all"])

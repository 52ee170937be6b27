"""evaluate, methods, report, and the demo, which ends in one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from featlab import write_table
from featlab.analysis import demo
from featlab.methods import get_method, method_names

METHODS = "source-only,neutral-shift,pft"


WORDS = f"evaluate --targets 2 --methods {METHODS} --jobs 1 --device cpu"


def test_evaluate_prints_and_writes_and_shows_what_is_finished_as_it_lies_there(
    folder, run_well, run_json, monkeypatch
):
    first = run_well(WORDS, "--quiet")
    assert first.stderr == ""
    for said in ("Macro F1 of each target subject", "6 runs: 0 reused, 0 failed"):
        assert said in first.stdout
    (made,) = Path("results").glob("evaluate-*")
    stamps = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    names = {path.name for path in stamps}
    tables = {f"table_{name}.{ending}" for name in ("subjects", "summary") for ending in ("md", "csv", "tex")}
    assert names >= {"results.jsonl", "run.json", "summary.svg", "subjects.svg", *tables}
    assert "failures.jsonl" not in names
    with monkeypatch.context() as patch:
        patch.setattr("featlab.evaluation.runner.plan", None)
        for more in ((), ("--no-plots",)):
            again = run_well(WORDS, *more, "--quiet")
            assert again.stdout == first.stdout.replace("6 runs: 0 reused", "6 runs: 6 reused")
        data = run_json(WORDS)
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == stamps
    assert data["runs"] == {"all": 6, "reused": 6, "failed": 0, "missing": 0}
    assert data["results"] == [json.loads(row) for row in (made / "results.jsonl").read_text().splitlines()]
    assert len(data["files"]) == len(stamps)
    assert {"config", "cache_digest", "versions"} <= set(data)
    assert [item["method"] for item in data["summary"]] == METHODS.split(",")
    # Until a file of it is gone, or another one is asked for.
    (made / "summary.svg").unlink()
    run_well(WORDS, "--set", "plot.formats=pdf")
    assert {"summary.svg", "summary.pdf"} <= {path.name for path in made.iterdir()}
    other = run_json(WORDS, "--draws", "2", "--no-plots")
    assert {row["draw"] for row in other["results"]} == {0, 1}
    assert other["runs"] == {"all": 12, "reused": 6, "failed": 0, "missing": 0}


def test_tables_are_shown_where_the_folder_may_not_be_written(folder, run, monkeypatch):
    def refuses(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("featlab.analysis.page.atomic_write_text", refuses)
    result = run(WORDS, "--no-plots", "--quiet")
    assert (result.exit_code, "Macro F1 of each target subject" in result.stdout) == (2, True)
    (line,) = result.stderr.splitlines()
    assert "Permission denied" in line


def test_failed_runs_are_listed_and_end_in_3_and_only_failed_ones_in_1(folder, run_json, run_well):
    # The style bank is what these two methods need; source-only does without.
    broken = f"{WORDS} --set pretrain.style_bank=none --no-plots"
    data = run_json(broken, code=3)
    assert (data["runs"]["failed"], "style bank" in data.stderr) == (4, True)
    (listed,) = Path("results").glob("evaluate-*/failures.jsonl")
    assert len(listed.read_text().splitlines()) == 4
    run_well(broken, "--methods", "pft", code=1)


def test_people_are_named_in_a_file_of_the_current_folder(folder, run_json):
    Path("reported.txt").write_text("s039\ns042\n")
    Path("workspace").mkdir()
    shutil.copy("featlab.toml", "workspace")
    for name in ("pool", "targets"):
        flags = f"-C workspace --cache cache.h5 --methods source-only --no-plots --{name} reported.txt"
        data = run_json(f"{WORDS} {flags}")
        assert {row["subject"] for row in data["results"]} == {"s039", "s042"}
        assert Path(data["config"]["protocol"][name]) == Path("reported.txt").absolute()


def test_the_flags_of_the_protocol_are_recorded_and_followed(folder, run_well, run_json):
    typed = f"{WORDS} --smooth 3 --frames 4 --contamination 0.25 --no-plots"
    for command in ("evaluate", "benchmark"):
        data = run_json(typed.replace("evaluate", command))
        assert "each from at most 4 frames of a neutral clip, 25 % of it other classes" in data.stderr
        (stored,) = Path("results").glob(f"{command}-*/run.json")
        for protocol in (data["config"]["protocol"], json.loads(stored.read_text())["config"]["protocol"]):
            assert [protocol[name] for name in ("smoothing", "frames", "contamination", "pool")] == [3, 4, 0.25, ""]
        assert {(row["adapt_frames"], row["frames"]) for row in data["results"]} == {(4, 17)}
        assert all(item["macro_f1_smoothed"] is not None and item["ece"] is not None for item in data["summary"])
    for flags, said in (("--wide",), True), ((), False), (("--wide", "--smooth", "0"), False):
        assert ("over 3 frames of a video" in " ".join(run_well(typed, *flags).stdout.split())) == said


def test_methods_come_from_the_registry_and_one_is_told_in_full(run, run_json, refused):
    listed = run_json("methods")["methods"]
    assert [(item["name"], item["title"]) for item in listed] == [
        (name, get_method(name).title) for name in method_names()
    ]
    printed, method = run("methods", "dsfda").stdout, get_method("dsfda")
    words = " ".join(printed.split())
    for said in (" ".join(method.published.split()), method.carries, "adapt.dsfda.bn_mode", "train, eval"):
        assert said in words
    (facts,) = run_json("methods", "dsfda")["methods"]
    assert (facts["options"]["gaussians"], facts["space"]["bn_mode"]) == ("class", ["train", "eval"])
    assert "did you mean 'dsfda'" in refused("methods", "dsfd")


def test_targets_that_the_backbone_has_seen_are_named(folder, run_well, table, extractor):
    write_table("cache.h5", table, replace(extractor, trained_on=("s038", "s041")))
    evaluate = "evaluate --methods source-only --quiet --no-plots --jobs 1 --targets"
    assert "1 of the 2 targets (s041)" in run_well(evaluate, "s041,s042").stderr
    assert "trained" not in run_well(evaluate, "s042,s043").stderr
    assert "(s041)" in run_well("adapt --subject s041 --quiet").stderr


def test_an_evaluation_becomes_a_page_and_older_or_damaged_ones_are_left_out_and_said(evaluated, run_well, run_json):
    older = shutil.copytree(evaluated, evaluated.parent / "evaluate-000000000000")
    os.utime(older / "page.json", (1, 1))
    result = run_well("report", "--title", "Ours & <theirs>")
    assert "left out: evaluate-000000000000" in result.stderr
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in text
    assert "featlab evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots" in text
    assert "--jobs" not in text
    data = run_json("report", "--out", "deep/again.html")
    assert [(item["kind"], item["folder"]) for item in data["sections"]] == [("evaluate", str(evaluated))]
    assert data["bytes"] == Path("deep/again.html").stat().st_size
    assert len(run_json("report", str(older), str(evaluated))["sections"]) == 2
    (older / "page.json").write_text("{", encoding="utf-8")
    data = run_json("report", str(older), str(evaluated), code=3)
    assert (data["skipped"][0]["folder"], "is left out" in data.stderr) == (str(older), True)


def test_the_demo_makes_a_workspace_in_which_the_next_command_works(tmp_path, run_well, monkeypatch):
    real, asked = demo.DemoConfig.sized, []

    def tiny(**options):
        asked.append(options)
        config = real(**options)
        quick = {**config.settings, "head.epochs": 2, "protocol.methods": "source-only,pft,pft-poster"}
        return replace(config, faces=replace(config.faces, frames=4, size=48), targets=2, settings=quick)

    monkeypatch.setattr(demo.DemoConfig, "sized", tiny)
    monkeypatch.chdir(tmp_path)
    made = run_well("demo --quick --people 9 --jobs 1")
    assert asked == [{"people": 9, "expressions": 2, "seed": 0, "quick": True}]
    assert [line.split()[0] for line in made.stderr.splitlines()[1:5]] == [f"{n}/4" for n in range(1, 5)]
    for said in ("no claim about real people", "Macro F1 of each target subject", "featlab adapt --subject s009"):
        assert said in made.stdout
    monkeypatch.chdir("featlab-demo")
    assert Path("index.html").is_file()
    run_well("adapt --subject s009")

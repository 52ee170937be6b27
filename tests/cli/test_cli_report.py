"""`featlab report` as typed."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def evaluated(folder, run, quickly):
    """The folder of an evaluation of three methods in the current one."""
    methods = ("--methods", "source-only,neutral-shift,pft")
    result = run("evaluate", "--targets", "3", *methods, "--no-plots", "--jobs", "1", "--device", "cpu", *quickly)
    assert result.exit_code == 0, result.stderr
    return next(Path("results").glob("evaluate-*"))


def test_an_evaluation_becomes_a_page(evaluated, run):
    result = run("report", "--title", "Ours & <theirs>")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("report.html: 1 section, ")
    assert str(evaluated) in result.stdout
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in text
    assert "featlab evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots" in text
    assert "--jobs" not in text
    run("report", "--title", "Ours & <theirs>", "--out", "deep/again.html")
    assert Path("deep/again.html").read_text(encoding="utf-8") == text


def test_the_page_says_what_the_results_say(evaluated, run):
    rows = [json.loads(line) for line in (evaluated / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [row["macro_f1"] for row in rows if row["method"] == "pft"]
    page = json.loads((evaluated / "page.json").read_text(encoding="utf-8"))
    assert f"pft {100 * sum(scores) / len(scores):.1f} [" in page["words"][1]
    assert page["kind"] == "evaluate"
    assert page["facts"] == json.loads((evaluated / "run.json").read_text(encoding="utf-8"))


def test_json_names_the_file_and_its_sections(evaluated, run_json, run, quickly):
    (evaluated / "page.json").rename(evaluated / "page.old")
    words = ("benchmark", "--targets", "3", "--methods", "source-only,pft", "--no-plots", "--jobs", "1", *quickly)
    assert run(*words).exit_code == 0
    (evaluated / "page.old").rename(evaluated / "page.json")
    data = run_json("report")
    assert [item["kind"] for item in data["sections"]] == ["evaluate", "benchmark"]
    assert data["skipped"] == []
    assert data["bytes"] == Path(data["file"]).stat().st_size
    named = run_json("report", *[item["folder"] for item in data["sections"][::-1]])
    assert [item["kind"] for item in named["sections"]] == ["benchmark", "evaluate"]


def test_older_runs_are_named_and_left_out(evaluated, run, run_json, quickly):
    words = ("evaluate", "--targets", "2", "--methods", "source-only,pft", "--no-plots", "--jobs", "1", *quickly)
    assert run(*words).exit_code == 0
    assert f"left out: {evaluated.name}" in run("report").stderr
    assert len(run_json("report")["sections"]) == 1
    assert len(run_json("report", *map(str, Path("results").glob("evaluate-*")))["sections"]) == 2


def test_a_damaged_page_is_skipped_with_a_warning(evaluated, run):
    broken = Path("results/plot-tsne")
    broken.mkdir()
    (broken / "page.json").write_text("{", encoding="utf-8")
    result = run("report", "--quiet")
    assert result.exit_code == 3
    assert "warning: plot-tsne is left out: results/plot-tsne/page.json: damaged" in result.stderr
    assert Path("report.html").is_file()
    assert json.loads(run("report", "--json").stdout)["skipped"][0]["folder"] == "results/plot-tsne"


def test_nothing_to_report_is_refused(folder, refused):
    assert "run featlab evaluate first (or benchmark, ablate" in refused("report")
    assert "nowhere: no page.json there" in refused("report", "nowhere")
    assert not Path("report.html").exists()


def test_a_folder_in_the_way_leaves_the_report_as_it_was(evaluated, refused):
    Path("taken").mkdir()
    assert "a folder of that name is in the way" in refused("report", "--out", "taken")


def test_the_workspace_may_be_elsewhere(evaluated, run, tmp_path, monkeypatch):
    home = Path.cwd()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("report", "-C", str(home)).exit_code == 0
    assert (home / "report.html").is_file()
    assert run("report", "-C", str(home), "--out", "here.html").exit_code == 0
    assert Path("here.html").is_file()

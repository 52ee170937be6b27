"""`featlab report` as typed."""

import json
import os
import shutil
from pathlib import Path


def test_an_evaluation_becomes_a_page_that_says_what_the_results_say(evaluated, run_well):
    result = run_well("report", "--title", "Ours & <theirs>")
    assert result.stdout.splitlines()[-1].startswith("report.html: 1 section, ")
    assert str(evaluated) in result.stdout
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in text
    assert "featlab evaluate --targets 3 --methods source-only,neutral-shift,pft --no-plots" in text
    assert "--jobs" not in text
    run_well("report", "--title", "Ours & <theirs>", "--out", "deep/again.html")
    assert Path("deep/again.html").read_text(encoding="utf-8") == text
    rows = [json.loads(line) for line in (evaluated / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [row["macro_f1"] for row in rows if row["method"] == "pft"]
    page = json.loads((evaluated / "page.json").read_text(encoding="utf-8"))
    assert f"pft {100 * sum(scores) / len(scores):.1f} [" in page["words"][1]
    assert page["kind"] == "evaluate"
    assert page["facts"] == json.loads((evaluated / "run.json").read_text(encoding="utf-8"))


def test_json_names_the_file_and_its_sections_and_older_runs_are_left_out(evaluated, run_well, run_json):
    older = shutil.copytree(evaluated, evaluated.parent / "evaluate-000000000000")
    os.utime(older / "page.json", (1, 1))
    assert "left out: evaluate-000000000000" in run_well("report").stderr
    data = run_json("report")
    assert [(item["kind"], item["folder"]) for item in data["sections"]] == [("evaluate", str(evaluated))]
    assert data["skipped"] == []
    assert data["bytes"] == Path(data["file"]).stat().st_size
    assert len(run_json("report", str(older), str(evaluated))["sections"]) == 2


def test_a_damaged_page_is_skipped_with_a_warning(evaluated, run):
    broken = Path("results/plot-tsne")
    broken.mkdir()
    (broken / "page.json").write_text("{", encoding="utf-8")
    result = run("report", "--quiet")
    assert result.exit_code == 3
    assert "warning: plot-tsne is left out: results/plot-tsne/page.json: damaged" in result.stderr
    assert Path("report.html").is_file()
    assert json.loads(run("report", "--json").stdout)["skipped"][0]["folder"] == "results/plot-tsne"


def test_the_workspace_may_be_elsewhere(evaluated, run_well, monkeypatch):
    home = Path.cwd()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    run_well("report", "-C", str(home))
    assert (home / "report.html").is_file()
    run_well("report", "-C", str(home), "--out", "here.html")
    assert Path("here.html").is_file()

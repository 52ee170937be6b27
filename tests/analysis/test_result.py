"""Results and their folders: what is written is read back, what is damaged is named, what an evaluation leaves."""

import json
import os
import stat
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import wilcoxon

from featlab.analysis.evaluation.result import evaluation_result
from featlab.analysis.evaluation.summary import evaluation_summary
from featlab.analysis.page import DrawnFigure, PageFigure, Result, read_page, read_table, write_result
from featlab.analysis.report.collect import read_report
from featlab.analysis.style import figure
from featlab.analysis.table import Table
from featlab.cache.atomic import damages
from featlab.errors import FeatlabError, InputError
from featlab.evaluation.results import read_results
from featlab.evaluation.statistics import holm
from featlab.evaluation.summary import summarise

TABLE = Table(
    title="Scores & more",
    columns=("Setting", "Method", "F1"),
    rows=(("A", "one", "70.1"), ("A", "two", "–")),
    bold=((False, False, True), (False, False, False)),
    notes=("A note.",),
    text_columns=2,
    grouped=True,
)


def made(**changes):
    drawn = figure()
    drawn.subplots().plot([1, 2], [0.25, 0.5])
    values = {
        "kind": "ablate",
        "title": "A title",
        "summary": ["It says <this>."],
        "tables": {"scores": TABLE},
        "figures": [DrawnFigure("lines", "Lines", "A caption.", drawn, {"x": [1, 2], "y": [0.25, 0.5]})],
        "metadata": {"cache_digest": "abc"},
        "files": {"run.json": "{}\n", "failures.jsonl": None},
    }
    return Result(**{**values, **changes})


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_result_is_written_whole_and_read_back(tmp_path, stored):
    page = stored(made())
    tables = {f"table_scores.{ending}" for ending in ("json", "jsonl", "csv", "md", "tex")}
    assert names(tmp_path) == tables | {"lines.svg", "lines.csv", "run.json", "page.json", "SHA256SUMS"}
    assert (page.title, page.summary, page.metadata) == ("A title", ("It says <this>.",), {"cache_digest": "abc"})
    assert page.figures == (PageFigure("lines", "Lines", "A caption."),)
    assert read_table(tmp_path, page.tables[0]) == TABLE
    assert (tmp_path / "lines.csv").read_text(encoding="utf-8") == "x,y\n1,0.25\n2,0.5\n"


def test_the_folder_of_a_result_is_synced_once_and_every_file(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    written = write_result(tmp_path, made())
    assert (synced.count(True), synced.count(False), synced[-1]) == (1, len(written), True)


def test_another_content_of_any_file_is_found_and_what_reads_it_refuses_it(tmp_path):
    def readers():
        read_page(tmp_path)
        read_table(tmp_path, "scores")
        read_report([tmp_path], "")

    write_result(tmp_path, made())
    readers()
    read = {"page.json", "table_scores.json", "lines.svg", "lines.csv"}
    for name in sorted(names(tmp_path) - {"SHA256SUMS"}):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole + b" ")
        ((found, _),) = damages(tmp_path / "SHA256SUMS")
        assert found == path
        with pytest.raises(InputError, match=name) if name in read else nullcontext():
            readers()
        path.write_bytes(whole)


def test_what_an_earlier_run_left_and_this_one_has_not_is_removed(tmp_path):
    write_result(tmp_path, made(tables={"scores": TABLE, "old": TABLE}, files={"failures.jsonl": "{}\n"}))
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    undrawn = write_result(tmp_path, made(figures=[]))
    assert not {"table_old.csv", "failures.jsonl"} & names(tmp_path)
    assert {"lines.svg", "notes.txt", *(path.name for path in undrawn)} <= names(tmp_path)
    for formats in (["png"], ["pdf", "png"], []):
        write_result(tmp_path, made(metadata={"config": {"plot": {"formats": formats}}}))
        drawn = {name for name in names(tmp_path) if name.startswith("lines")}
        assert drawn == {f"lines.{ending}" for ending in ("svg", *formats, "csv")}
    other = DrawnFigure("other", "Other", "", made().figures[0].drawn, {"x": [1]})
    written = write_result(tmp_path, made(figures=[other]))
    assert names(tmp_path) == {"notes.txt", *(path.name for path in written)}
    # A result that can't be finished is no page.
    (tmp_path / "table_scores.json").unlink()
    (tmp_path / "table_scores.json").mkdir()
    with pytest.raises(FeatlabError):
        write_result(tmp_path, made())
    assert not (tmp_path / "page.json").exists()


def test_a_page_or_a_table_that_can_not_be_read_is_named(tmp_path):
    path, table = tmp_path / "page.json", tmp_path / "table_scores.json"
    write_result(tmp_path, made())
    (tmp_path / "SHA256SUMS").unlink()  # as an older featlab wrote it: only what is said is wrong then
    page, cells = (json.loads(file.read_text(encoding="utf-8")) for file in (path, table))
    for file, text, said in [
        (path, "{", "damaged"),
        (path, "[]", "damaged"),
        (path, '{"format": 99}', "format 99 is newer than this featlab's; update featlab, or"),
        *(
            (path, json.dumps(page | wrong), "damaged")
            for wrong in ({"tables": ["../t"]}, {"words": [5]}, {"facts": []})
        ),
        (path, None, "can't be read"),
        *(
            (table, json.dumps(cells | wrong), "damaged")
            for wrong in ({"rows": None}, {"rows": [["A"], ["B"]]}, {"bold": []}, {"rows": [["A", "one", 1]] * 2})
        ),
        (table, None, "can't be read"),
    ]:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"{file.name}: .*{said}.* again"):
            read_page(tmp_path) if file == path else read_table(tmp_path, "scores")


SCORES = {"source-only": (0.5, 0.6, 0.4), "pft": (0.6, 0.7, 0.3), "safn": (0.7, 0.5, 0.5), "oracle": (0.9, 0.9, 0.9)}


@pytest.fixture
def rows(result):
    seen = {"safn": "source-access", "oracle": "oracle"}
    return [
        result(method, f"s{n}", s, class_recall=(s, 1.0), selection=seen.get(method, "source-free"))
        for method, scores in SCORES.items()
        for n, s in enumerate(scores)
    ]


def evaluated(rows, **options):
    return evaluation_result(rows, metadata={"seed": 0}, **options)


def dicts(rows):
    return [row.to_dict() for row in rows]


@pytest.fixture
def failed(result):
    return lambda method, subject: result(method, subject, np.nan, error="no")


def test_an_evaluation_leaves_rows_tables_figures_and_sentences_and_their_numbers_beside_them(tmp_path, stored, rows):
    found = evaluated(rows, kind="benchmark", classes=("neutral", "pain"))
    assert found.title == "Benchmark: 4 methods on 3 target subjects"
    assert list(found.tables) == ["subjects", "summary", "costs", "classes", "ranks"]
    assert [item.name for item in found.figures] == ["summary", "subjects", "ranks"]
    assert found.summary == evaluation_summary(rows, summarise(rows))
    assert found.printed == ["subjects", "classes", "costs", "summary"]
    stored(found)
    assert dicts(read_results(tmp_path / "results.jsonl")) == dicts(rows)
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == {"seed": 0}
    first = json.loads((tmp_path / "table_classes.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"Method": "source-only", "neutral": 50.0, "pain": 100.0, "Average": 75.0}
    figures = {item.name: item.data for item in found.figures}
    ranks = dict(zip(figures["ranks"]["method"], figures["ranks"]["rank"], strict=True))
    assert ranks == {"pft": pytest.approx(2.0), "safn": pytest.approx(5 / 3), "source-only": pytest.approx(7 / 3)}
    assert set(figures["ranks"]["subjects"]) == {3}


def test_what_the_rows_do_not_have_is_not_made_and_failed_rows_are_listed(result, rows, failed):
    one = evaluated([result("pft", "a", 0.5, macro_f1_smoothed=0.6)], smoothing=9)
    assert (list(one.tables), [item.name for item in one.figures]) == (["subjects", "summary", "costs"], ["summary"])
    assert any("over 9 frames of a video" in note for note in one.tables["summary"].notes)
    assert "ranks" not in evaluated([result("pft", "a", 0.5), result("shot", "b", 0.5)]).tables
    assert evaluated([failed("shot", s) for s in "ab"]).figures == []
    bare = evaluated(rows, plots=False)
    assert (bare.figures, bare.printed, bare.files["failures.jsonl"]) == ([], ["subjects", "summary"], None)
    listed = evaluated([*rows, failed("shot", "s0")], plots=False).files["failures.jsonl"]
    assert [json.loads(line) for line in listed.splitlines()] == dicts([failed("shot", "s0")])


SUBJECTS = [f"s{number}" for number in range(10)]
SOURCE = np.linspace(0.4, 0.58, 10)


@pytest.fixture
def sentences(result):
    """Return the sentences of {method: one score a subject}."""

    def say(scores, **changes):
        access = {"safn": {"selection": "source-access"}}
        rows = [
            result(method, subject, float(score), **access.get(method, {}), **changes)
            for method, values in scores.items()
            for subject, score in zip(SUBJECTS, values, strict=False)
        ]
        return evaluation_summary(rows, summarise(rows))

    return say


def test_size_means_counts_and_differences_are_those_of_the_scores(sentences):
    pft = SOURCE + np.array([0.2, 0.21, 0.22, 0.23, 0.24, 0.25, 0.26, 0.27, -0.01, 0.0])
    scores = {"source-only": SOURCE, "neutral-shift": SOURCE + 0.1 + np.arange(10) / 1000, "pft": pft}
    scores["oracle"] = SOURCE + 0.4
    said = sentences(scores)
    assert said[0] == "4 methods on 10 target subjects, in 1 draw with 1 seed: 40 runs."
    assert all(f"{name} {100 * values.mean():.1f} [" in said[1] for name, values in scores.items())
    against = [wilcoxon(scores[name] - SOURCE, method="exact").pvalue for name in ("neutral-shift", "pft")]
    assert f"pft is {100 * (pft - SOURCE).mean():.1f} points above source-only [" in said[2]
    assert "8 of 10 subjects gained, 1 lost, 1 unchanged" in said[2]
    assert f"p = {holm(against)[1]:.3f}" in said[2]
    assert "closes 0.47 of the gap" in " ".join(said)
    assert "adapted to all of them together" in sentences({"pft": SOURCE}, scope="dataset")[0]


def test_losses_noise_other_kinds_of_methods_and_too_few_subjects_are_said_to_be(sentences):
    better = SOURCE + 0.2 + np.arange(10) / 500
    said = sentences({"source-only": SOURCE, "neutral-shift": SOURCE, "referenced": better, "pft": SOURCE + 0.1})
    line = next(line for line in said if "referenced, the largest mean of 2 baselines;" in line)
    assert line.startswith("pft is 10.9 points below referenced")
    assert "the difference is significant (p = " in line
    noise = np.array([0.1, -0.1, 0.05, -0.06, 0.02, -0.03, 0.04, -0.01, 0.07, -0.05])
    said = sentences({"source-only": SOURCE, "referenced": SOURCE + noise, "pft": SOURCE})
    assert "pft is less than 0.05 points from source-only [0.0, 0.0]: 0 of 10 subjects gained, 0 lost" in said[2]
    assert "10 unchanged; the difference is within noise (not significant, p = 1.000)" in said[2]
    others = {"shot": SOURCE - 0.2, "safn": SOURCE + 0.2, "oracle": SOURCE + 0.05}
    said = "\n".join(sentences({"source-only": SOURCE, "pft": SOURCE + 0.1, **others}))
    assert "\npft is 30.0 points above shot;" in said
    assert "\npft is 10.0 points below safn [source access];" in said
    assert "\noracle, the oracle, stays below pft" in said
    assert "gap between" not in said
    for people, smallest in ((4, "can give is 0.125"), (1, "With 1 subject the smallest p value"), (6, "")):
        few = sentences({"source-only": SOURCE[:people], "pft": SOURCE[:people] + 0.3})
        assert [smallest in line for line in few if "smallest p value" in line] == [True] * bool(smallest)
    assert sentences({"pft": SOURCE[:1]})[1] == "Mean macro F1 in percent: pft 40.0."


def test_collapsed_failed_and_uncomparable_runs_are_counted(result, failed):
    rows = [result(method, subject, 0.5) for method in ("source-only", "pft") for subject in SUBJECTS]
    rows[0] = result("source-only", SUBJECTS[0], 0.5, collapsed=True)
    rows += [failed("shot", name) for name in SUBJECTS]
    assert evaluation_summary(rows, summarise(rows))[-2:] == (
        "Runs that predicted one class for every test row: source-only 1 of 10.",
        "Runs that failed, and are in no mean: shot 10 of 10.",
    )
    clean = [result("source-only", "a", 0.5), result("pft", "b", 0.5)]
    said = evaluation_summary(clean, summarise(clean))
    assert "not to be compared, for want of a common subject, with source-only" in said[2]
    assert said[-2:] == ("No run predicted one class for every test row.", "No run failed.")
    none = [failed("pft", name) for name in SUBJECTS]
    said = evaluation_summary(none, summarise(none))
    assert said[1] == "Every run failed, so there is no score."
    assert said[-1].endswith("pft 10 of 10.")
    assert evaluation_summary([], []) == ("0 methods on 0 target subjects, in 0 draws with 0 seeds: 0 runs.",)

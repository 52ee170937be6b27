"""What an evaluation leaves in its folder."""

import csv
import json

import pytest

from featlab.analysis.evaluation.files import evaluation_tables, write_evaluation
from featlab.analysis.evaluation.words import evaluation_words
from featlab.analysis.page import read_page, read_table
from featlab.errors import FeatlabError
from featlab.evaluation.results import EvaluationRow, read_results
from featlab.evaluation.summary import summarise

SETTINGS = {"pft": ("SFDA-PFT", "SFDA-PFT (anchored)"), "safn": ("UDA (source access)", "SAFN (Xu et al., 2019)")}
SCORES = {"source-only": (0.5, 0.6, 0.4), "pft": (0.6, 0.7, 0.3), "safn": (0.7, 0.5, 0.5), "oracle": (0.9, 0.9, 0.9)}
TABLES = ("subjects", "summary", "costs", "classes", "ranks")
FIGURES = ("summary", "subjects", "reliability", "ranks")


@pytest.fixture
def rows(result):
    access = {"safn": {"selection": "source-access"}}
    return [
        result(
            method,
            f"s{n}",
            score,
            class_recall=(score, 1.0),
            reliability=(*(0.0,) * 42, 2.0, 1.9, 1.0),
            **access.get(method, {}),
        )
        for method, scores in SCORES.items()
        for n, score in enumerate(scores)
    ]


def dicts(rows):
    return [row.to_dict() for row in rows]


def write(folder, rows, **options):
    return write_evaluation(folder, rows, summarise(rows), settings=SETTINGS, facts={"seed": 0}, **options)


def test_every_table_is_there_in_every_format_and_every_figure_with_its_numbers(tmp_path, rows):
    written = write(tmp_path, rows, classes=("neutral", "pain"))
    names = {path.name for path in written}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert names == {
        "results.jsonl",
        "run.json",
        "page.json",
        *(f"table_{name}.{ending}" for name in TABLES for ending in ("md", "csv", "tex", "json", "jsonl")),
        *(f"{name}.{ending}" for name in FIGURES for ending in ("svg", "pdf", "png", "csv")),
    }
    assert [path.name for path in written[:2]] == ["results.jsonl", "run.json"]
    assert dicts(read_results(tmp_path / "results.jsonl")) == dicts(rows)


def test_the_folder_is_a_page(tmp_path, rows):
    write(tmp_path, rows, kind="benchmark", command="featlab benchmark", classes=("neutral", "pain"))
    page = read_page(tmp_path)
    assert (page.kind, page.command, page.facts) == ("benchmark", "featlab benchmark", {"seed": 0})
    assert page.title == "Benchmark: 4 methods on 3 target subjects"
    assert page.words == evaluation_words(rows, summarise(rows), settings=SETTINGS)
    assert (page.tables, tuple(figure.name for figure in page.figures)) == (TABLES, FIGURES)
    shown = evaluation_tables(rows, summarise(rows), SETTINGS)
    assert (read_table(tmp_path, "subjects"), read_table(tmp_path, "summary")) == shown


def test_without_plots_the_page_has_no_figures(tmp_path, rows):
    write(tmp_path, rows, plots=False)
    assert read_page(tmp_path).figures == ()
    assert not list(tmp_path.glob("*.svg"))


def test_what_an_earlier_run_drew_and_this_one_does_not_is_removed(tmp_path, rows, result):
    write(tmp_path, rows)
    written = write(tmp_path, [result("pft", "a", 0.5)])
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    assert [figure.name for figure in read_page(tmp_path).figures] == ["summary"]


def test_a_page_that_can_not_be_finished_is_no_page(tmp_path, rows):
    write(tmp_path, rows, plots=False)
    (tmp_path / "table_ranks.json").unlink()
    (tmp_path / "table_ranks.json").mkdir()
    with pytest.raises(FeatlabError):
        write(tmp_path, rows, plots=False)
    assert not (tmp_path / "page.json").exists()


def test_the_table_of_classes_has_their_names(tmp_path, rows):
    write(tmp_path, rows, classes=("neutral", "pain"), plots=False)
    first = json.loads((tmp_path / "table_classes.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"Method": "source-only", "neutral": 50.0, "pain": 100.0, "Average": 75.0}


def test_source_access_is_marked_in_every_table(tmp_path, rows):
    write(tmp_path, rows, plots=False)
    for name in TABLES:
        for ending in ("md", "csv", "tex", "jsonl"):
            text = (tmp_path / f"table_{name}.{ending}").read_text(encoding="utf-8")
            (line,) = [line for line in text.splitlines() if "SAFN" in line]
            assert "source access" in line


def test_the_numbers_of_the_ranks_leave_out_the_oracle(tmp_path, rows):
    write(tmp_path, rows)
    with (tmp_path / "ranks.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["method"]: float(line["rank"]) for line in lines} == {
        "pft": pytest.approx(2.0),
        "safn": pytest.approx(5 / 3),
        "source-only": pytest.approx(7 / 3),
    }
    assert {line["subjects"] for line in lines} == {"3"}


def test_results_of_one_method_or_of_before_have_no_ranks_and_no_classes(tmp_path, rows, result):
    write(tmp_path, rows)
    written = write(tmp_path, [result("pft", "a", 0.5)], plots=False)
    assert not [path for path in written if "ranks" in path.name or "classes" in path.name]
    assert not list(tmp_path.glob("table_ranks.*")) + list(tmp_path.glob("table_classes.*"))


def test_methods_without_a_subject_in_common_are_not_ranked(tmp_path, result):
    written = write(tmp_path, [result("pft", "a", 0.5), result("shot", "b", 0.5)])
    assert not [path for path in written if "ranks" in path.name]


def test_failed_rows_are_listed_and_only_then(tmp_path, rows):
    broken = EvaluationRow.failure("shot", "s0", 0, 0, selection="source-free", error="no")
    assert (tmp_path / "failures.jsonl") in write(tmp_path, [*rows, broken], plots=False)
    assert dicts(read_results(tmp_path / "failures.jsonl")) == dicts([broken])
    write(tmp_path, rows, plots=False)
    assert not (tmp_path / "failures.jsonl").exists()


def test_the_diagram_has_the_numbers_of_whom_it_draws(tmp_path, rows):
    write(tmp_path, rows)
    with (tmp_path / "reliability.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines[::15]] == ["source-only", "pft"]
    last = [float(lines[14][name]) for name in ("share", "confidence", "accuracy")]
    assert last == pytest.approx([1.0, 0.95, 0.5])


def test_the_note_says_over_how_many_frames_was_smoothed(tmp_path, result):
    rows = [result("pft", "a", 0.5, macro_f1_smoothed=0.6)]
    write(tmp_path, rows, plots=False, smoothing=9)
    assert "over 9 frames of a video" in (tmp_path / "table_summary.md").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("reliability.*"))


def test_only_failures_leave_tables_and_no_figure(tmp_path):
    broken = [EvaluationRow.failure("shot", s, 0, 0, selection="source-free", error="no") for s in "ab"]
    written = write(tmp_path, broken)
    assert not [path for path in written if path.suffix == ".svg"]
    assert "failed" in (tmp_path / "table_summary.md").read_text(encoding="utf-8")


def test_the_tables_to_print_are_the_two_that_decide(rows):
    per_subject, summary = evaluation_tables(rows, summarise(rows), SETTINGS, full=False)
    assert per_subject.columns == ("Setting", "Method", "s0", "s1", "s2", "Average")
    assert "MFLOPs" not in summary.columns

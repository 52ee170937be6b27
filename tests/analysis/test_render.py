"""Tables as text: nothing is lost or cut in any format and at any width."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from featlab.analysis.evaluation.tables import class_table, cost_table, per_subject_table, summary_table
from featlab.analysis.render import to_csv, to_json, to_jsonl, to_latex, to_markdown
from featlab.analysis.table import Table
from featlab.cli.output import Output
from featlab.evaluation.summary import summarise
from featlab.methods import make_method, method_names

NASTY = Table(
    title="100 % of R&D",
    columns=("Method", "s_1|x"),
    rows=(("a\\b*[x]", "<0.001"), ("[bold]c", "$1~^{}#…–")),
    bold=((False, True), (False, False)),
    notes=("50 % of s_1",),
)


def printed(width, table, wide=False, **options):
    """What `featlab` prints on a terminal of a width."""
    output = Output(wide=wide)
    output.stdout = Console(file=io.StringIO(), width=width, markup=False, highlight=False, **options)
    output.table(table)
    assert output.stdout.width == width
    return output.stdout.file.getvalue()


@pytest.fixture(scope="module")
def every_method(result):
    """Results of every method of the registry on ten subjects."""
    return [
        result(name, f"s{n:03}", 0.6 + n / 100 + 0.1 * (name == "oracle"), selection=make_method(name).selection)
        for name in method_names()
        for n in range(10)
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_terminal_loses_a_name_or_a_number(every_method, width):
    table = summary_table(summarise(every_method))
    text = printed(width, table)
    assert max(map(len, text.splitlines())) <= width
    shown = ["Method", "Macro F1", "95 % interval", "Video macro F1", "Gap closed", "Negative transfer", "p vs source"]
    assert [table.columns[place] for place in table.narrow] == shown
    assert all(word in text for head in shown for word in head.split())
    # Every column is there on request, and what is said of it.
    whole = printed(width, table, wide=True)
    assert ("Rank: average" in whole, "Rank:" in text, "Macro F1:" in text) == (True, False, True)
    for shown, places in ((text, table.narrow[1:]), (whole, range(2, len(table.columns)))):
        assert "…" not in shown
        for row in table.rows:
            (line,) = [line for line in shown.splitlines() if line.split()[:1] == row[0].split()[:1]]
            assert all(row[place] in line for place in places)
    subjects = per_subject_table(every_method)
    text = printed(width, subjects)
    for name in method_names():
        assert re.search(rf"\b{name}\b", text)
    assert text.count("62.00") == sum("62.00" in row for row in subjects.rows)


def test_the_terminal_shows_names_as_they_are_and_the_best_in_bold():
    text = printed(80, NASTY, force_terminal=True, color_system="standard")
    assert ("[bold]c" in text, "\x1b[1m[bold]c" in text) == (True, False)
    assert re.search(r"\x1b\[1m *<0\.001", text)


def test_csv_and_json_give_back_every_cell_and_json_lines_have_numbers_as_numbers(every_method, result):
    for table in (replace(per_subject_table(every_method), title=NASTY.title), NASTY):
        assert [tuple(line) for line in csv.reader(io.StringIO(to_csv(table)))] == [table.columns, *table.rows]
        data = json.loads(to_json(table))
        assert [tuple(line) for line in data["rows"]] == list(table.rows)
        assert (data["title"], data["bold"]) == (table.title, [list(marks) for marks in table.bold])
    rows = [result("pft", "s1", 0.8065), result("pft", "s2", 0.5), result("nrc", "s1", math.nan, error="no")]
    table = per_subject_table(rows)
    lines = [json.loads(line) for line in to_jsonl(table).splitlines()]
    assert [tuple(line) for line in lines] == [table.columns] * 2
    assert [line["s1"] for line in lines] == [80.65, "failed"]
    assert lines[1]["s2"] is None
    cells = [json.loads(to_jsonl(replace(NASTY, rows=(("5", cell),)))) for cell in ("5", "5.0")]
    assert [type(line["s_1|x"]) for line in cells] == [int, float]
    assert cells[0]["Method"] == "5"


def test_markdown_and_latex_escape_what_would_break_the_table():
    lines = "| Method | s_1\\|x |", "| --- | ---: |", "| a\\\\b\\*[x] | **<0.001** |"
    assert tuple(to_markdown(NASTY).splitlines()[2:5]) == lines
    text = to_latex(NASTY)
    assert r"\caption{100 \% of R\&D}" in text
    assert r"a\textbackslash{}b*{[}x{]} & \textbf{\textless{}0.001} \\" in text
    assert r"\$1\textasciitilde{}\textasciicircum{}\{\}\#\ldots{}--" in text
    assert not re.search(r"(?<!\\)[_%#$]", text)
    assert [text.count(rule) for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]


def test_groups_are_named_once_on_paper_and_nothing_makes_an_empty_table_in_every_format(result):
    rows = [result(name, "a", 0.5) for name in ("source-only", "neutral-shift", "referenced", "pft")]
    table = per_subject_table(rows)
    assert (to_markdown(table).count("Baselines"), to_csv(table).count("Baselines")) == (1, 2)
    assert to_latex(table).count("midrule") == 3
    for table in (per_subject_table([]), summary_table([]), class_table([]), cost_table([])):
        assert table.rows == ()
        assert all(render(table) for render in (to_markdown, to_csv, to_latex, to_json))
        printed(80, table)
        assert to_jsonl(table) == ""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from featlab.analysis.render import to_csv, to_json, to_latex, to_markdown, to_rich, write_table
from featlab.analysis.tables import MISSING, Table, per_subject_table, summary_table
from featlab.errors import InputError
from featlab.results import EvaluationRow
from featlab.summary import summarise

# Three columns of the poster's BioVid table.
POSTER = {
    "source-only": (62.78, 52.76, 45.79),
    "shot": (52.97, 45.35, 42.20),
    "sfit": (76.85, 65.33, 75.92),
    "pft": (80.65, 71.75, 58.08),
    "oracle": (92.22, 86.83, 92.12),
}
SETTINGS = {
    "shot": ("SFDA (model-based)", "SHOT (Liang et al., 2020)"),
    "sfit": ("SFDA (data-based)", "SFIT (Hou & Zheng, 2021b)"),
    "pft": ("SFDA-PFT", "SFDA-PFT (ours)"),
}


def row(method, subject, score, *, selection=None, seed=0):
    return EvaluationRow(
        method=method,
        subject=subject,
        draw=0,
        seed=seed,
        macro_f1=score,
        macro_f1_all=score,
        accuracy=score,
        balanced_accuracy=score,
        neutral_recall=score,
        non_neutral_recall=float("nan"),
        histogram=(1, 1),
        frames=2,
        adapt_frames=1,
        seconds=0.95,
        iterations=135,
        trainable=1024,
        collapsed=False,
        selection=selection or ("oracle" if method == "oracle" else "source-free"),
    )


def failed(method, subject):
    return EvaluationRow.failure(method, subject, 0, 0, selection="source-free", error="needs two classes")


def poster_rows():
    return [
        row(method, subject, score / 100)
        for method, scores in POSTER.items()
        for subject, score in zip(("s1", "s2", "s10"), scores, strict=True)
    ]


def bold_cells(table):
    return {
        (line[1], table.columns[place])
        for line, marks in zip(table.rows, table.bold, strict=True)
        for place, mark in enumerate(marks)
        if mark
    }


def test_the_per_subject_table_has_the_posters_form():
    table = per_subject_table(poster_rows(), settings=SETTINGS, numbered=True)
    assert table.columns == ("Setting", "Method", "Sub-1", "Sub-2", "Sub-3", "Average")
    assert table.rows[0] == ("Source-only", "Source model (no adaptation)", "62.78", "52.76", "45.79", "53.78")
    assert table.rows[3] == ("SFDA-PFT", "SFDA-PFT (ours)", "80.65", "71.75", "58.08", "70.16")
    assert [line[0] for line in table.rows] == [
        "Source-only",
        "SFDA (model-based)",
        "SFDA (data-based)",
        "SFDA-PFT",
        "Oracle",
    ]


def test_the_best_of_each_column_is_bold_and_the_oracle_does_not_compete():
    table = per_subject_table(poster_rows(), settings=SETTINGS)
    ours, sfit = "SFDA-PFT (ours)", "SFIT (Hou & Zheng, 2021b)"
    assert bold_cells(table) == {(ours, "s1"), (ours, "s2"), (sfit, "s10"), (sfit, "Average")}


def test_all_that_look_equal_are_bold():
    table = per_subject_table([row("source-only", "a", 0.50001), row("pft", "a", 0.49999)])
    assert [marks[2] for marks in table.bold] == [True, True]


def test_scores_can_be_shown_as_fractions():
    assert per_subject_table(poster_rows(), fractions=True).rows[0][2] == "0.6278"


def test_a_cell_is_the_mean_over_seeds_and_another_score_can_be_asked_for():
    rows = [row("pft", "a", 0.2), row("pft", "a", 0.4, seed=1)]
    assert per_subject_table(rows, field="accuracy").rows[0][2] == "30.00"


def test_methods_without_a_setting_get_one_and_groups_stay_together():
    rows = [
        row(name, "a", 0.5) for name in ("oracle", "neutral-shift", "pft", "referenced", "pft-anchored", "source-only")
    ]
    rows.append(row("dfa", "a", 0.5, selection="source-access"))
    table = per_subject_table(rows)
    assert [line[:2] for line in table.rows] == [
        ("Source-only", "Source model (no adaptation)"),
        ("Baselines", "neutral-shift"),
        ("Baselines", "referenced"),
        ("SFDA-PFT", "SFDA-PFT"),
        ("SFDA-PFT", "SFDA-PFT (anchored)"),
        ("Source access", "dfa"),
        ("Oracle", "Supervised fine-tuning"),
    ]


def test_a_failed_cell_says_so_and_the_note_says_why():
    rows = [row("source-only", "a", 0.5), row("source-only", "b", 0.5), row("shot", "a", 0.9), failed("shot", "b")]
    table = per_subject_table(rows)
    assert table.rows[1][2:] == ("90.00", "failed", "90.00*")
    assert table.notes[0] == "shot: 1 of 2 runs failed (b): needs two classes"
    assert table.bold[1] == (False, False, True, False, False)
    assert table.bold[0][-1]


def test_a_subject_without_a_run_is_a_dash():
    table = per_subject_table([row("source-only", "a", 0.5), row("pft", "b", 0.5)])
    assert table.rows[0][2:] == ("50.00", MISSING, "50.00*")


def test_a_method_that_always_failed_keeps_its_line():
    table = per_subject_table([row("source-only", "a", 0.5), failed("shot", "a")])
    assert table.rows[1] == ("Baselines", "shot", "failed", MISSING)


def test_the_summary_table_shows_the_numbers_of_the_summaries():
    summaries = summarise(poster_rows())
    table = summary_table(summaries, full=True)
    shown = {line[0]: dict(zip(table.columns, line, strict=True)) for line in table.rows}
    assert list(shown) == list(POSTER)
    for summary in summaries:
        cells = shown[summary.method]
        assert cells["Macro F1"] == f"{100 * summary.macro_f1:.2f}"
        assert cells["95 % interval"] == f"[{100 * summary.ci95[0]:.2f}, {100 * summary.ci95[1]:.2f}]"
        assert cells["Gap closed"] == f"{summary.gap_closed:.2f}"
        assert cells["Negative transfer"] == str(summary.negative_transfer)
        assert cells["Win/tie/loss"] == f"{summary.wins}/{summary.ties}/{summary.losses}"
        assert cells["Non-neutral recall"] == MISSING
        assert cells["Iterations"] == "135"
    column = table.columns.index("Macro F1")
    best = [line[0] for line, marks in zip(table.rows, table.bold, strict=True) if marks[column]]
    assert best == ["sfit"]


def test_what_saw_labels_or_source_rows_is_marked_in_the_summary():
    rows = [row("dfa", "a", 0.5, selection="source-access"), row("pft-best", "a", 0.5, selection="oracle")]
    table = summary_table(summarise([*rows, row("oracle", "a", 0.9), failed("shot", "a")]))
    assert [line[0] for line in table.rows] == ["dfa [source access]", "pft-best [target labels]", "oracle", "shot"]
    assert table.notes[-1] == "shot: 1 of 1 runs failed"


def test_nothing_makes_an_empty_table_in_every_format():
    for table in (per_subject_table([]), summary_table([])):
        assert table.rows == ()
        for render in (to_markdown, to_csv, to_latex, to_json):
            assert render(table)
        Console(file=io.StringIO()).print(to_rich(table))


NASTY = Table(
    title="100 % of R&D",
    columns=("Method", "s_1|x"),
    rows=(("a\\b*[x]", "<0.001"), ("[bold]c", "$1~^{}#…–")),
    bold=((False, True), (False, False)),
    notes=("50 % of s_1",),
)


def test_csv_and_json_give_back_every_cell():
    table = replace(per_subject_table(poster_rows(), settings=SETTINGS), title=NASTY.title)
    for each in (table, NASTY):
        assert [tuple(line) for line in csv.reader(io.StringIO(to_csv(each)))] == [each.columns, *each.rows]
        data = json.loads(to_json(each))
        assert [tuple(line) for line in data["rows"]] == list(each.rows)
        assert data["title"] == each.title
        assert data["bold"] == [list(marks) for marks in each.bold]


def test_markdown_escapes_what_would_break_the_table():
    lines = to_markdown(NASTY).splitlines()
    assert lines[2] == "| Method | s_1\\|x |"
    assert lines[3] == "| --- | ---: |"
    assert lines[4] == "| a\\\\b\\*[x] | **<0.001** |"


def test_latex_is_booktabs_and_escaped():
    text = to_latex(NASTY)
    assert r"\caption{100 \% of R\&D}" in text
    assert r"a\textbackslash{}b*{[}x{]} & \textbf{\textless{}0.001} \\" in text
    assert r"\$1\textasciitilde{}\textasciicircum{}\{\}\#\ldots{}--" in text
    assert not re.search(r"(?<!\\)[_%#$]", text)
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rule) == 1


def test_groups_are_named_once_on_paper_and_ruled_off():
    rows = [row(name, "a", 0.5) for name in ("source-only", "neutral-shift", "referenced", "pft")]
    table = per_subject_table(rows)
    assert to_markdown(table).count("Baselines") == 1
    assert to_csv(table).count("Baselines") == 2
    assert to_latex(table).count("midrule") == 3


def test_the_terminal_shows_names_as_they_are_and_the_best_in_bold():
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(to_rich(NASTY))
    assert "[bold]c" in out.getvalue()
    assert re.search(r"\x1b\[1m *<0\.001", out.getvalue())
    assert not re.search(r"\x1b\[1m *\[bold\]c", out.getvalue())


def test_no_number_of_ten_subjects_is_cut_in_a_terminal():
    rows = [row(method, f"subject-{n}", 0.61234) for method in ("source-only", "pft") for n in range(10)]
    out = io.StringIO()
    Console(file=out, width=120).print(to_rich(per_subject_table(rows, numbered=True)))
    assert out.getvalue().count("61.23") == 22
    assert "…" not in out.getvalue()


@pytest.mark.parametrize("suffix", [".md", ".csv", ".tex", ".json"])
def test_a_table_is_written_in_the_format_of_its_name(tmp_path, suffix):
    write_table(tmp_path / f"table{suffix}", NASTY)
    render = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex, ".json": to_json}[suffix]
    assert (tmp_path / f"table{suffix}").read_bytes().decode() == render(NASTY)
    assert len(list(tmp_path.iterdir())) == 1


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.xlsx"):
        write_table(tmp_path / "table.xlsx", NASTY)

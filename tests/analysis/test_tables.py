import csv
import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from featlab.analysis.evaluation.subject_tables import per_subject_table
from featlab.analysis.evaluation.tables import summary_table
from featlab.analysis.render import to_csv, to_json, to_jsonl, to_latex, to_markdown, to_rich, write_table
from featlab.analysis.table import MISSING, Table, flops_text, number_of, p_text
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.summary import summarise

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


def failed(method, subject, error="needs two classes", selection="source-free"):
    return EvaluationRow.failure(method, subject, 0, 0, selection=selection, error=error)


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


def test_a_method_that_refuses_everybody_says_why_once():
    rows = [failed("nrc", f"s{n}", f"nrc needs 8 target rows or more, got {n}") for n in range(9)]
    rows += [row("source-only", f"s{n}", 0.5) for n in range(9)]
    table = per_subject_table(rows)
    assert [line[2:-1] for line in table.rows if line[1] == "nrc"] == [("failed",) * 9]
    assert table.notes == ("nrc: every run failed: nrc needs 8 target rows or more, got …",)


def test_a_note_names_a_few_subjects_and_counts_the_rest():
    rows = [failed("nrc", f"s{n}") for n in range(9)] + [row("nrc", "z", 0.5), row("source-only", "z", 0.4)]
    assert per_subject_table(rows).notes[0] == (
        "nrc: 9 of 10 runs failed (s0, s1, s2, s3, s4, s5 and 3 more): needs two classes"
    )


def access_rows():
    rows = [row("source-only", "a", 0.5), row("pft", "a", 0.6), row("oracle", "a", 0.9)]
    return [*rows, row("safn", "a", 0.8, selection="source-access")]


def test_methods_with_source_access_are_marked_and_do_not_compete():
    plain = per_subject_table(access_rows())
    odd = per_subject_table(access_rows(), settings={"safn": ("Mine", "SAFN")})
    told = per_subject_table(access_rows(), settings={"safn": ("UDA (source access)", "SAFN")})
    assert [line[:2] for line in plain.rows][2] == ("Source access", "safn")
    assert [line[:2] for line in odd.rows][2] == ("Mine", "SAFN [source access]")
    assert [line[:2] for line in told.rows][2] == ("UDA (source access)", "SAFN")
    for table in (plain, odd, told):
        assert bold_cells(table) == {("SFDA-PFT", "a"), ("SFDA-PFT", "Average")}
        assert any("do not compete" in note for note in table.notes)
    summary = summary_table(summarise(access_rows()))
    assert [line[0] for line, marks in zip(summary.rows, summary.bold, strict=True) if any(marks)] == ["pft"]
    assert any("do not compete" in note for note in summary.notes)
    assert not any("compete" in note for note in per_subject_table(poster_rows()).notes)


def test_what_was_adapted_to_is_said_when_it_is_a_data_set():
    rows = [replace(line, scope="dataset") for line in poster_rows()]
    for table in (per_subject_table(rows), summary_table(summarise(rows))):
        assert any("all target subjects together" in note for note in table.notes)


def test_the_summary_for_a_terminal_has_what_decides():
    table = summary_table(summarise(poster_rows()))
    assert table.columns == (
        "Method",
        "Macro F1",
        "95 % interval",
        "Gap closed",
        "Negative transfer",
        "p vs source",
        "p vs pft",
        "Rank",
        "Seconds",
    )
    alone = summary_table(summarise([row("shot", "a", 0.5)]))
    assert alone.columns == ("Method", "Macro F1", "Seconds")


def test_the_summary_for_files_has_the_second_comparison_ranks_and_operations():
    rows = [replace(line, flops=3.6e9 if line.subject == "s1" else float("nan")) for line in poster_rows()]
    summaries = summarise(rows)
    table = summary_table(summaries, full=True)
    for item, line in zip(summaries, table.rows, strict=True):
        cells = dict(zip(table.columns, line, strict=True))
        assert cells["MFLOPs"] == "3600"
        assert cells["Difference to pft"] == f"{100 * item.difference_vs_pft:.2f}"
        assert cells["p vs pft"] == (MISSING if item.method in ("pft", "oracle") else f"{item.p_vs_pft:.3f}")
        assert cells["Rank"] == (MISSING if item.method == "oracle" else f"{item.rank:.2f}")
    assert any("over the 3 subjects" in note for note in table.notes)


@pytest.mark.parametrize(
    ("flops", "shown"), [(float("nan"), MISSING), (0.0, "0.000"), (1.5e6, "1.500"), (2e8, "200"), (3.2e12, "3200000")]
)
def test_operations_are_shown_in_millions(flops, shown):
    assert flops_text(flops) == shown


def test_smoothed_scores_stand_right_after_the_main_ones_where_there_are_any():
    rows = [replace(line, macro_f1_smoothed=line.macro_f1 + 0.01) for line in poster_rows()]
    summaries = summarise([*rows, failed("nrc", "s1")])
    table = summary_table(summaries, smoothing=9)
    assert table.columns[:5] == ("Method", "Macro F1", "95 % interval", "Smoothed", "Gap closed")
    assert [line[3] for line in table.rows] == [
        MISSING if not item.runs else f"{100 * item.macro_f1_smoothed:.2f}" for item in summaries
    ]
    assert [line[0] for line, marks in zip(table.rows, table.bold, strict=True) if marks[3]] == ["sfit"]
    assert any("over 9 frames of a video" in note for note in table.notes)
    assert any("over neighbouring frames" in note for note in summary_table(summaries).notes)
    full = summary_table(summaries, full=True)
    low, high = summaries[0].ci95_smoothed
    place = full.columns.index("95 % interval, smoothed")
    assert full.columns[place - 1] == "Smoothed"
    assert full.rows[0][place] == f"[{100 * low:.2f}, {100 * high:.2f}]"
    assert not any("Smoothed" in note for note in summary_table(summarise(poster_rows()), smoothing=9).notes)


def test_the_calibration_error_is_shown_and_its_largest_is_not_the_best():
    sure_and_wrong = (*(0.0,) * 42, 2.0, 1.9, 0.0)
    right = (*(0.0,) * 42, 2.0, 1.9, 2.0)
    rows = [
        replace(line, reliability=sure_and_wrong if line.method == "shot" else right)
        for line in poster_rows()
        if line.method != "oracle"
    ]
    for full in (False, True):
        table = summary_table(summarise(rows), full=full)
        place = table.columns.index("ECE")
        assert [line[place] for line in table.rows] == ["5.00", "95.00", "5.00", "5.00"]
        assert not any(marks[place] for marks in table.bold)
        assert any(note.startswith("ECE: expected calibration error") for note in table.notes)
    assert "ECE" not in summary_table(summarise(poster_rows())).columns


def test_small_p_values_are_bounded():
    assert [p_text(value) for value in (0.0004, 0.0521, float("nan"))] == ["<0.001", "0.052", MISSING]


@pytest.mark.parametrize("cell", ["failed", MISSING, "", "90.00*", "<0.001", "[1, 2]", "nan", "inf"])
def test_words_are_no_numbers(cell):
    assert number_of(cell) is None


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
    assert "shot: every run failed: needs two classes" in table.notes
    assert table.rows[3][1] == "failed"


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


def test_json_lines_give_an_object_a_row_with_numbers_as_numbers():
    rows = [*poster_rows(), failed("nrc", "s1")]
    table = per_subject_table(rows, settings=SETTINGS)
    lines = [json.loads(line) for line in to_jsonl(table).splitlines()]
    assert [tuple(line) for line in lines] == [table.columns] * len(table.rows)
    by_name = {line["Method"]: line for line in lines}
    assert by_name["SFDA-PFT (ours)"]["s1"] == 80.65
    assert by_name["nrc"]["s1"] == "failed"
    assert by_name["nrc"]["s2"] is None
    assert [type(json.loads(to_jsonl(replace(NASTY, rows=(("5", cell),))))["s_1|x"]) for cell in ("5", "5.0")] == [
        int,
        float,
    ]
    assert json.loads(to_jsonl(replace(NASTY, rows=(("5", "5"),))))["Method"] == "5"


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


@pytest.mark.parametrize("suffix", [".md", ".csv", ".tex", ".json", ".jsonl"])
def test_a_table_is_written_in_the_format_of_its_name(tmp_path, suffix):
    write_table(tmp_path / f"table{suffix}", NASTY)
    render = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex, ".json": to_json, ".jsonl": to_jsonl}[suffix]
    assert (tmp_path / f"table{suffix}").read_bytes().decode() == render(NASTY)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_narrow_terminal_folds_names_and_cuts_no_number():
    rows = [
        row(f"a-method (Somebody & Somebody-Else et al., 20{m})", f"s{n}", 0.6) for m in range(10, 20) for n in "ab"
    ]
    out = io.StringIO()
    table = summary_table(summarise([*rows, *poster_rows()]))
    Console(file=out, width=96).print(to_rich(table))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 96
    assert "…" not in out.getvalue()
    for line in table.rows:
        assert any(line[2] in shown and line[1] in shown for shown in lines)


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.xlsx"):
        write_table(tmp_path / "table.xlsx", NASTY)

"""Ranks and costs as tables."""

from dataclasses import replace

import pytest

from featlab.analysis.evaluation.subject_tables import cost_table
from featlab.analysis.evaluation.tables import rank_table
from featlab.analysis.render import to_csv, to_jsonl, to_latex, to_markdown, to_rich
from featlab.analysis.table import MISSING
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.statistics import RankComparison, compare_ranks
from featlab.evaluation.summary import summarise

FOUND = RankComparison(
    methods=("a", "b", "c", "d"),
    ranks=(1.2, 1.75, 2.4, 3.9),
    subjects=60,
    level=0.05,
    critical_difference=1.1,
    friedman_p=1e-5,
    cliques=((0, 1), (1, 2)),
)


def test_methods_come_in_the_order_of_their_ranks_with_their_groups():
    table = rank_table(FOUND)
    assert table.columns == ("Method", "Rank", "Groups")
    assert table.rows == (("a", "1.20", "1"), ("b", "1.75", "1–2"), ("c", "2.40", "2"), ("d", "3.90", MISSING))


def test_a_method_that_differs_from_all_has_no_group():
    table = rank_table(compare_ranks({"a": [0.1] * 30, "b": [0.3] * 30}))
    assert [line[2] for line in table.rows] == [MISSING, MISSING]


def test_the_notes_say_over_whom_and_how_far_apart():
    text = " ".join(rank_table(FOUND).notes)
    assert "60 subjects" in text
    assert "critical difference of 1.10 (Nemenyi, 0.05)" in text
    assert text.endswith("Friedman: p < 0.001.")
    alike = compare_ranks({"a": [0.1, 0.2], "b": [0.2, 0.1], "c": [0.15, 0.15]})
    assert "p = 1.000, no evidence that any two methods differ." in " ".join(rank_table(alike).notes)
    two = " ".join(rank_table(compare_ranks({"a": [0.1], "b": [0.2]})).notes)
    assert "1 subject that" in two
    assert "Friedman" not in two


def test_methods_with_source_access_are_marked():
    found = compare_ranks({"pft": [0.5, 0.6], "safn": [0.4, 0.7]})
    settings = {"safn": ("UDA (source access)", "SAFN")}
    table = rank_table(found, selections={"safn": "source-access"}, settings=settings)
    assert [line[0] for line in table.rows] == ["pft", "SAFN [source access]"]


@pytest.fixture
def summaries(result):
    rows = [result("source-only", "a", 0.5, iterations=0, trainable=0, flops=0.0)]
    rows += [result("pft", "a", 0.5, flops=2.5e9), result("pft", "b", 0.5, iterations=65, seconds=0.0488)]
    rows += [result("safn", "a", 0.6, selection="source-access")]
    rows += [EvaluationRow.failure("shot", "a", 0, 0, selection="source-free", error="needs 8 rows")]
    return summarise(rows)


def test_costs_are_means_over_subjects(summaries):
    table = cost_table(summaries)
    assert table.columns == ("Method", "Iterations", "Seconds", "Trainable", "MFLOPs")
    assert table.rows == (
        ("source-only", "0", "0.951", "0", "0.000"),
        ("pft", "100", "0.500", "1024", "2500"),
        ("safn [source access]", "135", "0.951", "1024", MISSING),
        ("shot", "failed", MISSING, MISSING, MISSING),
    )
    assert not any(any(marks) for marks in table.bold)
    assert "shot: every run failed: needs 8 rows" in table.notes


def test_costs_of_a_data_set_say_so(summaries):
    assert not any("together" in note for note in cost_table(summaries).notes)
    assert any("together" in note for note in cost_table([replace(summaries[0], scope="dataset")]).notes)


def test_they_render_everywhere(summaries):
    for table in (cost_table(summaries), cost_table([]), rank_table(FOUND)):
        for render in (to_markdown, to_csv, to_latex, to_rich):
            assert render(table)
        assert len(to_jsonl(table).splitlines()) == len(table.rows)

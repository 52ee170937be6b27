"""The tables of an evaluation and of a tuning: every cell is its number, the best is bold, what is missing is said."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from featlab.analysis.evaluation.result import trials_table
from featlab.analysis.evaluation.tables import (
    class_means,
    class_table,
    cost_table,
    per_subject_table,
    rank_table,
    summary_table,
)
from featlab.analysis.table import MISSING, flops_text, number_of, p_text
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.statistics import RankComparison, compare_ranks
from featlab.evaluation.summary import summarise
from featlab.evaluation.tuning_report import Trial, TuningReport, best_first

NAN = float("nan")
# Three columns of the poster's BioVid table.
POSTER = {
    "source-only": (62.78, 52.76, 45.79),
    "shot": (52.97, 45.35, 42.20),
    "sfit": (76.85, 65.33, 75.92),
    "pft": (80.65, 71.75, 58.08),
    "oracle": (92.22, 86.83, 92.12),
}


@pytest.fixture
def failed(result):
    return lambda method, subject, error="needs two classes": result(method, subject, NAN, error=error)


@pytest.fixture
def poster(result):
    return [
        result(method, subject, score / 100)
        for method, scores in POSTER.items()
        for subject, score in zip(("s1", "s2", "s10"), scores, strict=True)
    ]


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def bold(table, name):
    """The methods whose cell of a column is bold."""
    at, who = table.columns.index(name), table.columns.index("Method")
    return [row[who] for row, marks in zip(table.rows, table.bold, strict=True) if marks[at]]


def test_the_per_subject_table_has_the_posters_form_and_methods_of_one_setting_stand_together(poster, result):
    table = per_subject_table(poster)
    assert table.columns == ("Setting", "Method", "s1", "s2", "s10", "Average")
    assert table.rows[0] == ("Source-only", "source-only", "62.78", "52.76", "45.79", "53.78")
    assert table.rows[3] == ("SFDA-PFT", "pft", "80.65", "71.75", "58.08", "70.16")
    assert [bold(table, name) for name in table.columns[2:]] == [["pft"], ["pft"], ["sfit"], ["sfit"]]
    given = ("oracle", "neutral-shift", "pft", "referenced", "somebody-s", "source-only")
    rows = [result(name, "a", 0.5) for name in given]
    rows += [result(name, "a", 0.5, selection="source-access") for name in ("dfa", "theirs")]
    order = "source-only,neutral-shift,referenced,somebody-s,pft,dfa [source access],theirs [source access],oracle"
    settings = "Source-only,Baselines,Baselines,Baselines,SFDA-PFT,UDA (source access),Source access,Oracle"
    expected = list(zip(settings.split(","), order.split(","), strict=True))
    assert [line[:2] for line in per_subject_table(rows).rows] == expected
    # A cell is a mean over seeds, and what looks equal is equally bold.
    rows = [result("pft", "a", 0.2), result("pft", "a", 0.4, seed=1), result("source-only", "a", 0.29999)]
    table = per_subject_table(rows)
    assert column(table, "a") == ["30.00", "30.00"]
    assert bold(table, "a") == ["source-only", "pft"]


def test_failed_and_missing_cells_say_so_and_a_starred_average_is_never_the_best(result, failed):
    rows = [result("source-only", "a", 0.5), result("source-only", "b", 0.5), result("shot", "a", 0.9)]
    table = per_subject_table([*rows, failed("shot", "b")])
    assert table.rows[1][2:] == ("90.00", "failed", "90.00*")
    assert table.notes[0] == "shot: 1 of 2 runs failed (b): needs two classes"
    assert (bold(table, "a"), bold(table, "Average")) == (["shot"], ["source-only"])
    assert per_subject_table([rows[0], result("pft", "b", 0.5)]).rows[0][2:] == ("50.00", MISSING, "50.00*")
    assert per_subject_table([rows[0], failed("shot", "a")]).rows[1][2:] == ("failed", MISSING)
    refused = [failed("nrc", f"s{n}", f"nrc needs 8 target rows or more, got {n}") for n in range(9)]
    assert per_subject_table(refused).notes == ("nrc: every run failed: nrc needs 8 target rows or more, got …",)
    some = per_subject_table([*refused, result("nrc", "z", 0.5)])
    assert some.notes[0].startswith("nrc: 9 of 10 runs failed (s0, s1, s2, s3, s4, s5 and 3 more): nrc needs 8")
    # A method that could not run keeps its line in every table.
    rows = [result("source-only", "a", 0.5, class_recall=(0.5, 0.5)), failed("shot", "a")]
    summaries = summarise(rows)
    for table, name in (
        (summary_table(summaries), "Macro F1"),
        (cost_table(summaries), "Iterations"),
        (class_table(rows), "Class 1"),
    ):
        assert column(table, name)[1] == "failed"
        assert "shot: every run failed: needs two classes" in table.notes


def test_source_access_is_marked_in_every_table_and_competes_in_none(result):
    scores = {"source-only": 0.5, "pft": 0.6, "oracle": 0.9, "pft-best": 0.8, "safn": 0.8}
    seen = {"safn": "source-access", "oracle": "oracle", "pft-best": "oracle"}
    rows = [
        result(name, s, score, selection=seen.get(name, "source-free"), class_recall=(score, score))
        for name, score in scores.items()
        for s in "ab"
    ]
    summaries = summarise(rows)
    tables = per_subject_table(rows), summary_table(summaries), class_table(rows)
    for table, head in zip(tables, ("a", "Macro F1", "Class 1"), strict=True):
        assert {"pft-best [target labels]", "safn [source access]"} < set(column(table, "Method"))
        assert bold(table, head) == ["pft"]
        assert any("do not compete" in note for note in table.notes)
    ranked = rank_table(compare_ranks({"pft": [0.5, 0.6], "safn": [0.4, 0.7]}), {**seen, "pft": "source-free"})
    for table in (cost_table(summaries), ranked):
        assert "safn [source access]" in column(table, "Method")
    assert not any("compete" in note for note in per_subject_table(rows[:4]).notes)


def test_the_summary_shows_the_numbers_of_the_summaries(poster):
    rows = [replace(line, flops=3.6e9 if line.subject == "s1" else NAN) for line in poster]
    summaries = summarise(rows)
    table = summary_table(summaries)
    assert column(table, "Method") == list(POSTER)
    assert column(table, "Published as")[1] == "SHOT (Liang et al., 2020)"
    for item, line in zip(summaries, table.rows, strict=True):
        expected = {
            "Macro F1": f"{100 * item.macro_f1:.2f}",
            "95 % interval": f"[{100 * item.ci95[0]:.2f}, {100 * item.ci95[1]:.2f}]",
            "Gap closed": f"{item.gap_closed:.2f}",
            "Negative transfer": str(item.negative_transfer),
            "Win/tie/loss": f"{item.wins}/{item.ties}/{item.losses}",
            "Difference to pft": f"{100 * item.difference_vs_pft:.2f}",
            "p vs pft": MISSING if item.method in ("pft", "oracle") else f"{item.p_vs_pft:.3f}",
            "Rank": MISSING if item.method == "oracle" else f"{item.rank:.2f}",
            "Non-neutral recall": MISSING,
        }
        assert expected.items() <= dict(zip(table.columns, line, strict=True)).items()
    assert bold(table, "Macro F1") == ["sfit"]
    assert any("over the 3 subjects" in note for note in table.notes)


def test_costs_are_means_over_subjects_and_numbers_are_shown_alike_everywhere(result):
    rows = [result("source-only", "a", 0.5, iterations=0, trainable=0, flops=0.0)]
    rows += [result("pft", "a", 0.5, flops=2.5e9), result("pft", "b", 0.5, iterations=65, seconds=0.0488)]
    table = cost_table(summarise(rows))
    assert table.columns == ("Method", "Iterations", "Seconds", "Trainable", "MFLOPs")
    assert table.rows == (("source-only", "0", "0.951", "0", "0.000"), ("pft", "100", "0.500", "1024", "2500"))
    assert not any(map(any, table.bold))
    shown = {NAN: MISSING, 0.0: "0.000", 1.5e6: "1.500", 2e8: "200", 3.2e12: "3200000"}
    assert [flops_text(value) for value in shown] == list(shown.values())
    assert [p_text(value) for value in (0.0004, 0.0521, NAN)] == ["<0.001", "0.052", MISSING]
    words = ["failed", MISSING, "", "90.00*", "<0.001", "[1, 2]", "nan", "inf"]
    assert [number_of(cell) for cell in [*words, "-1.5"]] == [None] * len(words) + [-1.5]


CLASSES = ("neutral", "joy", "fear")
RECALLS = {
    "source-only": {"a": (0.9, 0.2, NAN), "b": (0.7, 0.4, 0.5)},
    "pft": {"a": (0.8, 0.6, NAN), "b": (0.6, 0.8, 0.3)},
    "oracle": {"a": (1.0, 1.0, NAN), "b": (1.0, 1.0, 1.0)},
}


@pytest.fixture
def recalls(result):
    return [result(m, s, 0.5, class_recall=recall) for m, found in RECALLS.items() for s, recall in found.items()]


def test_a_recall_is_the_mean_over_the_subjects_who_show_the_class(recalls, result):
    table = class_table(recalls[::-1], classes=CLASSES)
    assert table.columns == ("Method", *CLASSES, "Average")
    for line, (method, found) in zip(table.rows, RECALLS.items(), strict=True):
        means = 100 * np.nanmean(list(found.values()), axis=0)
        assert line == (method, *(f"{value:.2f}" for value in [*means, means.mean()]))
    assert [bold(table, name) for name in table.columns[1:]] == [["source-only"], ["pft"], ["source-only"], ["pft"]]
    seeds = [result("pft", "a", 0.5, seed=seed, class_recall=(value,)) for seed, value in enumerate((0.0, 0.2, 0.4))]
    means = class_means([*seeds, result("pft", "b", 0.5, class_recall=(0.8,))], 1)
    assert means == [pytest.approx({"a": 0.2, "b": 0.8})]
    alone = class_table([result("pft", "a", 0.5, class_recall=(0.5, NAN, 0.7))])
    assert (alone.columns[1], alone.rows[0][1:]) == ("Class 1", ("50.00", MISSING, "70.00", "60.00"))


def test_a_recall_over_fewer_subjects_is_starred_and_never_bold(recalls, result, failed):
    best = [line for line in recalls if line.method == "oracle" and line.subject == "a"]
    shot = [EvaluationRow.from_dict(line.to_dict() | {"method": "shot", "selection": "source-free"}) for line in best]
    table = class_table([*recalls, *shot, failed("shot", "b")], classes=CLASSES)
    assert table.rows[2] == ("shot", "100.00*", "100.00*", MISSING, "100.00*")
    assert not any(table.bold[2])
    assert "shot: 1 of 2 runs failed (b): needs two classes" in table.notes
    assert "* over fewer subjects than other methods have" in table.notes
    # Recalls that do not fit together are refused.
    other = [*recalls, result("shot", "a", 0.5, class_recall=(0.5,))]
    for rows, classes, said in ((recalls, ("x", "y"), "2 and 3 classes"), (other, (), "1 and 3 classes")):
        with pytest.raises(InputError, match=said):
            class_table(rows, classes=classes)


def test_ranks_come_with_their_groups_and_with_what_the_test_says():
    ranked = {"methods": ("a", "b", "c", "d"), "ranks": (1.2, 1.75, 2.4, 3.9), "cliques": ((0, 1), (1, 2))}
    found = RankComparison(**ranked, subjects=60, level=0.05, critical_difference=1.1, friedman_p=1e-5)
    free = dict.fromkeys("abcd", "source-free")
    table = rank_table(found, free)
    assert table.rows == (("a", "1.20", "1"), ("b", "1.75", "1–2"), ("c", "2.40", "2"), ("d", "3.90", MISSING))
    for said in ("60 subjects", "critical difference of 1.10 (Nemenyi, 0.05)", "Friedman: p < 0.001."):
        assert said in " ".join(table.notes)
    alike = rank_table(compare_ranks({"a": [0.1, 0.2], "b": [0.2, 0.1], "c": [0.15, 0.15]}), free)
    assert "p = 1.000, no evidence that any two methods differ." in " ".join(alike.notes)
    two = " ".join(rank_table(compare_ranks({"a": [0.1], "b": [0.2]}), free).notes)
    assert ("1 subject that" in two, "Friedman" in two) == (True, False)
    assert column(rank_table(compare_ranks({"a": [0.1] * 30, "b": [0.3] * 30}), free), "Groups") == [MISSING] * 2


def trial(number, score, *, failed=0):
    none, default = math.isnan(score), number == 1
    options = {"lr": 0.1, "words": ("a", "b"), "top": None}
    scores = {"macro_f1": score, "sd": 0.1, "ci95": (score - 0.1, score + 0.1)}
    compared = {"difference": score - 0.5, "wins": 5, "ties": 1, "losses": 3}
    ran = {"subjects": 0 if none else 9 - failed, "failed": 9 if none else failed, "p_holm": NAN if default else 0.0301}
    reasons = ("too dark",) if failed or none else ()
    return Trial(number, options, changed=int(not default), reasons=reasons, **scores, **compared, **ran)


def trials_of(*trials):
    plan = SimpleNamespace(space=SimpleNamespace(method="shot"))
    return trials_table(TuningReport(plan, best_first(trials), {}, 0, ""))


def test_candidates_stand_in_order_with_their_options_and_the_default_is_compared_with_nothing():
    table = trials_of(trial(1, 0.5), trial(2, 0.4), trial(3, 0.9, failed=2), trial(4, 0.7), trial(5, NAN))
    assert column(table, "Candidate") == ["4 (chosen)", "1 (default)", "2", "3", "5"]
    assert column(table, "Macro F1") == ["70.00", "50.00", "40.00", "90.00", "failed"]
    marked = [(row, table.columns[place]) for row, marks in enumerate(table.bold) for place in np.flatnonzero(marks)]
    assert marked == [(0, "Macro F1")]
    assert table.columns[:4] == ("Candidate", "lr", "words", "top")
    assert table.rows[0][1:4] == ("0.1", "a,b", "none")
    for name, shown in (("Difference to default", "20.00"), ("p vs default", "0.030"), ("Win/tie/loss", "5/1/3")):
        assert column(table, name)[:2] == [shown, MISSING]
    assert column(table, "Failed") == ["0", "0", "0", "2", "9"]
    assert table.columns.index("Failed") in table.narrow
    assert "Candidate 3: 2 runs failed: too dark" in table.notes
    table = trials_of(trial(1, 0.5), trial(2, 0.5))
    assert column(table, "Candidate") == ["1 (default, chosen)", "2"]
    assert "Failed" not in {table.columns[place] for place in table.narrow}

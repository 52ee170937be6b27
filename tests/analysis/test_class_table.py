"""Class-wise accuracy."""

import numpy as np
import pytest

from featlab.analysis.evaluation.subject_tables import class_means, class_table
from featlab.analysis.render import to_csv, to_jsonl, to_latex, to_markdown, to_rich
from featlab.analysis.table import MISSING
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow

NAN = float("nan")
CLASSES = ("neutral", "joy", "fear")
RECALLS = {
    "source-only": {"a": (0.9, 0.2, NAN), "b": (0.7, 0.4, 0.5)},
    "pft": {"a": (0.8, 0.6, NAN), "b": (0.6, 0.8, 0.3)},
    "oracle": {"a": (1.0, 1.0, NAN), "b": (1.0, 1.0, 1.0)},
}


@pytest.fixture
def rows(result):
    return [result(m, s, 0.5, class_recall=recall) for m, found in RECALLS.items() for s, recall in found.items()]


def cells(table):
    return {line[0]: dict(zip(table.columns[1:], line[1:], strict=True)) for line in table.rows}


def test_a_cell_is_the_mean_over_the_subjects_who_show_the_class(rows):
    table = class_table(rows, classes=CLASSES)
    assert table.columns == ("Method", *CLASSES, "Average")
    for method, found in RECALLS.items():
        means = 100 * np.nanmean(list(found.values()), axis=0)
        name = "oracle" if method == "oracle" else method
        assert list(cells(table)[name].values()) == [f"{value:.2f}" for value in [*means, means.mean()]]


def test_the_best_of_each_class_is_bold_and_neither_the_oracle_nor_source_access_competes(rows, result):
    perfect = {"a": (1.0, 1.0, NAN), "b": (1.0, 1.0, 1.0)}
    rows += [result("safn", s, 0.5, class_recall=perfect[s], selection="source-access") for s in perfect]
    table = class_table(rows, classes=CLASSES)
    bold = {line[0]: marks for line, marks in zip(table.rows, table.bold, strict=True)}
    assert bold["source-only"] == (False, True, False, True, False)
    assert bold["pft"] == (False, False, True, False, True)
    assert not any(bold["oracle"])
    assert not any(bold["safn [source access]"])
    assert any("do not compete" in note for note in table.notes)


def test_seeds_are_averaged_within_a_subject(result):
    rows = [result("pft", "a", 0.5, seed=seed, class_recall=(value,)) for seed, value in enumerate((0.0, 0.2, 0.4))]
    rows.append(result("pft", "b", 0.5, class_recall=(0.8,)))
    assert class_means(rows, 1) == [pytest.approx({"a": 0.2, "b": 0.8})]
    assert cells(class_table(rows))["pft"] == {"Class 1": "50.00", "Average": "50.00"}


def test_a_mean_over_fewer_subjects_is_starred_and_never_bold(rows):
    broken = EvaluationRow.failure("shot", "b", 0, 0, selection="source-free", error="no")
    best = [line for line in rows if line.method == "oracle" and line.subject == "a"]
    shot = [EvaluationRow.from_dict(line.to_dict() | {"method": "shot", "selection": "source-free"}) for line in best]
    table = class_table([*rows, *shot, broken], classes=CLASSES)
    assert cells(table)["shot"] == {"neutral": "100.00*", "joy": "100.00*", "fear": MISSING, "Average": "100.00*"}
    assert not any(dict(zip([line[0] for line in table.rows], table.bold, strict=True))["shot"])
    assert "shot: 1 of 2 runs failed (b): no" in table.notes
    assert "* over fewer subjects than other methods have" in table.notes


def test_a_class_that_nobody_shows_is_a_dash_and_in_no_average(result):
    rows = [result("pft", "a", 0.5, class_recall=(0.5, NAN, 0.7))]
    assert cells(class_table(rows))["pft"] == {
        "Class 1": "50.00",
        "Class 2": MISSING,
        "Class 3": "70.00",
        "Average": "60.00",
    }


def test_a_method_that_could_not_run_says_so(rows):
    broken = EvaluationRow.failure("shot", "a", 0, 0, selection="source-free", error="needs 8 rows, got 3")
    table = class_table([*rows, broken], classes=CLASSES)
    assert list(cells(table)["shot"].values()) == ["failed", MISSING, MISSING, MISSING]
    assert table.notes == ("shot: every run failed: needs 8 rows, got 3",)


def test_methods_stand_by_setting_under_their_names(rows):
    settings = {"pft": ("SFDA-PFT", "SFDA-PFT (anchored)"), "source-only": ("Source-only", "Source model")}
    table = class_table(rows[::-1], classes=CLASSES, settings=settings)
    assert [line[0] for line in table.rows] == ["Source model", "SFDA-PFT (anchored)", "oracle"]


def test_results_without_recalls_make_a_table_of_dashes(result):
    table = class_table([result("pft", "a", 0.5)], classes=("x", "y"))
    assert table.rows == (("pft", MISSING, MISSING, MISSING),)


def test_recalls_that_do_not_fit_together_are_refused(rows, result):
    with pytest.raises(InputError, match="2 and 3 classes"):
        class_table(rows, classes=("x", "y"))
    with pytest.raises(InputError, match="1 and 3 classes"):
        class_table([*rows, result("shot", "a", 0.5, class_recall=(0.5,))])


def test_it_renders_everywhere(rows):
    for table in (class_table(rows, classes=CLASSES), class_table([])):
        for render in (to_markdown, to_csv, to_latex, to_rich):
            assert render(table)
        assert len(to_jsonl(table).splitlines()) == len(table.rows)

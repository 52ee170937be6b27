"""The table of candidates: order, marks, what is left out."""

import math

import pytest

from featlab.analysis.evaluation.tuning import trials_table
from featlab.analysis.render import to_markdown
from featlab.evaluation.tuning_report import Trial


def trial(number, score, *, failed=0, lr=0.1, changed=1):
    none = math.isnan(score)
    return Trial(
        number=number,
        options={"lr": lr, "words": ("a", "b"), "top": None},
        changed=0 if number == 1 else changed,
        subjects=0 if none else 9 - failed,
        macro_f1=score,
        sd=0.1,
        ci95=(score - 0.1, score + 0.1),
        folds=(score, score),
        seconds=0.5,
        difference=score - 0.5,
        wins=5,
        ties=1,
        losses=3,
        p=math.nan if number == 1 else 0.01,
        p_holm=math.nan if number == 1 else 0.0301,
        failed=9 if none else failed,
        reasons=("too dark",) if failed or none else (),
    )


@pytest.fixture
def trials():
    return [trial(1, 0.5), trial(2, 0.4), trial(3, 0.9, failed=2), trial(4, 0.7), trial(5, math.nan)]


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_best_is_first_and_bold_and_those_that_failed_are_last(trials):
    table = trials_table(trials)
    assert column(table, "Candidate") == ["4 (chosen)", "1 (default)", "2", "3", "5"]
    assert column(table, "Macro F1") == ["70.00", "50.00", "40.00", "90.00", "failed"]
    place = table.columns.index("Macro F1")
    assert [row[place] for row in table.bold] == [True, False, False, False, False]
    assert sum(cell for row in table.bold for cell in row) == 1


def test_each_option_has_a_column(trials):
    table = trials_table(trials)
    assert table.columns[:4] == ("Candidate", "lr", "words", "top")
    assert table.rows[0][1:4] == ("0.1", "a,b", "none")


def test_the_default_is_compared_with_nothing(trials):
    table = trials_table(trials)
    assert [column(table, name)[1] for name in ("Difference to default", "Win/tie/loss", "p vs default")] == ["–"] * 3
    assert column(table, "p vs default")[0] == "0.030"
    assert column(table, "Difference to default")[0] == "20.00"


def test_failures_are_counted_and_explained(trials):
    table = trials_table(trials, full=False)
    assert column(table, "Failed") == ["0", "0", "0", "2", "9"]
    assert "Candidate 3: 2 runs failed: too dark" in table.notes
    assert "Candidate 5: 9 runs failed: too dark" in table.notes
    assert "Failed" not in trials_table([trial(1, 0.5), trial(2, 0.4)], full=False).columns


def test_a_terminal_has_the_first_few_and_the_default():
    trials = [trial(number, 0.3 + 0.01 * number) for number in range(1, 21)]
    table = trials_table(trials, full=False, top=10)
    assert [name.split()[0] for name in column(table, "Candidate")] == [*map(str, range(20, 10, -1)), "1"]
    assert "9 more candidates are in the files." in table.notes
    assert "Fold 1" not in table.columns
    assert len(trials_table(trials).rows) == 20


def test_a_default_that_is_chosen_says_both():
    table = trials_table([trial(1, 0.5), trial(2, 0.5)])
    assert column(table, "Candidate") == ["1 (default, chosen)", "2"]


def test_it_is_rendered(trials):
    assert "| 4 (chosen) | 0.1 | a,b | none | **70.00** |" in to_markdown(trials_table(trials))

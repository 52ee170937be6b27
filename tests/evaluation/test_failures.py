"""Reasons of failed runs, each once."""

import pytest

from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.scores import failure_reasons


def failed(subject, error):
    return EvaluationRow.failure("shot", subject, 0, 0, selection="source-free", error=error)


def subjects(rows):
    return {reason: [row.subject for row in group] for reason, group in failure_reasons(rows).items()}


def test_messages_that_differ_in_numbers_are_one_reason_with_the_numbers_that_do_not():
    rows = [
        failed("a", "needs 8 rows or more, got 5"),
        failed("b", "no bank"),
        failed("c", "needs 8 rows or more, got 12"),
    ]
    assert subjects(rows) == {"needs 8 rows or more, got …": ["a", "c"], "no bank": ["b"]}


def test_one_message_stays_as_it_is():
    assert subjects([failed("a", "lr 0.01 of s041 # 3")] * 2) == {"lr 0.01 of s041 # 3": ["a", "a"]}


@pytest.mark.parametrize(("first", "second"), [("a 1", "a #"), ("got 1", "got 1 2"), ("a", "b")])
def test_other_words_are_another_reason(first, second):
    assert len(subjects([failed("a", first), failed("b", second)])) == 2


def test_what_went_well_has_no_reason():
    good = failed("a", "x").to_dict() | {"error": "", "macro_f1": 0.5}
    assert failure_reasons([EvaluationRow.from_dict(good)]) == {}

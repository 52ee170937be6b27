"""Rows of results as an evaluation leaves them."""

from typing import Any

import pytest

from featlab.evaluation.results import EvaluationRow

NAN = float("nan")


@pytest.fixture(scope="session")
def result() -> Any:
    """``result("pft", "s1", 0.7, class_recall=(0.5, 0.9))``: a finished run whose scores are all the same."""

    def make(method: str, subject: str, score: float, **changes: Any) -> EvaluationRow:
        selection = "oracle" if method == "oracle" else "source-free"
        values = {
            "draw": 0,
            "seed": 0,
            "macro_f1": score,
            "macro_f1_all": score,
            "accuracy": score,
            "balanced_accuracy": score,
            "neutral_recall": score,
            "non_neutral_recall": NAN,
            "histogram": (1, 1),
            "frames": 2,
            "adapt_frames": 1,
            "seconds": 0.9512,
            "iterations": 135,
            "trainable": 1024,
            "collapsed": False,
            "selection": selection,
            **changes,
        }
        return EvaluationRow(method=method, subject=subject, **values)

    return make

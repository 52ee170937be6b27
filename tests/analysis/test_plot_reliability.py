from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from featlab.analysis.evaluation.plot_names import ACCESS_NOTE
from featlab.analysis.evaluation.plot_reliability import plot_reliability, reliability_data, reliability_methods
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.summary import summarise


def counts(*bins):
    """(bin, rows, sum of confidence, rows right), the other bins empty."""
    table = np.zeros((15, 3))
    for place, *values in bins:
        table[place] = values
    return tuple(table.ravel().tolist())


# Four rows: two in the last bin, sure and right half of the time; two at a confidence of .6, both right.
RELIABILITY = counts((14, 2, 1.96, 1), (8, 2, 1.2, 2))
SCORES = {"source-only": 0.5, "adabn": 0.7, "coral": 0.6, "pft": 0.65, "safn": 0.8, "oracle": 0.9}


@pytest.fixture
def rows(result):
    selections = {"safn": {"selection": "source-access"}}
    return [
        result(method, subject, score, frames=4, reliability=RELIABILITY, **selections.get(method, {}))
        for method, score in SCORES.items()
        for subject in ("a", "b")
    ]


def test_source_only_pft_and_the_best_of_the_others_are_drawn(rows):
    assert reliability_methods(summarise(rows)) == ("source-only", "pft", "adabn")
    assert reliability_methods(summarise(rows[:2])) == ("source-only",)
    assert reliability_methods(summarise(rows[2:6])) == ("adabn",)


def test_methods_without_confidences_are_not_drawn(rows, result):
    broken = EvaluationRow.failure("pft", "a", 0, 0, selection="source-free", error="no")
    old = result("coral", "a", 0.99)
    assert reliability_methods(summarise([*rows[:2], broken, old])) == ("source-only",)
    assert reliability_methods([]) == ()


def test_the_numbers_are_shares_means_and_nan_where_nobody_is(rows):
    data = reliability_data(rows, ("pft", "adabn"))
    assert list(data) == ["method", "low", "high", "share", "confidence", "accuracy"]
    assert data["method"] == ["pft"] * 15 + ["adabn"] * 15
    assert data["low"][1:15] == pytest.approx(data["high"][:14])
    assert (data["low"][0], data["high"][14]) == (0, 1)
    for name, expected in (("share", (0.5, 0.5)), ("confidence", (0.98, 0.6)), ("accuracy", (0.5, 1.0))):
        assert (data[name][14], data[name][8]) == pytest.approx(expected)
    assert sum(data["share"][:15]) == pytest.approx(1)
    assert np.isnan(data["accuracy"]).sum() == 26


def test_what_is_drawn_is_what_the_numbers_say(rows):
    data = reliability_data(rows, ("source-only", "pft"))
    figure = plot_reliability(rows, ("source-only", "pft"))
    above, below = figure.axes[1], figure.axes[3]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["source-only", "pft"]
    (curve,) = [line for line in above.get_lines() if line.get_label() == "_curve"]
    assert list(curve.get_xdata()) == pytest.approx([0.6, 0.98])
    assert list(curve.get_ydata()) == pytest.approx([1.0, 0.5])
    (dots,) = [part for part in above.collections if isinstance(part, PathCollection)]
    assert len(dots.get_offsets()) == 2
    assert [bar.get_height() for bar in below.patches] == pytest.approx(data["share"][15:])
    # 1/2 · |.98 − .5| + 1/2 · |.6 − 1| = .44
    assert [text.get_text() for text in above.texts] == ["ECE 44.0 %"]


def test_source_access_is_marked(rows):
    figure = plot_reliability(rows, ("source-only", "safn"))
    assert figure.axes[1].get_title().endswith("†")
    assert figure.get_supxlabel() == ACCESS_NOTE


@pytest.mark.parametrize("methods", [("source-only",), ("source-only", "pft", "adabn")])
def test_names_stay_within_the_figure(rows, methods):
    figure = plot_reliability(rows, methods)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    titles = [axes.title.get_window_extent(renderer) for axes in figure.axes[: len(methods)]]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in titles)
    assert all(left.x1 < right.x0 for left, right in pairwise(titles))


def test_nobody_to_draw_is_refused(rows):
    with pytest.raises(InputError, match="no results with confidences"):
        plot_reliability(rows, ())
    with pytest.raises(InputError, match="'shot' has no finished run"):
        reliability_data(rows, ("shot",))

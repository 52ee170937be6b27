"""The figures of results with as many methods as a benchmark has, and names as long as theirs."""

import warnings
from itertools import combinations

import pytest

from featlab.analysis import style
from featlab.analysis.evaluation.plots import plot_subjects, plot_summary
from featlab.evaluation.summary import summarise

METHODS = 26
NAMES = {f"m{n}": f"CluP-{n} (DeepClusterV2) (Conti et al., 2022)" for n in range(0, METHODS, 2)}
NAMES |= {f"m{n}": f"SHOT-{n} (Liang et al., 2020)" for n in range(1, METHODS, 2)}
PAGE = 9.7
"""Height of a page without its margins, inches."""


@pytest.fixture(scope="module")
def rows(result):
    found = [result("source-only", f"s{s}", 0.4 + s / 50) for s in range(10)]
    for n in range(METHODS):
        selection = "source-access" if n % 5 == 0 else "source-free"
        found += [result(f"m{n}", f"s{s}", 0.3 + n / 60 + s / 50, selection=selection) for s in range(10)]
    return found


def boxes(figure):
    """Return every text that is drawn, with its box."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    found = list(figure.texts)
    for axes in figure.axes:
        if axes.axison:
            found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
            found += [*axes.get_xticklabels(), *axes.get_yticklabels()]
    return [(item.get_text(), item.get_window_extent(renderer)) for item in found if item.get_text()]


def check(figure):
    found, page = boxes(figure), figure.bbox.padded(0.5)
    cut = [text for text, box in found if not all(page.contains(*corner) for corner in box.corners())]
    # Tick labels of neighbours may touch by a pixel.
    covered = [
        (a, b) for (a, one), (b, other) in combinations(found, 2) if one.padded(-1.5).overlaps(other.padded(-1.5))
    ]
    assert (cut, covered) == ([], [])


@pytest.mark.parametrize("width", [style.COLUMN, style.FULL])
def test_the_means_of_many_methods_are_readable(rows, width):
    figure = plot_summary(summarise(rows), width=width)
    check(figure)
    (axes,) = figure.axes
    assert axes.get_window_extent().width > 0.3 * figure.bbox.width
    assert figure.get_figheight() < PAGE


def test_the_subjects_of_many_methods_are_readable_and_fit_a_page(rows):
    figure = plot_subjects(rows)
    check(figure)
    assert figure.get_figheight() < PAGE
    assert min(axes.get_window_extent().height for axes in figure.axes if axes.axison) > 0.6 * figure.dpi


def test_methods_with_source_access_are_marked_and_explained(rows):
    for figure in (plot_summary(summarise(rows)), plot_subjects(rows)):
        shown = [" ".join(text.split()) for text, _ in boxes(figure)]
        marked = [text for text in shown if text.endswith("†")]
        assert len(marked) == len(range(0, METHODS, 5))
        assert any("† with source access" in text for text in shown)


def test_without_source_access_no_figure_speaks_of_it(result):
    rows = [result(method, s, 0.5) for method in ("source-only", "pft") for s in "ab"]
    for figure in (plot_summary(summarise(rows)), plot_subjects(rows)):
        assert not any("†" in text for text, _ in boxes(figure))

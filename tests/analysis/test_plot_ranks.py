"""The critical-difference diagram: every line is where its number is, no name is cut or covered."""

import warnings
from itertools import combinations

import numpy as np
import pytest

from featlab.analysis import style
from featlab.analysis.evaluation.plot_names import figure_name, folded
from featlab.analysis.evaluation.plot_ranks import plot_ranks, ranks_data
from featlab.evaluation.statistics import compare_ranks


def compared(methods, subjects=40, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(subjects, methods)) - 3 * np.linspace(0, 1, methods)
    return compare_ranks({f"m{place}": column for place, column in enumerate(scores.T)})


def names(methods):
    """Names as long as those of the registry."""
    return {f"m{place}": f"METHOD-{place} (DeepClusterV2) (Somebody et al., 2022)" for place in range(methods)}


def settle(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def lines(figure, label):
    (axes,) = figure.axes
    return [line.get_xydata() for line in axes.get_lines() if line.get_label() == label]


def rank_at(figure, x):
    """The rank that an x of the drawing stands for, read off the ends of the line of ranks."""
    ((left, right),) = [(line[0, 0], line[1, 0]) for line in lines(figure, "_line")]
    worst = len(lines(figure, "_method"))
    return 1 + (right - x) / (right - left) * (worst - 1)


@pytest.mark.parametrize("methods", [2, 3, 5, 12, 25])
def test_each_method_hangs_from_its_rank(methods):
    found = compared(methods)
    figure = settle(plot_ranks(found))
    drawn = [rank_at(figure, line[0, 0]) for line in lines(figure, "_method")]
    assert sorted(drawn) == pytest.approx(sorted(found.ranks))
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    for line in lines(figure, "_method"):
        text = min((texts[name] for name in found.methods), key=lambda item: np.hypot(*(item.get_position() - line[2])))
        assert found.ranks[found.methods.index(text.get_text())] == pytest.approx(rank_at(figure, line[0, 0]))


@pytest.mark.parametrize("methods", [5, 25])
def test_bars_join_the_cliques_and_do_not_touch(methods):
    found = compared(methods)
    figure = settle(plot_ranks(found))
    bars = lines(figure, "_clique")
    assert len(bars) == len(found.cliques) > 1
    for bar, (first, last) in zip(bars, found.cliques, strict=True):
        ends = rank_at(figure, bar[0, 0] + 0.035), rank_at(figure, bar[1, 0] - 0.035)
        assert ends == pytest.approx((found.ranks[last], found.ranks[first]))
    for one, other in combinations(bars, 2):
        if one[0, 1] == other[0, 1]:
            assert one[1, 0] < other[0, 0] or other[1, 0] < one[0, 0]


def test_the_critical_difference_is_as_long_as_it_says():
    found = compared(12)
    figure = settle(plot_ranks(found))
    ((left, right),) = [(line[0, 0], line[1, 0]) for line in lines(figure, "_difference")]
    assert rank_at(figure, left) - rank_at(figure, right) == pytest.approx(found.critical_difference)
    assert f"CD = {found.critical_difference:.2f}" in [text.get_text() for text in figure.axes[0].texts]


def test_a_difference_beyond_all_ranks_is_said_to_be_one():
    figure = settle(plot_ranks(compared(5, subjects=1)))
    assert any("more than the ranks span" in text.get_text() for text in figure.axes[0].texts)
    ((left, right),) = [(line[0, 0], line[1, 0]) for line in lines(figure, "_difference")]
    assert (rank_at(figure, left), rank_at(figure, right)) == pytest.approx((5, 1))


@pytest.mark.parametrize("width", [style.COLUMN, style.FULL])
@pytest.mark.parametrize("methods", [2, 5, 12, 25])
@pytest.mark.parametrize("subjects", [3, 40])
def test_no_text_is_cut_or_on_another(width, methods, subjects):
    selections = {f"m{place}": "source-access" for place in range(1, methods, 3)}
    figure = settle(plot_ranks(compared(methods, subjects), selections=selections, width=width))
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    page = figure.bbox
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in boxes)
    assert not [1 for one, other in combinations(boxes, 2) if one.padded(-1).overlaps(other.padded(-1))]
    assert figure.get_figwidth() == width
    assert figure.get_figheight() < 9


def test_no_line_crosses_another_methods():
    figure = settle(plot_ranks(compared(25)))
    paths = lines(figure, "_method")
    for one, other in combinations(paths, 2):
        for a, b in ((one, other), (other, one)):
            low, high = sorted((b[1, 0], b[2, 0]))
            assert not (low < a[0, 0] < high and a[1, 1] < b[1, 1] < a[0, 1])


def test_methods_with_source_access_are_marked_and_explained():
    found = compared(4)
    figure = plot_ranks(found, selections={"m1": "source-access", "m2": "source-free"})
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert "m1\u00a0†" in shown
    assert "m2" in shown
    assert any("with\u00a0source\u00a0access" in text for text in shown)
    assert not any("†" in text.get_text() for text in plot_ranks(found).axes[0].texts)


def test_the_note_says_over_whom_and_what_friedman_finds():
    note = " ".join(text.get_text() for text in plot_ranks(compared(5, subjects=40)).axes[0].texts)
    assert "over 40 subjects" in note
    assert "Friedman: p < 0.001" in note
    alike = compare_ranks({"a": [0.1, 0.2], "b": [0.2, 0.1], "c": [0.1, 0.2]})
    note = " ".join(text.get_text() for text in plot_ranks(alike).axes[0].texts)
    assert "no evidence" in note.replace("\n", " ")


def test_the_numbers_beside_the_figure_are_those_of_the_comparison():
    found = compared(12)
    data = ranks_data(found)
    assert data["method"] == list(found.methods)
    assert data["rank"] == list(found.ranks)
    assert set(data["critical_difference"]) == {found.critical_difference}
    assert set(data["subjects"]) == {40}
    for number, (first, last) in enumerate(found.cliques, start=1):
        inside = [
            place
            for place, (low, high) in enumerate(zip(data["first_group"], data["last_group"], strict=True))
            if low != "" and low <= number <= high
        ]
        assert inside == list(range(first, last + 1))


@pytest.mark.parametrize(
    ("name", "most", "shown"),
    [
        ("SHOT (Liang et al., 2020)", 30, "SHOT (Liang et al., 2020)"),
        ("CluP (SwAV) (Conti et al., 2022)", 24, "CluP (SwAV)\n(Conti et al., 2022)"),
        ("SHOT (Liang et al., 2020)", 14, "SHOT (Liang et\nal., 2020)"),
        ("Supervised fine-tuning", 12, "Supervised\nfine-tuning"),
        ("method-number-7", 12, "method-\nnumber-7"),
    ],
)
def test_long_names_are_folded_where_they_break_best(name, most, shown):
    assert folded(name, most) == shown


def test_names_of_figures():
    assert figure_name("safn", "source-access", {"safn": "SAFN"}) == "SAFN\u00a0†"
    assert figure_name("pft", "source-free", None) == "pft"
    assert figure_name("oracle", "oracle", {}) == "oracle"

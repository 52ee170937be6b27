"""Figures of an evaluation: every line is where its number is, no text is cut or covered, files are the same bytes."""

import subprocess
import sys
from itertools import combinations, permutations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from featlab.analysis import style
from featlab.analysis.evaluation import ACCESS_NOTE, figure_name
from featlab.analysis.evaluation.plot_ranks import plot_ranks, ranks_data
from featlab.analysis.evaluation.plots import (
    plot_reliability,
    plot_subjects,
    plot_summary,
    reliability_data,
    reliability_methods,
    subjects_data,
    summary_data,
)
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.statistics import bootstrap_interval, compare_ranks
from featlab.evaluation.summary import summarise

SCORES = {
    "source-only": (0.60, 0.55, 0.70, 0.45),
    "neutral-shift": (0.62, 0.50, 0.71, 0.45),
    "pft": (0.75, 0.61, 0.80, 0.66),
    "oracle": (0.90, 0.92, 0.91, 0.88),
}
MANY = 26
PAGE = 9.7
"""Height of a page without its margins, inches."""


@pytest.fixture(scope="module")
def rows(result):
    return [result(method, f"s{n}", score) for method, scores in SCORES.items() for n, score in enumerate(scores)]


@pytest.fixture(scope="module")
def many(result):
    """As many methods as a benchmark has, with names longer than theirs."""
    found = [result("source-only", f"s{s}", 0.4 + s / 50) for s in range(10)]
    for n in range(MANY):
        selection = "source-access" if n % 5 == 0 else "source-free"
        name = f"somebody-s-method-{n}" if n % 2 else f"m{n}"
        found += [result(name, f"s{s}", 0.3 + n / 60 + s / 50, selection=selection) for s in range(10)]
    return found


def lines(axes, label):
    return [line.get_xydata() for line in axes.get_lines() if line.get_label() == label]


def words(figure):
    """Every text that is drawn, once, without its line breaks."""
    return list(dict.fromkeys(" ".join(text.get_text().split()) for text in figure.findobj(Text)))


def test_every_slope_is_a_row_of_the_data_and_losses_are_counted(rows, result):
    data, figure = subjects_data(rows), plot_subjects(rows)
    panels = [axes for axes in figure.axes if axes.axison]
    slopes = [[line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]] for axes in panels]
    drawn = [tuple(line.get_ydata()) for panel in slopes for line in panel]
    assert drawn == list(zip(data["source"], data["score"], strict=True))
    assert sorted(set(data["method"])) == ["neutral-shift", "oracle", "pft"]
    assert data["score"][:4] == list(SCORES["neutral-shift"])
    assert [line.get_color() for line in slopes[0]] == [style.GAIN, style.LOSS, style.GAIN, style.MUTED]
    assert "1/4 worse" in [text.get_text() for text in panels[0].texts]
    assert panels[1].get_title() == "pft"
    means = [line[0, 1] for line in lines(panels[1], "_mean")]
    assert means == pytest.approx([np.mean(SCORES["source-only"]), np.mean(SCORES["pft"])])
    assert tuple(lines(panels[1], "_interval")[1][:, 1]) == bootstrap_interval(SCORES["pft"])
    assert "stranger" not in subjects_data([*rows, result("pft", "stranger", 0.1)])["subject"]


def test_the_means_and_intervals_are_those_of_the_summaries(rows, readable):
    broken = EvaluationRow.failure("shot", "s0", 0, 0, selection="source-free", error="no")
    summaries = summarise([*rows, broken])
    axes = readable(plot_summary(summaries)).axes[0]
    said = " ".join(axes.get_xlabel().split())
    assert "mean over 4 subjects and 95 % interval; dashed: source-only and oracle" in said
    for place, item in enumerate(summaries[:-1]):
        assert lines(axes, f"_mean {item.method}")[0].tolist() == [[item.macro_f1, place]]
        assert lines(axes, f"_interval {item.method}")[0].tolist() == [[item.ci95[0], place], [item.ci95[1], place]]
    references = [line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]
    assert references == [summaries[0].macro_f1, summaries[3].macro_f1]
    assert axes.texts[-1].get_text() == "failed"
    assert summary_data(summaries)["low"][:4] == [item.ci95[0] for item in summaries[:4]]


def test_many_methods_are_readable_fit_a_page_and_source_access_is_marked_where_there_is_any(rows, many, readable):
    column, means = (readable(plot_summary(summarise(many), width=width)) for width in (style.COLUMN, style.FULL))
    subjects = readable(plot_subjects(many))
    assert column.axes[0].get_window_extent().width > 0.3 * column.bbox.width
    assert min(axes.get_window_extent().height for axes in subjects.axes if axes.axison) > 0.6 * subjects.dpi
    assert [figure_name("safn", "source-access"), figure_name("pft", "source-free")] == ["safn\u00a0†", "pft"]
    for figure in (column, means, subjects):
        assert figure.get_figheight() < PAGE
        assert len([text for text in words(figure) if text.endswith("†")]) == len(range(0, MANY, 5))
        assert any("† with source access" in text for text in words(figure))
    for figure in (plot_summary(summarise(rows)), plot_subjects(rows)):
        assert not any("†" in text for text in words(figure))


def compared(methods, subjects=40):
    scores = np.random.default_rng(0).normal(size=(subjects, methods)) - 3 * np.linspace(0, 1, methods)
    return compare_ranks({f"m{place}": column for place, column in enumerate(scores.T)})


def rank_at(figure, x):
    """The rank that an x of the drawing stands for, read off the ends of the line of ranks."""
    ((left, right),) = [(line[0, 0], line[1, 0]) for line in lines(figure.axes[0], "_line")]
    worst = len(lines(figure.axes[0], "_method"))
    return 1 + (right - x) / (right - left) * (worst - 1)


@pytest.mark.parametrize(("methods", "subjects"), [(2, 3), (5, 40), (25, 3), (25, 40)])
def test_each_method_hangs_from_its_rank_and_bars_join_the_cliques(methods, subjects, readable):
    found = compared(methods, subjects)
    selections = {f"m{place}": "source-access" for place in range(1, methods, 3)}
    figure = readable(plot_ranks(found, selections=selections))
    assert figure.get_figheight() < 9
    assert "m1 †" in words(figure)
    assert any("with source access" in text for text in words(figure))
    figure = readable(plot_ranks(found))
    paths = lines(figure.axes[0], "_method")
    assert sorted(rank_at(figure, line[0, 0]) for line in paths) == pytest.approx(sorted(found.ranks))
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    for line in paths:
        name = min(found.methods, key=lambda name: np.hypot(*(texts[name].get_position() - line[2])))
        assert found.ranks[found.methods.index(name)] == pytest.approx(rank_at(figure, line[0, 0]))
    for a, b in permutations(paths, 2):
        low, high = sorted((b[1, 0], b[2, 0]))
        assert not (low < a[0, 0] < high and a[1, 1] < b[1, 1] < a[0, 1]), "a line crosses another method's"
    bars = lines(figure.axes[0], "_clique")
    for bar, (first, last) in zip(bars, found.cliques, strict=True):
        ends = rank_at(figure, bar[0, 0] + 0.035), rank_at(figure, bar[1, 0] - 0.035)
        assert ends == pytest.approx((found.ranks[last], found.ranks[first]))
    for one, other in combinations(bars, 2):
        assert one[0, 1] != other[0, 1] or one[1, 0] < other[0, 0] or other[1, 0] < one[0, 0]


def test_the_critical_difference_is_as_long_as_it_says():
    def ends(figure):
        ((left, right),) = [(line[0, 0], line[1, 0]) for line in lines(figure.axes[0], "_difference")]
        return rank_at(figure, left), rank_at(figure, right)

    found = compared(12)
    figure = plot_ranks(found)
    assert -np.diff(ends(figure)) == pytest.approx(found.critical_difference)
    for said in (f"CD = {found.critical_difference:.2f}", "over 40 subjects", "Friedman: p < 0.001"):
        assert said in " ".join(words(figure))
    alike = compare_ranks({"a": [0.1, 0.2], "b": [0.2, 0.1], "c": [0.1, 0.2]})
    assert "no evidence" in " ".join(words(plot_ranks(alike)))
    beyond = plot_ranks(compared(5, subjects=1))
    assert "more than the ranks span" in " ".join(words(beyond))
    assert ends(beyond) == pytest.approx((5, 1))


def test_the_numbers_beside_the_ranks_are_those_of_the_comparison():
    found = compared(12)
    data = ranks_data(found)
    assert (data["method"], data["rank"]) == (list(found.methods), list(found.ranks))
    assert (set(data["critical_difference"]), set(data["subjects"])) == ({found.critical_difference}, {40})
    groups = list(zip(data["first_group"], data["last_group"], strict=True))
    for number, (first, last) in enumerate(found.cliques, start=1):
        inside = [place for place, (low, high) in enumerate(groups) if low != "" and low <= number <= high]
        assert inside == list(range(first, last + 1))


# Four rows: two in the last bin, sure and right half of the time; two at a confidence of .6, both right.
BINS = np.zeros((15, 3))
BINS[14], BINS[8] = (2, 1.96, 1), (2, 1.2, 2)
SURE = {"source-only": 0.5, "adabn": 0.7, "coral": 0.6, "pft": 0.65, "safn": 0.8, "oracle": 0.9}


@pytest.fixture(scope="module")
def sure(result):
    selections = {"safn": "source-access", "oracle": "oracle"}
    shared = {"frames": 4, "reliability": tuple(BINS.ravel().tolist())}
    return [
        result(method, subject, score, selection=selections.get(method, "source-free"), **shared)
        for method, score in SURE.items()
        for subject in "ab"
    ]


def test_source_only_pft_and_the_best_of_the_others_with_confidences_are_drawn(sure, result):
    assert reliability_methods(summarise(sure)) == ("source-only", "pft", "adabn")
    assert reliability_methods(summarise(sure[:2])) == ("source-only",)
    assert reliability_methods(summarise(sure[2:6])) == ("adabn",)
    broken = EvaluationRow.failure("pft", "a", 0, 0, selection="source-free", error="no")
    assert reliability_methods(summarise([*sure[:2], broken, result("coral", "a", 0.99)])) == ("source-only",)
    assert reliability_methods([]) == ()


def test_what_can_not_be_compared_is_refused(result):
    with pytest.raises(InputError, match="source-only"):
        plot_subjects([result("pft", "a", 0.5)])


def test_the_reliability_diagram_is_its_numbers(sure, readable):
    data = reliability_data(sure, ("source-only", "safn"))
    assert list(data) == ["method", "low", "high", "share", "confidence", "accuracy"]
    assert data["method"] == ["source-only"] * 15 + ["safn"] * 15
    assert [data["low"][0], *data["high"][:15]] == pytest.approx(np.linspace(0, 1, 16))
    for name, expected in (("share", (0.5, 0.5)), ("confidence", (0.98, 0.6)), ("accuracy", (0.5, 1.0))):
        assert (data[name][14], data[name][8]) == pytest.approx(expected)
    assert sum(data["share"][:15]) == pytest.approx(1)
    assert np.isnan(data["accuracy"]).sum() == 26
    figure = readable(plot_reliability(sure, ("source-only", "safn")))
    above, below = figure.axes[1], figure.axes[3]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["source-only", "safn\u00a0†"]
    assert figure.get_supxlabel() == ACCESS_NOTE
    assert lines(above, "_curve")[0] == pytest.approx(np.array([[0.6, 1.0], [0.98, 0.5]]))
    (dots,) = [part for part in above.collections if isinstance(part, PathCollection)]
    assert len(dots.get_offsets()) == 2
    assert [bar.get_height() for bar in below.patches] == pytest.approx(data["share"][15:])
    # 1/2 · |.98 − .5| + 1/2 · |.6 − 1| = .44
    assert [text.get_text() for text in above.texts] == ["ECE 44.0 %"]
    readable(plot_reliability(sure, tuple(SURE)[:3]))


def test_the_same_figure_gives_the_same_bytes(tmp_path, rows):
    for suffix in (".svg", ".pdf", ".png"):
        for name in ("a", "b"):
            style.save_figure(plot_summary(summarise(rows)), tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    elements = list(ElementTree.parse(tmp_path / "a.svg").getroot().iter())
    names = [element.get("id") for element in elements if element.get("id")]
    assert len(names) == len(set(names))
    assert not any(element.tag.endswith(("script", "text")) for element in elements)


def test_drawing_touches_neither_pyplot_nor_the_users_settings():
    script = (
        "import sys, matplotlib; matplotlib.rcParams['font.size'] = 33;"
        "from featlab.analysis import style;"
        "\nwith style.house_style(): style.figure().subplots()\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['font.size'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False 33.0"

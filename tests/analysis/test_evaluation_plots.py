"""Figures of an evaluation: every line is where its number is, no text is cut or covered, files are the same bytes."""

from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.text import Text

from featlab.analysis import style
from featlab.analysis.evaluation.plots import plot_ranks, plot_subjects, plot_summary, subjects_data, summary_data
from featlab.errors import InputError
from featlab.evaluation.statistics import compare_ranks
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


def test_every_slope_is_a_row_of_the_data_losses_are_counted_and_without_source_only_there_is_none(rows, result):
    data, figure = subjects_data(rows), plot_subjects(rows)
    panels = [axes for axes in figure.axes if axes.axison]
    slopes = [[line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]] for axes in panels]
    drawn = [tuple(line.get_ydata()) for panel in slopes for line in panel]
    assert drawn == list(zip(data["source"], data["score"], strict=True))
    assert sorted(set(data["method"])) == ["neutral-shift", "oracle", "pft"]
    assert data["score"][:4] == list(SCORES["neutral-shift"])
    assert "1/4 worse" in [text.get_text() for text in panels[0].texts]
    assert "stranger" not in subjects_data([*rows, result("pft", "stranger", 0.1)])["subject"]
    with pytest.raises(InputError, match="source-only"):
        plot_subjects([result("pft", "a", 0.5)])


def test_the_means_and_intervals_are_those_of_the_summaries(rows, result, readable):
    summaries = summarise([*rows, result("shot", "s0", np.nan, error="no")])
    axes = readable(plot_summary(summaries)).axes[0]
    said = " ".join(axes.get_xlabel().split())
    assert "mean over 4 subjects and 95 % interval; dashed: source-only and oracle" in said
    for place, item in enumerate(summaries[:-1]):
        assert lines(axes, f"_interval {item.method}")[0].tolist() == [[item.ci95[0], place], [item.ci95[1], place]]
    assert axes.texts[-1].get_text() == "failed"
    assert summary_data(summaries)["low"][:4] == [item.ci95[0] for item in summaries[:4]]


def test_many_methods_are_readable_fit_a_page_and_source_access_is_marked_where_there_is_any(rows, many, readable):
    means = [plot_summary(summarise(many), width=width) for width in (style.COLUMN, style.FULL)]
    for figure in map(readable, (*means, plot_subjects(many))):
        assert figure.get_figheight() < PAGE
        assert len([text for text in words(figure) if text.endswith("†")]) == len(range(0, MANY, 5))
        assert any("† with source access" in text for text in words(figure))
    assert means[0].axes[0].get_window_extent().width > 0.3 * means[0].bbox.width
    for figure in (plot_summary(summarise(rows)), plot_subjects(rows)):
        assert not any("†" in text for text in words(figure))


@pytest.mark.parametrize(("methods", "subjects"), [(2, 3), (25, 40)])
def test_ranks_are_readable_and_the_cliques_are_bars(methods, subjects, readable):
    scores = np.random.default_rng(0).normal(size=(subjects, methods)) - 3 * np.linspace(0, 1, methods)
    found = compare_ranks({f"m{place}": column for place, column in enumerate(scores.T)})
    figure = readable(plot_ranks(found, selections={f"m{place}": "source-access" for place in range(1, methods, 3)}))
    assert figure.get_figheight() < 9
    assert any("with source access" in text for text in words(figure))
    (ranks,), cliques = lines(figure.axes[0], "_ranks"), lines(figure.axes[1], "_clique")
    assert ranks.tolist() == [[rank, place] for place, rank in enumerate(found.ranks)]
    assert [tuple(line[:, 1]) for line in cliques] == list(found.cliques)


def test_the_same_figure_gives_the_same_bytes(tmp_path, rows):
    for suffix in (".svg", ".pdf", ".png"):
        for name in ("a", "b"):
            style.save_figure(plot_summary(summarise(rows)), tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    elements = list(ElementTree.parse(tmp_path / "a.svg").getroot().iter())
    names = [element.get("id") for element in elements if element.get("id")]
    assert len(names) == len(set(names))
    assert not any(element.tag.endswith(("script", "text")) for element in elements)

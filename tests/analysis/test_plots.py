import csv
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featlab.analysis import style
from featlab.analysis.evaluation.plot_projection import plot_projection, projection_data
from featlab.analysis.evaluation.plots import plot_subjects, plot_summary, subjects_data, summary_data
from featlab.errors import InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.statistics import bootstrap_interval
from featlab.evaluation.summary import summarise

SCORES = {
    "source-only": (0.60, 0.55, 0.70, 0.45),
    "neutral-shift": (0.62, 0.50, 0.71, 0.45),
    "pft": (0.75, 0.61, 0.80, 0.66),
    "oracle": (0.90, 0.92, 0.91, 0.88),
}


def row(method, subject, score, **changes):
    values = {
        "macro_f1_all": score,
        "accuracy": score,
        "balanced_accuracy": score,
        "neutral_recall": score,
        "non_neutral_recall": score,
        "histogram": (1, 1),
        "frames": 2,
        "adapt_frames": 1,
        "seconds": 1.0,
        "iterations": 1,
        "trainable": 1,
        "collapsed": False,
        "selection": "oracle" if method == "oracle" else "source-free",
        "draw": 0,
        "seed": 0,
        **changes,
    }
    return EvaluationRow(method=method, subject=subject, macro_f1=score, **values)


def rows():
    return [row(method, f"s{n}", score) for method, scores in SCORES.items() for n, score in enumerate(scores)]


def lines(axes, label):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines() if line.get_label() == label]


def settle(figure):
    """Draw it, so that a layout that does not fit is heard of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def texts_inside(figure):
    """Whether every text lies within the figure."""
    settle(figure)
    renderer = figure.canvas.get_renderer()
    page = figure.bbox.padded(1.0)
    found = [text for axes in figure.axes for text in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent(renderer) for text in found if text.get_text() and text.get_visible()]
    return all(page.containsx(box.x0) and page.containsx(box.x1) and page.containsy(box.y1) for box in boxes)


def test_every_slope_of_plot_subjects_is_a_row_of_its_data():
    data = subjects_data(rows())
    figure = plot_subjects(rows())
    drawn = []
    for axes in figure.axes:
        slopes = [line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
        drawn += [tuple(line.get_ydata()) for line in slopes]
    assert drawn == list(zip(data["source"], data["score"], strict=True))
    assert sorted(set(data["method"])) == ["neutral-shift", "oracle", "pft"]
    assert data["score"][:4] == list(SCORES["neutral-shift"])


def test_means_and_intervals_of_plot_subjects_equal_the_statistics():
    panel = plot_subjects(rows()).axes[1]
    assert panel.get_title() == "pft"
    means = [y for _, y in lines(panel, "_mean")]
    assert means == [[pytest.approx(np.mean(SCORES["source-only"]))], [pytest.approx(np.mean(SCORES["pft"]))]]
    assert tuple(lines(panel, "_interval")[1][1]) == bootstrap_interval(SCORES["pft"])


def test_losses_are_drawn_in_their_colour_and_counted():
    panel = plot_subjects(rows()).axes[0]
    colours = [line.get_color() for line in panel.get_lines() if list(line.get_xdata()) == [0, 1]]
    assert colours == [style.GAIN, style.LOSS, style.GAIN, style.GAIN]
    assert "1/4 worse" in [text.get_text() for text in panel.texts]


def test_only_subjects_with_a_source_only_score_are_drawn():
    data = subjects_data([*rows(), row("pft", "stranger", 0.1)])
    assert "stranger" not in data["subject"]
    with pytest.raises(InputError, match="source-only"):
        plot_subjects([row("pft", "a", 0.5)])


def test_plot_summary_draws_the_means_and_intervals_of_the_summaries():
    summaries = summarise(rows())
    axes = plot_summary(summaries).axes[0]
    for place, summary in enumerate(summaries):
        assert lines(axes, f"_mean {summary.method}") == [([summary.macro_f1], [place])]
        assert lines(axes, f"_interval {summary.method}") == [(list(summary.ci95), [place, place])]
    references = [line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1]]
    assert references == [summaries[0].macro_f1, summaries[3].macro_f1]
    assert summary_data(summaries)["low"] == [summary.ci95[0] for summary in summaries]


def test_a_method_that_always_failed_stands_in_plot_summary_as_failed():
    broken = EvaluationRow.failure("shot", "s0", 0, 0, selection="source-free", error="no")
    axes = settle(plot_summary(summarise([*rows(), broken]))).axes[0]
    assert axes.texts[-1].get_text() == "failed"
    with pytest.raises(InputError, match="no results"):
        plot_summary([])


def clouds(seed=0, n=120, d=16):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, n)
    is_target = np.arange(n) >= n - 30
    before = rng.normal(size=(n, d)) * np.linspace(3, 0.5, d) + 2.0 * is_target[:, None]
    return before.astype(np.float32), (before - 1.5 * is_target[:, None]).astype(np.float32), labels, is_target


def test_the_projection_is_pca_of_the_source_rows_before():
    before, after, labels, is_target = clouds()
    pca = PCA(2, svd_solver="full").fit(before[~is_target].astype(np.float64))
    data = projection_data(before, after, labels, is_target)
    for side, rows_ in (("before", before), ("after", after)):
        ours = np.column_stack([data[f"{side}_x"], data[f"{side}_y"]])
        theirs = pca.transform(rows_)
        signs = np.sign((ours * theirs).sum(axis=0))
        assert np.allclose(ours, theirs * signs, atol=1e-4)


def test_target_rows_have_no_say_in_the_axes():
    before, after, labels, is_target = clouds()
    moved = before + 100 * is_target[:, None].astype(np.float32)
    source = ~is_target
    plain, other = projection_data(before, after, labels, is_target), projection_data(moved, after, labels, is_target)
    assert np.allclose(plain["before_x"][source], other["before_x"][source])


def test_every_point_of_the_projection_is_drawn_once():
    before, after, labels, is_target = clouds()
    data = projection_data(before, after, labels, is_target)
    figure = settle(plot_projection(before, after, labels, is_target, classes=("neutral", "pain", "joy")))
    for axes, side in zip(figure.axes, ("before", "after"), strict=True):
        points = np.concatenate([np.column_stack(line.get_data()) for line in axes.get_lines()])
        expected = np.column_stack([data[f"{side}_x"], data[f"{side}_y"]])
        assert sorted(map(tuple, points)) == sorted(map(tuple, expected))
    assert np.allclose(figure.axes[0].get_xlim(), figure.axes[1].get_xlim(), rtol=0.05)


def test_features_that_can_not_be_projected_are_refused():
    before, after, labels, is_target = clouds()
    for broken, said in [
        ((before, after[:-1], labels, is_target), "same rows"),
        ((before, after, labels[:-1], is_target), "labels"),
        ((before, after, labels, np.ones_like(is_target)), "at least two"),
        ((before[:, :1], after[:, :1], labels, is_target), "at least two"),
        ((before, after * np.nan, labels, is_target), "NaN"),
    ]:
        with pytest.raises(InputError, match=said):
            projection_data(*broken)
    with pytest.raises(InputError, match="label 2"):
        plot_projection(before, after, labels, is_target, classes=("neutral", "pain"))


@pytest.mark.parametrize("width", [style.COLUMN, style.FULL])
def test_no_text_is_cut_at_either_width(width):
    many = [row(f"method-number-{m}", f"s{n}", 0.5 + m / 50) for m in range(8) for n in range(10)]
    many += [row("source-only", f"s{n}", 0.4 + n / 50) for n in range(10)]
    figures = [
        plot_subjects(many, width=width),
        plot_summary(summarise(many), width=width),
        plot_projection(*clouds(), classes=("neutral", "anger", "fear"), width=width),
    ]
    assert [texts_inside(figure) for figure in figures] == [True] * len(figures)
    assert {figure.get_figwidth() for figure in figures} == {width}


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        style.save_figure(plot_summary(summarise(rows())), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_svg_stands_alone(tmp_path):
    style.save_figure(plot_subjects(rows()), tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag.endswith("svg")
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(names) == len(set(names))
    assert not any(element.tag.endswith(("script", "text")) for element in root.iter())


def test_another_ending_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"\.svg, \.pdf, \.png, not \.bmp"):
        style.save_figure(style.figure(), tmp_path / "a.bmp")
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_are_saved_in_full_beside_the_figure(tmp_path):
    data = subjects_data(rows())
    path = style.save_data(tmp_path / "figure.svg", data)
    assert path == tmp_path / "figure.csv"
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [line["subject"] for line in read] == data["subject"]
    assert [float(line["score"]) for line in read] == data["score"]
    with pytest.raises(InputError, match="different lengths"):
        style.save_data(tmp_path / "figure.svg", {"a": [1], "b": []})


def test_drawing_touches_neither_pyplot_nor_the_users_settings():
    script = (
        "import sys, matplotlib; matplotlib.rcParams['font.size'] = 33;"
        "from featlab.analysis import style;"
        "\nwith style.house_style(): style.figure().subplots()\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['font.size'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False 33.0"

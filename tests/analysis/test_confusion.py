"""Confusions averaged over subjects, drawn, tabled and found again in a folder of results."""

import os
import warnings
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from featlab.analysis import style
from featlab.analysis.evaluation.confusion import (
    Confusion,
    confusion_columns,
    confusion_methods,
    confusion_of,
    confusion_result,
    confusion_table,
    plot_confusion,
)
from featlab.analysis.evaluation.result import evaluation_result
from featlab.analysis.evaluation.stored import class_names, open_results
from featlab.analysis.page import write_result
from featlab.errors import InputError
from featlab.evaluation.metrics import subject_metrics

SEVEN = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")


@pytest.fixture
def scored(result):
    """``scored("pft", "s1", labels, predicted, classes, draw=1)``: the row of a run that predicted these codes."""

    def make(method, subject, labels, predicted, classes=SEVEN, **changes):
        found = subject_metrics(np.array(labels), np.eye(len(classes))[predicted], neutral_code=0)
        same = {name: getattr(found, name) for name in ("histogram", "frames", "class_recall", "confusion")}
        return result(method, subject, found.macro_f1, **{**same, **changes})

    return make


@pytest.fixture
def many(scored):
    """Two methods on five subjects in two draws and two seeds, with 7 classes of which some people lack some."""
    rng, rows = np.random.default_rng(0), []
    for method, subject in product(("source-only", "pft"), range(5)):
        labels = rng.integers(0, 7, 40)
        labels[labels == subject] = (subject + 1) % 7
        for draw, seed in product(range(2), range(2)):
            predicted = np.where(rng.uniform(size=40) < 0.6, labels, rng.integers(0, 7, 40))
            rows.append(scored(method, f"s{subject}", labels, predicted, draw=draw, seed=seed))
    return rows


def by_hand(rows, method):
    """The same mean once more: seeds, draws, then subjects, each without those who lack the class."""
    share = {}
    for row in (row for row in rows if row.method == method):
        counts = np.reshape(row.confusion, (7, 7)).astype(float)
        with np.errstate(invalid="ignore"):
            counts /= counts.sum(axis=1, keepdims=True)
        share.setdefault(row.subject, {}).setdefault(row.draw, []).append(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        means = [
            np.nanmean([np.nanmean(seeds, axis=0) for seeds in draws.values()], axis=0) for draws in share.values()
        ]
        return np.nanmean(means, axis=0)


def test_a_subject_s_shares_are_sklearn_s_normalised_confusion_and_a_class_that_nobody_shows_is_unknown(scored):
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 7, 90), rng.integers(0, 7, 90)
    found = confusion_of([scored("pft", "s1", labels, predicted)], "pft")
    assert found.share == pytest.approx(confusion_matrix(labels, predicted, normalize="true"))
    assert found.subjects == (1,) * 7
    found = confusion_of([scored("pft", "s1", [0, 2], [0, 0])], "pft")
    assert found.subjects == (1, 0, 1, 0, 0, 0, 0)
    assert np.isnan(found.share[1]).all()
    assert found.share[2].tolist() == [1.0] + [0.0] * 6


def test_subjects_weigh_the_same_whatever_their_frames_draws_and_seeds_and_failed_runs_are_noted(scored, many, result):
    rows = [*many, *(scored("pft", "s9", [0, 0, 0, 1], [0, 0, 1, 1], seed=seed) for seed in range(3))]
    found = confusion_of(rows, "pft")
    assert found.share == pytest.approx(by_hand(rows, "pft"))
    assert found.subjects == (5, 5, 4, 4, 4, 5, 5)
    assert found.share.sum(axis=1) == pytest.approx(np.ones(7))
    rows = [scored("pft", "s1", [0, 1], [0, 0]), result("pft", "s2", np.nan, error="too short a clip")]
    found = confusion_of(rows, "pft")
    assert found.subjects[:2] == (1, 1)
    assert "too short a clip" in confusion_table(rows, [found], SEVEN).notes[-1]


def test_the_usual_methods_are_shown_where_they_are_there_and_what_fits_no_confusion_is_refused(many, scored, result):
    assert confusion_methods(many) == ("source-only", "pft")
    assert confusion_methods(many, ["pft", "pft"]) == ("pft",)
    broken = [result("pft", "s1", np.nan, error="it diverged")]
    others = [*(scored(name, "s1", [0], [0]) for name in ("shot", "nrc", "tpds")), *broken]
    assert confusion_methods(others) == ("shot", "nrc")
    two = [scored("pft", "s1", [0, 1], [0, 0]), scored("pft", "s2", [0], [0], ("neutral", "smile"))]
    for ask, said in [
        (lambda: confusion_methods(many, ["pfft"]), "no method 'pfft'.*did you mean 'pft'"),
        (lambda: confusion_methods(many, ["a", "b", "c", "d", "e"]), "names 5 methods, and 4 go side by side"),
        (lambda: confusion_methods(others, ["pft"]), "every run of pft failed: it diverged"),
        (lambda: confusion_methods(broken, []), "every run in the results failed"),
        (lambda: confusion_of([two[0], result("pft", "s2", 0.5)], "pft"), "run the same evaluation again"),
        (lambda: confusion_of(two, "pft"), "2 and 7 classes"),
    ]:
        with pytest.raises(InputError, match=said):
            ask()


def test_the_table_is_the_columns(many):
    confusions = [confusion_of(many, method) for method in ("source-only", "pft")]
    table = confusion_table(many, confusions, SEVEN)
    shares = [f"{100 * share:.2f}" for share in confusion_columns(confusions, SEVEN)["share"]]
    people = [str(count) for item in confusions for count in item.subjects]
    for place, (row, (method, label)) in enumerate(
        zip(table.rows, product(("source-only", "pft"), SEVEN), strict=True)
    ):
        assert row == (method, label, *shares[7 * place : 7 * place + 7], people[place])


def test_one_to_four_panels_fit_at_page_or_column_width(readable):
    long = ("no pain at all", "pain of level four or more")
    for classes, count in ((SEVEN, 1), (SEVEN, 4), (long, 3), (long, 4), (("neutral", "pain"), 2), (("a",), 1)):
        share, people = np.tril(np.full((len(classes),) * 2, 0.25)), (3,) * len(classes)
        shown = [Confusion(f"method-{place}", "source-free", share, people) for place in range(count)]
        figure = readable(plot_confusion(shown, classes))
        assert figure.get_figwidth() in (style.COLUMN, style.FULL)
        assert figure.get_figheight() < 7.5
        panel = figure.axes[0]
        assert np.array_equal(panel.images[0].get_array(), share)
        for text in panel.texts:
            across, down = text.get_position()
            assert float(text.get_text()) == 100 * share[down, across]


def written(folder, rows):
    write_result(folder, evaluation_result(rows, metadata={"cache_digest": "abc"}, plots=False, classes=SEVEN))
    return folder


def test_results_are_found_by_folder_by_file_and_the_newest_by_default_or_refused(many, tmp_path):
    with pytest.raises(InputError, match="run featlab evaluate first"):
        open_results(tmp_path)
    older, newer = (written(tmp_path / "results" / name, many) for name in ("z-first", "a-second"))
    os.utime(older / "results.jsonl", ns=(1, 1))
    assert open_results(tmp_path).path == newer / "results.jsonl"
    found = open_results(tmp_path, older)
    assert found.path == open_results(tmp_path, older / "results.jsonl").path
    assert (found.facts["cache_digest"], found.name) == ("abc", "z-first")
    (older / "run.json").unlink()
    assert open_results(tmp_path, older).facts == {}
    (newer / "run.json").write_text("{", encoding="utf-8")
    (tmp_path / "results.jsonl").write_text("", encoding="utf-8")
    for name, said in (("no", "no results there"), ("", "holds no results"), (newer, r"run\.json: damaged")):
        with pytest.raises(InputError, match=said):
            open_results(tmp_path, tmp_path / name)
    (newer / "SHA256SUMS").unlink()  # as an older featlab wrote it
    with pytest.raises(InputError, match=r"run\.json: can't be read"):
        open_results(tmp_path, newer)


def test_the_page_holds_the_figure_s_numbers(many, tmp_path, stored):
    given = open_results(tmp_path, written(tmp_path / "results" / "evaluate-1", many))
    assert class_names(given, 8)[0] == tuple(f"Class {number}" for number in range(1, 9))
    found = confusion_result(given, [])
    page = stored(found, tmp_path / "results" / "plot-confusion-evaluate-1")
    shares = {method: confusion_of(many, method).share for method in ("source-only", "pft")}
    data = found.figures[0].data
    assert data["share"] == [value for share in shares.values() for value in share.ravel()]
    assert data["predicted"][:7] == list(SEVEN)
    right = [f"{100 * np.diag(share).mean():.1f} % with {method}" for method, share in shares.items()]
    assert found.summary == [f"Of the frames of a class are recognised, in the mean over classes: {', '.join(right)}."]
    assert (page.metadata["results"], page.metadata["cache_digest"], page.kind) == ("evaluate-1", "abc", "plot")
    # Its own folder has no rows: it is never taken for results.
    assert open_results(tmp_path).path.parent.name == "evaluate-1"

"""Feature maps: what is shown of source and target, where it is put, and what the scores under it say."""

import csv
import sys
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from featlab.analysis import style
from featlab.analysis.inside import map as module
from featlab.analysis.inside.map import (
    FeatureMap,
    MapSettings,
    ViewScore,
    feature_map,
    plane,
    score_views,
    scores_table,
    scores_words,
)
from featlab.analysis.inside.map_page import map_page, plot_map
from featlab.analysis.inside.views import EXTRACTED, UNADAPTED, View, person_views, pick_rows
from featlab.analysis.page import read_page, read_table
from featlab.analysis.people import adapt_people
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.errors import ConfigError, InputError
from featlab.workspace.workspace import Workspace

METHODS = ("pft", "sfda-it", "neutral-shift", "referenced")
QUICK = {
    "head.epochs": 2,
    "head.bottleneck": 6,
    "features.dim": 8,
    "pretrain.validation": False,
    "adapt.sfda-it.iterations": 20,
}
TARGET = "s0"
CLASSES = ("anger", "neutral", "joy")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(1)
    videos = ("anger-a", "joy-a", "neutral-a", "neutral-b")
    subject, video, frame = (part.ravel().astype(np.int32) for part in np.indices((7, len(videos), 5)))
    label = np.array([0, 2, 1, 1])[video].astype(np.int16)
    person, expression = 2 * rng.normal(size=(7, 12)), 2 * rng.normal(size=(3, 12))
    embeddings = person[subject] + expression[label] + 0.3 * rng.normal(size=(len(label), 12))
    table = FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label,
        subject=subject,
        video=video,
        frame=frame,
        subjects=tuple(f"s{number}" for number in range(7)),
        videos=videos,
        classes=CLASSES,
        neutral="neutral",
    )
    write_table(root / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
    return Workspace.open(root, QUICK)


@pytest.fixture(scope="module")
def people(workspace):
    return adapt_people(workspace, [TARGET], METHODS)


@pytest.fixture(scope="module")
def views(people):
    return {view.name: view for view in person_views(people, people.people[0])}


@pytest.fixture(scope="module")
def drawn_map(people):
    return feature_map(people, people.people[0], MapSettings(source_rows=40))


def projected(people, table):
    projection = people.bundle.projection
    return (table.embeddings - projection.mean.numpy()) @ projection.components.numpy()


def test_the_first_view_is_the_projection_alone(people, views):
    assert list(views) == [EXTRACTED, UNADAPTED, *METHODS]
    assert np.allclose(views[EXTRACTED].source, projected(people, people.source), atol=1e-4)
    assert np.allclose(views[EXTRACTED].target, projected(people, people.people[0].table), atol=1e-4)


def test_pft_meets_every_source_person_with_their_own_offset(people, views):
    source, bundle = people.source, people.bundle
    features = projected(people, source)
    means = {}
    for code in np.unique(source.subject):
        mine = (source.subject == code) & (source.label == 1)
        clips = [features[mine & (source.video == video)].mean(axis=0) for video in np.unique(source.video[mine])]
        means[code] = np.mean(clips, axis=0)
    centre = np.mean(list(means.values()), axis=0)
    moved = np.stack([row + centre - means[code] for row, code in zip(features, source.subject, strict=True)])
    with torch.no_grad():
        expected = bundle.translator(torch.from_numpy(moved.astype(np.float32))).numpy()
    assert np.allclose(views["pft"].source, expected, atol=1e-4)
    assert views[UNADAPTED].source is views["pft"].source
    assert not np.allclose(views[UNADAPTED].target, views["pft"].target)


def test_a_shift_puts_source_people_where_it_puts_the_target(people, views):
    person, source = people.people[0], people.source
    for name in ("neutral-shift", "referenced"):
        place = views[name].target[person.split.adapt].mean(axis=0)
        for code in np.unique(source.subject):
            mine = (source.subject == code) & (source.label == 1)
            assert np.allclose(views[name].source[mine].mean(axis=0), place, atol=1e-4)


def test_other_methods_are_compared_with_the_source_as_it_is(views):
    assert views["sfda-it"].source is views[EXTRACTED].source
    assert views["sfda-it"].reference == EXTRACTED
    assert "own offset" in views["pft"].reference


def test_the_bottleneck_is_what_c_is_given(people):
    person = people.people[0]
    some = replace(person, models={"pft": person.models["pft"]})
    shown = person_views(people, some, "bottleneck")[-1].target
    logits = people.bundle.head.classify(torch.from_numpy(shown)).detach()
    model = person.models["pft"]
    expected = model.predict_proba(person.table.embeddings)
    assert np.allclose(torch.softmax(logits / model.model.temperature, dim=1).numpy(), expected, atol=1e-5)
    with pytest.raises(InputError, match="referenced puts one linear map"):
        person_views(people, person, "bottleneck")
    with pytest.raises(InputError, match="not one of features, bottleneck"):
        person_views(people, person, "pixels")


def test_rows_are_picked_evenly():
    rng = np.random.default_rng(0)
    label, subject = rng.integers(0, 3, 900), rng.integers(0, 10, 900)
    picked = pick_rows([label, subject], 300)
    counts = np.bincount(label[picked] * 10 + subject[picked])
    assert set(counts) == {10}
    assert (np.diff(picked) > 0).all()
    one = np.zeros(100, dtype=int)
    assert np.ptp(np.diff(pick_rows([one], 20))) == 0
    assert pick_rows([one], 0).tolist() == pick_rows([one], 100).tolist() == list(range(100))
    assert pick_rows([one[:0]], 5).tolist() == []


def test_with_more_groups_than_rows_every_class_is_still_there():
    label, subject = np.tile(np.arange(7), 200), np.repeat(np.arange(200), 7)
    picked = pick_rows([label, subject], 140)
    assert len(picked) == 140
    assert set(np.bincount(label[picked])) == {20}
    assert np.bincount(subject[picked]).max() <= 2


def test_rare_groups_keep_all_their_rows():
    group = np.array([0] * 50 + [1] * 2)
    assert np.bincount(group[pick_rows([group], 20)]).tolist() == [10, 2]


def scored(source, target, source_label, target_label, test, nearest=10):
    view = View(EXTRACTED, np.asarray(source, np.float32), np.asarray(target, np.float32), EXTRACTED)
    return score_views([view], np.asarray(source_label), np.asarray(target_label), np.asarray(test), nearest=nearest)[0]


def test_scores_equal_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(80, 5)).astype(np.float32), rng.normal(size=(30, 5)).astype(np.float32)
    theirs, ours, test = rng.integers(-1, 3, 80), rng.integers(-1, 3, 30), np.arange(5, 30)
    score = scored(source, target, theirs, ours, test)
    known, rows = theirs >= 0, test[ours[test] >= 0]
    index = NearestNeighbors(n_neighbors=10).fit(source[known]).kneighbors(target[rows], return_distance=False)
    assert score.own_class == pytest.approx(np.mean(theirs[known][index] == ours[rows][:, None]))
    assert score.silhouette == pytest.approx(silhouette_samples(target[rows], ours[rows]).mean(), abs=1e-6)
    share = np.bincount(theirs[known]) / known.sum()
    assert score.by_chance == pytest.approx(np.mean([share[code] for code in ours[rows]]))
    assert score.rows == len(rows)


def test_what_cannot_be_scored_is_no_number():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
    one_class = scored(source, target, [0, 0, 1, 1], [1] * 6, range(6))
    assert np.isnan(one_class.silhouette)
    assert one_class.own_class == 0.5
    unlabelled = scored(source, target, [0, 0, 1, 1], [-1] * 6, range(6))
    assert np.isnan(unlabelled.own_class)
    assert "nothing is scored" in scores_words("x", [unlabelled], {})[0]
    assert np.isnan(scored(source, target, [-1] * 4, [0] * 6, range(6)).own_class)
    absent = scored(source, target, [0, 0, 1, 1], [2] * 6, range(6))
    assert (absent.own_class, absent.by_chance) == (0.0, 0.0)


def test_words_say_it_when_a_method_loses():
    scores = [
        ViewScore(EXTRACTED, EXTRACTED, 20, 0.7, 0.5, 0.1),
        ViewScore(UNADAPTED, "moved", 20, 0.75, 0.5, 0.2),
        ViewScore("pft", "moved", 20, 0.8, 0.5, 0.2),
        ViewScore("sfda-it", EXTRACTED, 20, 0.6, 0.5, 0.3),
        ViewScore("adabn", EXTRACTED, 20, 0.7, 0.5, 0.3),
    ]
    first, alone, won, lost, same = scores_words("s1", scores, {"pft": "SFDA-PFT"})
    assert "70.0 %" in first
    assert "50.0 %" in first
    assert "75.0 %" in alone
    assert "SFDA-PFT brings s1 nearer by 10.0 points: 80.0 %" in won
    assert "sfda-it brings s1 farther away by 10.0 points: 60.0 %" in lost
    assert "no nearer" in same
    table = scores_table([("s1", scores)], {"pft": "SFDA-PFT"})
    assert table.rows[2] == ("s1", "SFDA-PFT", "moved", "80.0", "0.200")


def test_tsne_is_that_of_scikit_learn_and_leaves_the_random_state_alone():
    rows = np.random.default_rng(4).normal(size=(40, 6)).astype(np.float32)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = plane(rows, "tsne", perplexity=8, seed=5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(first, plane(rows, "tsne", perplexity=8, seed=5))
    assert np.allclose(first, TSNE(perplexity=8, init="pca", random_state=5).fit_transform(rows), atol=1e-3)


def test_rows_that_make_no_map_are_refused():
    for rows, what in (
        (np.ones((10, 4)), "same features"),
        (np.ones((3, 4)), "four rows"),
        (np.arange(10.0)[:, None], "two dimensions"),
    ):
        with pytest.raises(InputError, match=what):
            plane(rows, "tsne", perplexity=1, seed=0)


def test_umap_starts_from_a_fixed_seed_on_one_thread(monkeypatch):
    asked = {}

    class Stub:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, rows):
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Stub))
    rows = np.random.default_rng(0).normal(size=(6, 3))
    assert plane(rows, "umap", perplexity=0, seed=7).shape == (6, 2)
    assert asked == {"n_neighbors": 5, "init": "pca", "random_state": 7, "n_jobs": 1}


def test_settings_that_make_no_sense_are_refused(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for values, what in (
        ({"by": "tnse"}, "did you mean 'tsne'"),
        ({"layer": "pixels"}, "--layer"),
        ({"perplexity": -1.0}, "--perplexity"),
        ({"by": "pca", "perplexity": 5.0}, "leave it out"),
        ({"by": "umap"}, r"pip install 'featlab\[umap\]'"),
    ):
        with pytest.raises(ConfigError, match=what):
            MapSettings(**values)


def test_a_perplexity_has_to_fit_and_adapts_where_none_was_asked_for(people, drawn_map):
    with pytest.raises(InputError, match="must be below the"):
        feature_map(people, people.people[0], MapSettings(perplexity=5000))
    assert drawn_map.perplexity == 30
    small = feature_map(people, people.people[0], MapSettings(source_rows=6, target_rows=3))
    assert 1 < small.perplexity < 30


def points(item, panel, group):
    wanted = [pair == (panel, group) for pair in zip(item.columns["panel"], item.columns["group"], strict=True)]
    return np.column_stack([item.columns["x"], item.columns["y"]])[wanted]


def test_all_panels_share_one_embedding(drawn_map):
    extracted = [points(drawn_map, name, "extracted") for name in METHODS]
    assert all(np.array_equal(extracted[0], other) for other in extracted[1:])
    sources = {name: points(drawn_map, name, "source") for name in METHODS}
    assert not np.allclose(sources["pft"], sources["sfda-it"])
    assert len({len(cloud) for cloud in sources.values()}) == 1


def test_only_rows_that_were_not_adapted_on_are_shown(people, drawn_map):
    assert len(points(drawn_map, "pft", "translated")) == len(people.people[0].split.test)
    assert set(drawn_map.columns["subject"]) == set(people.source.subject_names_present()) | {TARGET}


def test_a_target_that_has_other_labels_is_in_the_same_place(people):
    person = people.people[0]
    settings = MapSettings(source_rows=40, target_rows=0)
    unknown = replace(person, table=replace(person.table, label=np.full(len(person.table), -1, np.int16)))
    first, other = (feature_map(people, one, settings) for one in (person, unknown))
    assert first.columns["x"] == other.columns["x"]
    assert first.columns["label"] != other.columns["label"]
    assert np.isnan(other.scores[0].own_class)


def test_principal_axes_are_those_of_the_source_as_extracted(people, views):
    item = feature_map(people, people.people[0], MapSettings(by="pca", source_rows=0))
    fitted = PCA(2).fit(views[EXTRACTED].source)
    expected = fitted.transform(views["pft"].target[people.people[0].split.test])
    found = points(item, "pft", "translated")
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-3)
    assert item.shares == pytest.approx(fitted.explained_variance_ratio_, abs=1e-4)


def synthetic(panels=("pft", "sfda-it"), classes=7, rows=60, by="tsne"):
    rng = np.random.default_rng(0)
    columns = {name: [] for name in ("panel", "group", "subject", "label", "x", "y")}
    for panel in panels:
        for group in ("source", "extracted", "translated"):
            values = ([panel] * rows, [group] * rows, ["participant_0041_session_2"] * rows)
            places = (rng.integers(-1, classes, rows).tolist(), *rng.normal(size=(2, rows)).tolist())
            for name, column in zip(columns, (*values, *places), strict=True):
                columns[name] += column
    reference = "through T, each with their own offset"
    scores = tuple(ViewScore(name, reference, 1, 0.5, 0.5, 0.1) for name in (EXTRACTED, *panels))
    names = tuple(f"a class called {code}" for code in range(classes))
    settings = MapSettings(by=by)
    return FeatureMap("participant_0041_session_2", names, settings, 30.0, (0.4, 0.2), columns, scores)


def settle(figure):
    """Draw it, so that a layout that does not fit is heard of, and check that all text lies within."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox.padded(1.0)
    found = [text for axes in figure.axes for text in [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent(renderer) for text in found if text.get_text().strip() and text.get_visible()]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert min(text.get_fontsize() for text in found) >= 6.5
    return figure


def test_every_point_of_the_figure_is_a_row_of_the_columns():
    item = synthetic()
    figure = settle(plot_map(item))
    for panel, name in zip(figure.axes, ("pft", "sfda-it"), strict=True):
        assert panel.get_title() == name
        for line in panel.get_lines():
            group, code = line.get_label().removeprefix("_").split(" ")
            columns = [item.columns[key] for key in ("panel", "group", "label", "x", "y")]
            wanted = [row[3:] for row in zip(*columns, strict=True) if row[:3] == (name, group, int(code))]
            assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == wanted
    limits = [(panel.get_xlim(), panel.get_ylim()) for panel in figure.axes]
    assert np.allclose(limits[0], limits[1], atol=1e-6)


@pytest.mark.parametrize("width", [style.FULL, style.COLUMN])
@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("panels", [("pft",), ("pft", "sfda-it"), ("a", "b", "c", "d")])
def test_the_figure_fits_whatever_it_holds(width, classes, panels):
    names = dict.fromkeys(panels, "A method of a long name (Somebody & Others, 2021a)")
    beneath = dict.fromkeys(panels, "by image statistics, here of features: the source's are matched")
    settle(plot_map(synthetic(panels, classes), names=names, subtitles=beneath, width=width))


def test_markers_are_the_class_and_unknown_rows_are_dots():
    lines = {line.get_label(): line for line in plot_map(synthetic(classes=3)).axes[0].get_lines()}
    assert [lines[f"_translated {code}"].get_marker() for code in range(3)] == list(style.MARKERS[:3])
    assert lines["_translated -1"].get_marker() == "."
    assert lines["_extracted 1"].get_markerfacecolor() == "white"


@pytest.fixture(scope="module")
def written(drawn_map, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    map_page([drawn_map]).write(folder, "featlab plot tsne", {})
    return folder


def test_the_page_says_what_the_panels_are(people, drawn_map, written):
    page = read_page(written)
    caption = page.figures[0].caption
    assert f"{len(people.people[0].split.test)} test rows of {TARGET}" in caption
    assert "sfda-it: as extracted" in caption
    assert "pft: through T, each with their own offset" in caption
    texts = [text.get_text() for axes in map_page([drawn_map]).figures[0].drawn.axes for text in axes.texts]
    assert any("batch statistics" in text.replace("\n", " ") for text in texts)
    by_view = {score.view: score for score in drawn_map.scores}
    shown = {row[1]: row[3] for row in read_table(written, "scores").rows}
    assert shown["pft"] == f"{100 * by_view['pft'].own_class:.1f}"
    assert any(f"{100 * by_view['pft'].own_class:.1f} %" in word for word in page.summary)


def test_the_numbers_of_the_figure_are_beside_it(drawn_map, written):
    with (written / "tsne-s0.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["x"]) for line in lines] == drawn_map.columns["x"]
    assert [int(line["label"]) for line in lines] == drawn_map.columns["label"]
    assert [line["group"] for line in lines] == drawn_map.columns["group"]


def test_the_same_map_gives_the_same_bytes(people, written, tmp_path):
    again = feature_map(people, people.people[0], MapSettings(source_rows=40))
    map_page([again]).write(tmp_path, "featlab plot tsne", {})
    for path in written.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_adapting_uses_the_source_model_of_everyone_who_is_not_kept_out(workspace):
    found = adapt_people(workspace, [TARGET], ["source-only"], kept_out=["s3"])
    assert set(found.bundle.source_subjects) == {"s1", "s2", "s4", "s5", "s6"}
    with pytest.raises(InputError, match="unknown subject 's99'"):
        adapt_people(workspace, ["s99"], ["source-only"])

"""Feature maps: what is shown of source and target, where it is put, and what the scores under it say."""

import sys
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from featlab.analysis.inside import EXTRACTED, View, adapt_people, person_views
from featlab.analysis.inside import map as module
from featlab.analysis.inside.map import check_plane, feature_map, map_result, own_class, pick_rows, plane, plot_map
from featlab.errors import ConfigError, InputError

METHODS = ("pft", "sfda-it", "neutral-shift", "referenced")
TARGET = "s00"


@pytest.fixture(scope="module")
def adapted(people, opened):
    workspace = opened(people(7, 2, 5, 12, 3, landmarks=False), **{"adapt.sfda-it.iterations": 20})
    return adapt_people(workspace, [TARGET], METHODS)


@pytest.fixture(scope="module")
def views(adapted):
    return person_views(adapted, adapted.people[0])


@pytest.fixture
def mapped(adapted, monkeypatch):
    """Return what makes the map of a person with so many rows of source and target."""

    def make(by="tsne", sources=40, targets=200, person=adapted.people[0]):
        monkeypatch.setattr(module, "_SOURCE_ROWS", sources)
        monkeypatch.setattr(module, "_TARGET_ROWS", targets)
        return feature_map(adapted, person, by)

    return make


def projected(adapted, table):
    projection = adapted.bundle.projection
    return (table.embeddings - projection.mean.numpy()) @ projection.components.numpy()


def test_a_view_is_the_projection_alone_or_moves_everyone_alike(adapted, views):
    assert list(views) == [EXTRACTED, *METHODS]
    assert np.allclose(views[EXTRACTED].source, projected(adapted, adapted.source), atol=1e-4)
    assert np.allclose(views[EXTRACTED].target, projected(adapted, adapted.people[0].table), atol=1e-4)
    person, source = adapted.people[0], adapted.source
    for name in ("neutral-shift", "referenced"):
        place = views[name].target[person.split.adapt].mean(axis=0)
        for code in np.unique(source.subject):
            mine = (source.subject == code) & (source.label == source.neutral_code)
            assert np.allclose(views[name].source[mine].mean(axis=0), place, atol=1e-4)
    assert np.array_equal(views["sfda-it"].source, views[EXTRACTED].source)
    assert views["sfda-it"].reference == EXTRACTED


def test_pft_meets_every_source_person_with_their_own_offset(adapted, views):
    source, bundle = adapted.source, adapted.bundle
    features = projected(adapted, source)
    means = {}
    for code in np.unique(source.subject):
        mine = (source.subject == code) & (source.label == source.neutral_code)
        clips = [features[mine & (source.video == video)].mean(axis=0) for video in np.unique(source.video[mine])]
        means[code] = np.mean(clips, axis=0)
    centre = np.mean(list(means.values()), axis=0)
    moved = np.stack([row + centre - means[code] for row, code in zip(features, source.subject, strict=True)])
    with torch.no_grad():
        expected = bundle.translator(torch.from_numpy(moved.astype(np.float32))).numpy()
    assert np.allclose(views["pft"].source, expected, atol=1e-4)
    assert "own offset" in views["pft"].reference


def test_rows_are_picked_evenly_over_classes_and_people():
    label, subject = np.tile(np.arange(3), 300), np.repeat(np.arange(10), 90)
    picked = pick_rows(label, subject, 300)
    assert len(picked) == 300
    assert np.ptp(np.bincount(label[picked] * 10 + subject[picked])) <= 1
    assert pick_rows(label, subject, 1000).tolist() == list(range(900))
    assert pick_rows(label[:0], subject[:0], 5).tolist() == []


def scored(source, target, theirs, ours, test):
    view = View(np.asarray(source, np.float32), np.asarray(target, np.float32), EXTRACTED)
    return own_class(view, np.asarray(theirs), np.asarray(ours), np.asarray(test))


def test_the_score_is_the_share_of_the_ten_nearest_known_source_rows_that_show_the_class():
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(80, 5)), rng.normal(size=(30, 5))
    theirs, ours, test = rng.integers(-1, 3, 80), rng.integers(-1, 3, 30), np.arange(5, 30)
    known, rows = theirs >= 0, test[ours[test] >= 0]
    index = np.argsort(cdist(target[rows], source[known]))[:, :10]
    expected = np.mean(theirs[known][index] == ours[rows][:, None])
    assert scored(source, target, theirs, ours, test) == pytest.approx(expected)
    for few, label, score in (
        ([0, 0, 1, 1], 1, 0.5),
        ([0, 0, 1, 1], 2, 0),
        ([0, 0, 1, 1], -1, None),
        ([-1] * 4, 0, None),
    ):
        found = scored(source[:4], target[:6], few, [label] * 6, range(6))
        assert np.isnan(found) if score is None else found == score


def test_tsne_is_that_of_scikit_learn_and_umap_starts_from_a_fixed_seed_on_one_thread(monkeypatch):
    rows = np.random.default_rng(4).normal(size=(40, 6)).astype(np.float32)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (plane(rows, "tsne", seed=5) for _ in range(2))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(first, again)
    assert np.allclose(first, TSNE(perplexity=13, init="pca", random_state=5).fit_transform(rows), atol=1e-3)
    umap = Mock()
    umap.UMAP.return_value.fit_transform = lambda rows: rows[:, :2]
    monkeypatch.setitem(sys.modules, "umap", umap)
    rows = np.random.default_rng(0).normal(size=(6, 3))
    assert plane(rows, "umap", seed=7).shape == (6, 2)
    umap.UMAP.assert_called_once_with(n_neighbors=5, init="pca", random_state=7, n_jobs=1)


def test_what_makes_no_map_is_refused(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    for ask, what in (
        (lambda: plane(np.ones((10, 4)), "tsne", seed=0), "same features"),
        (lambda: plane(np.ones((3, 4)), "tsne", seed=0), "four rows"),
        (lambda: plane(np.arange(10.0)[:, None], "tsne", seed=0), "two dimensions"),
        (lambda: check_plane("umap"), r"pip install 'featlab\[umap\]'"),
    ):
        with pytest.raises((ConfigError, InputError), match=what):
            ask()


def points(item, panel, group):
    wanted = [pair == (panel, group) for pair in zip(item.columns["panel"], item.columns["group"], strict=True)]
    return np.column_stack([item.columns["x"], item.columns["y"]])[wanted]


def test_all_panels_share_one_embedding_of_rows_that_were_not_adapted_on(adapted, mapped):
    drawn_map = mapped()
    extracted = [points(drawn_map, name, "extracted") for name in METHODS]
    assert all(np.array_equal(extracted[0], other) for other in extracted[1:])
    sources = {name: points(drawn_map, name, "source") for name in METHODS}
    assert not np.allclose(sources["pft"], sources["sfda-it"])
    assert len({len(cloud) for cloud in sources.values()}) == 1
    assert len(points(drawn_map, "pft", "translated")) == len(adapted.people[0].split.test)
    assert set(drawn_map.columns["subject"]) == set(adapted.source.subject_names_present()) | {TARGET}


def test_a_target_that_has_other_labels_is_in_the_same_place(adapted, mapped):
    person = adapted.people[0]
    unknown = replace(person, table=replace(person.table, label=np.full(len(person.table), -1, np.int16)))
    first, other = (mapped("pca", person=one) for one in (person, unknown))
    assert first.columns["x"] == other.columns["x"]
    assert first.columns["label"] != other.columns["label"]
    assert np.isnan(other.scores[0].own_class)


def test_principal_axes_are_those_of_the_source_as_extracted(adapted, views, mapped):
    item = mapped("pca", sources=1000)
    fitted = PCA(2).fit(views[EXTRACTED].source)
    expected = fitted.transform(views["pft"].target[adapted.people[0].split.test])
    assert np.allclose(np.abs(points(item, "pft", "translated")), np.abs(expected), atol=1e-3)
    assert item.axes[1] == f"source PC 2 ({100 * fitted.explained_variance_ratio_[1]:.0f} %)"


def test_the_figure_fits_whatever_it_holds_and_the_page_says_what_the_panels_are(adapted, mapped, readable, stored):
    drawn_map = mapped()
    one = replace(adapted.people[0], models={"pft": adapted.people[0].models["pft"]})
    few = mapped("pca", 6, 3, person=one)
    for item in (few, drawn_map):
        item = replace(item, classes=tuple(f"a class called {name}" for name in item.classes))
        readable(plot_map(item, dict.fromkeys(item.columns["panel"], "source-access")))
    result = map_result([drawn_map])
    page = stored(result)
    assert (page.figures[0].name, result.figures[0].data) == (f"tsne-{TARGET}", drawn_map.columns)
    rows = f"{len(adapted.people[0].split.test)} test rows of {TARGET}"
    for said in (rows, "sfda-it: as extracted", "pft: through T, each with their own offset"):
        assert said in page.figures[0].caption
    own = {score.view: f"{100 * score.own_class:.1f}" for score in drawn_map.scores}
    assert {row[1]: row[3] for row in result.tables["scores"].rows} == own
    assert f"{own[EXTRACTED]} % show its class as extracted, {own['pft']} % after pft" in page.summary[0]

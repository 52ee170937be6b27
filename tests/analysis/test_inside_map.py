"""Maps and neighbours: what is shown of source and target, where it is put, and what the numbers under it say."""

import sys
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from featlab.analysis.inside import EXTRACTED, View, adapt_people, person_views
from featlab.analysis.inside import map as module
from featlab.analysis.inside.map import check_plane, feature_map, map_result, own_class, pick_rows, plane, plot_map
from featlab.analysis.inside.neighbours import (
    KINDS,
    SIDES,
    Neighbours,
    neighbours_data,
    neighbours_result,
    plot_neighbours,
    source_neighbours,
)
from featlab.errors import ConfigError, InputError

METHODS = ("pft", "sfda-it", "neutral-shift", "referenced", "source-only")
TARGET = "s00"


@pytest.fixture(scope="module")
def adapted(people, opened):
    workspace = opened(
        people(7, 2, 5, 12, 2, landmarks=False, expression=1.0, identity=2.0, noise=0.8),
        **{"adapt.sfda-it.iterations": 20},
    )
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


def test_the_score_is_the_share_of_the_ten_nearest_known_source_rows_that_show_the_class():
    rng = np.random.default_rng(2)
    source, target = (rng.normal(size=(count, 5)).astype(np.float32) for count in (80, 30))
    theirs, ours, test = rng.integers(-1, 3, 80), rng.integers(-1, 3, 30), np.arange(5, 30)
    known, rows = theirs >= 0, test[ours[test] >= 0]
    index = np.argsort(cdist(target[rows], source[known]))[:, :10]
    expected = np.mean(theirs[known][index] == ours[rows][:, None])
    assert own_class(View(source, target, ""), theirs, ours, test) == pytest.approx(expected)
    few, unknown = np.array([0, 0, 1, 1]), np.full(4, -1)
    for known, label, score in ((few, 1, 0.5), (few, 2, 0.0), (few, -1, np.nan), (unknown, 0, np.nan)):
        found = own_class(View(source[:4], target[:6], ""), known, np.full(6, label), np.arange(6))
        assert found == pytest.approx(score, nan_ok=True)


def test_tsne_is_that_of_scikit_learn_and_umap_starts_from_a_fixed_seed_on_one_thread(monkeypatch):
    rows = np.random.default_rng(4).normal(size=(40, 6)).astype(np.float32)
    first, again = (plane(rows, "tsne", seed=5) for _ in range(2))
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


def test_the_map_fits_whatever_it_holds_and_the_page_says_what_the_panels_are(adapted, mapped, readable, stored):
    drawn_map = mapped()
    one = replace(adapted.people[0], models={"pft": adapted.people[0].models["pft"]})
    few = mapped("pca", 6, 3, person=one)
    for item in (few, drawn_map):
        item = replace(item, classes=tuple(f"a class called {name}" for name in item.classes))
        readable(plot_map(item, dict.fromkeys(item.columns["panel"], "source-access")))
    result = map_result([drawn_map])
    page = stored(result)
    assert page.figures[0].name == f"tsne-{TARGET}"
    rows = f"{len(adapted.people[0].split.test)} test rows of {TARGET}"
    for said in (rows, "sfda-it: as extracted", "pft: through T, each with their own offset"):
        assert said in page.figures[0].caption
    own = {score.view: f"{100 * score.own_class:.1f}" for score in drawn_map.scores}
    assert {row[1]: row[3] for row in result.tables["scores"].rows} == own
    assert f"{own[EXTRACTED]} % show its class as extracted, {own['pft']} % after pft" in page.summary[0]


@pytest.fixture(scope="module")
def found(adapted):
    return source_neighbours(adapted, adapted.people[0], "pft")


def by_hand(adapted, view, rows):
    """Counts (S, 3) of the nearest source row by subject and kind, one frame at a time."""
    person, source = adapted.people[0], adapted.source
    subjects = np.unique(source.subject).tolist()
    counts = np.zeros((len(subjects), len(KINDS)), dtype=int)
    theirs = view.source / np.linalg.norm(view.source, axis=1, keepdims=True)
    for row in rows:
        nearest = int((theirs @ view.target[row]).argmax())
        same = source.label[nearest] == person.table.label[row]
        counts[subjects.index(source.subject[nearest]), 0 if same else 1] += 1
    return counts


def test_counts_and_their_distribution_equal_those_found_one_frame_at_a_time(adapted, found, views):
    test = adapted.people[0].split.test
    assert found.frames == len(test)
    assert found.subjects == adapted.source.subject_names_present()
    for side, name in enumerate(("as extracted", "pft")):
        assert found.counts[side].tolist() == by_hand(adapted, views[name], test).tolist()
    assert found.counts[0].tolist() != found.counts[1].tolist()
    for side in range(2):
        assert found.effective(side) == pytest.approx(np.exp(entropy(found.counts[side].sum(axis=1))))
        assert found.same_class(side) == pytest.approx(found.counts[side, :, 0].sum() / found.frames)
    same = source_neighbours(adapted, adapted.people[0], "source-only")
    assert np.array_equal(*same.counts)


def test_labels_place_nothing_and_without_them_nothing_is_right_or_wrong(adapted, readable):
    person = adapted.people[0]

    def labelled(label):
        table = replace(person.table, label=label.astype(np.int16))
        return source_neighbours(adapted, replace(person, table=table), "pft")

    given, swapped, unknown = (
        labelled(label) for label in (person.table.label, 1 - person.table.label, person.table.label * 0 - 1)
    )
    assert given.counts.sum(axis=2).tolist() == swapped.counts.sum(axis=2).tolist()
    assert swapped.same_class(1) == pytest.approx(1 - given.same_class(1))
    assert np.isnan(unknown.same_class(1))
    assert unknown.counts[:, :, 2].sum() == 2 * unknown.frames
    result = neighbours_result(unknown)
    assert "without labels" in result.summary[0]
    assert result.tables["spread"].rows[0][-1] == "–"
    readable(result.figures[0].drawn)


def made(before, after, *, name="s{}"):
    """Return neighbours with these counts, before of the same class, after of another."""
    counts = np.zeros((2, len(before), 3), dtype=np.int64)
    counts[0, :, 0], counts[1, :, 1] = before, after
    subjects = tuple(name.format(number) for number in range(len(before)))
    return Neighbours("target", "pft", int(sum(before)), "moved", subjects, counts)


def test_the_largest_on_either_side_are_named_and_the_rest_is_one_line(found):
    data = neighbours_data(made([5, 0, 3, 1, 1, 0], [0, 8, 0, 1, 1, 0]), 3)
    assert data["subject"] == ["s0", "s2", "s1", "3 others"]
    assert data["before_same"] == [5, 3, 0, 2]
    assert data["after_other"] == [0, 0, 8, 2]
    assert neighbours_data(made([5, 5], [10, 0]))["subject"] == ["s0", "s1"]
    for named in (1, 3, 100):
        data = neighbours_data(found, named)
        for side in SIDES:
            assert sum(sum(data[f"{side}_{kind}"]) for kind in KINDS) == found.frames


def test_page_and_sentence_have_the_numbers_and_the_figure_fits_whatever_it_holds(found, readable, stored):
    result = neighbours_result(found)
    page = stored(result)
    assert page.figures[0].name == f"neighbours-{TARGET}"
    assert f"{found.effective(0):.1f} effective subjects of 6 as extracted" in page.summary[0]
    assert f"in {100 * found.same_class(0):.1f} % and {100 * found.same_class(1):.1f} %." in page.summary[0]
    readable(result.figures[0].drawn)
    for name, subjects in (("{0:05}_of_the_recordings_of_the_year_{0:05}", 36), ("{}", 300)):
        figure = readable(plot_neighbours(made([2] * subjects, list(range(subjects)), name=name)))
        assert figure.axes[0].bbox.width > 0.2 * figure.bbox.width

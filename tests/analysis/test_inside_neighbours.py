"""The nearest source frames of a target: counted by source subject, before and after translation."""

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from featlab.analysis import style
from featlab.analysis.inside.neighbours import (
    KINDS,
    SIDES,
    Neighbours,
    Spread,
    neighbours_data,
    neighbours_table,
    neighbours_words,
    plot_neighbours,
    source_neighbours,
    write_neighbours,
)
from featlab.analysis.inside.views import person_views
from featlab.analysis.page import read_page
from featlab.analysis.people import adapt_people
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.errors import InputError
from featlab.workspace.workspace import Workspace

QUICK = {"head.epochs": 2, "head.bottleneck": 6, "features.dim": 8, "pretrain.validation": False}
TARGET = "s0"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("neighbours")
    rng = np.random.default_rng(3)
    videos = ("joy-a", "joy-b", "neutral-a", "neutral-b")
    subject, video, frame = (part.ravel().astype(np.int32) for part in np.indices((7, len(videos), 5)))
    label = (video < 2).astype(np.int16)
    person, joy = 2 * rng.normal(size=(7, 12)), rng.normal(size=12)
    embeddings = person[subject] + label[:, None] * joy + 0.8 * rng.normal(size=(len(label), 12))
    table = FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label,
        subject=subject,
        video=video,
        frame=frame,
        subjects=tuple(f"s{number}" for number in range(7)),
        videos=videos,
        classes=("neutral", "joy"),
        neutral="neutral",
    )
    write_table(root / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
    return adapt_people(Workspace.open(root, QUICK), [TARGET], ["pft", "source-only"])


@pytest.fixture(scope="module")
def found(people):
    return source_neighbours(people, people.people[0], "pft")


def by_hand(people, view, rows):
    """Count (subject, same class) of the nearest source row, one frame at a time."""
    person, source = people.people[0], people.source
    counts = {}
    for row in rows:
        ours = view.target[row] / np.linalg.norm(view.target[row])
        theirs = view.source / np.linalg.norm(view.source, axis=1, keepdims=True)
        nearest = int((theirs @ ours).argmax())
        kind = KINDS[int(source.label[nearest] != person.table.label[row])]
        key = (source.subjects[source.subject[nearest]], kind)
        counts[key] = counts.get(key, 0) + 1
    return counts


def counted(found, side):
    return {
        (subject, kind): int(found.counts[side, place, number])
        for place, subject in enumerate(found.subjects)
        for number, kind in enumerate(KINDS)
        if found.counts[side, place, number]
    }


def test_counts_equal_those_found_one_frame_at_a_time(people, found):
    views = {view.name: view for view in person_views(people, people.people[0])}
    test = people.people[0].split.test
    assert found.frames == len(test)
    for side, name in enumerate(("as extracted", "pft")):
        assert counted(found, side) == by_hand(people, views[name], test)
    assert found.counts[0].tolist() != found.counts[1].tolist()


def test_spreads_are_those_of_the_counts(found):
    for side, spread in enumerate((found.before, found.after)):
        totals = found.counts[side].sum(axis=1)
        assert spread.effective == pytest.approx(np.exp(entropy(totals)))
        assert spread.largest_share == pytest.approx(totals.max() / found.frames)
        assert spread.largest == found.subjects[int(totals.argmax())]
        assert spread.found == (totals > 0).sum()
        assert spread.same_class == pytest.approx(found.counts[side, :, 0].sum() / found.frames)


def test_a_method_that_changes_nothing_changes_nothing(people):
    same = source_neighbours(people, people.people[0], "source-only")
    assert same.before == same.after
    assert "as often as before" in neighbours_words(same)[-1]


def test_classes_choose_frames(people):
    person = people.people[0]
    joy = source_neighbours(people, person, "pft", "joy")
    assert joy.frames == int((person.table.label[person.split.test] == 1).sum())
    both = source_neighbours(people, person, "pft", "neutral, joy")
    assert both.frames == len(person.split.test)
    with pytest.raises(InputError, match=r"unknown class 'joi'.*did you mean 'joy'"):
        source_neighbours(people, person, "pft", "joi")
    with pytest.raises(InputError, match="names no class"):
        source_neighbours(people, person, "pft", " , ")
    nobody = replace(person, table=replace(person.table, label=np.zeros(len(person.table), np.int16)))
    with pytest.raises(InputError, match="no test frame of s0 shows joy"):
        source_neighbours(people, nobody, "pft", "joy")


def test_without_labels_nothing_is_right_or_wrong(people):
    person = people.people[0]
    unknown = replace(person, table=replace(person.table, label=np.full(len(person.table), -1, np.int16)))
    found = source_neighbours(people, unknown, "pft")
    assert np.isnan(found.after.same_class)
    assert found.counts[:, :, 2].sum() == 2 * found.frames
    assert "Without labels" in neighbours_words(found)[-1]
    assert neighbours_table(found).rows[0][-1] == "–"
    settle(plot_neighbours(found))


def made(before, after, *, name="s{}"):
    """Return neighbours with these counts, all of the same class."""
    counts = np.zeros((2, len(before), 3), dtype=np.int64)
    counts[0, :, 0], counts[1, :, 1] = before, after
    subjects = tuple(name.format(number) for number in range(len(before)))
    spread = Spread(1.5, 2, subjects[0], 0.9, 0.5)
    return Neighbours("target", "pft", int(sum(before)), "moved", subjects, counts, spread, spread)


def test_the_largest_on_either_side_are_named_and_the_rest_is_one_line():
    data = neighbours_data(made([5, 0, 3, 1, 1, 0], [0, 8, 0, 1, 1, 0]), shown=3)
    assert data["subject"] == ["s0", "s2", "s1", "3 others"]
    assert data["before_same"] == [5, 3, 0, 2]
    assert data["after_other"] == [0, 0, 8, 2]
    whole = neighbours_data(made([5, 5], [10, 0]))
    assert whole["subject"] == ["s0", "s1"]


def test_counts_are_not_lost_by_folding(found):
    for shown in (1, 3, 100):
        data = neighbours_data(found, shown)
        for side in SIDES:
            assert sum(sum(data[f"{side}_{kind}"]) for kind in KINDS) == found.frames


def settle(figure):
    """Draw it, so that a layout that does not fit is heard of, and check that all text lies within."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox.padded(1.0)
    found = [text for axes in figure.axes for text in [axes.title, axes._left_title, *axes.texts]]
    found += [*figure.axes[0].get_yticklabels(), *figure.texts]
    found += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent(renderer) for text in found if text.get_text() and text.get_visible()]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    return figure


def test_bars_are_the_columns(found):
    data = neighbours_data(found)
    figure = settle(plot_neighbours(found))
    for panel, side in zip(figure.axes, SIDES, strict=True):
        left = np.zeros(len(data["subject"]))
        for bars in panel.containers:
            kind = bars.get_label().removeprefix("_")
            share = np.array(data[f"{side}_{kind}"]) / found.frames
            assert [bar.get_width() for bar in bars] == pytest.approx(share)
            assert [bar.get_x() for bar in bars] == pytest.approx(left)
            left += share
        assert left.sum() == pytest.approx(1.0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == data["subject"]


@pytest.mark.parametrize("width", [style.FULL, style.COLUMN])
@pytest.mark.parametrize("subjects", [1, 2, 36, 300])
@pytest.mark.parametrize("name", ["participant_{:04}_session_2", "{0:05}_of_the_recordings_of_the_year_{0:05}", "{}"])
def test_the_figure_fits_whatever_it_holds(width, subjects, name):
    many = made([2] * subjects, list(range(subjects)), name=name)
    title = "After SFDA-IT (Hou & Zheng, 2021a)"
    panels = settle(plot_neighbours(many, titles=("As extracted", title), width=width)).axes
    assert panels[0].bbox.width > 0.2 * panels[0].figure.bbox.width
    names = panels[0].get_yticklabels()
    assert len(names) == min(subjects, 21)
    shown = [text.get_text() for text in names]
    assert len(set(shown)) == len(shown)


def test_the_page_has_the_numbers_of_the_figure(found, tmp_path):
    files = write_neighbours(tmp_path, found, "featlab plot neighbours --subject s0", {})
    assert {path.name for path in files} >= {"neighbours-s0.png", "neighbours-s0.csv", "page.json"}
    with (tmp_path / "neighbours-s0.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    data = neighbours_data(found)
    assert [line["subject"] for line in lines] == data["subject"]
    assert [int(line["after_same"]) for line in lines] == data["after_same"]
    page = read_page(tmp_path)
    assert f"{100 * found.after.same_class:.1f} % after" in page.summary[-1]
    assert "cosine" in page.figures[0].caption
    assert f"{found.before.found} subjects" in page.summary[0] or "one subject alone" in page.summary[0]


def test_words_say_it_when_fewer_frames_are_right():
    before, after = Spread(2.0, 3, "s1", 0.5, 0.8), Spread(1.0, 1, "s2", 1.0, 0.6)
    words = neighbours_words(replace(made([4, 4], [8, 0]), before=before, after=after))
    assert "3 subjects (2.0 effective ones)" in words[0]
    assert "one subject alone" in words[1]
    assert "less often: 80.0 % before, 60.0 % after" in words[2]


def test_the_model_saw_no_label_of_the_target(people):
    person = people.people[0]
    swapped = replace(person, table=replace(person.table, label=(1 - person.table.label).astype(np.int16)))
    before, after = (source_neighbours(people, one, "pft") for one in (person, swapped))
    assert torch.equal(person.models["pft"].model.translator.offset, swapped.models["pft"].model.translator.offset)
    assert before.counts.sum(axis=2).tolist() == after.counts.sum(axis=2).tolist()
    assert after.after.same_class == pytest.approx(1 - before.after.same_class)

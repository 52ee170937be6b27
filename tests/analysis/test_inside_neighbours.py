"""The nearest source frames of a target: counted by source subject, before and after translation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy

from featlab.analysis.inside import adapt_people, person_views
from featlab.analysis.inside.neighbours import (
    KINDS,
    SIDES,
    Neighbours,
    neighbours_data,
    neighbours_result,
    plot_neighbours,
    source_neighbours,
)

TARGET = "s00"


@pytest.fixture(scope="module")
def adapted(people, opened):
    workspace = opened(people(7, 2, 5, 12, 2, landmarks=False, expression=1.0, identity=2.0, noise=0.8))
    return adapt_people(workspace, [TARGET], ["pft", "source-only"])


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


def test_counts_and_their_distribution_equal_those_found_one_frame_at_a_time(adapted, found):
    views = person_views(adapted, adapted.people[0])
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
    result, data = neighbours_result(found), neighbours_data(found)
    page = stored(result)
    assert (page.figures[0].name, result.figures[0].data) == (f"neighbours-{TARGET}", data)
    assert f"{found.effective(0):.1f} effective subjects of 6 as extracted" in page.summary[0]
    assert f"in {100 * found.same_class(0):.1f} % and {100 * found.same_class(1):.1f} %." in page.summary[0]
    readable(result.figures[0].drawn)
    for name, subjects in (("{0:05}_of_the_recordings_of_the_year_{0:05}", 36), ("{}", 300)):
        figure = readable(plot_neighbours(made([2] * subjects, list(range(subjects)), name=name)))
        assert figure.axes[0].bbox.width > 0.2 * figure.bbox.width

"""Identity and expression before and after T, and in DSFDA's branches: probes against scikit-learn, cosines by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featlab.analysis.inside import adapt_people
from featlab.analysis.inside.branches import (
    COSINES,
    PROBES,
    REPRESENTATIONS,
    compare_branches,
    expression_probe,
    halves_by_video,
    identity_probe,
    labelled_rows,
    mean_cosines,
    measure_of,
    representations,
)
from featlab.analysis.inside.branches_figure import ROWS, branches_result, branches_sentences, branches_table
from featlab.errors import ConfigError, InputError

TARGETS = ("s02", "s03", "s04", "s05")
FRAMES = 5
SMALL = {"protocol.targets": ",".join(TARGETS), "head.epochs": 5}


@pytest.fixture(scope="module")
def table(people):
    """Nine people with four neutral videos (codes 4 to 7) and four of anger (0 to 3)."""
    return people(9, 4, FRAMES, 12, 2, landmarks=False, identity=2.0, resting=0.0, noise=0.5)


@pytest.fixture(scope="module")
def workspace(table, opened):
    return opened(table, **SMALL)


@pytest.fixture(scope="module")
def report(workspace):
    return compare_branches(workspace)


@pytest.fixture(scope="module")
def views(workspace):
    adapted = adapt_people(workspace, TARGETS, ["pft"])
    seen = labelled_rows(adapted)
    return adapted, seen, representations(adapted, seen)


def test_no_row_that_was_adapted_on_and_none_without_a_label_is_scored(table, views, opened):
    _, seen, _ = views
    assert [person.subject for person in seen.people] == list(TARGETS)
    # Half of the four neutral videos, in name order, are the clip.
    kept = ("anger-0", "anger-1", "anger-2", "anger-3", "neutral-2", "neutral-3")
    assert {part.video_names_present() for part in seen.tables} == {kept}
    assert seen.subject.tolist() == [place for place in range(4) for _ in range(6 * FRAMES)]
    label = table.label.copy()
    label[(table.video == 1) | (table.subject == 3)] = -1
    label[(table.subject == 3) & (table.video == 4) & (table.frame == 0)] = 1
    some = labelled_rows(adapt_people(opened(replace(table, label=label), **SMALL), TARGETS, ["pft"]))
    assert [person.subject for person in some.people] == [TARGETS[0], *TARGETS[2:]]
    assert set(some.column("label").tolist()) == {0, 1}


def test_the_representations_are_what_the_models_make_of_the_rows(views):
    adapted, seen, found = views
    assert tuple(found) == REPRESENTATIONS
    bundle, head = adapted.bundle, adapted.bundle.head
    for place, (person, table) in enumerate(zip(seen.people, seen.tables, strict=True)):
        mine = seen.subject == place
        rows = torch.from_numpy(table.embeddings)
        with torch.no_grad():
            features = bundle.projection(rows)
            model = person.models["pft"].model
            logits = head.classify(torch.from_numpy(found["bottleneck-after"].rows[mine]).float()) / model.temperature
            torch.testing.assert_close(logits, model(rows), atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found["features-before"].rows[mine], features.numpy(), atol=1e-5)
        assert np.abs(found["features-after"].rows[mine] - found["features-before"].rows[mine]).max() > 0.1
    assert found["identity-code"].rows.shape == (len(seen.subject), 128)
    # The centre is the mean of the source rows.
    assert not set(adapted.source.subject_names_present()) & set(TARGETS)
    with torch.no_grad():
        source = bundle.translator(bundle.projection(torch.from_numpy(adapted.source.embeddings)))
    np.testing.assert_allclose(found["features-after"].centre, source.mean(dim=0).numpy(), atol=1e-4)


def test_the_cosines_are_those_of_rows_from_the_centre(views, report):
    _, seen, found = views
    for key, view in found.items():
        expected = mean_cosines(view.rows - view.centre, seen.subject, seen.column("label"))
        for name in COSINES:
            value = report.found[key][name]
            assert list(value.by_subject.values()) == pytest.approx(list(expected[name].values()), abs=1e-9)
            assert value.low <= value.mean <= value.high


def test_table_and_page_hold_the_numbers_of_the_report_and_t_takes_away_what_the_clip_shows(report, stored, readable):
    table, before, after = branches_table(report), report.found["features-before"], report.found["features-after"]
    assert [row[0] for row in table.rows] == list(ROWS)
    assert table.rows[2][1:] == table.rows[4][1:]  # the bottleneck before T is the expression branch
    assert table.rows[1][1] == f"{after['fixed_expression'].mean:z.2f}"
    assert table.rows[1][table.columns.index("Identity (%)")] == f"{100 * after['identity'].mean:.2f}"
    assert all(said in " ".join(table.notes) for said in ("120 labelled frames", "chance 25.0 %", "chance 50.0 %"))
    # People differ by an offset that their neutral clip shows: T takes it away, and expressions of others fit.
    for name, sign in (("identity", -1), ("fixed_subject", -1), ("fixed_expression", 1)):
        assert sign * (after[name].mean - before[name].mean) > 0
    result = branches_result(report)
    stored(result)
    readable(result.figures[0].drawn)
    shown = [f"{100 * found['identity'].mean:.1f} %" for found in (before, after)]
    assert "identity in {} before T and {} after (guessing: 25.0 %)".format(*shown) in result.summary[0]


def test_it_is_the_same_every_time_and_labels_of_targets_change_no_representation(
    table, workspace, report, views, opened
):
    steps = []
    again = compare_branches(workspace, on_step=lambda *step: steps.append(step))
    # As text: two NaN are not equal.
    assert json.dumps(again.to_dict()) == json.dumps(report.to_dict())
    assert steps == [(done, 6) for done in range(1, 7)]
    label = table.label.copy()
    # Mixed, so that no further video is purely neutral: the clips stay the same.
    label[np.isin(table.subject, range(2, 6)) & (table.video < 4) & (table.frame % 2 == 0)] = 1
    adapted = adapt_people(opened(replace(table, label=label), **SMALL), TARGETS, ["pft"])
    for key, view in representations(adapted, labelled_rows(adapted)).items():
        assert np.array_equal(view.rows, views[2][key].rows), key


def test_every_subject_of_every_draw_is_measured_and_one_class_among_the_targets_leaves_dashes(table, opened):
    report = compare_branches(opened(table, **{"protocol.targets": "3", "protocol.draws": 2}))
    for name in (*COSINES, *PROBES):
        # How values are averaged is below.
        assert set(report.found["features-after"][name].by_subject) == set(report.draws[0]) | set(report.draws[1])
    kept = (table.label == 1) | ~np.isin(table.subject, range(2, 6))
    report = compare_branches(opened(table.take(kept), **SMALL))
    shown = branches_table(report)
    for row in shown.rows:
        dashes = {name for name, cell in zip(shown.columns, row, strict=True) if cell == "–"}
        lacking = ("Fixed subj.", "Both other", "Expression (%)")
        assert dashes == {f"{name}{ending}" for name in lacking for ending in ("", ", 95 %")}
    assert any("All rows are 'neutral'" in note for note in shown.notes)
    assert "expression" not in branches_sentences(report)[0]
    branches_result(report).figures[0].drawn.canvas.draw()


def test_values_that_are_not_finite_are_left_out():
    found = measure_of([({"b": 0.5, "a": math.nan}, 0.5), ({"a": 0.1, "b": 0.7}, 0.25), ({}, math.nan)])
    assert found.by_subject == {"a": 0.1, "b": pytest.approx(0.6)}
    assert (found.mean, found.chance) == (pytest.approx(0.35), 0.375)
    alone = measure_of([({"a": 0.1}, math.nan)])
    assert (alone.mean, math.isnan(alone.low), math.isnan(alone.chance)) == (0.1, True, True)
    assert math.isnan(measure_of([]).mean)


def test_videos_that_are_alone_are_left_out_and_a_clip_may_be_one_frame(table, opened):
    # Everybody keeps one neutral video to test; one target keeps a single video of anger, one a clip of one frame.
    kept = np.isin(table.video, (0, 1, 4, 5)) & ~((table.subject == 4) & (table.video == 1))
    kept &= (table.subject != 2) | (table.video != 4) | (table.frame == 0)
    report = compare_branches(opened(table.take(kept), **SMALL))
    assert "s02" in report.found["features-after"]["fixed_subject"].by_subject
    for scores in report.found.values():
        assert list(scores["identity"].by_subject) == ["s02", "s03", "s05"]
        assert scores["identity"].chance == pytest.approx(1 / 3)
    assert "identity probe is of 3 subjects" in branches_table(report).notes[-1]
    for values, said in (({"protocol.targets": "1"}, "--targets 2 or"), (SMALL | {"protocol.draws": 2}, "draws")):
        with pytest.raises((ConfigError, InputError), match=said):
            compare_branches(opened(table, **values))


def made(seed=0, *, person=1.0, expression=1.0, noise=0.5, subjects=6, classes=2, videos=2, frames=5, dim=8):
    """Rows = a person + an expression + noise, each on directions of their own."""
    random = np.random.default_rng(seed)
    people, faces = random.normal(size=(subjects, dim)), random.normal(size=(classes, dim))
    codes = np.indices((subjects, classes, videos, frames)).reshape(4, -1)
    subject, label, video = codes[0], codes[1], codes[1] * videos + codes[2]
    rows = person * people[subject] + expression * faces[label] + noise * random.normal(size=(len(subject), dim))
    return rows, subject, video, label


def scikit_learn(fitted, answers, tested, **options):
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000, **options))
    return probe.fit(fitted, answers).predict(tested)


def test_the_probes_equal_scikit_learn_on_halves_and_on_people_left_out():
    rows, subject, video, label = made(1, person=0.6, noise=1.0)
    half = video % 2  # videos 0 and 1 are of one class, 2 and 3 of the other
    assert halves_by_video(subject, video, label).tolist() == half.tolist()
    guess = np.empty_like(subject)
    for side in (0, 1):
        guess[half != side] = scikit_learn(rows[half == side], subject[half == side], rows[half != side])
    found, chance = identity_probe(rows, subject, video, label)
    assert found == pytest.approx({who: (guess == subject)[subject == who].mean() for who in range(6)})
    assert 0.2 < np.mean(list(found.values())) < 1
    assert chance == pytest.approx(1 / 6)
    rows, subject, _, label = made(2, expression=0.6, noise=1.0, classes=3)
    kept = ~((subject == 4) & (label == 2)) & ~((label == 1) & (np.arange(len(label)) % 5 > 1))
    rows, subject, label = rows[kept], subject[kept], label[kept]
    guess = np.empty_like(label)
    for number in range(5):
        tested = subject % 5 == number
        guess[tested] = scikit_learn(rows[~tested], label[~tested], rows[tested], class_weight="balanced")
    found, chance = expression_probe(rows, subject, label)
    assert chance == pytest.approx(1 / 3)
    people = {who: subject == who for who in range(6)}
    assert found == pytest.approx({who: balanced_accuracy_score(label[at], guess[at]) for who, at in people.items()})


def test_a_video_is_never_on_both_sides_and_single_ones_are_left_out():
    # The only thing that tells people apart is which video a row is of: what was fitted must not be tested.
    random = np.random.default_rng(0)
    _, subject, video, label = made(videos=4, frames=8)
    codes = subject * 100 + video
    rows = 5 * random.normal(size=(codes.max() + 1, 40))[codes] + 0.01 * random.normal(size=(len(codes), 40))
    assert np.mean(list(identity_probe(rows, subject, video, label)[0].values())) < 0.6
    # Subject 0: three videos of class 0, one of class 1. Subject 1 has video 1 too, and two of class 1.
    subject, video = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 4, 6, 5, 1, 7, 7])
    assert halves_by_video(subject, video, np.array([0, 0, 0, 1, 1, 1, 1])).tolist() == [0, 1, 0, -1, 0, 1, 1]
    # A video that mixes classes stays whole.
    video, label = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 0])
    assert halves_by_video(np.zeros(6, dtype=int), video, label).tolist() == [0, 0, 0, 1, 1, 1]
    # A subject with single videos alone is not tested, and no answer either.
    rows, subject, video, label = made(3)
    kept = (subject != 2) | (video % 2 == 0)
    found, chance = identity_probe(rows[kept], subject[kept], video[kept], label[kept])
    assert (list(found), chance) == ([0, 1, 3, 4, 5], pytest.approx(1 / 5))


def cells_of(seed=0, subjects=5, classes=3, dim=4):
    """Cells of 1 to 6 rows in random order, with codes that have gaps."""
    random = np.random.default_rng(seed)
    cells = [(5 * person + 2, 3 * kind) for person in range(subjects) for kind in range(classes)]
    codes = np.array([cell for cell in cells for _ in range(random.integers(1, 7))])
    codes = codes[random.permutation(len(codes))]
    return random.normal(size=(len(codes), dim)), codes[:, 0], codes[:, 1]


def by_brute_force(rows, subject, label):
    """All pairs of rows, then all pairs of cells, one at a time."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    cells = sorted(set(zip(subject.tolist(), label.tolist(), strict=True)))
    values = {name: {person: [] for person, _ in cells} for name in COSINES}
    for mine in cells:
        for other in (cell for cell in cells if cell != mine):
            same = (mine[0] == other[0], mine[1] == other[1])
            name = {(False, True): "fixed_expression", (True, False): "fixed_subject"}.get(same, "neither")
            first, second = ((subject == cell[0]) & (label == cell[1]) for cell in (mine, other))
            values[name][mine[0]].append(cosine[np.ix_(first, second)].mean())
    return {
        name: {person: np.mean(several) if several else math.nan for person, several in found.items()}
        for name, found in values.items()
    }


def test_cosines_equal_the_mean_over_all_pairs_also_where_classes_subjects_or_directions_lack():
    rows, subject, label = cells_of(7)
    kept = ~(((subject == 2) & (label != 3)) | ((subject == 12) & (label == 0)))
    one_class = (rows, subject, np.zeros_like(label))
    one_subject = (rows[:6], np.zeros(6, dtype=int), np.arange(6))
    for given in (cells_of(0), cells_of(1), (rows[kept], subject[kept], label[kept]), one_class, one_subject):
        found, expected = mean_cosines(*given), by_brute_force(*given)
        assert list(found) == list(COSINES)
        for name in COSINES:
            assert found[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name
    still = mean_cosines(np.zeros((4, 3)), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert list(still["fixed_expression"].values()) == list(still["fixed_subject"].values()) == [0, 0]

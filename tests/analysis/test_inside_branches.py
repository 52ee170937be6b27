import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from featlab.analysis.inside.branches import (
    COSINES,
    PROBES,
    REPRESENTATIONS,
    BranchReport,
    Knowledge,
    Measure,
    compare_branches,
    looked_at,
    measure_of,
    representations,
)
from featlab.analysis.inside.branches_page import (
    ROWS,
    branch_data,
    branch_table,
    branch_words,
    change,
    cosine_text,
    plot_branches,
    write_branches,
)
from featlab.analysis.people import adapt_people
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.errors import ConfigError, InputError
from featlab.workspace.workspace import Workspace

SUBJECTS = tuple(f"participant_{number:04}_session_2" for number in range(9))
TARGETS = SUBJECTS[2:6]
CLASSES, VIDEOS, FRAMES, DIM = 2, 4, 5, 12
SMALL = {
    "cache": "cache.h5",
    "head.epochs": 5,
    "pretrain.epochs": 1,
    "features.dim": 8,
    "head.bottleneck": 8,
    "protocol.targets": ",".join(TARGETS),
}


def made_table(seed=0):
    random = np.random.default_rng(seed)
    codes = [
        (who, kind * VIDEOS + number, kind, frame)
        for who in range(len(SUBJECTS))
        for kind in range(CLASSES)
        for number in range(VIDEOS)
        for frame in range(FRAMES)
    ]
    subject, video, label, frame = np.array(codes).T
    people, faces = 2 * random.normal(size=(len(SUBJECTS), DIM)), 2 * random.normal(size=(CLASSES, DIM))
    rows = people[subject] + faces[label] + 0.5 * random.normal(size=(len(codes), DIM))
    return FeatureTable(
        embeddings=rows.astype(np.float32),
        label=label.astype(np.int16),
        subject=subject.astype(np.int32),
        video=video.astype(np.int32),
        frame=frame.astype(np.int32),
        subjects=SUBJECTS,
        videos=tuple(f"{kind}-{number}" for kind in ("neutral", "smile") for number in range(VIDEOS)),
        classes=("neutral", "smile"),
        neutral="neutral",
    )


def opened(root, table=None, **values):
    write_table(root / "cache.h5", made_table() if table is None else table, ExtractorInfo("toy", "none", "random"))
    return Workspace.open(root, SMALL | values)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("branches"))


@pytest.fixture(scope="module")
def report(workspace):
    return compare_branches(workspace)


@pytest.fixture(scope="module")
def views(workspace):
    adapted = adapt_people(workspace, TARGETS, ["pft"])
    seen = looked_at(adapted)
    return adapted, seen, representations(adapted, seen)


def test_no_row_that_was_adapted_on_is_looked_at(views):
    _, seen, _ = views
    assert [person.subject for person in seen.people] == list(TARGETS)
    for table in seen.tables:
        # Half of the four neutral videos, in name order, are the clip.
        assert table.video_names_present() == ("neutral-2", "neutral-3", "smile-0", "smile-1", "smile-2", "smile-3")
    assert seen.subject.tolist() == [place for place in range(4) for _ in range(6 * FRAMES)]


def test_rows_without_a_label_are_not_looked_at(tmp_path):
    table = made_table()
    label = table.label.copy()
    label[(table.video == 5) | (table.subject == 3)] = -1
    label[(table.subject == 3) & (table.video == 0) & (table.frame == 0)] = 0
    workspace = opened(tmp_path, replace(table, label=label))
    seen = looked_at(adapt_people(workspace, TARGETS, ["pft"]))
    assert [person.subject for person in seen.people] == [TARGETS[0], *TARGETS[2:]]
    assert set(seen.column("label").tolist()) == {0, 1}


def test_the_representations_are_what_the_models_make_of_the_rows(views):
    adapted, seen, found = views
    assert tuple(found) == REPRESENTATIONS
    head = adapted.bundle.head
    for place, (person, table) in enumerate(zip(seen.people, seen.tables, strict=True)):
        mine = seen.subject == place
        rows = torch.from_numpy(table.embeddings)
        with torch.no_grad():
            features = adapted.bundle.projection(rows)
            model = person.models["pft"].model
            logits = head.classify(torch.from_numpy(found["bottleneck-after"].rows[mine]).float()) / model.temperature
            torch.testing.assert_close(logits, model(rows), atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found["features-before"].rows[mine], features.numpy(), atol=1e-5)
        moved = found["features-after"].rows[mine] - found["features-before"].rows[mine]
        assert np.abs(moved).max() > 0.1
    assert found["identity-code"].rows.shape == (len(seen.subject), 128)


def test_the_centre_is_the_mean_of_the_source_rows(views):
    adapted, _, found = views
    assert set(adapted.source.subject_names_present()) == set(SUBJECTS) - set(TARGETS)
    with torch.no_grad():
        source = adapted.bundle.projection(torch.from_numpy(adapted.source.embeddings))
        means = {
            "features-before": source.mean(dim=0),
            "features-after": adapted.bundle.translator(source).mean(dim=0),
            "bottleneck-before": adapted.bundle.head.bottleneck(source).mean(dim=0),
        }
    for key, expected in means.items():
        np.testing.assert_allclose(found[key].centre, expected.numpy(), atol=1e-4)


def test_the_cosines_equal_those_of_all_pairs(views, report):
    _, seen, found = views
    for key in REPRESENTATIONS:
        cosine = cosine_similarity(found[key].rows - found[key].centre)
        subject, label = seen.subject, seen.column("label")
        same_person = subject[:, None] == subject[None, :]
        same_class = label[:, None] == label[None, :]
        # Two smile videos for a neutral one: as many rows in each pair of cells, so a plain mean would do but for that.
        weight = 1.0 / np.outer(np.where(label == 0, 10, 20), np.where(label == 0, 10, 20))
        pairs = {
            "fixed_expression": same_class & ~same_person,
            "fixed_subject": same_person & ~same_class,
            "neither": ~same_person & ~same_class,
        }
        for name, which in pairs.items():
            value = getattr(report.of(key), name)
            by_subject = [
                np.average(cosine[mine], weights=(weight * which)[mine]) for mine in np.eye(4)[:, subject] > 0
            ]
            assert list(value.by_subject.values()) == pytest.approx(by_subject, abs=1e-9)
            assert value.mean == pytest.approx(np.mean(by_subject), abs=1e-9)
            assert value.low <= value.mean <= value.high
            assert math.isnan(value.chance)


def test_the_rows_of_the_table_are_those_of_the_report(report):
    table = branch_table(report)
    assert [row[:2] for row in table.rows] == [(group, name) for group, name, _ in ROWS]
    assert len(set(table.columns)) == len(table.columns)
    assert table.rows[2][2:] == table.rows[4][2:]  # the bottleneck before T is the expression branch
    after = report.of("features-after")
    assert table.rows[1][2] == f"{after.fixed_expression.mean:.2f}"
    assert table.rows[1][table.columns.index("Identity (%)")] == f"{100 * after.identity.mean:.2f}"
    notes = " ".join(table.notes)
    assert "4 target subjects, 120 labelled frames" in notes
    assert "chance 25.0 %" in notes
    assert "chance 50.0 %" in notes
    assert (report.single, report.unprobed) == ({}, ())


def test_the_translation_does_what_it_is_made_for(report):
    # People differ by an offset that their neutral clip shows: T takes it away, and expressions of others fit.
    before, after = report.of("features-before"), report.of("features-after")
    assert change(before.identity, after.identity).sign == -1
    assert change(before.fixed_subject, after.fixed_subject).sign == -1
    assert change(before.fixed_expression, after.fixed_expression).sign == 1
    assert after.expression.mean > 0.9
    assert before.identity.mean > 0.9


def test_it_is_the_same_every_time_and_leaves_randomness_alone(workspace, report):
    state = torch.get_rng_state()
    steps = []
    again = compare_branches(workspace, on_step=lambda *step: steps.append(step))
    # As text: two NaN are not equal.
    assert json.dumps(again.to_dict()) == json.dumps(report.to_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert steps == [(done, 6) for done in range(1, 7)]


def test_labels_of_targets_change_no_representation(workspace, views, tmp_path):
    table = made_table()
    label = table.label.copy()
    # Mixed, so that no further video is purely neutral: the clips stay the same.
    label[np.isin(table.subject, range(2, 6)) & (table.video >= 4) & (table.frame % 2 == 0)] = 0
    adapted = adapt_people(opened(tmp_path, replace(table, label=label)), TARGETS, ["pft"])
    seen = looked_at(adapted)
    assert seen.column("label").tolist() != views[1].column("label").tolist()
    for key, view in representations(adapted, seen).items():
        assert np.array_equal(view.rows, views[2][key].rows), key


def test_draws_are_averaged_within_a_subject(tmp_path):
    draws = {"protocol.targets": "3", "protocol.draws": 2, "head.epochs": 2}
    workspace = opened(tmp_path, **draws)
    report = compare_branches(workspace)
    assert report.draws == (workspace.targets(0), workspace.targets(1))
    single = [
        compare_branches(
            Workspace.open(tmp_path, SMALL | draws | {"protocol.targets": ",".join(targets)} | {"protocol.draws": 1})
        )
        for targets in report.draws
    ]
    for name in (*COSINES, *PROBES):
        found = getattr(report.of("features-after"), name)
        parts = [getattr(part.of("features-after"), name).by_subject for part in single]
        assert set(found.by_subject) == set(report.draws[0]) | set(report.draws[1])
        for subject, value in found.by_subject.items():
            assert value == pytest.approx(np.mean([part[subject] for part in parts if subject in part]))
        assert found.mean == pytest.approx(np.mean(list(found.by_subject.values())))


def test_values_that_are_not_finite_are_left_out_of_a_measure():
    found = measure_of([({"b": 0.5, "a": math.nan}, 0.5), ({"a": 0.1, "b": 0.7}, 0.25), ({}, math.nan)])
    assert found.by_subject == {"a": 0.1, "b": pytest.approx(0.6)}
    assert (found.mean, found.chance) == (pytest.approx(0.35), 0.375)
    alone = measure_of([({"a": 0.1}, math.nan)])
    assert (alone.mean, math.isnan(alone.low), math.isnan(alone.chance)) == (0.1, True, True)
    assert math.isnan(measure_of([]).mean)


def test_one_class_among_the_targets_leaves_dashes(tmp_path):
    table = made_table()
    kept = (table.label == 0) | ~np.isin(table.subject, range(2, 6))
    report = compare_branches(opened(tmp_path, table.take(kept)))
    shown = branch_table(report)
    for row in shown.rows:
        cells = dict(zip(shown.columns, row, strict=True))
        assert [cells[name] for name in ("Fixed subj.", "Both other", "Expression (%)", "Expression 95 %")] == ["–"] * 4
        assert cells["Fixed expr."] != "–"
        assert cells["Identity (%)"] != "–"
    assert any("All rows are 'neutral'" in note for note in shown.notes)
    words = branch_words(report)
    assert words[0].startswith("Rows of the same expression")
    assert len(words) == 2
    assert not any("nan" in line for line in words)
    plot_branches(branch_data(report)).canvas.draw()


def test_videos_that_are_alone_are_left_out_and_named(tmp_path):
    table = made_table()
    # Everybody keeps one neutral video to test; one target keeps a single smile video too.
    kept = np.isin(table.video, (0, 1, 4, 5)) & ~((table.subject == 4) & (table.video == 5))
    report = compare_branches(opened(tmp_path, table.take(kept)))
    assert report.single == {"neutral": 4, "smile": 1}
    assert report.unprobed == (SUBJECTS[4],)
    for row in report.rows:
        assert list(row.identity.by_subject) == [SUBJECTS[2], SUBJECTS[3], SUBJECTS[5]]
        assert row.identity.chance == pytest.approx(1 / 3)
    notes = branch_table(report).notes
    assert any("neutral of 4, smile of 1 subjects" in note for note in notes)
    assert notes[-1] == f"Not in the identity probe at all: {SUBJECTS[4]}."


def test_what_cannot_be_compared_is_refused(tmp_path):
    workspace = opened(tmp_path, **{"protocol.targets": "1"})
    with pytest.raises(InputError, match="--targets 2 or more"):
        compare_branches(workspace)
    with pytest.raises(ConfigError, match="draws"):
        compare_branches(Workspace.open(tmp_path, SMALL | {"protocol.draws": 2}))


def test_a_clip_of_one_frame(tmp_path):
    table = made_table()
    kept = (table.subject != 2) | (table.label == 1) | (np.isin(table.video, (0, 2)) & (table.frame == 0))
    report = compare_branches(opened(tmp_path, table.take(kept)))
    assert SUBJECTS[2] in report.of("features-after").fixed_subject.by_subject


def measure(*values, chance=math.nan):
    return measure_of([({f"p{place:02}": value for place, value in enumerate(values)}, chance)])


def knowledge(key, identity, expression, *, subject=(0.8, 0.82, 0.81), others=(0.1, 0.12, 0.11)):
    return Knowledge(
        key,
        measure(*others),
        measure(*subject),
        measure(0.0, 0.01, -0.01),
        measure(*identity, chance=0.05),
        measure(*expression, chance=0.5),
    )


def made_report(identity, expression):
    """Identity 98, 99, 100 % and expression 70, 71, 72 % before T; what is given after."""
    before = ((0.98, 0.99, 1.0), (0.70, 0.71, 0.72))
    rows = (
        knowledge("features-before", *before),
        knowledge("features-after", identity, expression, subject=(0.1, 0.2, 0.0), others=(0.7, 0.71, 0.72)),
        knowledge("bottleneck-before", *before, subject=(0.4, 0.4, 0.41), others=(0.75, 0.74, 0.76)),
        knowledge("bottleneck-after", identity, expression),
        knowledge("identity-code", *before, subject=(0.1, 0.9, 0.5), others=(0.5, 0.5, 0.5)),
    )
    return BranchReport(rows, (("p00", "p01", "p02"),), ("neutral", "smile"), 90, {}, ())


@pytest.mark.parametrize(
    ("identity", "expression", "verdict"),
    [
        (
            (0.6, 0.61, 0.62),
            (0.84, 0.85, 0.86),
            "So T takes some identity away, not all of it, and expression can be read off better.",
        ),
        (
            (0.0, 0.05, 0.1),
            (0.69, 0.71, 0.73),
            "So T takes identity away, down to what guessing would give, and expression can be read off as well as "
            "before.",
        ),
        (
            (0.99, 0.99, 0.99),
            (0.69, 0.71, 0.73),
            "So T does not hide who a person is, and expression can be read off as well as before.",
        ),
        ((0.6, 0.61, 0.62), (0.5, 0.5, 0.5), "So not only identity changes: identity and expression get lost."),
        ((0.99, 0.99, 0.99), (0.5, 0.5, 0.5), "So not only identity changes: expression gets lost, identity does not."),
    ],
)
def test_the_words_say_plainly_what_changed(identity, expression, verdict):
    words = branch_words(made_report(identity, expression))
    assert words[3] == verdict
    assert words[0].startswith(
        "Rows of the same subject with other expressions have a mean cosine of 0.81 before T and 0.10"
    )
    assert f"names the person in 99.0 % of the frames before T and in {100 * np.mean(identity):.1f} % after" in words[1]
    assert "guessing: 5.0 %" in words[1]
    assert f"of 71.0 % before T and {100 * np.mean(expression):.1f} % after" in words[2]
    assert words[4] == "In the expression branch rows are more alike by expression (0.75) than by subject (0.40)."
    assert words[5] == "In the identity branch rows are as alike by expression (0.50) as by subject (0.50)."


def test_changes_are_of_the_same_subjects():
    found = change(measure(0.5, 0.6, 0.7), Measure(0, 0, 0, {"p00": 0.6, "p02": 0.9, "p09": 0.0}))
    assert found.mean == pytest.approx(0.15)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.2))
    assert found.sign == 1
    assert change(measure(0.5), measure(0.1)).sign == 0


def test_a_cosine_that_rounds_to_nothing_has_no_sign():
    assert [cosine_text(value) for value in (-0.004, 0.004, -0.006, 1.0, math.nan)] == [
        "0.00",
        "0.00",
        "-0.01",
        "1.00",
        "–",
    ]


def test_the_figure_shows_the_numbers_of_the_csv(report, tmp_path):
    data = branch_data(report)
    drawn = plot_branches(data)
    left, right = drawn.axes
    ticks = [text.get_text() for text in left.get_yticklabels()]
    assert ticks == [
        "Translation (pft)",
        *[row[1] for row in ROWS[:4]],
        "Branches (DSFDA)",
        *[row[1] for row in ROWS[4:]],
    ]
    for place in range(len(data["measure"])):
        line = {name: values[place] for name, values in data.items()}
        axes = left if line["measure"] in COSINES else right
        lines = {item.get_label(): item for item in axes.lines}
        name = f"{line['measure']} {line['representation']}"
        assert lines[f"_mean {name}"].get_xdata()[0] == line["mean"]
        assert list(lines[f"_span {name}"].get_xdata()) == [line["low"], line["high"]]
        assert abs(lines[f"_mean {name}"].get_ydata()[0] - ticks.index(line["representation"])) < 0.5
    chance = {item.get_label(): item.get_xdata()[0] for item in right.lines}
    assert (chance["_chance identity"], chance["_chance expression"]) == (0.25, 0.5)
    files = write_branches(tmp_path, report, command="featlab branches", facts={})
    page = json.loads(files[-1].read_text(encoding="utf-8"))
    assert (page["kind"], tuple(page["words"])) == ("branches", branch_words(report))
    lines = (tmp_path / "branches.csv").read_text(encoding="utf-8").splitlines()
    assert [float(line.split(",")[3]) for line in lines[1:]] == data["mean"]


def test_texts_of_the_figure_neither_overlap_nor_leave_it(report):
    drawn = plot_branches(branch_data(report))
    drawn.canvas.draw()
    texts = [text for axes in drawn.axes for text in (*axes.get_yticklabels(), *axes.get_legend().get_texts())]
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    boxes = [box for box in boxes if box.width]
    assert all(box.x0 >= 0 and box.x1 <= drawn.bbox.width and box.y1 <= drawn.bbox.height for box in boxes)
    left = drawn.axes[0].get_yticklabels()
    for first, second in pairwise(left):
        assert first.get_window_extent().y0 >= second.get_window_extent().y1 - 1

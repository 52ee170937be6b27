"""Dimension ablation: its numbers are those of the evaluation with that dimension, and it says what it left out."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from featlab.analysis.ablations import ablate_dims, dims_data, dims_table, write_dims
from featlab.analysis.plots import plot_dims
from featlab.analysis.style import COLUMN, FULL
from featlab.cache import ExtractorInfo, FeatureTable, write_table
from featlab.campaign import plan, run_campaign
from featlab.errors import ConfigError, InputError
from featlab.summary import summarise
from featlab.workspace import Workspace

METHODS = ("source-only", "neutral-shift", "pft", "oracle")
QUICK = {
    "head.epochs": 2,
    "head.bottleneck": 8,
    "pretrain.epochs": 2,
    "pretrain.hidden": 8,
    "protocol.targets": "3",
    "protocol.draws": 2,
    "protocol.methods": METHODS,
}
DIM = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablations")
    rng = np.random.default_rng(1)
    subjects, videos, frames = 8, ("neutral-a", "neutral-b", "smile-a", "smile-b"), 5
    shape = (subjects, len(videos), frames)
    subject, video, frame = (part.ravel().astype(np.int32) for part in np.indices(shape))
    label = (video >= 2).astype(np.int16)
    person, smile = rng.normal(size=(subjects, DIM)), rng.normal(size=DIM)
    embeddings = person[subject] + label[:, None] * smile + 0.3 * rng.normal(size=(len(label), DIM))
    table = FeatureTable(
        embeddings=embeddings.astype(np.float32),
        label=label,
        subject=subject,
        video=video,
        frame=frame,
        subjects=tuple(f"s{number}" for number in range(subjects)),
        videos=videos,
        classes=("neutral", "smile"),
        neutral="neutral",
    )
    write_table(root / "cache.h5", table, ExtractorInfo("toy", "none", "random numbers"))
    return root


@pytest.fixture(scope="module")
def workspace(folder):
    return Workspace.open(folder, QUICK)


@pytest.fixture(scope="module")
def report(workspace):
    return ablate_dims(workspace, (4, 64, 0), methods=METHODS)


def scores(rows):
    return {(row.method, row.subject, row.draw): row.macro_f1 for row in rows}


def test_each_dimension_has_the_numbers_of_an_evaluation_with_it(report, folder):
    for point in report.points:
        alone = Workspace.open(folder, QUICK | {"features.dim": point.dim})
        rows = run_campaign(alone, plan(alone))
        assert scores(point.rows) == scores(rows)
        assert [item.macro_f1 for item in point.summaries] == [item.macro_f1 for item in summarise(rows)]


def test_dimensions_above_the_embeddings_are_left_out_and_said(report):
    assert [(point.dim, point.kept) for point in report.points] == [(4, 4), (0, DIM)]
    assert report.left_out == (64,)
    assert report.notes() == ["left out: 64; the embedding has 10 values"]
    assert report.notes()[0] in dims_table(report).notes


def test_fewer_directions_than_asked_for_are_said(workspace):
    # A source of two subjects with three rows each spans four directions within subjects.
    few = workspace.table.take(workspace.table.frame < 1)
    small = replace(workspace, table=few, config=workspace.config.with_values({"protocol.draws": 1}, "test"))
    narrow = replace(
        small, config=small.config.with_values({"protocol.sources": "s0,s1", "protocol.targets": "s5"}, "t")
    )
    (point,) = ablate_dims(narrow, (8,), methods=("source-only",)).points
    assert point.kept == 6
    assert "span 6 directions" in ablate_dims(narrow, (8,), methods=("source-only",)).notes()[0]


def test_the_full_size_is_not_run_twice(workspace):
    assert [point.dim for point in ablate_dims(workspace, (DIM, 0, 4, 4), methods=METHODS[:1]).points] == [0, 4]
    assert [point.dim for point in ablate_dims(workspace, (DIM,), methods=METHODS[:1]).points] == [DIM]


def test_a_second_run_trains_nothing(report, folder):
    said = []
    again = ablate_dims(Workspace.open(folder, QUICK, notify=said.append), (4, 64, 0), methods=METHODS)
    assert said == []
    assert [point.rows for point in again.points] == [point.rows for point in report.points]


def test_processes_do_not_change_the_numbers(workspace, report, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "cache.h5").write_bytes((workspace.root / "cache.h5").read_bytes())
    done = []
    parallel = ablate_dims(
        Workspace.open(other, QUICK), (4, 64, 0), methods=METHODS, jobs=2, on_task=lambda *now: done.append(now)
    )
    assert [scores(point.rows) for point in parallel.points] == [scores(point.rows) for point in report.points]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_files_hold_the_numbers_of_the_summaries(report, tmp_path):
    files = write_dims(tmp_path / "out", report)
    assert all(path.is_file() for path in files)
    with (tmp_path / "out" / "dims.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    wanted = [(point.dim, item) for point in report.points for item in point.summaries]
    assert [(int(line["dim"]), line["method"]) for line in lines] == [(dim, item.method) for dim, item in wanted]
    assert [float(line["macro_f1"]) for line in lines] == [item.macro_f1 for _, item in wanted]
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [entry["macro_f1"] for entry in run["summary"]] == [item.macro_f1 for _, item in wanted]
    assert {entry["dim"] for entry in run["results"]} == {4, 0}


def test_the_table_shows_means_and_intervals_and_the_oracle_is_never_bold(report):
    table = dims_table(report)
    first = report.points[0].summaries
    low, high = first[0].ci95
    assert [row[0] for row in table.rows] == ["4", "full (10)"]
    assert table.rows[0][1] == f"{100 * first[0].macro_f1:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    assert all(any(bold) and not bold[-1] for bold in table.bold)


@pytest.mark.parametrize("width", [COLUMN, FULL])
def test_the_figure_draws_the_means_and_cuts_no_text(report, width):
    data = dims_data(report)
    drawn = plot_dims(data, names={"source-only": "Source model (no adaptation)"}, width=width)
    lines = {line.get_label(): line for line in drawn.axes[0].lines if not line.get_label().startswith("_")}
    assert set(lines) == {"Source model (no adaptation)", "neutral-shift", "pft", "oracle"}
    means = [value for value, name in zip(data["macro_f1"], data["method"], strict=True) if name == "pft"]
    np.testing.assert_array_equal(lines["pft"].get_ydata(), means)
    drawn.draw_without_rendering()
    inside, box = drawn.bbox, drawn.legends[0].get_window_extent()
    assert inside.x0 <= box.x0
    assert box.x1 <= inside.x1


def test_what_can_not_be_ablated_is_refused(workspace):
    with pytest.raises(ConfigError, match="no dimension of 64"):
        ablate_dims(workspace, (64,))
    with pytest.raises(ConfigError, match="keeps every value"):
        ablate_dims(replace(workspace, config=workspace.config.with_values({"features.reduce": "none"}, "test")), (4,))
    with pytest.raises(ConfigError, match="unknown method"):
        ablate_dims(workspace, (4,), methods=("pfft",))
    with pytest.raises(InputError, match="no results"):
        plot_dims({name: [] for name in ("dim", "kept", "method", "macro_f1", "low", "high")})

import json
import pickle
import shutil
from dataclasses import replace
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest

import featlab.evaluation.runner
from featlab import write_table
from featlab.bundle.files import read_json
from featlab.errors import CacheError, InputError
from featlab.evaluation.results import EvaluationRow
from featlab.evaluation.runner import plan, run_tasks
from featlab.methods import get_method
from featlab.workspace.workspace import Workspace, _read_once

METHODS = ("source-only", "neutral-shift", "pft-poster", "oracle")


@pytest.fixture
def open_workspace(tmp_path, people, small, extractor):
    def opened(values=None, table=None, root=tmp_path):
        if table is not None or not (root / "cache.h5").exists():
            write_table(root / "cache.h5", people() if table is None else table, extractor)
        options = {
            "protocol.methods": METHODS,
            "protocol.targets": "2",
            "adapt.oracle.iterations": 5,
            "adapt.pft-poster.iterations": 3,
        }
        return Workspace.open(root, small | options | (values or {}))

    return opened


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the first test that needs it leaves the default run for the others."""
    return tmp_path_factory.mktemp("kept") / "workspace"


@pytest.fixture
def first(kept, open_workspace, tmp_path):
    """The rows of the default run, which is finished in the workspace."""
    if kept.exists():
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    rows = run(open_workspace())
    shutil.copytree(tmp_path, kept, dirs_exist_ok=True)
    return rows


def run(workspace, **options):
    return [row for done in run_tasks(plan(workspace), **options) for row in done.values()]


def numbers(rows):
    return [{name: value for name, value in row.to_dict().items() if name != "seconds"} for row in rows]


def row_in(path):
    content = read_json(path)
    assert content.pop("key") == path.stem
    return EvaluationRow.from_dict(content)


def cells(root):
    return sorted(root.glob("results/runs/*/*.jsonl"))


def forbid(monkeypatch):
    """Let nothing be trained or evaluated any more."""
    for name in ("bundle_stage", "evaluate_subject"):
        monkeypatch.setattr(featlab.evaluation.runner, name, Mock(side_effect=AssertionError(f"{name} ran again")))


def test_there_is_a_row_for_each_method_and_target_in_the_order_of_the_table(open_workspace):
    workspace = open_workspace({"protocol.draws": 2})
    progress = []
    rows = run(workspace, on_step=lambda *call: progress.append(call))
    expected = [(draw, name, subject) for draw in (0, 1) for name in METHODS for subject in workspace.targets(draw)]
    assert [(row.draw, row.method, row.subject) for row in rows] == expected
    assert not any(row.error for row in rows)
    assert all(np.isfinite(row.macro_f1_smoothed) for row in rows)
    # A source model a draw, then the runs.
    assert progress == [(done, 18) for done in range(19)]
    # Operations are counted for one target a method.
    counted = [(row.method, row.draw, row.seed) for row in rows if row.flops == row.flops]
    assert counted == [(name, 0, 0) for name in METHODS]


def test_numbers_follow_the_seed_and_the_rows_and_nothing_else(first, open_workspace, people, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert numbers(first) == numbers(run(replace(open_workspace(), root=other)))
    assert cells(other)
    assert numbers(first) != numbers(run(open_workspace({"protocol.seed": 1, "protocol.targets": "s00,s01"})))
    # One method alone has the numbers that it has among the others.
    alone = run(replace(open_workspace({"protocol.methods": "pft-poster"}), root=other / "alone"))
    assert numbers(alone) == [entry for entry in numbers(first) if entry["method"] == "pft-poster"]
    count = len(cells(tmp_path))
    assert numbers(first) != numbers(run(open_workspace(table=people(seed=1))))
    assert len(cells(tmp_path)) == count + len(first)


def test_with_the_same_sources_another_target_or_a_pool_changes_no_targets_numbers(open_workspace, monkeypatch):
    """More people to evaluate are more rows, and no other numbers."""
    values = {"protocol.sources": "s00,s01,s02,s03"}
    few = run(open_workspace(values | {"protocol.targets": "s04,"}))
    many = run(open_workspace(values | {"protocol.targets": "s04,s05"}))
    assert numbers(few) == [entry for entry in numbers(many) if entry["subject"] == "s04"]
    assert len(many) == 2 * len(few)
    forbid(monkeypatch)
    assert numbers(run(open_workspace(values | {"protocol.pool": "s04,s05"}))) == numbers(many)


def test_a_cell_holds_one_row_and_a_second_run_computes_nothing(first, open_workspace, tmp_path, monkeypatch):
    stored = [row_in(path) for path in cells(tmp_path)]
    assert sorted(str(row.to_dict()) for row in stored) == sorted(str(row.to_dict()) for row in first)
    forbid(monkeypatch)
    assert [row.to_dict() for row in run(open_workspace())] == [row.to_dict() for row in first]


def test_only_what_is_missing_is_run_and_the_order_stays(first, open_workspace, tmp_path, ran):
    for path in cells(tmp_path):
        row = row_in(path)
        if (row.method, row.subject) == (first[0].method, first[0].subject):
            path.unlink()
    ran.clear()
    again = run(open_workspace())
    ((subjects, _, methods),) = ran
    assert (subjects, [method.name for method in methods]) == ((first[0].subject,), [first[0].method])
    assert numbers(again) == numbers(first)
    ran.clear()
    run(open_workspace({"protocol.methods": ",".join([*METHODS, "adabn"])}))
    assert {method.name for *_, methods in ran for method in methods} == {"adabn"}


def test_a_killed_run_keeps_what_it_had(open_workspace, tmp_path, monkeypatch):
    real = featlab.evaluation.runner.evaluate_subject
    with monkeypatch.context() as patch:
        killed = Mock(wraps=real, side_effect=[DEFAULT] * 5 + [KeyboardInterrupt])
        patch.setattr(featlab.evaluation.runner, "evaluate_subject", killed)
        with pytest.raises(KeyboardInterrupt):
            run(open_workspace())
    assert len(cells(tmp_path)) == 5
    progress = []
    rows = run(open_workspace(), on_step=lambda *call: progress.append(call))
    assert progress[0] == (5, 8)
    assert len(rows) == len(cells(tmp_path)) == 8


def test_a_cache_that_is_replaced_under_a_run_is_refused(open_workspace, people, tmp_path, extractor, refused):
    travelling = pickle.dumps(open_workspace())
    opened = pickle.loads(travelling)
    assert np.array_equal(opened.table.embeddings, open_workspace().table.embeddings)
    write_table(tmp_path / "cache.h5", people(seed=3), extractor)
    _read_once.cache_clear()
    with refused(CacheError, "cache.h5", "replaced while it was in use"):
        pickle.loads(travelling)


STALE = {
    "head.lr": (0.03, set(METHODS)),
    "pretrain.style": (0.5, set(METHODS)),
    "pair.neighbours": (2, set(METHODS)),
    "protocol.gap": (3, set(METHODS)),
    "protocol.smoothing": (3, set(METHODS)),
    "protocol.frames": (3, set(METHODS)),
    "protocol.contamination": (0.2, set(METHODS)),
    "protocol.seed": (1, set(METHODS)),
    "adapt.oracle.iterations": (6, {"oracle"}),
    "adapt.pft.iterations": (6, set()),
    "adapt.method": ("coral", set()),
}


def test_a_setting_makes_stale_the_runs_that_read_it(open_workspace, ran):
    fixed = {"protocol.targets": "s03,s04"}
    first, rows = run(open_workspace(fixed)), {}
    for key, (value, expected) in STALE.items():
        ran.clear()
        rows[key] = run(open_workspace(fixed | {key: value}))
        assert {method.name for *_, methods in ran for method in methods} == expected, key
    assert {row.adapt_frames for row in rows["protocol.frames"]} == {3}
    # One of the six frames of the clip is no longer there to be tested.
    assert [row.frames for row in rows["protocol.contamination"]] == [row.frames - 1 for row in first]


def test_a_damaged_run_another_ones_file_and_one_without_a_digest_are_told_and_run_again(
    first, open_workspace, tmp_path
):
    one, other, *_ = cells(tmp_path)
    whole, old = one.read_bytes(), json.dumps(row_in(one).to_dict()).encode()
    for content in (whole.replace(b'"seed": 0', b'"seed": 1'), other.read_bytes(), whole[: len(whole) // 2], old):
        one.write_bytes(content)
        told = []
        assert numbers(run(replace(open_workspace(), notify=told.append))) == numbers(first)
        assert [line for line in told if str(one) in line and "damaged" in line], told


def test_a_cell_that_fails_is_a_row_with_its_error_and_is_tried_again(open_workspace, tmp_path, monkeypatch, ran):
    with monkeypatch.context() as patch:
        fails = Mock(side_effect=InputError("the clip is too dark"))
        patch.setattr(get_method("neutral-shift"), "adapt", fails)
        rows = run(open_workspace())
    failed = [row for row in rows if row.error]
    assert [(row.method, row.error) for row in failed] == [("neutral-shift", "the clip is too dark")] * 2
    assert len(cells(tmp_path)) == len(rows) - 2
    ran.clear()
    again = run(open_workspace())
    assert [method.name for *_, methods in ran for method in methods] == ["neutral-shift"] * 2
    assert not any(row.error for row in again)
    assert [row.method for row in again] == [row.method for row in rows]
    assert len(cells(tmp_path)) == len(rows)


def test_a_drawn_target_without_a_neutral_clip_fails_alone(open_workspace, people):
    table, named = people(), open_workspace().targets()
    bare = table.subjects.index(named[0])
    rows = run(open_workspace(table=table.take((table.subject != bare) | (table.label != table.neutral_code))))
    failed = [row for row in rows if row.error]
    assert {row.subject for row in failed} == {named[0]}
    assert {row.subject for row in rows if not row.error} == {named[1]}
    assert all("no 'neutral' rows" in row.error for row in failed)
    assert {row.selection for row in failed if row.method == "oracle"} == {"oracle"}


def test_a_person_a_data_set_and_one_with_another_subject_share_no_cell(open_workspace, tmp_path):
    values = {"protocol.methods": "adabn", "protocol.sources": "s00,s01"}
    for scope, targets, count in (("person", "s03,s04", 2), ("dataset", "s03,s04", 4), ("dataset", "s03,s04,s05", 7)):
        rows = run(open_workspace(values | {"protocol.scope": scope, "protocol.targets": targets}))
        assert not any(row.error for row in rows)
        assert len(cells(tmp_path)) == count


def test_a_pool_is_drawn_from_beside_the_workspace_and_without_named_sources(open_workspace, tmp_path, monkeypatch):
    workspace = open_workspace({"protocol.pool": "s01,s02,s04", "protocol.draws": 6})
    tasks = plan(workspace)
    assert {name for task in tasks for name in task.targets} == {"s01", "s02", "s04"}
    for task in tasks:
        assert {"s00", "s03", "s05"} <= set(workspace.source(task.targets).table.subject_names_present())
    (tmp_path / "reported.txt").write_text("s02\ns05\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_workspace({"protocol.pool": "reported.txt"}).targets() == ("s02", "s05")
    assert open_workspace({"protocol.pool": "s01,s02,s04", "protocol.sources": "s01,s03"}).targets() == ("s02", "s04")


def test_a_named_target_with_too_few_other_frames_is_refused_before_anything_runs(open_workspace, people, refused):
    table = people()
    mine = np.flatnonzero((table.subject == 4) & (table.label != table.neutral_code))
    table = table.take(np.setdiff1d(np.arange(len(table)), mine[2:]))
    workspace = open_workspace({"protocol.targets": "s04,", "protocol.contamination": 0.5}, table=table)
    with refused(InputError, "'s04' has 2 test frames of other classes"):
        plan(workspace)
    values = {"protocol.pool": "s03,s04", "protocol.contamination": 0.5, "protocol.methods": "adabn"}
    rows = run(open_workspace(values))
    assert {row.subject for row in rows if row.error} == {"s04"}

import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import featlab.cache.atomic
import featlab.workspace.stages
from featlab import write_table
from featlab.bundle.files import load_adaptation
from featlab.compute import run_seed
from featlab.errors import BundleError, FeatlabError, InputError
from featlab.methods import make_method
from featlab.pairing.pairs import make_pairs
from featlab.protocol.splits import split_target, target_of
from featlab.workspace.adapt import adapt_rows, adapt_subject
from featlab.workspace.stages import LEASE, bundle_stage, pair_stage, train_folder, train_stage
from featlab.workspace.workspace import Workspace, bundle_folder

TARGETS = ("s04",)


@pytest.fixture
def open_workspace(tmp_path, people, small, extractor):
    """``open_workspace(values=None)``: six people in a cache; the lines that stages say go to ``.said``."""
    write_table(tmp_path / "cache.h5", people(), extractor)

    def opened(values=None):
        said = []
        workspace = Workspace.open(tmp_path, small | (values or {}), notify=said.append)
        return workspace, said

    return opened


@pytest.fixture
def source(open_workspace):
    return lambda values=None, **changes: replace(open_workspace(values)[0].source(TARGETS), **changes)


def folders(root):
    """Names of stage outputs, and of anything half-made."""
    return sorted(path.name for kind in ("stages", "bundles") for path in root.glob(f"{kind}/*"))


def same(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_bundle_runs_the_stages_before_it_once_and_says_so(tmp_path, open_workspace):
    workspace, said = open_workspace()
    source = workspace.source(TARGETS)
    bundle, output = bundle_stage(source, ["pft"])
    assert not output.reused
    assert [line.partition(":")[0] for line in said] == ["train", "pair", "pretrain"]
    assert [name.partition("-")[0] for name in folders(tmp_path)[1:]] == ["pair", "train"]
    assert [name for name in workspace.table.subjects if name not in bundle.source_subjects] == [*TARGETS]
    # What is read back is what was made.
    (head, first), (pairs, second) = train_stage(source), pair_stage(source)
    assert first.reused
    assert second.reused
    shutil.rmtree(tmp_path / "stages")
    made, remade = train_stage(source)[0], make_pairs(source.table, source.config.pair, seed=source.seed)
    assert same(head.projection, made.projection)
    assert same(head.head, made.head)
    for name, value in vars(remade).items():
        np.testing.assert_array_equal(getattr(pairs, name), value, err_msg=name)
    again, output = bundle_stage(source, ["pft"])
    assert output.reused
    assert torch.equal(again.translator.last.weight, bundle.translator.last.weight)


def test_pairs_are_made_and_make_a_bundle_stale_only_where_something_is_trained_on_them(tmp_path, source):
    different = {"pair.label_rule": "different"}
    linear = {"pretrain.form": "linear"}
    for values, methods, read in (({}, ["pft"], True), (linear, ["pft"], False), (linear, ["pft-poster"], True)):
        first, second = source(values), source(values | different)
        assert (bundle_folder(first, methods) != bundle_folder(second, methods)) == read
        bundle_stage(first, methods)
        assert any(name.startswith("pair") for name in folders(tmp_path)) == read
        shutil.rmtree(tmp_path / "stages")


STAGES = {"train": train_stage, "pair": pair_stage, "bundle": lambda source: bundle_stage(source, ["pft"])}
READ_BY = {
    "features.dim": (7, {"train", "bundle"}),
    "head.lr": (0.03, {"train", "bundle"}),
    "pair.label_rule": ("different", {"pair", "bundle"}),
    "pretrain.penalty": (1.0, {"train", "bundle"}),
    "pretrain.style": (0.5, {"bundle"}),
    "pretrain.style_bank": ("none", {"bundle"}),
    "adapt.method": ("coral", set()),
    "adapt.pft.iterations": (3, set()),
    "protocol.gap": (2, set()),
    "protocol.draws": (4, set()),
}


@pytest.fixture
def finished(source):
    """The folder of each stage's output, in a workspace in which every stage has run."""
    return {name: stage(source())[1].folder for name, stage in STAGES.items()}


def test_a_setting_makes_stale_what_reads_it_and_nothing_else(finished, source):
    for key, (value, readers) in READ_BY.items():
        second = {name: stage(source({key: value}))[1] for name, stage in STAGES.items()}
        assert {name for name, output in second.items() if output.folder != finished[name]} == readers, key
        assert {name for name, output in second.items() if not output.reused} == readers, key
    third = {name: stage(source())[1] for name, stage in STAGES.items()}
    assert all(output.reused and output.folder == finished[name] for name, output in third.items())


def test_other_rows_or_another_seed_make_everything_stale(finished, open_workspace):
    workspace, _ = open_workspace()
    other_rows = replace(workspace, cache_digest="f" * 64)
    for other in (
        replace(workspace.source(TARGETS), seed=1),
        other_rows.source(TARGETS),
        workspace.source(("s03",)),
        workspace.source(("s03", "s04")),
    ):
        for name, stage in STAGES.items():
            output = stage(other)[1]
            assert not output.reused
            assert output.folder != finished[name]


def test_methods_that_carry_something_have_a_bundle_of_their_own(source):
    state = torch.get_rng_state()
    plain, first = bundle_stage(source(), ["adabn", "source-only"])
    again, second = bundle_stage(source(), ["neutral-shift"])
    more, third = bundle_stage(source(), ["adabn", "coral", "referenced"])
    assert torch.equal(torch.get_rng_state(), state)
    assert second.reused
    assert second.folder == first.folder
    assert third.folder != first.folder
    assert (set(plain.extras), set(again.extras), set(more.extras)) == (set(), set(), {"coral", "referenced"})
    assert same(plain.head, more.head)
    assert same(plain.translator, more.translator)


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("train", "sync_folder"),
        ("pair", "write_pairs_csv"),
        ("bundle", "write_bundle"),
    ],
)
def test_a_killed_stage_leaves_nothing_half_made_and_the_next_run_makes_it(stage, step, tmp_path, source, monkeypatch):
    if stage == "bundle":
        train_stage(source())
        pair_stage(source())
    before = folders(tmp_path)
    module = featlab.cache.atomic if step == "sync_folder" else featlab.workspace.stages
    real = getattr(module, step)

    def killed(*args, **options):
        real(*args, **options)
        # The files within the draft are synced before it is renamed.
        if step != "sync_folder" or args[0].name == "stages":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            STAGES[stage](source())
    left = [name for name in folders(tmp_path) if name not in before]
    assert not any(name.endswith(".partial") for name in left)
    # Killed after the rename, the folder is whole.
    assert len(left) == (step == "sync_folder")
    assert STAGES[stage](source())[1].reused == (step == "sync_folder")
    assert STAGES[stage](source())[1].reused


def test_of_two_runs_at_once_one_makes_it_and_the_other_waits(tmp_path, source, monkeypatch):
    real, made, begun = featlab.workspace.stages.train_source_head, [], threading.Event()

    def slow(*args, **options):
        made.append(1)
        begun.set()
        time.sleep(1)
        return real(*args, **options)

    monkeypatch.setattr(featlab.workspace.stages, "train_source_head", slow)
    told: list[str] = []
    with ThreadPoolExecutor() as other:
        first = other.submit(train_stage, source())
        assert begun.wait(60)
        waiting = source()
        output = train_stage(replace(waiting, workspace=replace(waiting.workspace, notify=told.append)))[1]
    assert made == [1]
    assert output.reused
    assert not first.result()[1].reused
    assert first.result()[1].folder == output.folder
    assert any("waiting for another process" in line and output.folder.name in line for line in told)
    assert not any(name.endswith(".partial") for name in folders(tmp_path))
    assert not list(tmp_path.glob(".*.lock"))


@pytest.mark.parametrize("named", [True, False])
def test_what_a_killed_run_was_making_is_made_by_the_next(named, source, tmp_path):
    lock = tmp_path / f".{train_folder(source()).name}.lock"
    holder = (
        "import sys, time; from filelock import SoftFileLease; "
        f"SoftFileLease(sys.argv[1], lease_duration={LEASE}).acquire(); print('held', flush=True); time.sleep(60)"
    )
    # Killed as soon as it has made its lock, which nobody's name is in yet.
    words = [sys.executable, "-c", holder if named else "import sys; open(sys.argv[1], 'w'); print('held')", str(lock)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    start = time.monotonic()
    assert not train_stage(source())[1].reused
    assert time.monotonic() - start < LEASE / 2


def test_a_damaged_stage_says_what_to_delete(finished, source, refused):
    for stage, name in (
        *(("train", "head.safetensors"), ("pair", "pairs.safetensors")),
        *(("bundle", "bundle.json"), ("bundle", "model.safetensors")),
    ):
        path = finished[stage] / name
        whole = path.read_bytes()
        for data in (b"", b"\xff" * 100):
            path.write_bytes(data)
            with refused(BundleError, name, "delete", str(finished[stage])):
                STAGES[stage](source())
        path.write_bytes(whole)
    # Without its marker a folder is half made.
    (finished["train"] / "head.safetensors").rename(finished["train"] / "left-over")
    assert not train_stage(source())[1].reused
    assert {path.name for path in finished["train"].iterdir()} == {"head.safetensors", "SHA256SUMS"}


def test_a_workspace_that_can_not_be_written_or_opened_is_refused(tmp_path, source, refused):
    (tmp_path / "stages").write_text("a file in the way")
    with refused(FeatlabError, "stages", "can't be written"):
        train_stage(source())
    (tmp_path / "empty").mkdir()
    with refused(InputError, "cache.h5", "featlab extract"):
        Workspace.open(tmp_path / "empty")


def test_the_source_is_everyone_who_is_no_target_and_nobody_is_on_both_sides(open_workspace, refused):
    workspace, _ = open_workspace()
    assert workspace.source(("s00", "s03")).subjects == ("s01", "s02", "s04", "s05")
    chosen, _ = open_workspace({"protocol.sources": "s01,s02,s05"})
    assert chosen.source(TARGETS).subjects == ("s01", "s02", "s05")
    with refused(InputError, "'s44'", "did you mean 's04'"):
        chosen.source(("s44",))
    with refused(InputError, "'s02' is both source and target"):
        chosen.source(("s02",))


@pytest.fixture
def adapt(open_workspace):
    def run(subject="s04", values=None, targets=TARGETS, **changes):
        workspace, _ = open_workspace(values)
        bundle, output = bundle_stage(workspace.source(targets), [workspace.config.adapt.method])
        arguments = {"table": workspace.table, "extractor": workspace.extractor} | changes
        return *adapt_subject(bundle, output.folder, subject=subject, config=workspace.config, **arguments), bundle

    return run


def test_adapting_follows_the_protocols_split_and_writes_what_it_returns(adapt, people):
    table = people()
    mine = table.rows_of("s04")
    places, unlabelled = adapt_rows(mine, 5)
    assert not unlabelled
    assert np.array_equal(places, split_target(mine).adapt)
    model, done, bundle = adapt(values={"adapt.method": "neutral-shift"})
    expected = make_method("neutral-shift").adapt(bundle, target_of(mine, places))
    loaded, meta = load_adaptation(done.folder, bundle)
    for other in (expected, loaded):
        assert np.array_equal(model.predict_proba(table.embeddings), other.predict_proba(table.embeddings))
    assert (meta["subject"], meta["method"], meta["seed"], meta["unlabelled"]) == ("s04", done.method, 0, False)
    assert (meta["frames"], meta["videos"], done.folder.name) == (6, ["neutral-0"], "s04")
    json.dumps(meta, allow_nan=False)


def test_another_subject_changes_no_subjects_numbers(adapt, people):
    """Seeds come from who is adapted, not from their place among the others."""
    values = {"adapt.method": "pft-poster", "adapt.pft-poster.iterations": 4, "adapt.pft-poster.batch": 2}
    table = people()
    few, _, bundle = adapt("s04", values, targets=("s04", "s05"), table=table.without("s05"))
    many, _, other = adapt("s04", values, targets=("s04", "s05"))
    assert torch.equal(bundle.head.linear.weight, other.head.linear.weight)
    assert np.array_equal(few.predict_proba(table.embeddings), many.predict_proba(table.embeddings))
    assert run_seed(0, "pft-poster", "s04") != run_seed(0, "pft-poster", "s05")

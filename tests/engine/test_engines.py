"""The same on every engine: processes here, a dask cluster whose worker is killed, SLURM's stand-in, joblib's own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import Timer

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from featlab import open_cache, write_table
from featlab.config.analysis import EngineConfig
from featlab.engine import run_all
from featlab.errors import FeatlabError, InputError
from featlab.evaluation.runner import plan, run_tasks
from featlab.extraction.embed import Cluster, Recipe
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout
from featlab.workspace.adapt import adapt_people
from featlab.workspace.stages import bundle_stage
from featlab.workspace.workspace import Workspace

HERE = str(Path(__file__).parent)
LOCAL, SLURM = EngineConfig(), EngineConfig(name="submitit")


def eventually(true):
    """Wait until something is true."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def work(monkeypatch):
    """`engine_work`, which other processes find as well; those that joblib keeps of earlier tests don't."""
    get_reusable_executor().shutdown()
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *filter(None, sys.path)]))
    return __import__("engine_work")


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """The engine of a scheduler on loopback with two workers, processes of their own that are started again."""
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    folder = tmp_path_factory.mktemp("dask")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([HERE, *filter(None, sys.path)])}
    file, common = folder / "scheduler.json", ["--no-dashboard", "--scheduler-file", "scheduler.json"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *common, *words],
            cwd=folder,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        for kind, words in (
            ("scheduler", ["--host", "127.0.0.1", "--port", "0"]),
            ("worker", ["--nworkers", "2", "--nthreads", "1", "--local-directory", "."]),
        )
    ]
    try:
        eventually(file.exists)
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield EngineConfig(name="dask", address=address)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


@pytest.mark.slow
def test_rows_are_the_same_on_every_engine(tmp_path, people, small, extractor, dask):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    values = small | {"protocol.methods": "source-only,pft,coral", "protocol.targets": "2"}
    write_table(tmp_path / "cache.h5", people(), extractor)

    def rows(engine, jobs, caller=None):
        for folder in ("results", "stages", "bundles"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        with caller or nullcontext():
            done = run_tasks(plan(Workspace.open(tmp_path, values)), jobs=jobs, engine=engine)
        made = [row.to_dict() for part in done for row in part.values()]
        assert len(made) == 6
        assert not any(row["error"] for row in made)
        return made

    def same(ours):
        for mine, other in zip(ours, alone, strict=True):
            assert mine.keys() == other.keys()
            for name in mine.keys() - {"seconds"}:
                # Up to rounding: in another process the same numbers lie elsewhere in memory.
                numbers = isinstance(other[name], float | list)
                assert mine[name] == (pytest.approx(other[name], rel=1e-6, nan_ok=True) if numbers else other[name])

    alone = rows(LOCAL, 1)
    same(rows(dask, 1))
    same(rows(SLURM, 2))
    same(rows(LOCAL, 1, joblib.parallel_config("loky", n_jobs=2)))
    # In threads they take turns: a random state belongs to its process.
    same(rows(LOCAL, 1, joblib.parallel_config("threading", n_jobs=2)))
    from distributed import Client

    with Client(dask.address) as client:
        same(rows(LOCAL, 1, joblib.parallel_config("dask")))
        # A worker is killed in mid-run; another one is started and does its work.
        killed = next(iter(client.run(os.getpid).values()))
        killing = Timer(0.1, os.kill, (killed, signal.SIGKILL))
        killing.start()
        same(rows(dask, 1))
        assert killing.finished.is_set()
        client.wait_for_workers(2, timeout=60)
        assert killed not in client.run(os.getpid).values()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "dask", "submitit"])
def test_work_is_done_in_other_processes_on_one_thread_and_its_error_is_told(name, request, work, tmp_path):
    engine = {"local": LOCAL, "submitit": SLURM}.get(name) or request.getfixturevalue("dask")
    if name == "submitit":
        pytest.importorskip("submitit", reason="needs the extra slurm")
    done = list(run_all(work.square, range(6), jobs=2, engine=engine, folder=tmp_path))
    assert sorted(number for number, _, _ in done) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process, _ in done}
    assert {threads for _, _, threads in done} == {1}
    # Here in what is sent, which is where the work's own error comes from as well.
    items = [work.Gone(), work.Gone()] if name == "local" else range(6)
    with pytest.raises(InputError, match=r"^three is no number for this$"):
        list(run_all(work.fails_on_three, items, jobs=2, engine=engine, folder=tmp_path))
    with pytest.raises(FeatlabError, match=r"(died|did not finish).*what is finished is kept"):
        list(run_all(work.dies_on_three, range(6), jobs=2, engine=engine, folder=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "everyone"), [("SIGINT", True), ("SIGKILL", False)])
def test_no_worker_outlives_a_run_that_is_stopped_or_killed_and_none_prints_anything(how, everyone, tmp_path):
    # Where the tests run in the background, a shell has switched Ctrl-C off.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from engine_work import stays; from featlab.engine import run_all\n"
        "list(run_all(stays, [sys.argv[1]] * 4, jobs=2))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, process_group=0) as running:
        eventually(lambda: len(list(tmp_path.iterdir())) == 2)
        (os.killpg if everyone else os.kill)(running.pid, getattr(signal, how))
        said = running.communicate(timeout=60)[1]
    assert said.count("Traceback") == everyone  # Its own.
    with suppress(ProcessLookupError):
        eventually(lambda: os.killpg(running.pid, 0))


def test_work_that_is_shorter_than_a_workers_start_stays_here(work):
    for items, jobs in ((range(20), 4), ([5], 4), (range(3), 1)):
        done = list(run_all(work.square, items, jobs=jobs, light=True))
        assert [number for number, _, _ in done] == [number**2 for number in items]
        assert {process for _, process, _ in done} == {os.getpid()}
    assert list(run_all(work.square, [], jobs=4)) == []
    # What the first one took says nothing about the others.
    assert set(run_all(work.slow_at_first, range(1000), jobs=4, light=True)) == {os.getpid()}


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told_in_one_line(refused):
    pytest.importorskip("distributed", reason="needs the extra dask")
    away = EngineConfig(name="dask", address="tcp://127.0.0.1:9")
    with refused(FeatlabError, "engine.address = tcp://127.0.0.1:9", "dask scheduler"):
        list(run_all(abs, [1, 2], engine=away))


@pytest.mark.slow
def test_many_people_are_adapted_on_a_cluster_and_stay_adapted(tmp_path, people, small, extractor, dask):
    write_table(tmp_path / "cache.h5", people(), extractor)
    workspace = Workspace.open(tmp_path, small)
    subjects = ("s00", "s01", "nobody")
    root = bundle_stage(workspace.source(subjects[:2]), ["pft"])[1].folder
    there = replace(workspace, config=replace(workspace.config, engine=dask))
    done = {found.subject: found for found in adapt_people(there, root, subjects)}
    assert [done[name].reused for name in subjects[:2]] == [False, False]
    assert "no subject 'nobody'" in done["nobody"].reason
    assert [found.reused for found in adapt_people(workspace, root, subjects[:2])] == [True, True]


@pytest.mark.slow
def test_shards_are_embedded_on_a_cluster_as_they_are_here(tmp_path, make_tree, dask, monkeypatch):
    make_tree(tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    items = read_layout("auto", Path("faces"))
    items[3].path.write_bytes(b"no picture")
    recipe = Recipe("resnet18", (("weights", "random"), ("size", 32), ("device", "cpu")), mirror=True)
    cluster = Cluster(recipe, recipe.make().info().fingerprint, dask, 1, tmp_path)
    reports, tables = [], []
    for elsewhere in (None, cluster.embed):
        out, config = tmp_path / f"{len(reports)}.h5", ExtractConfig(jobs=1, shard_rows=5, batch=2)
        reports.append(extract(items, recipe.make(), out, neutral="neutral", config=config, elsewhere=elsewhere))
        with open_cache(out) as cache:
            tables.append(cache.read())
    assert reports[0].failures == reports[1].failures
    assert [failure.path for failure in reports[1].failures] == [items[3].name]
    assert tables[0].paths == tables[1].paths
    assert np.allclose(tables[0].embeddings, tables[1].embeddings, rtol=1e-4, atol=1e-5)


def test_another_backbone_than_the_commands_embeds_nothing(tmp_path, make_tree, refused):
    """A worker that lives on may have made one of older files."""
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    recipe = Recipe("hog", (("size", 16),))
    others = Cluster(recipe, Recipe("hog", (("size", 32),)).make().info().fingerprint, LOCAL, 1, tmp_path)
    with refused(FeatlabError, "'hog'", "another one on the cluster"):
        extract(items, recipe.make(), tmp_path / "cache.h5", neutral="neutral", elsewhere=others.embed)

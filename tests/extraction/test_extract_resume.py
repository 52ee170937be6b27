import os
import subprocess
import sys
import time

import numpy as np
import pytest

from featlab import open_cache, verify_cache
from featlab.errors import InputError
from featlab.extraction import embed
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout

HOG = make_backbone("hog", size=16)
ONE = ExtractConfig(jobs=1, shard_rows=4, batch=2)
DEFAULTS = {"backbone": HOG, "neutral": "neutral", "config": ONE}
SCRIPT = """
import sys
from pathlib import Path
from featlab.extraction.backbones import make_backbone
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout

source, out = map(Path, sys.argv[1:])
config = ExtractConfig(jobs=2, shard_rows=8, batch=4)
extract(read_layout("auto", source), make_backbone("hog"), out, neutral="neutral", config=config)
"""


@pytest.fixture
def source(tmp_path, make_tree):
    """Twelve images in three shards."""
    return make_tree(tmp_path / "faces")


def run(source, out, **more):
    return extract(read_layout("auto", source), **DEFAULTS | {"out": out} | more)


def anyone_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="watches a group of processes")
def test_a_killed_extraction_continues_to_the_digest_of_an_uninterrupted_one(tmp_path, make_tree):
    source = make_tree(tmp_path / "faces", subjects=8, frames=20)
    out, shards = tmp_path / "killed.h5", tmp_path / "killed.h5.shards"
    deadline = time.monotonic() + 60
    with subprocess.Popen([sys.executable, "-c", SCRIPT, source, out], process_group=0) as running:
        while len(list(shards.glob("*.h5"))) < 3:
            assert running.poll() is None, "finished before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.003)
        running.kill()
    while anyone_lives(running.pid):
        assert time.monotonic() < deadline, "a worker outlives its killed parent"
        time.sleep(0.02)
    before = len(list(shards.glob("*.h5")))
    assert not out.exists()
    more = {"backbone": make_backbone("hog"), "config": ExtractConfig(jobs=1, shard_rows=8, batch=4)}
    resumed, whole = (run(source, to, **more) for to in (out, tmp_path / "whole.h5"))
    assert (resumed.resumed_rows, whole.resumed_rows) == (before * 8, 0)
    assert (resumed.rows, resumed.digest) == (whole.rows, whole.digest) == (320, whole.digest)
    assert not shards.exists()
    assert verify_cache(out) == []


def interrupt(source, out, batches, **more):
    """Stop an extraction as Ctrl-C does, after some batches."""
    told = []

    def stop(progress):
        told.append(progress)
        if len(told) == batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, out, on_progress=stop, **more)


def test_only_the_shard_of_a_changed_image_or_landmark_is_embedded_again_after_ctrl_c(tmp_path, source):
    out, image = tmp_path / "c.h5", source / "s0" / "neutral" / "img0.png"
    whole = run(source, tmp_path / "whole.h5").digest
    interrupt(source, out, 5, config=ExtractConfig(jobs=2, shard_rows=4, batch=2))
    assert not out.exists()
    report = run(source, out)
    assert (report.resumed_rows, report.digest) == (4, whole)
    image.write_bytes(b"broken")
    interrupt(source, tmp_path / "b.h5", 8)  # two shards of two batches and a write each, and a batch more
    unchanged = run(source, tmp_path / "b.h5")
    assert unchanged.resumed_rows == 7
    assert [failure.path for failure in unchanged.failures] == ["s0/neutral/img0.png"]
    interrupt(source, tmp_path / "d.h5", 8)
    image.write_bytes(image.with_name("img1.png").read_bytes())
    report = run(source, tmp_path / "d.h5")
    assert (report.resumed_rows, report.rows, report.failures) == (4, 12, ())
    points = np.random.default_rng(0).uniform(1, 11, (12, 68, 2)).astype(np.float32)
    more = {"backbone": make_backbone("geometry"), "landmarks": points}
    interrupt(source, tmp_path / "e.h5", 8, **more)
    points[1] += 1
    assert run(source, tmp_path / "e.h5", **more).resumed_rows == 4
    np.testing.assert_array_equal(open_cache(tmp_path / "e.h5").read().landmarks, points)


@pytest.mark.parametrize("backbone", ["hog", "geometry"])
def test_a_finished_cache_of_the_same_inputs_is_not_embedded_again(tmp_path, source, monkeypatch, backbone):
    points = np.random.default_rng(0).uniform(1, 11, (12, 68, 2)).astype(np.float32)
    points[0] = np.nan
    (source / "s1" / "smile" / "img2.png").write_bytes(b"broken")
    given = {"backbone": make_backbone(backbone), "landmarks": points}
    first = run(source, tmp_path / "c.h5", **given)
    assert len(first.failures) == 1
    monkeypatch.setattr(embed, "run_in_order", None)
    again = run(source, tmp_path / "c.h5", **given)
    assert (again.digest, again.rows, again.failures) == (first.digest, 11, first.failures)
    assert again.resumed_rows == 11


def test_a_finished_cache_of_other_inputs_is_refused_with_the_difference(tmp_path, source, refused):
    out = tmp_path / "c.h5"
    run(source, out)
    items = read_layout("auto", source)
    for given, more, says in (
        (items, {"backbone": make_backbone("hog")}, "its extractor is 'hog' (grey 16x16"),
        (items, {"config": ExtractConfig(dtype="float16")}, "its embeddings are float32"),
        (items, {"neutral": "smile"}, "its classes differ"),
        (items, {"landmarks": np.ones((12, 2, 2), dtype=np.float32)}, "it has no landmarks"),
        (items[:-1], {}, "which the source hasn't"),
        (items[1:], {}, "differs or is new"),
    ):
        with refused(InputError, says, "--if-exists overwrite"):
            extract(given, **DEFAULTS | {"out": out} | more)
    (source / "s2" / "neutral").mkdir(parents=True)
    for name in ("img0.png", "a.png"):
        (source / "s2" / "neutral" / name).write_bytes(b"x")
        with refused(InputError, f"s2/neutral/{name} is new"):
            run(source, out)
    out.write_bytes(b"notes")
    with refused(InputError, "--if-exists overwrite"):
        run(source, out)
    assert out.read_bytes() == b"notes"


def test_an_image_changed_after_the_cache_is_noticed(tmp_path, source, refused):
    out = tmp_path / "c.h5"
    broken, other, later = (source / "s1" / "smile" / f"img{number}.png" for number in range(3))
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    run(source, out)
    # Repaired by a copy that keeps the old time stamp: the move into place shows. Likewise one that was never broken,
    # replaced by an older picture of the same size; and one that is newer.
    broken.write_bytes(whole)
    for path, when in ((broken, 1), (other, 1), (later, None)):
        when = when or out.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(when, when))
        with refused(InputError, f"s1/smile/{path.name} has changed, or was put there, since; --if-exists overwrite"):
            run(source, out)
        assert run(source, out, if_exists="overwrite").rows == 12


def test_a_cache_is_replaced_only_when_its_successor_is_whole(tmp_path, source):
    out, other = tmp_path / "c.h5", make_backbone("hog", size=32)
    first = run(source, out)
    interrupt(source, out, 3, backbone=other, if_exists="overwrite")
    assert open_cache(out).digest == first.digest
    replaced = run(source, out, backbone=other, if_exists="overwrite")
    assert (replaced.dim, replaced.resumed_rows) == (324, 4)

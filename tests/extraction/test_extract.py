import json
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from featlab import open_cache
from featlab.cache.reader import inspect_cache
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import decode_image
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.inputs import InputConfig, read_inputs
from featlab.extraction.items import Failure
from featlab.extraction.layouts import read_layout
from featlab.extraction.shards import float16_error

HOG = make_backbone("hog", size=16)
ONE = ExtractConfig(jobs=1, shard_rows=5, batch=2)
DEFAULTS = {"neutral": "neutral", "config": ONE}


def means(images, landmarks=None):
    return np.array([image.mean(axis=(0, 1)) for image in images], dtype=np.float32)


POINTS = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), dtype=np.float32)


def run(items, backbone, out, **more):
    return extract(items, backbone, out, **DEFAULTS | more)


def read(path):
    with open_cache(path, verify=True) as cache:
        return cache.read()


@pytest.fixture
def items(tmp_path, make_tree):
    return read_layout("auto", make_tree(tmp_path / "faces"))


def test_a_cache_holds_every_row_in_order_with_its_names(tmp_path, items):
    report, table = run(items[::-1], HOG, tmp_path / "c.h5"), read(tmp_path / "c.h5")
    assert (report.rows, report.dim, report.failures, report.resumed_rows) == (12, 36, (), 0)
    assert (report.extractor, table.classes, table.neutral) == (HOG.info(), ("neutral", "smile"), "neutral")
    rows = zip(table.paths, table.subject, table.video, table.label, table.frame, strict=True)
    assert [
        (path, table.subjects[who], table.videos[clip], table.classes[label], frame)
        for path, who, clip, label, frame in rows
    ] == [(item.name, item.subject, item.video, item.label, item.frame) for item in items]
    np.testing.assert_array_equal(table.embeddings, HOG.embed([decode_image(item.path) for item in items], None))
    assert table.landmarks is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "faces"]


def test_jobs_batches_and_shards_do_not_change_the_digest_and_progress_counts_to_the_total(tmp_path, items, stand_in):
    items[4].path.write_bytes(b"broken")
    seen, reports = [], []
    for config in (ExtractConfig(jobs=2, shard_rows=4, batch=3), ExtractConfig(jobs=1, shard_rows=1), ONE):
        out = tmp_path / f"{len(reports)}.h5"
        reports.append(run(items, HOG, out, config=config, on_progress=lambda now: seen.append(deepcopy(now))))
    assert len({(report.digest, report.failures) for report in reports}) == 1
    last = seen[-7:]
    assert [progress.done for progress in last] == sorted(progress.done for progress in last)
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (12, 12, 1)
    assert min(map(seen[-1].rate, ("read", "embed", "write"))) > 0
    assert seen[0].rate("write") == 0
    # A backbone of the main process gets batches.
    sizes = []
    backbone = stand_in(lambda images, landmarks: sizes.append(len(images)) or means(images))
    two = run(items[5:], backbone, tmp_path / "two.h5", config=replace(ONE, jobs=2))
    assert sizes == [2, 2, 1, 2]
    assert two.digest == run(items[5:], backbone, tmp_path / "one.h5").digest
    expected = means([decode_image(item.path) for item in items[5:]])
    np.testing.assert_array_equal(read(tmp_path / "two.h5").embeddings, expected)


def test_images_are_prepared_with_their_own_landmarks_before_they_are_embedded(tmp_path, items, stand_in):
    calls, shapes, given = [], set(), []

    def crop(image, landmarks):
        assert landmarks is not None
        calls.append(float(landmarks[0, 0]))
        if landmarks[0, 0] == 4:
            raise InputError("too small")
        return image[:5, :6]

    def embed(images, landmarks):
        shapes.update(image.shape for image in images)
        given.append(landmarks)
        return means(images)

    report = run(items, stand_in(embed, crop), tmp_path / "c.h5", landmarks=POINTS)
    assert (calls, shapes) == (list(range(12)), {(5, 6, 3)})
    assert [(failure.path, failure.reason) for failure in report.failures] == [(items[4].name, "too small")]
    for seen in (np.concatenate(given), read(tmp_path / "c.h5").landmarks):
        np.testing.assert_array_equal(seen, np.delete(POINTS, 4, axis=0))


def test_geometry_reads_no_image_and_lists_rows_without_landmarks(tmp_path):
    rows = "".join(f"none/{row}.jpg,s{row % 2},neutral,v,{row}\n" for row in range(8))
    (tmp_path / "manifest.csv").write_text("path,subject,label,video,frame\n" + rows)
    points = np.random.default_rng(0).normal(0, 9, (8, 68, 2)).astype(np.float32)
    points[5] = np.nan
    points[2] = 7
    items, geometry = read_layout("auto", tmp_path / "manifest.csv"), make_backbone("geometry")
    report = run(items, geometry, tmp_path / "c.h5", landmarks=points)
    assert [(failure.path, failure.reason) for failure in report.failures] == [
        ("none/2.jpg", "the embedding isn't finite as float32"),
        ("none/5.jpg", "no landmarks"),
    ]
    table = read(tmp_path / "c.h5")
    kept = [0, 4, 6, 1, 3, 7]
    np.testing.assert_array_equal(table.landmarks, points[kept])
    np.testing.assert_array_equal(table.embeddings, geometry.embed([], points[kept]))


def test_unreadable_images_are_left_out_and_listed(tmp_path, items, refused, stand_in):
    (items[1].path).write_bytes(b"")
    (items[11].path).unlink()
    report = run(items, HOG, tmp_path / "c.h5")
    assert [tuple(failure) for failure in report.failures] == [
        ("s0/neutral/img1.png", "the file is empty"),
        ("s1/smile/img2.png", "No such file or directory"),
    ]
    listed = [json.loads(line) for line in (tmp_path / "c.failures.jsonl").read_text().splitlines()]
    assert listed == [failure._asdict() for failure in report.failures]
    assert report.rows == 10
    assert run(items[2:11], HOG, tmp_path / "c.h5", if_exists="overwrite").failures == ()
    assert not (tmp_path / "c.failures.jsonl").exists()
    # A whole shard may fail; when nothing is left it is an error with the first reasons.
    for item in items[5:10]:
        item.path.write_bytes(b"broken")
    report = run(items, stand_in(means), tmp_path / "d.h5")
    assert (report.rows, len(report.failures)) == (5, 7)
    for item in items:
        item.path.write_bytes(b"")
    with refused(InputError, "none of the 12 items could be embedded (s0/neutral/img0.png: the file is"):
        run(items, HOG, tmp_path / "e.h5")
    assert not (tmp_path / "e.h5").exists()


def test_what_float16_costs_is_the_length_of_what_was_lost_and_what_it_can_not_hold_fails(tmp_path, items, stand_in):
    brightest = np.sort(means([decode_image(item.path) for item in items]).max(axis=1))
    scale = np.float32(0.999 * 65504 / brightest[-2])  # the brightest image overflows, and no other
    half, backbone = replace(ONE, dtype="float16"), stand_in(lambda images, landmarks: scale * means(images))
    far = run(items, stand_in(lambda images, landmarks: 1e30 * (means(images) == brightest[-1])), tmp_path / "far.h5")
    assert {failure.reason for failure in far.failures} == {"the embedding has values above 1e+15"}
    report = run(items, backbone, tmp_path / "half.h5", config=half)
    assert [failure.reason for failure in report.failures] == ["the embedding isn't finite as float16"]
    assert 0 < report.storage_error < 2**-11
    assert (far.storage_error, inspect_cache(tmp_path / "half.h5").dtype) == (None, "float16")
    rows = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    exact = rows.astype(np.float64)
    lost = np.linalg.norm(exact - rows.astype(np.float16), axis=1) / np.linalg.norm(exact, axis=1)
    assert float16_error(rows) == pytest.approx(lost.max(), rel=1e-9)
    # Exact values cost nothing, small numbers more, large ones everything.
    for row, low, high in (
        *(([1.5, -2.0], 0, 0), ([0.0, 0.0], 0, 0), ([1e-7, 2e-7], 0.01, 1)),
        *(([1e5, 1.0], np.inf, np.inf), ([1e-30, 1e-30], 1, 1)),
    ):
        assert low <= float16_error(np.array([[1, 1], row], dtype=np.float32)) <= high
    assert float16_error(rows[:0]) == 0


def test_a_worker_that_dies_is_one_line_and_finished_shards_stay(tmp_path, items, monkeypatch, refused, stand_in):
    # A module of its own: a worker process imports it by name.
    (tmp_path / "deadly_preparation.py").write_text(
        "import os\ndef prepare(image, landmarks):\n    if landmarks[0, 0] == 11: os._exit(3)\n    return image\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deadly_preparation", raising=False)
    import deadly_preparation

    given = {"landmarks": POINTS, "config": ExtractConfig(jobs=2, shard_rows=1, batch=1)}
    with refused(FeatlabError, "worker process near s", ".png ", "run the same command again"):
        run(items, stand_in(means, deadly_preparation.prepare), tmp_path / "c.h5", **given)
    given["config"] = ExtractConfig(jobs=1, shard_rows=1, batch=1)
    resumed = run(items, stand_in(means), tmp_path / "c.h5", **given)
    assert 0 < resumed.resumed_rows < 12
    assert resumed.rows == 12


def test_inputs_that_do_not_fit_are_refused_before_any_work(tmp_path, items, refused, stand_in):
    geometry = make_backbone("geometry")
    for given, backbone, more, says in (
        ([], HOG, {}, "nothing to extract: the source has no items"),
        ([], HOG, {"failures": [Failure("a.mp4", "empty")]}, "all of it failed (a.mp4: empty)"),
        ([*items, items[3]], HOG, {}, "can be there only once"),
        (items, geometry, {}, "needs landmarks"),
        (items, HOG, {"neutral": "calm"}, "--neutral NAME"),
    ):
        with refused(InputError, says):
            run(given, backbone, tmp_path / "c.h5", **more)
    with refused(InputError, "is a folder"):
        run(items, HOG, tmp_path)
    for name, value in (("jobs", -1), ("batch", 0), ("shard_rows", 0), ("dtype", "float64")):
        with refused(ConfigError, name):
            ExtractConfig(**{name: value})
    # A backbone that breaks its word is named.
    for shape in ((1, 3), (2,)):
        backbone = stand_in(lambda *given, shape=shape: np.zeros(shape, np.float32))
        with refused(ConfigError, f"shape {shape}, expected (2, D)", "'stand-in'"):
            run(items, backbone, tmp_path / "c.h5")


def test_folders_of_one_name_in_two_forms_are_one_person_and_spellings_are_joined_if_asked(tmp_path, make_image):
    for clip in ("Zoë/neutral", "Zoe\u0308/neutral", "1/Smile", "01/smile", "01/neutral"):
        for frame in range(2):
            make_image(tmp_path / "faces" / clip / f"{frame}.png", seed=frame)
    told, joined = (
        read_inputs(tmp_path / "faces", InputConfig(**more), beside=tmp_path / "c.h5")
        for more in ({}, {"merge_names": True, "neutral": "smile"})
    )
    assert {item.subject for item in told.items} == {"Zoë", "1", "01"}
    assert {item.video for item in told.items if item.subject == "Zoë"} == {"Zoë/neutral", "Zoë/neutral (2)"}
    assert "subject '01', '1'; label 'Smile', 'smile'; --merge-names joins them" in told.warnings[0]
    assert ({item.subject for item in joined.items}, joined.neutral) == ({"Zoë", "01"}, "Smile")
    assert run(joined.items, HOG, tmp_path / "c.h5").rows == 10

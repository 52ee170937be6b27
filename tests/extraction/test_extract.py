import json
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.cache import ExtractorInfo, inspect_cache, open_cache, verify_cache
from featlab.errors import ConfigError, FeatlabError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.decode import decode_image
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.layouts import read_layout

HOG = make_backbone("hog", size=16)
ONE = ExtractConfig(jobs=1, shard_rows=5, batch=2)
DEFAULTS = {"neutral": "neutral", "config": ONE}


@dataclass(frozen=True)
class MeanColour:
    """A stand-in for a network: batches in the main process."""

    name: str = "mean"
    needs_images: bool = True
    needs_landmarks: bool = False
    in_worker: bool = False
    prepare: Any = None
    scale: float = 1.0
    seen: list[list[tuple[int, ...]]] = field(default_factory=list)
    points: list[NDArray[np.float32] | None] = field(default_factory=list)

    def info(self):
        return ExtractorInfo(f"mean:{self.scale}", "none", "mean colour")

    def embed(self, images, landmarks):
        self.seen.append([image.shape for image in images])
        self.points.append(landmarks)
        return np.array([image.mean(axis=(0, 1)) for image in images], dtype=np.float32) * np.float32(self.scale)


def run(items, backbone, out, **more):
    return extract(items, backbone, out, **DEFAULTS | more)


def test_a_cache_holds_every_row_in_order_with_its_names(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    report = run(items[::-1], HOG, tmp_path / "c.h5")
    assert (report.rows, report.dim, report.failures, report.resumed_rows) == (12, 36, (), 0)
    assert verify_cache(tmp_path / "c.h5") == []
    with open_cache(tmp_path / "c.h5", verify=True) as cache:
        table = cache.read()
        assert cache.digest == report.digest
        assert cache.extractor == HOG.info()
        assert (cache.classes, cache.neutral) == (("neutral", "smile"), "neutral")
    assert table.paths == tuple(item.name for item in items)
    assert [table.subjects[code] for code in table.subject] == [item.subject for item in items]
    assert [table.videos[code] for code in table.video] == [item.video for item in items]
    assert [table.classes[code] for code in table.label] == [item.label for item in items]
    expected = HOG.embed([decode_image(item.path) for item in items], None)
    np.testing.assert_array_equal(table.embeddings, expected)
    assert table.landmarks is None
    assert not (tmp_path / "c.h5.shards").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "faces"]


def test_jobs_batches_and_shards_do_not_change_the_digest(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    (tmp_path / "faces" / "s0" / "smile" / "img1.png").write_bytes(b"broken")
    reports = [
        run(items, HOG, tmp_path / f"{number}.h5", config=ExtractConfig(**config))
        for number, config in enumerate(
            ({"jobs": 2, "shard_rows": 4, "batch": 3}, {"jobs": 1, "shard_rows": 1}, {"jobs": 1})
        )
    ]
    reports.append(run(items, HOG, tmp_path / "one.h5"))
    assert len({(report.digest, report.failures) for report in reports}) == 1


def test_a_backbone_of_the_main_process_gets_batches(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    backbone = MeanColour()
    two = run(items, backbone, tmp_path / "2.h5", config=ExtractConfig(jobs=2, shard_rows=5, batch=2))
    assert [len(batch) for batch in backbone.seen] == [2, 2, 1, 2, 2, 1, 2]
    assert two.digest == run(items, MeanColour(), tmp_path / "1.h5").digest
    with open_cache(tmp_path / "2.h5") as cache:
        table = cache.read()
    images = [decode_image(item.path) for item in items]
    np.testing.assert_allclose(table.embeddings, [image.mean(axis=(0, 1)) for image in images], rtol=1e-6)


def test_images_are_prepared_with_their_own_landmarks_before_they_are_embedded(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    points = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), dtype=np.float32)
    calls = []

    def crop(image, landmarks):
        assert landmarks is not None
        calls.append(float(landmarks[0, 0]))
        if landmarks[0, 0] == 4:
            raise InputError("too small")
        return image[:5, :6]

    backbone = MeanColour(prepare=crop)
    report = run(items, backbone, tmp_path / "c.h5", landmarks=points)
    assert calls == list(range(12))
    assert {shape for batch in backbone.seen for shape in batch} == {(5, 6, 3)}
    assert [(failure.path, failure.reason) for failure in report.failures] == [(items[4].name, "too small")]
    kept = np.delete(points, 4, axis=0)
    np.testing.assert_array_equal(np.concatenate([given for given in backbone.points if given is not None]), kept)
    with open_cache(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.read().landmarks, kept)


def test_geometry_reads_no_image_and_lists_rows_without_landmarks(tmp_path):
    rows = "".join(f"none/{row}.jpg,s{row % 2},neutral,v,{row}\n" for row in range(8))
    (tmp_path / "manifest.csv").write_text("path,subject,label,video,frame\n" + rows)
    items = read_layout("auto", tmp_path / "manifest.csv")
    points = np.random.default_rng(0).normal(0, 9, (8, 68, 2)).astype(np.float32)
    points[5] = np.nan
    points[2] = 7
    report = run(items, make_backbone("geometry"), tmp_path / "c.h5", landmarks=points)
    assert [(failure.path, failure.reason) for failure in report.failures] == [
        ("none/2.jpg", "the embedding isn't finite as float32"),
        ("none/5.jpg", "no landmarks"),
    ]
    with open_cache(tmp_path / "c.h5") as cache:
        table = cache.read()
    kept = [0, 4, 6, 1, 3, 7]
    np.testing.assert_array_equal(table.landmarks, points[kept])
    np.testing.assert_array_equal(table.embeddings, make_backbone("geometry").embed([], points[kept]))


def test_unreadable_images_are_left_out_and_listed(tmp_path, make_tree, refused):
    root = make_tree(tmp_path / "faces")
    items = read_layout("auto", root)
    (root / "s0" / "neutral" / "img1.png").write_bytes(b"")
    (root / "s1" / "smile" / "img2.png").unlink()
    report = run(items, HOG, tmp_path / "c.h5")
    found = [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
    assert found == [
        {"path": "s0/neutral/img1.png", "reason": "the file is empty"},
        {"path": "s1/smile/img2.png", "reason": "no such file"},
    ]
    assert [json.loads(line) for line in (tmp_path / "c.failures.jsonl").read_text().splitlines()] == found
    assert report.rows == 10
    again = run([item for item in items if item.path.exists()][2:], HOG, tmp_path / "c.h5", if_exists="overwrite")
    assert again.failures == ()
    assert not (tmp_path / "c.failures.jsonl").exists()
    # A whole shard may fail; when nothing is left it is an error with the first reasons.
    for item in items[5:10]:
        item.path.write_bytes(b"broken")
    report = run(items, MeanColour(), tmp_path / "d.h5")
    assert (report.rows, len(report.failures)) == (5, 7)
    for item in items:
        item.path.write_bytes(b"")
    with refused(InputError, "none of the 12 items could be embedded (s0/neutral/img0.png: the file is"):
        run(items, HOG, tmp_path / "e.h5")
    assert not (tmp_path / "e.h5").exists()


def test_an_embedding_that_float16_can_not_hold_is_a_failure(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces", subjects=1))
    with open_cache(run(items, MeanColour(), tmp_path / "full.h5").path) as cache:
        means = cache.read().embeddings
    scale = 65504 / float(np.sort(means.max(axis=1))[-2])  # the brightest image overflows, and no other
    half = replace(ONE, dtype="float16")
    report = run(items, MeanColour(scale=scale * 0.999), tmp_path / "half.h5", config=half)
    assert [failure.reason for failure in report.failures] == ["the embedding isn't finite as float16"]
    assert inspect_cache(tmp_path / "half.h5").dtype == "float16"


def test_progress_counts_up_to_the_total_with_rates(tmp_path, make_tree):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    items[3].path.write_bytes(b"")
    seen = []
    run(items, HOG, tmp_path / "c.h5", on_progress=seen.append)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].failed, seen[-1].seconds_left) == (12, 12, 1, 0)
    assert min(seen[-1].read_rate, seen[-1].embed_rate, seen[-1].write_rate) > 0
    assert seen[0].write_rate == 0


def test_a_worker_that_dies_is_one_clear_error_and_finished_shards_stay(tmp_path, make_tree, monkeypatch):
    # A module of its own: a worker process imports it by name.
    (tmp_path / "deadly_preparation.py").write_text(
        "import os\ndef prepare(image, landmarks):\n    if landmarks[0, 0] == 11: os._exit(3)\n    return image\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deadly_preparation", raising=False)
    import deadly_preparation

    items = read_layout("auto", make_tree(tmp_path / "faces"))
    points = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), dtype=np.float32)
    with pytest.raises(
        FeatlabError, match=r"worker process died near s\d/.*png .*run the same command again"
    ) as caught:
        run(
            items,
            MeanColour(prepare=deadly_preparation.prepare),
            tmp_path / "c.h5",
            landmarks=points,
            config=ExtractConfig(jobs=2, shard_rows=1, batch=1),
        )
    assert "\n" not in str(caught.value)
    resumed = run(
        items, MeanColour(), tmp_path / "c.h5", landmarks=points, config=ExtractConfig(jobs=1, shard_rows=1, batch=1)
    )
    assert 0 < resumed.resumed_rows < 12
    assert resumed.rows == 12


def test_a_backbone_that_breaks_its_word_is_named(tmp_path, make_tree, monkeypatch, refused):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    for shape in ((1, 3), (2,)):
        monkeypatch.setattr(MeanColour, "embed", lambda self, *given, shape=shape: np.zeros(shape, np.float32))
        with refused(ConfigError, f"shape {shape}, expected (2, D)", "'mean'"):
            run(items, MeanColour(), tmp_path / "c.h5")


def test_inputs_that_do_not_fit_are_refused_before_any_work(tmp_path, make_tree, refused):
    items = read_layout("auto", make_tree(tmp_path / "faces"))
    points = np.zeros((12, 68, 2), dtype=np.float32)
    for given, backbone, more, says in (
        ([], HOG, {}, "nothing to extract"),
        ([*items, items[3]], HOG, {}, "can be there only once"),
        (items, make_backbone("geometry"), {}, "needs landmarks"),
        (items, HOG, {"landmarks": points[:5]}, "landmarks for 5 rows only"),
        (items, HOG, {"landmarks": points.reshape(12, -1)}, "expected (rows, P, 2)"),
        (items, HOG, {"neutral": "calm"}, "--neutral NAME"),
        (items, make_backbone("geometry:51"), {"landmarks": points}, "geometry: the backbone is for 51"),
    ):
        with refused(InputError, says):
            run(given, backbone, tmp_path / "c.h5", **more)
    with refused(InputError, "is a folder"):
        run(items, HOG, tmp_path)
    with refused(ConfigError, "did you mean 'resume'"):
        run(items, HOG, tmp_path / "c.h5", if_exists="resum")
    for name, value in (("jobs", -1), ("batch", 0), ("shard_rows", 0), ("dtype", "float64")):
        with refused(ConfigError, name):
            ExtractConfig(**{name: value})

"""The head pose is stored like landmarks: optional, wholly NaN without a face, and part of the digest."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from featlab.cache import (
    CacheBuilder,
    CacheError,
    FeatureTable,
    inspect_cache,
    open_cache,
    verify_cache,
    write_table,
)


@pytest.fixture
def pose(make_rows):
    """Yaw, pitch and roll of the rows of `make_rows`, NaN where the landmarks are."""
    rows = make_rows()
    angles = np.random.default_rng(5).normal(scale=10, size=(len(rows), 3)).astype(np.float32)
    angles[np.isnan(rows.landmarks).all(axis=(1, 2))] = np.nan
    return angles


@pytest.fixture
def builder(tmp_path, extractor):
    classes = ("neutral", "happy", "pain")
    with CacheBuilder(tmp_path / "p.h5", extractor=extractor, classes=classes, has_pose=True) as builder:
        yield builder


@pytest.fixture
def posed(builder, make_rows, pose):
    builder.write_shard("k", replace(make_rows(), pose=pose))
    return builder.assemble(["k"])


def test_the_pose_comes_back_whole_by_subject_and_in_blocks(posed, pose):
    assert verify_cache(posed) == []
    assert inspect_cache(posed).has_pose
    with open_cache(posed, verify=True) as cache:
        assert cache.has_pose
        table = cache.read()
        np.testing.assert_array_equal(table.pose, pose)
        np.testing.assert_array_equal(cache.read(["s1"]).pose, pose[7:12])
        blocks = list(cache.iter_rows(byte_budget=500))
    np.testing.assert_array_equal(np.concatenate([block.pose for block in blocks]), pose)
    np.testing.assert_array_equal(table.take([3, 0]).pose, pose[[3, 0]])
    assert table.nbytes - replace(table, pose=None).nbytes == pose.nbytes


def test_a_cache_without_pose_has_none(cache_path):
    with open_cache(cache_path) as cache:
        assert not cache.has_pose
        assert cache.read().pose is None
    assert not inspect_cache(cache_path).has_pose


def test_the_digest_covers_the_pose_and_nothing_else_changes(posed, cache_path, extractor, tmp_path):
    with open_cache(posed) as cache:
        table, digest = cache.read(), cache.digest
    with open_cache(cache_path) as cache:
        plain = cache.digest
    assert digest != plain
    write_table(tmp_path / "without.h5", replace(table, pose=None), extractor)
    assert inspect_cache(tmp_path / "without.h5").digest == plain
    write_table(tmp_path / "again.h5", table, extractor)
    assert inspect_cache(tmp_path / "again.h5").digest == digest
    with h5py.File(posed, "r+") as file:
        file["pose"][0] = (1, 2, 3)
    assert "not what was written" in verify_cache(posed)[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pose: pose[:, :2], "pose of shape (19, 3), got (19, 2)"),
        (lambda pose: pose[:5], "expected 19 rows of pose"),
        (lambda pose: np.where(np.arange(3) == 1, np.nan, pose), "its pose is not finite in part"),
        (lambda pose: pose * np.inf, "its pose is not finite in part"),
        (lambda pose: None, "holds no pose, the cache was opened for one"),
    ],
)
def test_a_pose_that_does_not_fit_is_refused(builder, make_rows, pose, damage, words):
    with pytest.raises(CacheError) as caught:
        builder.write_shard("k", replace(make_rows(), pose=damage(np.nan_to_num(pose, nan=1.0))))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pose_that_was_not_announced_is_refused(make_rows, pose, extractor, tmp_path):
    with (
        CacheBuilder(tmp_path / "q.h5", extractor=extractor, classes=["neutral", "happy", "pain"]) as builder,
        pytest.raises(CacheError, match="holds a pose, the cache was opened for none; set has_pose"),
    ):
        builder.write_shard("k", replace(make_rows(), pose=pose))


def test_shards_of_a_run_without_pose_do_not_count_for_one_with(make_rows, extractor, tmp_path):
    classes = ("neutral", "happy", "pain")
    with CacheBuilder(tmp_path / "p.h5", extractor=extractor, classes=classes) as builder:
        builder.write_shard("k", make_rows())
    with CacheBuilder(tmp_path / "p.h5", extractor=extractor, classes=classes, has_pose=True) as builder:
        assert not builder.has_shard("k")
    with CacheBuilder(tmp_path / "p.h5", extractor=extractor, classes=classes) as builder:
        assert builder.has_shard("k")


def test_a_file_whose_pose_is_damaged_is_refused(posed, refuses):
    with h5py.File(posed, "r+") as file:
        values = file["pose"][:]
        del file["pose"]
        file["pose"] = values[:, :2]
    refuses(posed, "'pose'", "shape")


def test_a_pose_that_is_nan_in_part_is_found(posed):
    with h5py.File(posed, "r+") as file:
        file["pose"][0, 1] = np.nan
    assert "dataset 'pose' is not finite in 1 of 19 rows" in verify_cache(posed)[0]


def test_a_table_with_another_shape_of_pose_is_refused():
    table = FeatureTable(
        embeddings=np.zeros((2, 3), np.float32),
        label=np.zeros(2, np.int16),
        subject=np.zeros(2, np.int32),
        video=np.zeros(2, np.int32),
        frame=np.arange(2, dtype=np.int32),
        subjects=("s",),
        videos=("v",),
        classes=("neutral",),
        neutral="neutral",
    )
    for pose, words in [
        (np.zeros((2, 2), np.float32), r"pose of shape \(2, 3\)"),
        (np.zeros((2, 3)), "pose of dtype float32"),
    ]:
        with pytest.raises(CacheError, match=words):
            replace(table, pose=pose)

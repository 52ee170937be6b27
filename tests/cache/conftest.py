"""A small seeded cache and the tools to damage it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featlab.cache import CacheBuilder, CacheError, ExtractorInfo, Rows, open_cache

CLASSES = ("neutral", "happy", "pain")
EXTRACTOR = ExtractorInfo("hog", "none", "grey 96x96", layers=("stem.0",), versions={"numpy": "2"})

# (subject, video, frames) in row order, which is the order of code points: capitals come before small letters.
# Some names are not ASCII, and two subjects share a video name.
VIDEOS = (("Zoë", "v1", 4), ("Zoë", "v2", 3), ("s1", "v1", 5), ("s2", "日本", 1), ("s3", "a b/c", 6))


@pytest.fixture
def extractor() -> ExtractorInfo:
    return EXTRACTOR


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    """Rows of some of VIDEOS (by index), the same values whichever others are asked for."""

    def make(*which: int, dim: int = 8) -> Rows:
        parts = [_video(index, dim) for index in (which or range(len(VIDEOS)))]
        return Rows(
            embeddings=np.concatenate([part.embeddings for part in parts]),
            labels=[label for part in parts for label in part.labels],
            subjects=[name for part in parts for name in part.subjects],
            videos=[name for part in parts for name in part.videos],
            frames=np.concatenate([part.frames for part in parts]),
            landmarks=np.concatenate([part.landmarks for part in parts]),
            paths=[path for part in parts for path in part.paths],
        )

    return make


def _video(index: int, dim: int) -> Rows:
    subject, video, frames = VIDEOS[index]
    rng = np.random.default_rng(index)
    landmarks = rng.uniform(0, 96, (frames, 5, 2)).astype(np.float32)
    landmarks[1::3] = np.nan
    labels = [None if frame == 2 else CLASSES[frame % 3] for frame in range(frames)]
    return Rows(
        embeddings=rng.normal(size=(frames, dim)).astype(np.float32),
        labels=labels,
        subjects=[subject] * frames,
        videos=[video] * frames,
        frames=np.arange(frames) * 5,
        landmarks=landmarks,
        paths=[f"{subject}/{video}/{frame}.png" for frame in range(frames)],
    )


@pytest.fixture
def build(make_rows) -> Callable[..., Path]:
    """Builds the cache at `out` from shards that hold the given groups of VIDEOS."""

    def build_cache(out: Path, layout=((0, 1, 2, 3, 4),), dtype: str = "float32") -> Path:
        with CacheBuilder(out, extractor=EXTRACTOR, classes=CLASSES, neutral="neutral", dtype=dtype) as builder:
            keys = [f"shard {number}" for number in range(len(layout))]
            for key, group in zip(keys, layout, strict=True):
                builder.write_shard(key, make_rows(*group), [])
            return builder.assemble(keys)

    return build_cache


@pytest.fixture
def cache_path(build, tmp_path: Path) -> Path:
    return build(tmp_path / "cache.h5")


@pytest.fixture
def refuses() -> Callable[..., str]:
    """Asserts that opening (and reading all) is a CacheError of one line that names the file; returns the line."""

    def check(path: Path, *words: str, verify: bool = False) -> str:
        with pytest.raises(CacheError) as caught, open_cache(path, verify=verify) as cache:
            cache.read()
        message = str(caught.value)
        assert os.fspath(path) in message
        assert "\n" not in message
        for word in words:
            assert word in message, message
        return message

    return check

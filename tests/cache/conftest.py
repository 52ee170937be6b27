"""A small seeded cache, and the check that a refusal is one line about the file."""

import os
from dataclasses import fields
from itertools import chain

import numpy as np
import pytest

from featlab.cache import CacheBuilder, CacheError, ExtractorInfo, Rows, open_cache

CLASSES = ("neutral", "happy", "pain")
EXTRACTOR = ExtractorInfo("hog", "none", "grey 96x96", layers=("stem.0",), versions={"numpy": "2"})

# (subject, video, frames) in row order, which is the order of code points: capitals come before small letters.
# Some names are not ASCII, and two subjects share a video name.
VIDEOS = (("Zoë", "v1", 4), ("Zoë", "v2", 3), ("s1", "v1", 5), ("s2", "日本", 1), ("s3", "a b/c", 6))


@pytest.fixture
def extractor():
    return EXTRACTOR


@pytest.fixture
def make_rows():
    """Rows of some of VIDEOS (by index), the same values whichever others are asked for."""

    def make(*which, dim=8):
        parts = [_video(index, dim) for index in (which or range(len(VIDEOS)))]
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Rows)}
        joined = {
            name: np.concatenate(values) if isinstance(values[0], np.ndarray) else list(chain(*values))
            for name, values in columns.items()
        }
        return Rows(**joined)

    return make


def _video(index, dim):
    subject, video, frames = VIDEOS[index]
    rng = np.random.default_rng(index)
    landmarks = rng.uniform(0, 96, (frames, 5, 2)).astype(np.float32)
    landmarks[1::3] = np.nan
    return Rows(
        embeddings=rng.normal(size=(frames, dim)).astype(np.float32),
        labels=[None if frame == 2 else CLASSES[frame % 3] for frame in range(frames)],
        subjects=[subject] * frames,
        videos=[video] * frames,
        frames=np.arange(frames) * 5,
        landmarks=landmarks,
        paths=[f"{subject}/{video}/{frame}.png" for frame in range(frames)],
        faces=np.arange(frames, dtype=np.uint8) % 3,
    )


@pytest.fixture
def build(make_rows):
    """``build(path, ((0, 1), (2,)))``: a cache in shards of these VIDEOS, changed; options go to the builder."""

    def build_cache(out, layout=((0, 1, 2, 3, 4),), change=lambda rows: rows, **options):
        settings = {"extractor": EXTRACTOR, "classes": CLASSES, "neutral": "neutral", **options}
        with CacheBuilder(out, **settings) as builder:
            keys = [f"shard {number}" for number in range(len(layout))]
            for key, group in zip(keys, layout, strict=True):
                builder.write_shard(key, change(make_rows(*group)), [])
            return builder.assemble(keys)

    return build_cache


@pytest.fixture
def cache_path(build, tmp_path):
    return build(tmp_path / "cache.h5")


@pytest.fixture
def refuses(refused):
    """``refuses(path, "words", verify=True)``: opening it and reading all is one line that names the file."""

    def check(path, *words, verify=False):
        with refused(CacheError, os.fspath(path), *words), open_cache(path, verify=verify) as cache:
            cache.read()

    return check

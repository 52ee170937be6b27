"""A small seeded cache, and the check that a refusal is one line about the file."""

import os
from dataclasses import replace

import numpy as np
import pytest

from featlab import ExtractorInfo, FeatureTable, open_cache
from featlab.cache.writer import CacheBuilder
from featlab.errors import CacheError

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
        which = which or range(len(VIDEOS))
        rngs = {index: np.random.default_rng(index) for index in which}
        points = [rngs[index].uniform(0, 96, (VIDEOS[index][2], 5, 2)).astype(np.float32) for index in which]
        for each in points:
            each[1::3] = np.nan
        rows = [(*VIDEOS[index][:2], frame) for index in which for frame in range(VIDEOS[index][2])]
        subjects, videos, frames = zip(*rows, strict=True)
        values = [rngs[index].normal(size=(VIDEOS[index][2], dim)) for index in which]
        return FeatureTable.named(
            embeddings=np.concatenate(values).astype(np.float32),
            labels=[None if frame == 2 else CLASSES[frame % 3] for frame in frames],
            subjects=subjects,
            videos=videos,
            frames=np.array(frames) * 5,
            classes=CLASSES,
            neutral="neutral",
            landmarks=np.concatenate(points),
            paths=tuple(f"{subject}/{video}/{frame}.png" for subject, video, frame in rows),
            faces=np.array(frames, dtype=np.uint8) % 3,
        )

    return make


@pytest.fixture
def build(make_rows):
    """``build(path, ((0, 1), (2,)))``: a cache in shards of these VIDEOS, changed; options go to the builder."""

    def build_cache(out, layout=((0, 1, 2, 3, 4),), change=lambda rows: rows, **options):
        named = {"classes": CLASSES, "neutral": "neutral"}
        named |= {key: options[key] for key in named if key in options}
        with CacheBuilder(out, **{"extractor": EXTRACTOR, **named, **options}) as builder:
            keys = [f"shard {number}" for number in range(len(layout))]
            for key, group in zip(keys, layout, strict=True):
                builder.write_shard(key, change(replace(make_rows(*group), **named)), [])
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


@pytest.fixture
def digest():
    """``digest(path)``: that of a cache, after all of it was checked."""

    def read(path):
        with open_cache(path, verify=True) as cache:
            return cache.digest

    return read

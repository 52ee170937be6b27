"""Small synthetic people, as rows in RAM, and the check that a refusal is one clear line."""

import os

# One thread: what is computed here is small, and a second one makes it slower, on a busy machine many times.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featlab import ExtractorInfo, FeatureTable
from featlab.bundle.bundle import Bundle
from featlab.config.load import Config
from featlab.errors import FeatlabError
from featlab.evaluation.results import EvaluationRow
from featlab.workspace.stages import build_bundle


def pytest_configure(config: pytest.Config) -> None:
    """Let xdist hand out files in the order in which they are collected, not the one with the most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: the last minute of a run in several processes belongs to all of them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


# Neutral is not the first class: code that takes 0 for neutral fails here.
CLASSES = ("anger", "neutral", "disgust", "fear", "joy", "sadness", "surprise")
POINTS = 7


def make_people(
    subjects: int = 6,
    clips: int = 2,
    frames: int = 6,
    dim: int = 12,
    classes: int = 2,
    landmarks: bool = True,
    seed: int = 0,
    *,
    expression: float = 2.0,
    identity: float = 3.0,
    resting: float = 1.5,
    noise: float = 0.3,
) -> FeatureTable:
    """Rows of people who differ in identity and in how they look at rest.

    A row is class mean + subject offset + resting expression + clip shift + noise. The resting expression lies in the
    span of the class means: it moves all of a person's rows across the source classifier's border, and it is seen in
    their neutral clip, so that adapting to a person matters. A person's rows don't depend on how many others there are.

    People are called s00, s01, …, their videos neutral-0, anger-0, … (``clips`` a class, of ``frames`` rows), and code
    1 of the ``classes`` is neutral. Landmarks (N, 7, 2) are one shape a person, moved by the expression and a little by
    each frame. The last four arguments are the sizes of the parts.
    """
    names = CLASSES[:classes]
    rng = np.random.default_rng([seed, 0])
    class_mean = expression * rng.normal(size=(classes, dim))
    class_shape = rng.normal(size=(classes, POINTS, 2))
    videos = sorted(f"{name}-{clip}" for name in names for clip in range(clips))
    embeddings, label, subject, video, points = [], [], [], [], []
    for person in range(subjects):
        own = np.random.default_rng([seed, 1 + person])
        centre = identity * own.normal(size=dim) + resting * own.normal(size=classes) @ class_mean / expression
        shape = own.uniform(0, 100, size=(POINTS, 2))
        for code, video_name in enumerate(videos):
            kind = names.index(video_name.rpartition("-")[0])
            shift = 0.2 * own.normal(size=dim)
            embeddings.append(class_mean[kind] + centre + shift + noise * own.normal(size=(frames, dim)))
            points.append(shape + 3 * class_shape[kind] + own.normal(size=(frames, POINTS, 2)))
            label += [kind] * frames
            subject += [person] * frames
            video += [code] * frames
    return FeatureTable(
        embeddings=np.concatenate(embeddings).astype(np.float32),
        label=np.array(label, dtype=np.int16),
        subject=np.array(subject, dtype=np.int32),
        video=np.array(video, dtype=np.int32),
        frame=np.tile(np.arange(frames, dtype=np.int32), subjects * len(videos)),
        subjects=tuple(f"s{person:02d}" for person in range(subjects)),
        videos=tuple(videos),
        classes=names,
        neutral="neutral",
        landmarks=np.concatenate(points).astype(np.float32) if landmarks else None,
    )


@pytest.fixture(scope="session")
def people() -> Callable[..., FeatureTable]:
    """``people(subjects=6, clips=2, frames=6, dim=12, classes=2, landmarks=True, seed=0)``: see `make_people`."""
    return make_people


EXTRACTOR = ExtractorInfo("hog", "none", "grey 96x96")
SMALL = {
    "features.dim": 8,
    "head.bottleneck": 6,
    "head.epochs": 3,
    "head.batch": 16,
    "head.lr": 0.02,
    "pretrain.hidden": 8,
    "pretrain.epochs": 2,
    "pretrain.batch": 16,
}
"""Training in a few milliseconds."""


def make_small_bundle(
    table: FeatureTable,
    values: Mapping[str, Any] | None = None,
    *,
    methods: Sequence[str] = ("pft",),
    seed: int = 0,
) -> Bundle:
    """A bundle of every subject in the table, trained with `SMALL` and what ``values`` change of it."""
    config = Config().with_values(SMALL | dict(values or {}), "test")
    return build_bundle(table, config, seed=seed, extractor=EXTRACTOR, cache_digest="0" * 64, methods=methods)


@pytest.fixture(scope="session")
def small_bundle() -> Callable[..., Bundle]:
    """``small_bundle(table, values=None, methods=("pft",), seed=0)``: see `make_small_bundle`."""
    return make_small_bundle


def make_result(method: str, subject: str, score: float, **changes: Any) -> EvaluationRow:
    """A finished run whose scores are all the same."""
    selection = "oracle" if method == "oracle" else "source-free"
    who = {"method": method, "subject": subject, "draw": 0, "seed": 0, "selection": selection}
    names = ("macro_f1", "macro_f1_all", "accuracy", "balanced_accuracy", "neutral_recall")
    counts = {"histogram": (1, 1), "frames": 2, "adapt_frames": 1, "iterations": 135, "trainable": 1024}
    return EvaluationRow(**(who | dict.fromkeys(names, score) | counts | {"seconds": 0.9512} | changes))


@pytest.fixture(scope="session")
def result() -> Callable[..., EvaluationRow]:
    """``result("pft", "s1", 0.7, class_recall=(0.5, 0.9))``: see `make_result`."""
    return make_result


@pytest.fixture
def small() -> dict[str, Any]:
    """``{"section.key": value}`` that make training take a few milliseconds."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def extractor() -> ExtractorInfo:
    """What made the embeddings of every bundle of `small_bundle`."""
    return EXTRACTOR


@pytest.fixture
def refused() -> Callable[..., object]:
    """``with refused(InputError, "word"):`` the block raises exactly that FeatlabError, in one line with the words."""

    @contextmanager
    def check(kind: type[FeatlabError], *words: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert message
        assert "\n" not in message
        for word in words:
            assert word in message, message

    return check


@pytest.fixture(scope="session")
def make_tree() -> Callable[..., Path]:
    """subject/label/image for some subjects, two labels and some frames: noise, brighter below in a smile."""

    def make(root: Path, subjects: int = 2, frames: int = 3, side: int = 12) -> Path:
        random = np.random.default_rng(0)
        for subject in range(subjects):
            for bright, label in enumerate(("neutral", "smile")):
                folder = root / f"s{subject}" / label
                folder.mkdir(parents=True)
                for frame in range(frames):
                    image = random.integers(0, 256, (side, side, 3))
                    image[side // 2 :] = image[side // 2 :] // 2 + 120 * bright
                    Image.fromarray(image.astype(np.uint8)).save(folder / f"img{frame}.png")
        return root

    return make

"""One bundle of small people, and a person who is none of its sources."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from featlab.bundle.bundle import Bundle
from featlab.cache import ExtractorInfo, FeatureTable
from featlab.config.load import Config
from featlab.errors import FeatlabError
from featlab.methods import get_method, make_method, method_names
from featlab.model.networks import PersonalModel
from featlab.protocol.splits import target_of
from featlab.workspace.stages import build_bundle

CLASSES = ("anger", "neutral", "joy")
EXTRACTOR = ExtractorInfo("toy", "none", "random numbers")
SMALL = {
    "features.dim": 8,
    "head.bottleneck": 6,
    "head.epochs": 3,
    "head.batch": 16,
    "pretrain.hidden": 7,
    "pretrain.epochs": 2,
    "pretrain.batch": 16,
}


def make_table(people: int = 5, dim: int = 12) -> FeatureTable:
    """Rows of people: a class mean, a person and noise; two clips of eight frames a class."""
    rng = np.random.default_rng(3)
    means = 3 * rng.normal(size=(len(CLASSES), dim))
    codes = [
        (person, label, clip, frame)
        for person in range(people)
        for label in range(3)
        for clip in range(2)
        for frame in range(8)
    ]
    person, label, clip, frame = np.array(codes).T
    own = 2 * rng.normal(size=(people, dim))
    rows = 5 + means[label] + own[person] + 0.4 * rng.normal(size=(len(codes), dim))
    return FeatureTable(
        embeddings=rows.astype(np.float32),
        label=label.astype(np.int16),
        subject=person.astype(np.int32),
        video=(2 * label + clip).astype(np.int32),
        frame=frame.astype(np.int32),
        subjects=tuple(f"s{number}" for number in range(people)),
        videos=tuple(f"{name}-{clip}" for name in CLASSES for clip in "ab"),
        classes=CLASSES,
        neutral="neutral",
    )


def make_bundle(
    table: FeatureTable, values: dict[str, Any] | None = None, extractor: ExtractorInfo = EXTRACTOR
) -> Bundle:
    """A bundle of everyone in the table, prepared for every method."""
    config = Config().with_values(SMALL | (values or {}), "test")
    return build_bundle(table, config, seed=0, extractor=extractor, methods=method_names())


@pytest.fixture(scope="session")
def table() -> FeatureTable:
    return make_table()


@pytest.fixture(scope="session")
def person(table: FeatureTable) -> FeatureTable:
    """Rows of the target subject, s4."""
    return table.rows_of("s4")


@pytest.fixture(scope="session")
def bundle(table: FeatureTable) -> Bundle:
    return make_bundle(table.without("s4"))


def adapt(name: str, bundle: Bundle, person: FeatureTable) -> PersonalModel:
    """The person's model by one method, in 100 steps at most; the oracle is fitted with labels."""
    steps = getattr(get_method(name).config_type(), "iterations", 0)
    method = make_method(name, {name: {"iterations": 100}} if steps > 100 else None)
    if get_method(name).needs_labels:
        return method.adapt(bundle, target_of(person), labels=person.label).model
    return method.adapt(bundle, target_of(person.take(person.label == person.neutral_code))).model


@pytest.fixture(scope="session")
def adapted(bundle: Bundle, person: FeatureTable) -> Callable[[str], PersonalModel]:
    """``adapted("pft")``: the person's model by one method, which is adapted once; not to be changed."""
    return cache(lambda name: adapt(name, bundle, person))


@pytest.fixture(scope="session")
def bundle_of() -> Callable[..., Bundle]:
    """``bundle_of(table, values=None, extractor=…)``: see `make_bundle`."""
    return make_bundle


@pytest.fixture(scope="session")
def table_of() -> Callable[..., FeatureTable]:
    """``table_of(people=5, dim=12)``: see `make_table`."""
    return make_table


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refused() -> Callable[..., object]:
    """``with refused(InputError, "word"):`` the block raises exactly that FeatlabError, in one line with the words."""

    @contextmanager
    def check(kind: type[FeatlabError], *words: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, message

    return check

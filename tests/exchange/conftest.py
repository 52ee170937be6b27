"""One bundle of small people, and a person who is none of its sources."""

from functools import cache

import pytest

from featlab.methods import get_method, make_method, method_names
from featlab.protocol.splits import target_of


@pytest.fixture(scope="session")
def person(people):
    """Rows of the target subject, s04: 12 values, classes (anger, neutral, disgust)."""
    return people(subjects=5, classes=3, frames=8).rows_of("s04")


@pytest.fixture(scope="session")
def bundle(people, small_bundle):
    """Of four others, prepared for every method."""
    return small_bundle(people(subjects=4, classes=3, frames=8), methods=method_names())


def adapt(name, bundle, person):
    """The person's model by one method, in 100 steps at most; the oracle is fitted with labels."""
    steps = getattr(get_method(name).config_type(), "iterations", 0)
    method = make_method(name, {name: {"iterations": 100}} if steps > 100 else None)
    if get_method(name).needs_labels:
        return method.adapt(bundle, target_of(person), labels=person.label).model
    return method.adapt(bundle, target_of(person.take(person.label == person.neutral_code))).model


@pytest.fixture(scope="session")
def adapted(bundle, person):
    """``adapted("pft")``: the person's model by one method, which is adapted once; not to be changed."""
    return cache(lambda name: adapt(name, bundle, person))

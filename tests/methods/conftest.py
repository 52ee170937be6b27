"""One person, s05, whom the source model does not know; a module may bring its own table or bundle."""

import pytest

from featlab.methods.base import SourceFeatures


@pytest.fixture(scope="module")
def table(people):
    return people(subjects=6, classes=3)


@pytest.fixture(scope="module")
def bundle(table, small_bundle):
    return small_bundle(table.without("s05"), methods=("coral", "dsfda", "pft", "sfda-it"))


@pytest.fixture(scope="module")
def source(bundle, table):
    return SourceFeatures.of(bundle, table.without("s05"))


@pytest.fixture(scope="module")
def mine(table):
    """All rows of the target, every class."""
    return table.rows_of("s05")


@pytest.fixture(scope="module")
def features(bundle, mine):
    return bundle.projection.of_rows(mine.embeddings)


@pytest.fixture(scope="module")
def rows(mine):
    """Their neutral rows."""
    return mine.take(mine.label == mine.neutral_code)


@pytest.fixture(scope="module")
def probe(mine):
    """Rows to predict: all of the target's."""
    return mine.embeddings

"""What holds for every registered method, and the registry itself. A new method is under test once it is registered."""

import pytest

from featlab.methods import get_method, method_names

NAMES = method_names()
STEPPED = [name for name in NAMES if hasattr(get_method(name).config_type(), "iterations")]
ORDERLESS = [name for name in NAMES if name != "pft-poster"]
"""Methods that draw no batches: the order of the rows is nothing to them."""
CLASSES = 3


@pytest.fixture(scope="module")
def table(request):
    return request.getfixturevalue("make_table")


@pytest.fixture(scope="module")
def make_table():
    from importlib import import_module

    return import_module("conftest")

"""Random pictures."""

import numpy as np
import pytest


@pytest.fixture
def images():
    """``images(count, size)``: the same noise at every call."""

    def make(count=2, size=32):
        return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))

    return make

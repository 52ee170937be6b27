"""Tiny people: noise above, and below a band that is brighter in a smile."""

import numpy as np
import pytest
from PIL import Image

from featlab.extraction.layouts import read_layout
from featlab.extraction.training.config import TrainConfig


@pytest.fixture
def make_source(tmp_path):
    """Write subject/label/image for some people, and list it."""

    def make(subjects=5, frames=4, side=12, name="source"):
        random = np.random.default_rng(0)
        root = tmp_path / name
        for person in range(subjects):
            for label, text in enumerate(("neutral", "smile")):
                folder = root / f"s{person}" / text
                folder.mkdir(parents=True)
                for frame in range(frames):
                    image = random.integers(0, 256, (side, side, 3))
                    image[side // 2 :] = image[side // 2 :] // 2 + 120 * label
                    Image.fromarray(image.astype(np.uint8)).save(folder / f"{frame}.png")
        return read_layout("auto", root)

    return make


@pytest.fixture
def quick():
    """Two epochs of a few steps, one tap: what a network costs to export grows with what it returns."""
    return TrainConfig(size=12, layers=("maxpool",), epochs=2, batch=8)

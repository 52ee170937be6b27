"""Tiny images, made here."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pixels():
    """A 24 x 20 RGB picture without symmetry, another one for every seed."""

    def make(seed):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((20, 24), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def make_image(pixels):
    """Save a picture; the suffix says how."""

    def make(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path)
        return path

    return make


@pytest.fixture
def make_tree(make_image):
    """subject/label/image for some subjects, two labels and some frames."""

    def make(root, subjects=2, frames=3):
        seed = 0
        for subject in range(subjects):
            for label in ("neutral", "smile"):
                for frame in range(frames):
                    make_image(root / f"s{subject}" / label / f"img{frame}.png", seed)
                    seed += 1
        return root

    return make

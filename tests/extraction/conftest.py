"""Tiny images, made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

MakeImage = Callable[..., Path]
MakeTree = Callable[..., Path]


@pytest.fixture
def pixels() -> Callable[[int], NDArray[np.uint8]]:
    """A 24 x 20 RGB picture without symmetry, another one for every seed."""

    def make(seed: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((20, 24), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def make_image(pixels: Callable[[int], NDArray[np.uint8]]) -> MakeImage:
    """Save a picture; the suffix says how."""

    def make(path: Path, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path)
        return path

    return make


@pytest.fixture
def make_tree(make_image: MakeImage) -> MakeTree:
    """subject/label/image for some subjects, two labels and some frames."""

    def make(root: Path, subjects: int = 2, frames: int = 3) -> Path:
        seed = 0
        for subject in range(subjects):
            for label in ("neutral", "smile"):
                for frame in range(frames):
                    make_image(root / f"s{subject}" / label / f"img{frame}.png", seed)
                    seed += 1
        return root

    return make

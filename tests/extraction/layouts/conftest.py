"""Miniature trees, made here; layouts open no image, so a video is an empty file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from featlab.errors import InputError
from featlab.extraction.layouts import read_layout

Put = Callable[..., Path]
Refused = Callable[..., str]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files below the root, and return the root: a small picture, text, or nothing."""

    def write(*names: str, text: str = "") -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".jpg", ".png"):
                Image.new("L", (8, 8)).save(path)
            else:
                path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def refused() -> Refused:
    """Read a tree that must be refused, and return the one line that says why."""

    def read(name: str, root: Path, **options: object) -> str:
        with pytest.raises(InputError) as caught:
            read_layout(name, root, **options)
        text = str(caught.value)
        assert "\n" not in text
        assert str(root) in text
        return text

    return read

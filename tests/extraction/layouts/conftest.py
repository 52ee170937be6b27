"""Miniature trees, made here; layouts open no image, so a video is an empty file."""

import pytest
from PIL import Image

from featlab.errors import InputError
from featlab.extraction.layouts import read_layout


@pytest.fixture
def put(tmp_path):
    """Write files below the root, and return the root: a small picture, text, or nothing."""

    def write(*names, text=""):
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
def refused():
    """Read a tree that must be refused, and return the one line that says why."""

    def read(name, root, **options):
        with pytest.raises(InputError) as caught:
            read_layout(name, root, **options)
        text = str(caught.value)
        assert "\n" not in text
        assert str(root) in text
        return text

    return read

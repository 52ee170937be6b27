"""Miniature trees, made here; layouts open no image, so a video is an empty file."""

from operator import attrgetter

import pytest
from PIL import Image

from featlab.errors import InputError
from featlab.extraction.layouts import read_layout


@pytest.fixture
def put(tmp_path):
    """Write files below the root, and return the root: a small picture, text, or nothing."""

    def write(*names, text="", root=tmp_path):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".jpg", ".png"):
                Image.new("L", (8, 8)).save(path)
            else:
                path.write_text(text, encoding="utf-8")
        return root

    return write


@pytest.fixture
def facts():
    """``facts("bah", root, "subject frame", split="test")``: these values of every item; its file is where it says."""

    def read(layout, root, names, **options):
        items = read_layout(layout, root, **options)
        if root.is_dir() and layout != "auto":
            assert all(item.path == root / item.name.partition("#")[0] for item in items)
        if layout not in ("auto", "manifest"):
            assert [item.row for item in items] == list(range(len(items)))
        return [attrgetter(*names.split())(item) for item in items]

    return read


@pytest.fixture
def refuses(refused):
    """``refuses("bah", root, "words", split="test")``: one line that names the source and holds the words."""

    def check(layout, root, *words, **options):
        with refused(InputError, str(root), *words):
            read_layout(layout, root, **options)

    return check

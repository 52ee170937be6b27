"""The layouts that were there before layouts: folders and manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from featlab.errors import InputError
from featlab.extraction.layouts import read_layout
from featlab.extraction.layouts.plain import read_source

Put = Callable[..., Path]


def test_folders_are_what_a_folder_as_a_source_is(put: Put) -> None:
    root = put("s1/neutral/img2.png", "s1/neutral/img10.png", "s2/smile/v/1.png")
    assert read_layout("folders", root) == read_source(root)


def test_a_manifest_keeps_its_own_rows_by_name_of_file_or_folder(put: Put) -> None:
    root = put("manifest.csv", text="path,subject,label\nb.png,s2,smile\na.png,s1,neutral\n")
    items = read_layout("manifest", root)
    assert items == read_layout("manifest", root / "manifest.csv") == read_source(root / "manifest.csv")
    assert [(item.subject, item.row) for item in items] == [("s1", 1), ("s2", 0)]
    assert read_layout("auto", root) == items


def test_a_folder_without_a_manifest_says_so(put: Put) -> None:
    root = put("s1/neutral/1.png")
    with pytest.raises(InputError, match=r"expected a manifest.csv with path,subject,.*; found s1/"):
        read_layout("manifest", root)

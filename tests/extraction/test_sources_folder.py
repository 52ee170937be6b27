from __future__ import annotations

from pathlib import Path

import pytest

from featlab.errors import InputError
from featlab.extraction.layouts.plain import read_source


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_a_folder_with_and_without_video_level_is_read_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/neutral/img10.JPG", "b/neutral/img2.JPG", "a/smile/v2/1.png", "a/smile/v10/1.png")
    items = read_source(tmp_path)
    assert [(item.name, item.subject, item.label, item.video, item.frame, item.row) for item in items] == [
        ("a/smile/v10/1.png", "a", "smile", "a/smile/v10", 0, 0),
        ("a/smile/v2/1.png", "a", "smile", "a/smile/v2", 0, 1),
        ("b/neutral/img2.JPG", "b", "neutral", "b/neutral", 0, 2),
        ("b/neutral/img10.JPG", "b", "neutral", "b/neutral", 1, 3),
    ]
    assert items[0].path == tmp_path / "a" / "smile" / "v10" / "1.png"


def test_hidden_entries_and_other_files_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a/n/1.png", "a/n/.2.png", ".git/x/1.png", "a/n/notes.txt", "landmarks.npy", "a/n/v/deep/more.txt")
    assert [item.name for item in read_source(tmp_path)] == ["a/n/1.png"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["1.png"], "found the image 1.png"),
        (["a/1.png"], "found the image a/1.png"),
        (["a/n/v/deep/1.png"], "found 1.png below"),
        (["a/readme.txt"], "found no images in it (it has a/)"),
        ([], "found no images in it (the folder is empty)"),
    ],
)
def test_a_tree_of_another_shape_says_what_was_expected_and_found(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_source(touch(tmp_path, *names))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}: expected subject/label/image or subject/label/video/image")
    assert says in text


def test_a_link_to_a_parent_does_not_loop(tmp_path: Path) -> None:
    touch(tmp_path, "a/n/1.png")
    (tmp_path / "a" / "n" / "up").symlink_to(tmp_path)
    assert [item.name for item in read_source(tmp_path)] == ["a/n/1.png"]

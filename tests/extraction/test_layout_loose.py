"""One person's images and videos as they lie about."""

from pathlib import Path

import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.layouts import read_layout
from featlab.extraction.layouts.loose import is_loose


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_a_folder_gives_one_clip_a_folder_and_one_a_video_in_natural_order(tmp_path):
    root = touch(
        tmp_path / "mine", "img10.jpg", "img2.PNG", "talk.mp4", ".hidden.jpg", "notes.txt", "b/1.png", "b/film.avi"
    )
    items = read_layout("loose", root, subject="s1")
    assert [(item.name, item.video, item.frame) for item in items] == [
        ("b/1.png", "b", 0),
        ("b/film.avi", "b/film.avi", 0),
        ("img2.PNG", "mine/", 0),
        ("img10.jpg", "mine/", 1),
        ("talk.mp4", "talk.mp4", 0),
    ]
    assert {(item.subject, item.label, item.at) for item in items} == {("s1", None, None)}
    assert [item.row for item in items] == [0, 1, 2, 3, 4]
    assert all(item.path.is_file() for item in items)


def test_a_folder_of_the_same_name_inside_is_another_clip(tmp_path):
    root = touch(tmp_path / "mine", "a.png", "mine/a.png")
    items = read_layout("loose", root)
    assert len({(item.video, item.frame) for item in items}) == 2


def test_a_file_is_a_clip_by_itself(tmp_path):
    root = touch(tmp_path, "face.jpg")
    assert [item.name for item in read_layout("loose", root / "face.jpg")] == ["face.jpg"]


@pytest.mark.parametrize(
    ("names", "loose"),
    [
        (("a.jpg",), True),
        (("clip/a.jpg",), True),
        (("clip/a.mp4",), True),
        (("s1/neutral/a.jpg",), False),
        (("a.jpg", "manifest.csv"), False),
        (("notes.txt",), False),
    ],
)
def test_a_source_is_loose_when_its_images_lie_at_most_one_folder_down(tmp_path, names, loose):
    assert is_loose(touch(tmp_path, *names)) is loose


@pytest.mark.parametrize("name", ["notes.txt", "empty", "nosuch"])
def test_sources_without_images_are_refused(tmp_path, name):
    touch(tmp_path, "notes.txt", "empty/.jpg")
    with pytest.raises(InputError, match=name) as caught:
        read_layout("loose", tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_option_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="subject"):
        read_layout("loose", touch(tmp_path, "a.jpg"), person="s1")

"""Whatever an item is in, its pixels come in the order of the items."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction import decode as module
from featlab.extraction.decode import decode_image, read_pixels
from featlab.extraction.items import Item
from featlab.extraction.video.expand import expand_videos

MakeVideo = Callable[..., Path]
MakeImage = Callable[..., Path]
ReadNumber = Callable[[object], int]


def item(path: Path, **more: object) -> Item:
    return replace(Item(path, path.name, "s", "n", "v", 0, 0), **more)  # type: ignore[arg-type]


def test_images_frames_and_failures_come_in_the_order_of_the_items(
    tmp_path: Path, make_image: MakeImage, make_video: MakeVideo, read_number: ReadNumber
) -> None:
    image = make_image(tmp_path / "i.png", 3)
    first, second = (expand_videos([item(make_video(tmp_path / name, range(9)))]).items for name in ("a.mp4", "b.mkv"))
    mixed = [
        first[2], first[5], item(image), second[1], second[0], second[8], first[8], item(tmp_path / "x.png"), first[0],
        first[0],
    ]  # fmt: skip
    results = list(read_pixels(mixed))
    np.testing.assert_array_equal(results[2], decode_image(image))
    assert isinstance(results[7], InputError)
    assert str(results[7]) == "no such file"
    numbers = [read_number(result) for place, result in enumerate(results) if place not in (2, 7)]
    assert numbers == [2, 5, 1, 0, 8, 8, 0, 0]


def test_consecutive_frames_of_a_video_are_one_pass(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = expand_videos([item(make_video(tmp_path / "a.mp4", range(9)))]).items
    passes: list[list[int]] = []
    original = module.decode_frames

    def counted(path: Path, stamps: list[int]) -> object:
        passes.append(stamps)
        return original(path, stamps)

    monkeypatch.setattr(module, "decode_frames", counted)
    assert len(list(read_pixels([*frames[1:8:2], frames[0]]))) == 5
    assert passes == [[512, 1536, 2560, 3584], [0]]


def test_a_whole_video_or_csv_is_no_image(tmp_path: Path) -> None:
    reasons = [str(result) for result in read_pixels([item(tmp_path / "a.mp4"), item(tmp_path / "a.csv")])]
    assert reasons == [
        "a whole video, not one frame of it; expand_videos turns it into frames",
        "a whole csv, not one image of it",
    ]


def test_a_line_of_a_csv_is_read_at_its_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ModuleType("csv_pixels")

    def decode(path: Path, offset: int) -> object:
        if offset == 99:
            raise InputError("no line starts there")
        return np.full((2, 2, 3), offset, dtype=np.uint8)

    reader.decode_csv_pixels = decode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "featlab.extraction.decode", reader)
    path = tmp_path / "A.CSV"
    good, bad = read_pixels([item(path, at=12), item(path, at=99)])
    np.testing.assert_array_equal(good, np.full((2, 2, 3), 12))
    assert str(bad) == "no line starts there"


def test_a_box_cuts_the_image_and_is_cut_at_its_edge(tmp_path: Path, make_image: MakeImage) -> None:
    path = make_image(tmp_path / "i.png", 3)
    whole = decode_image(path)  # 24 high, 20 wide
    inside, over, outside, empty = read_pixels(
        [item(path, box=box) for box in ((2, 3, 12, 9), (-5, 20, 4, 90), (20, 0, 30, 9), (5, 5, 5, 9))]
    )
    np.testing.assert_array_equal(inside, whole[3:9, 2:12])
    np.testing.assert_array_equal(over, whole[20:24, 0:4])
    assert str(outside) == "the box 20,0,30,9 has nothing of the image, 20x24"
    assert isinstance(empty, InputError)


def test_without_pyav_frames_are_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'featlab\[video\]'"):
        list(read_pixels([item(tmp_path / "a.mp4", at=0)]))

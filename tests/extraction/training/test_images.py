"""Source subjects' images are decoded once, nobody else's are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featlab.errors import InputError
from featlab.extraction import decode as pixels_module
from featlab.extraction.decode import decode_image
from featlab.extraction.items import Item
from featlab.extraction.training.data import choose_people, load_images, normalise, to_floats

CLASSES = ("neutral", "smile")

MakeSource = Callable[..., list[Item]]


def test_pixels_are_those_of_the_files_in_ram_and_in_a_file(make_source: MakeSource, tmp_path: Path) -> None:
    items = make_source(subjects=3)
    people = choose_people(items, [], 0.3, 0)
    spill = tmp_path / "training" / "pixels.uint8"
    seen: list[tuple[int, int]] = []
    in_ram = load_images(
        items, people, CLASSES, size=12, ram_mb=1, spill=spill, on_image=lambda done, total: seen.append((done, total))
    )
    assert not spill.exists()
    mapped = load_images(items, people, CLASSES, size=12, ram_mb=0, spill=spill)
    assert spill.stat().st_size == len(items) * 12 * 12 * 3
    assert seen[0] == (1, 24)
    assert seen[-1] == (24, 24)
    np.testing.assert_array_equal(in_ram.pixels, np.stack([decode_image(item.path) for item in items]))
    np.testing.assert_array_equal(mapped.pixels, in_ram.pixels)
    assert [in_ram.subjects[code] for code in in_ram.subject] == [item.subject for item in items]
    assert [CLASSES[code] for code in in_ram.label] == [item.label for item in items]
    rows = in_ram.rows_of(["s1"])
    assert {items[row].subject for row in rows} == {"s1"}
    assert len(rows) == 8


def test_no_image_of_a_held_out_subject_is_opened(make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    items = make_source(subjects=4)
    opened: list[Path] = []

    def spy(path: Path) -> object:
        opened.append(path)
        return decode_image(path)

    monkeypatch.setattr(pixels_module, "decode_image", spy)
    people = choose_people(items, ["s2"], 0.3, 0)
    load_images(items, people, CLASSES, size=12, ram_mb=1, spill=Path("unused"))
    assert len(opened) == 24
    assert not [path for path in opened if "s2" in path.parts]


def test_unreadable_and_unlabelled_images_are_left_out_and_the_first_are_listed(make_source: MakeSource) -> None:
    items = make_source(subjects=3)
    items[3].path.write_bytes(b"")
    unlabelled = Item(items[0].path, "more.png", "s0", None, "more", 0, 99)
    people = choose_people(items, [], 0.3, 0)
    images = load_images([*items, unlabelled], people, CLASSES, size=12, ram_mb=1, spill=Path("unused"))
    assert len(images.label) == len(images.pixels) == 23
    assert images.failures == ((items[3].name, "the file is empty"),)
    np.testing.assert_array_equal(images.pixels[3], decode_image(items[4].path))


def test_people_with_images_of_one_class_only_are_refused(make_source: MakeSource) -> None:
    items = make_source(subjects=3)
    people = choose_people(items, [], 0.3, 0)
    rest = [item for item in items if item.label == "neutral" or item.subject in people.fit]
    with pytest.raises(InputError, match=r"1 source subjects that are held out for validation.*1 classes \(neutral\)"):
        load_images(rest, people, CLASSES, size=12, ram_mb=1, spill=Path("unused"))


def test_images_of_another_size_are_resized(make_source: MakeSource) -> None:
    items = make_source(subjects=2, side=20)
    people = choose_people(items, [], 0.3, 0)
    images = load_images(items, people, CLASSES, size=10, ram_mb=1, spill=Path("unused"))
    expected = Image.fromarray(decode_image(items[0].path)).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.pixels[0], np.asarray(expected))


def test_floats_are_scaled_ordered_and_normalised() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    floats = to_floats(pixels)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(floats.numpy(), pixels.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    green = (pixels[0, 1, 2, 1] / 255 - 0.456) / 0.224
    assert float(normalise(floats)[0, 1, 1, 2]) == pytest.approx(green, rel=1e-5)

"""Who trains and who is held out, whose images are opened, and how often an epoch shows them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featlab.errors import InputError
from featlab.extraction import decode
from featlab.extraction.decode import decode_image
from featlab.extraction.items import Item
from featlab.extraction.training.data import (
    balanced_epoch,
    balanced_groups,
    batches,
    choose_people,
    load_images,
    normalise,
    to_floats,
)
from featlab.protocol.splits import choose_targets, subjects_held_out

PEOPLE = [f"p{number:02}" for number in range(20)]
CLASSES = ("neutral", "smile")


def listed(names, label="neutral"):
    return [Item(Path(f"{name}.png"), f"{name}.png", name, label, "v", 0, row) for row, name in enumerate(names)]


def load(items, people, *, size=12, ram_mb=1, spill=Path("unused"), **options):
    return load_images(items, people, CLASSES, size=size, ram_mb=ram_mb, spill=spill, **options)


def test_everyone_who_is_a_target_in_any_draw_or_named_is_held_out(tmp_path):
    draws = [choose_targets(PEOPLE, "4", seed=3, draw=draw) for draw in range(3)]
    held = subjects_held_out(PEOPLE, "4", draws=3, seed=3, named=["p00"])
    assert set(held) == {"p00", *draws[0], *draws[1], *draws[2]}
    assert list(held) == sorted(held)
    assert len(held) > 4
    file = tmp_path / "targets.txt"
    file.write_text("p03\np01  # comment\n")
    assert subjects_held_out(PEOPLE, str(file), draws=5) == ("p01", "p03")
    assert subjects_held_out(PEOPLE, "p02,p07") == ("p02", "p07")
    assert subjects_held_out(PEOPLE, None) == ()


def test_unknown_people_and_too_few_are_refused(refused):
    items = listed(["a", "b", "c"]) + listed(["d"], label=None)
    assert "d" not in choose_people(items, [], 0.3, 0).source
    with refused(InputError, "2 or more source subjects with labels", "1 of 4 are left"):
        choose_people(items, ["a", "b"], 0.3, 0)
    with refused(InputError, "unknown subject 'q07'", "did you mean 'p07'"):
        choose_people(listed(PEOPLE), ["q07"], 0.2, 0)


def test_parts_are_disjoint_complete_and_reproducible():
    people = choose_people(listed(PEOPLE), ["p05", "p06"], 0.25, 0)
    assert len(people.validation) == round(0.25 * 18)
    assert sorted((*people.fit, *people.validation, *people.held_out)) == PEOPLE
    assert set(people.source) == set(PEOPLE) - {"p05", "p06"}
    assert people == choose_people(listed(PEOPLE)[::-1], ["p06", "p05"], 0.25, 0)
    assert people.validation != choose_people(listed(PEOPLE), ["p05", "p06"], 0.25, 1).validation
    for fraction in (0.01, 0.99):
        two = choose_people(listed(PEOPLE[:2]), [], fraction, 0)
        assert (len(two.fit), len(two.validation)) == (1, 1)


def test_pixels_are_those_of_the_files_in_ram_and_in_a_file(make_source, tmp_path):
    items = make_source(subjects=3)
    people = choose_people(items, [], 0.3, 0)
    spill = tmp_path / "training" / "pixels.uint8"
    seen = []
    in_ram = load(items, people, spill=spill, on_image=lambda *now: seen.append(now))
    assert not spill.exists()
    mapped = load(items, people, ram_mb=0, spill=spill)
    assert spill.stat().st_size == len(items) * 12 * 12 * 3
    assert seen == [(done, 24) for done in range(1, 25)]
    np.testing.assert_array_equal(in_ram.pixels, np.stack([decode_image(item.path) for item in items]))
    np.testing.assert_array_equal(mapped.pixels, in_ram.pixels)
    assert [in_ram.subjects[code] for code in in_ram.subject] == [item.subject for item in items]
    assert [CLASSES[code] for code in in_ram.label] == [item.label for item in items]
    rows = in_ram.rows_of(["s1"])
    assert {items[row].subject for row in rows} == {"s1"}
    assert len(rows) == 8


def test_no_image_of_a_held_out_subject_is_opened(make_source, monkeypatch):
    items = make_source(subjects=4)
    opened = []

    def spy(path):
        opened.append(path)
        return decode_image(path)

    monkeypatch.setattr(decode, "decode_image", spy)
    load(items, choose_people(items, ["s2"], 0.3, 0))
    assert len(opened) == 24
    assert not [path for path in opened if "s2" in path.parts]


def test_unreadable_and_unlabelled_images_are_left_out_and_the_first_are_listed(make_source):
    items = make_source(subjects=3)
    items[3].path.write_bytes(b"")
    unlabelled = Item(items[0].path, "more.png", "s0", None, "more", 0, 99)
    people = choose_people(items, [], 0.3, 0)
    images = load([*items, unlabelled], people)
    assert len(images.label) == len(images.pixels) == 23
    assert images.failures == ((items[3].name, "the file is empty"),)
    np.testing.assert_array_equal(images.pixels[3], decode_image(items[4].path))
    rest = [item for item in items if item.label == "neutral" or item.subject in people.fit]
    with pytest.raises(InputError, match=r"1 source subjects that are held out for validation.*1 classes \(neutral\)"):
        load(rest, people)


def test_images_are_resized_and_floats_are_scaled_ordered_and_normalised(make_source):
    items = make_source(subjects=2, side=20)
    images = load(items, choose_people(items, [], 0.3, 0), size=10)
    expected = Image.fromarray(decode_image(items[0].path)).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.pixels[0], np.asarray(expected))
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    floats = to_floats(pixels)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(floats.numpy(), pixels.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    green = (pixels[0, 1, 2, 1] / 255 - 0.456) / 0.224
    assert float(normalise(floats)[0, 1, 1, 2]) == pytest.approx(green, rel=1e-5)


def epoch_of(subject, label):
    return balanced_epoch(balanced_groups(subject, label), torch.Generator().manual_seed(0))


def test_fractions_are_equal_over_classes_and_over_subjects_within_a_class():
    # Class 0: subject 0 with 90 rows, subject 1 with 10. Class 1: subject 0 alone, 20 rows.
    subject, label = np.array([0] * 90 + [1] * 10 + [0] * 20), np.array([0] * 100 + [1] * 20)
    epoch = epoch_of(subject, label).numpy()
    assert len(epoch) == 120
    pairs = list(zip(label[epoch].tolist(), subject[epoch].tolist(), strict=True))
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {(0, 0): 30, (0, 1): 30, (1, 0): 60}
    # An image comes again only after all of its group.
    counts = torch.bincount(epoch_of(np.array([0] * 9 + [1] * 3), np.zeros(12, dtype=np.intp)), minlength=12)
    assert sorted(counts[9:].tolist()) == [2, 2, 2]
    assert counts[:9].max() == 1
    # Batches are of one size, and at least one.
    assert [part.tolist() for part in batches(torch.arange(7), 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [part.tolist() for part in batches(torch.arange(2), 3)] == [[0, 1]]


def test_balanced_rows_are_each_seen_once_and_in_a_new_order():
    random = torch.Generator().manual_seed(0)
    groups = balanced_groups(np.repeat([0, 1, 2], 8), np.tile([0, 1], 12))
    first, second = balanced_epoch(groups, random), balanced_epoch(groups, random)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert first.tolist() != second.tolist()

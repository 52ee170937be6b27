from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from featlab.config.options import with_options
from featlab.errors import ConfigError, InputError
from featlab.extraction import decode
from featlab.extraction.decode import decode_image
from featlab.extraction.items import Item
from featlab.extraction.training import TrainConfig
from featlab.extraction.training.data import (
    augment,
    balanced_epoch,
    balanced_groups,
    batches,
    choose_people,
    load_images,
    normalise,
)

PEOPLE = [f"p{number:02}" for number in range(20)]
CLASSES = ("neutral", "smile")


def listed(names, label="neutral"):
    return [Item(Path(f"{name}.png"), f"{name}.png", name, label, "v", 0, row) for row, name in enumerate(names)]


@pytest.fixture
def load(tmp_path):
    def load(items, people, *, size=12, **options):
        return load_images(items, people, CLASSES, size=size, file=tmp_path / "pixels", **options)

    return load


def test_parts_are_disjoint_complete_and_reproducible_and_unknown_or_too_few_people_are_refused(refused):
    people = choose_people(listed(PEOPLE), ["p05", "p06"], 0.25, 0)
    assert len(people.validation) == round(0.25 * 18)
    assert sorted((*people.fit, *people.validation, *people.held_out)) == PEOPLE
    assert set(people.source) == set(PEOPLE) - {"p05", "p06"}
    assert people == choose_people(listed(PEOPLE)[::-1], ["p06", "p05"], 0.25, 0)
    assert people.validation != choose_people(listed(PEOPLE), ["p05", "p06"], 0.25, 1).validation
    for fraction in (0.01, 0.99):
        two = choose_people(listed(PEOPLE[:2]), [], fraction, 0)
        assert (len(two.fit), len(two.validation)) == (1, 1)
    items = listed(["a", "b", "c"]) + listed(["d"], label=None)
    assert "d" not in choose_people(items, [], 0.3, 0).source
    for held, *words in (
        (["a", "b"], "2 or more source subjects with labels", "1 of 4 are left"),
        (["bb"], "unknown subject 'bb'", "did you mean 'b'"),
    ):
        with refused(InputError, *words):
            choose_people(items, held, 0.3, 0)


def test_pixels_are_those_of_the_files_and_no_held_out_image_is_opened(make_source, load, monkeypatch, refused):
    items = make_source(subjects=4, side=20)
    kept = [item for item in items if item.subject != "s2"]
    kept.remove(bad := kept[3])
    bad.path.write_bytes(b"")
    expected = [Image.fromarray(decode_image(item.path)).resize((10, 10), Image.Resampling.BILINEAR) for item in kept]
    opened, seen = [], []
    monkeypatch.setattr(decode, "decode_image", lambda path: opened.append(path) or decode_image(path))
    unlabelled = Item(items[0].path, "more.png", "s0", None, "more", 0, 99)
    people = choose_people(items, ["s2"], 0.3, 0)
    images = load([*items, unlabelled], people, size=10, on_image=lambda *now: seen.append(now))
    assert sorted(opened) == sorted([bad.path, *(item.path for item in kept)])
    assert seen == [(done, 24) for done in range(1, 25)]
    assert images.failures == ((bad.name, "the file is empty"),)
    np.testing.assert_array_equal(images.pixels, np.stack(expected))
    assert [images.subjects[code] for code in images.subject] == [item.subject for item in kept]
    assert [CLASSES[code] for code in images.label] == [item.label for item in kept]
    assert images.rows_of(["s1"]).tolist() == [row for row, item in enumerate(kept) if item.subject == "s1"]
    floats = images.batch(np.array([2, 1]), "cpu")
    assert floats.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(floats.numpy(), images.pixels[[2, 1]].transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    green = (images.pixels[2, 1, 2, 1] / 255 - 0.456) / 0.224
    assert float(normalise(floats)[0, 1, 1, 2]) == pytest.approx(green, rel=1e-5)
    rest = [item for item in items if item.label == "neutral" or item.subject in people.fit]
    with refused(InputError, "1 source subjects that are held out for validation", "1 classes (neutral)"):
        load(rest, people)


def test_fractions_are_equal_over_classes_and_over_subjects_within_a_class():
    # Class 0: subject 0 with 90 rows, subject 1 with 10. Class 1: subject 0 alone, 20 rows.
    subject, label = np.array([0] * 90 + [1] * 10 + [0] * 20), np.array([0] * 100 + [1] * 20)
    random = torch.Generator().manual_seed(0)
    groups = balanced_groups(subject, label)
    first, second = balanced_epoch(groups, random), balanced_epoch(groups, random)
    pairs = Counter(zip(label[first].tolist(), subject[first].tolist(), strict=True))
    assert pairs == {(0, 0): 30, (0, 1): 30, (1, 0): 60}
    # An image comes again only after all of its group, and the order is another each time.
    counts = torch.bincount(first, minlength=120)
    assert (counts[:90].max(), set(counts[90:].tolist())) == (1, {3})
    assert first.tolist() != second.tolist()
    # Batches are of one size, and at least one.
    assert [part.tolist() for part in batches(torch.arange(7), 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [part.tolist() for part in batches(torch.arange(2), 3)] == [[0, 1]]


NOTHING = dict.fromkeys(("flip", "move", "light", "noise", "erase"), 0.0)


def noise(count=6, side=16):
    return 0.3 + 0.4 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def changed(images, **strengths):
    return augment(images, TrainConfig(**{**NOTHING, **strengths}), torch.Generator().manual_seed(0))


def test_each_change_is_drawn_by_the_generator_and_turning_one_off_leaves_those_of_the_others():
    images = noise()
    for name in NOTHING:
        other = changed(images, **{name: 1.0})
        assert other.shape == images.shape
        assert 0 <= other.min() <= other.max() <= 1
        assert bool(((other - images).abs().amax(dim=(1, 2, 3)) > 1e-3).all()), name
    assert torch.equal(changed(images), images)
    assert torch.equal(changed(images, flip=1.0), images.flip(3))
    first, again, other = (augment(images, TrainConfig(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(changed(images, light=1.0, noise=1e-6), changed(images, light=1.0), rtol=0, atol=1e-4)
    # Only the share that moves is resampled.
    images = noise(count=400, side=8)
    same = (changed(images, move=0.3) == images).flatten(1).all(dim=1)
    assert 0.6 < same.float().mean() < 0.8


def test_light_keeps_what_is_brighter_brighter_and_erasing_fills_one_rectangle():
    images = noise(count=200, side=4)
    other = changed(images, light=1.0)
    assert float((other - images).mean()) == pytest.approx(0, abs=0.03)
    plain, lit = ((each - each.mean(dim=(2, 3), keepdim=True)).flatten(1) for each in (images, other))
    assert float(F.cosine_similarity(plain, lit).mean()) > 0.9
    images = noise(count=50, side=40)
    for hole in (changed(images, erase=1.0) != images).any(dim=1):
        rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
        high, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert int(hole.sum()) == high * wide
        assert 7 <= high <= 21  # a fifth to a half of the side
        assert 7 <= wide <= 21


def test_settings_that_make_no_sense_are_refused(refused):
    for name, value, words in (
        ("lr", 0, "lr = 0"),
        ("validation", 1.0, "validation"),
        ("batch", 1, "batch = 1"),
        ("augment.blur", 1, "unknown key backbone.augment.blur"),
        ("light", -0.1, "light = -0.1"),
        ("flip", 1.5, "flip = 1.5"),
    ):
        with refused(ConfigError, words):
            with_options(TrainConfig(), {name: value}, "backbone")

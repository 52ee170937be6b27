"""Each change does what its strength says, and nothing else."""

from dataclasses import fields

import torch

from featlab.errors import ConfigError
from featlab.extraction.training.config import AugmentConfig, TrainConfig
from featlab.extraction.training.data import augment

NOTHING = {entry.name: 0.0 for entry in fields(AugmentConfig)}


def _images(count=6, side=16):
    values = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))
    return 0.3 + 0.4 * values


def _changed(images, seed=0, **strengths):
    return augment(images, AugmentConfig(**{**NOTHING, **strengths}), torch.Generator().manual_seed(seed))


def test_all_strengths_of_zero_change_nothing_and_flip_mirrors_left_and_right():
    images = _images()
    torch.testing.assert_close(_changed(images), images, rtol=0, atol=0)
    torch.testing.assert_close(_changed(images, flip=1.0), images.flip(3), rtol=0, atol=0)


def test_each_change_alone_changes_images_and_stays_in_range():
    images = _images()
    for name in set(NOTHING) - {"move"}:
        strength = {"flip": 1.0, "rotation": 20.0, "erase": 1.0}.get(name, 0.3)
        changed = _changed(images, move=1.0, **{name: strength})
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert bool(((changed - images).abs().amax(dim=(1, 2, 3)) > 1e-3).all()), name


def test_the_generator_says_the_draws_and_turning_one_change_off_leaves_those_of_the_others():
    images, config = _images(), AugmentConfig()
    first, again, other = (augment(images, config, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    with_noise = _changed(images, brightness=0.1, noise=1e-6)
    torch.testing.assert_close(with_noise, _changed(images, brightness=0.1), rtol=0, atol=1e-4)


def test_a_shift_moves_by_at_most_its_share_of_the_side():
    side = 32
    images = torch.zeros(64, 3, side, side)
    images[:, :, side // 2, side // 2] = 1
    place = torch.arange(side) - side // 2
    moved = _changed(images, shift=0.25, move=1.0)[:, 0]
    weight = moved.sum(dim=(1, 2))
    for axis in (1, 2):
        distance = (moved.sum(dim=3 - axis) * place).sum(dim=1) / weight
        assert distance.abs().max() < 0.25 * side + 1
        assert distance.abs().max() > 0.2 * side
        assert distance.min() < 0 < distance.max()


def test_only_the_share_that_moves_is_resampled():
    images = _images(count=400, side=8)
    same = (_changed(images, rotation=10, move=0.3) == images).flatten(1).all(dim=1)
    assert 0.6 < same.float().mean() < 0.8


def test_brightness_adds_one_value_to_all_of_an_image_and_contrast_keeps_the_mean():
    images = _images(count=200, side=4)
    added = (_changed(images, brightness=0.2) - images).flatten(1)
    assert (added.amax(dim=1) - added.amin(dim=1)).max() < 1e-6
    assert added.abs().max() <= 0.2 + 1e-6
    assert added.min() < -0.15
    assert added.max() > 0.15
    images = _images()
    changed = _changed(images, contrast=0.2)
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)))
    assert not torch.equal(changed, images)


def test_erasing_fills_one_rectangle_of_a_fifth_to_a_half_of_each_side():
    images = _images(count=50, side=40)
    changed = (_changed(images, erase=1.0) != images).any(dim=1)
    for hole in changed:
        rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
        high, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert int(hole.sum()) == high * wide
        assert 7 <= high <= 21
        assert 7 <= wide <= 21


def test_strengths_that_mean_nothing_are_refused(refused):
    for name, value in (("noise", -0.1), ("flip", 1.5), ("shift", float("nan"))):
        with refused(ConfigError, f"augment.{name}"):
            TrainConfig().with_values({f"augment.{name}": value})

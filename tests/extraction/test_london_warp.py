"""The morph: where points go, pixels go."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.transform import PiecewiseAffineTransform

from featlab.errors import InputError
from featlab.extraction.london_warp import (
    Morph,
    Similarity,
    border,
    cover,
    eye_similarity,
    make_morph,
    resample,
    sample,
    triangulate,
)

SIDE = 48


def mesh(seed: int = 0, width: float = 100.0) -> NDArray[np.float64]:
    """A face-sized cloud of 478 points with two eyes."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (478, 2)) * (0.4, 0.45) + (0.5, 0.55)
    points[[33, 133, 362, 263]] = [(0.25, 0.42), (0.40, 0.42), (0.60, 0.42), (0.75, 0.42)]
    return points * width


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).uniform(0, 255, (height // 10, width // 10, 3))
    return np.kron(coarse, np.ones((10, 10, 1))).round().astype(np.uint8)


def grid(side: int) -> NDArray[np.float64]:
    axis = np.arange(side, dtype=np.float64)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


@pytest.mark.parametrize("turn", [0.0, 0.3, -0.5])
def test_the_eyes_of_a_crop_are_level_and_at_their_place(turn: float) -> None:
    face = Similarity(1.7 * np.exp(1j * turn), 30 - 12j)(mesh())
    placed = eye_similarity(face, 160)(face)
    left, right = placed[[33, 133]].mean(axis=0), placed[[362, 263]].mean(axis=0)
    np.testing.assert_allclose(left, (80 - 28.8, 64), atol=1e-9)
    np.testing.assert_allclose(right, (80 + 28.8, 64), atol=1e-9)


def test_a_similarity_and_its_inverse_cancel() -> None:
    there = Similarity(0.4 - 0.2j, 5 + 3j)
    points = mesh()
    np.testing.assert_allclose(there.inverse()(there(points)), points, atol=1e-9)


@pytest.mark.parametrize("shrink", [False, True])
def test_a_ramp_stays_a_ramp(shrink: bool) -> None:
    # Bilinear values and their averages are exact for a linear picture, so this says where every pixel comes from.
    source = grid(200)[..., :1] * 0.5 + grid(200)[..., 1:] * 0.25
    place = Similarity(0.3 * np.exp(0.1j), 2 - 1j)
    drawn = resample(source, place, 40, shrink=shrink)
    x, y = np.moveaxis(place.inverse()(grid(40)), -1, 0)
    inside = (x > 4) & (x < 195) & (y > 4) & (y < 195)
    assert inside.sum() > 1000
    np.testing.assert_allclose(drawn[..., 0][inside], (0.5 * x + 0.25 * y)[inside], atol=1e-9)


def test_a_reduction_averages_detail_that_it_can_not_show() -> None:
    checkers = (grid(200).sum(axis=-1) % 2)[..., None] * 200
    drawn = resample(checkers, Similarity(0.25, -0.375 - 0.375j), 50, shrink=True)
    assert np.abs(drawn[1:-1, 1:-1] - 100).max() < 1
    # Unaveraged, every fourth pixel of checkers is a black one.
    assert resample(checkers, Similarity(0.25, 0j), 50, shrink=False).max() == 0


def test_the_warp_is_the_piecewise_affine_map_of_scikit_image() -> None:
    rng = np.random.default_rng(3)
    inner = rng.uniform(4, SIDE - 5, (30, 2))
    target = np.concatenate((inner, border(SIDE)))
    source = np.concatenate((inner + rng.normal(0, 1.5, inner.shape), border(SIDE)))
    oracle = PiecewiseAffineTransform()
    oracle.estimate(target, source)
    expected = oracle(grid(SIDE).reshape(-1, 2)).reshape(SIDE, SIDE, 2)
    found = cover(target, triangulate(target), SIDE).sources(source)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_weights_are_barycentric_and_every_pixel_has_some() -> None:
    shape = np.concatenate((mesh(1, SIDE)[:468], border(SIDE)))
    found = cover(shape, triangulate(shape), SIDE)
    np.testing.assert_array_equal(found.pixel, np.arange(SIDE * SIDE))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    assert found.weights.min() >= -1e-8
    np.testing.assert_allclose(found.sources(shape), grid(SIDE), atol=1e-8)


def test_a_fold_leaves_no_hole() -> None:
    shape = np.concatenate(([(15.0, 20.0), (30.0, 22.0), (22.0, 35.0)], border(SIDE)))
    triangles = triangulate(shape)
    swapped = shape.copy()
    swapped[[0, 1]] = shape[[1, 0]]
    found = cover(swapped, triangles, SIDE)
    np.testing.assert_array_equal(found.pixel, np.arange(SIDE * SIDE))
    # What comes out is in the picture that it comes from.
    assert found.sources(shape).min() >= -1e-6
    assert found.sources(shape).max() <= SIDE - 1 + 1e-6


def test_points_outside_of_the_frame_are_no_harm() -> None:
    shape = np.concatenate((mesh(2, SIDE)[:100], [(20.0, SIDE + 6.0), (-5.0, 10.0)], border(SIDE)))
    found = cover(shape, triangulate(shape), SIDE)
    np.testing.assert_allclose(found.sources(shape), grid(SIDE), atol=1e-8)


def test_a_morph_begins_and_ends_with_the_photographs() -> None:
    smiling = mesh() + np.where(mesh()[:, 1:] > 70, np.array((3.0, -4.0)), 0.0)
    morph = make_morph(picture(0, 100, 100), picture(1, 120, 110), mesh(), smiling, SIDE)
    for intensity, image, points in (
        (0.0, morph.neutral, morph.neutral_mesh),
        (1.0, morph.smiling, morph.smiling_mesh),
    ):
        drawn, at = morph.at(intensity)
        np.testing.assert_allclose(drawn, image, atol=1e-5)
        np.testing.assert_array_equal(at, points)


def test_landmarks_move_on_straight_lines() -> None:
    smiling = mesh() + np.random.default_rng(5).normal(0, 2, (478, 2))
    morph = make_morph(picture(0, 100, 100), picture(1, 100, 100), mesh(), smiling, SIDE)
    _, quarter = morph.at(0.25)
    np.testing.assert_allclose(quarter, morph.neutral_mesh + (morph.smiling_mesh - morph.neutral_mesh) / 4)


def test_a_spot_goes_where_its_mesh_point_goes() -> None:
    spot = 61
    neutral = mesh(4, SIDE)
    neutral[spot] = (16.0, 36.0)
    smiling = neutral.copy()
    smiling[spot] = (13.0, 33.0)
    # Neighbours go along, as they do in a face: a lone point would shear its triangles.
    near = np.linalg.norm(neutral - neutral[spot], axis=1) < 9
    smiling[near] = neutral[near] + (smiling[spot] - neutral[spot])
    pictures = [255 * np.exp(-((grid(SIDE) - at[spot]) ** 2).sum(axis=-1) / 3)[..., None] for at in (neutral, smiling)]
    shape = np.concatenate((neutral[:468], border(SIDE)))
    morph = Morph(pictures[0], pictures[1], neutral, smiling, triangulate(shape))
    for intensity in (0.0, 0.3, 0.6, 1.0):
        drawn, points = morph.at(intensity)
        centre = (drawn * grid(SIDE)).sum(axis=(0, 1)) / drawn.sum()
        np.testing.assert_allclose(centre, points[spot], atol=0.35)
        # Two spots on one place, not two half spots beside each other.
        assert drawn.max() > 200


def test_sampling_beyond_the_edge_takes_the_nearest() -> None:
    image = np.arange(12.0).reshape(3, 4, 1)
    np.testing.assert_allclose(sample(image, np.array([(-5.0, 1.0), (9.0, 2.0), (1.5, 0.5)]))[:, 0], (4, 11, 3.5))


def test_a_mesh_that_is_no_face_is_one_clear_line() -> None:
    flat = np.stack((np.linspace(0, 50, 478), np.full(478, 20.0)), axis=1)
    with pytest.raises(InputError, match="eyes on one point"):
        make_morph(picture(0, 50, 50), picture(0, 50, 50), np.full((478, 2), 20.0), mesh(), SIDE)
    with pytest.raises(InputError, match="on a line"):
        triangulate(flat)

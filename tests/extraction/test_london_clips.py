"""The clips: their curves, their capture, and what is drawn of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.extraction.faces.landmarks import MESH_TO_68
from featlab.extraction.london_clips import (
    CLIPS,
    FRAMES,
    Clip,
    Look,
    draw_clip,
    draw_look,
    film,
    neutral_course,
    smile_course,
)
from featlab.extraction.london_warp import Morph, Similarity, border, triangulate

GIVEN = Path(__file__).parents[2].parent / "shared" / "data" / "london-morph"
SEEDS = range(300)


def some_clips(label: str = "smile") -> list[Clip]:
    look = Look(0.05, np.array((1.0, 0.9, 1.1)), 4.0)
    return [draw_clip(look, label, np.random.default_rng(seed), 96, 160) for seed in SEEDS]


def still(**changes: object) -> Clip:
    """A clip in which nothing happens."""
    place = Similarity(complex(0.6), 0j)
    values: dict[str, object] = {
        "intensity": np.zeros(FRAMES),
        "places": (place,) * FRAMES,
        "light": np.zeros(FRAMES),
        "gain": np.ones(3),
        "bias": 0.0,
        "noise": 0.0,
    }
    return Clip(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def morph() -> Morph:
    """An even grey face that smiles by moving its lower half."""
    rng = np.random.default_rng(0)
    neutral = rng.uniform(20, 140, (478, 2))
    smiling = neutral + np.where(neutral[:, 1:] > 90, np.array((4.0, -6.0)), 0.0)
    grey = np.full((160, 160, 3), 100.0)
    return Morph(grey, grey + 50, neutral, smiling, triangulate(np.concatenate((neutral[:468], border(160)))))


def test_a_neutral_clip_stays_low_and_sways_twice() -> None:
    courses = np.array([neutral_course(0.075, np.random.default_rng(seed)) for seed in SEEDS])
    assert courses.shape == (300, FRAMES)
    assert courses.min() >= 0
    assert courses.max() <= 0.15
    free = courses[(courses.min(axis=1) > 0) & (courses.max(axis=1) < 0.15)]
    assert len(free) > 100
    # 11 frames make two whole periods: the mean is the level, and the second harmonic is all that is left.
    spectrum = np.abs(np.fft.rfft(free[:, :-1], axis=1)) / 11 * 2
    np.testing.assert_allclose(spectrum[:, 2], 0.03, rtol=1e-6)
    np.testing.assert_allclose(spectrum[:, [1, 3, 4, 5]], 0, atol=1e-12)


def test_a_smile_goes_up_to_its_peak_and_back_and_is_never_neutral() -> None:
    courses = np.array([smile_course(0.03, np.random.default_rng(seed)) for seed in SEEDS])
    assert courses.min() == 0.12
    assert (courses[:, 9:] == 0.12).all()
    assert (courses.argmax(axis=1) == 4).all()
    peaks = 0.03 + (courses[:, 4] - 0.03) / np.sin(0.52 * np.pi) ** 0.7
    assert 0.25 <= peaks.min() < 0.27
    assert 0.73 < peaks.max() <= 0.75
    assert (courses[:, 0] < courses[:, 2]).all()


@pytest.mark.faces
@pytest.mark.skipif(not GIVEN.is_dir(), reason="../shared/data/london-morph is not there")
def test_the_intensities_of_london_morph_follow_these_curves() -> None:
    with (GIVEN / "manifest.csv").open(newline="") as file:
        given = np.array([float(row["intensity"]) for row in csv.DictReader(file)]).reshape(62, 4, FRAMES)
    wave = np.maximum(np.sin(np.pi * (0.12 + 0.1 * np.arange(FRAMES))), 0) ** 0.7
    rests = np.empty((62, 2))
    for person, clip in np.ndindex(62, 2):
        course = given[person, 2 + clip]
        risen = course > 0.1205
        basis = np.stack((1 - wave[risen], wave[risen]), axis=1)
        (rests[person, clip], peak), *_ = np.linalg.lstsq(basis, course[risen], rcond=None)
        assert np.abs(basis @ (rests[person, clip], peak) - course[risen]).max() < 0.001
        assert 0.249 < peak < 0.751
    assert np.abs(rests[:, 0] - rests[:, 1]).max() < 0.01
    assert -0.01 < rests.min() < rests.max() < 0.11
    assert given[:, :2].max() == 0.15
    assert given[:, 2:].min() == 0.12


def test_the_camera_differs_as_much_as_the_recipe_says() -> None:
    looks = [draw_look(seed, "s001") for seed in SEEDS]
    assert all(0 <= look.rest <= 0.1 and -20 <= look.bias <= 20 for look in looks)
    gains = np.array([look.gain for look in looks])
    assert gains.min() >= 0.8 * 0.92
    assert gains.max() <= 1.2 * 1.08
    assert gains.std() > 0.1
    assert 1 < (gains.max(axis=1) / gains.min(axis=1)).max() < 1.08 / 0.92
    clips = some_clips()
    ratio = np.array([clip.gain for clip in clips]) / (1.0, 0.9, 1.1)
    assert 0.9 * 0.97 <= ratio.min() < 0.91
    assert 1.09 < ratio.max() <= 1.1 * 1.03
    bias = np.array([clip.bias for clip in clips]) - 4
    assert -10 <= bias.min() < -9.5
    assert 9.5 < bias.max() <= 10
    noise = np.array([clip.noise for clip in clips])
    assert 1 <= noise.min() < 1.2
    assert 5.8 < noise.max() <= 6


def test_the_head_walks_as_far_as_the_recipe_says() -> None:
    places = [clip.places for clip in some_clips()]
    zoom = np.array([[place.a for place in row] for row in places]) / 0.6
    centre = np.array([[place.a * (80 + 80j) + place.b for place in row] for row in places]) - (48 + 48j)
    walks = {"right": (centre.real, 0.25), "down": (centre.imag, 0.25)}
    walks |= {"turn": (np.rad2deg(np.angle(zoom)), 0.25), "grow": (np.abs(zoom) - 1, 0.003)}
    for walk, step in walks.values():
        # A sum of n independent steps spreads by the square root of n.
        for frame in (0, 3, 11):
            assert walk[:, frame].std() == pytest.approx(step * np.sqrt(frame + 1), rel=0.12)
        assert np.diff(walk, axis=1).std() == pytest.approx(step, rel=0.05)


def test_a_larger_frame_moves_by_as_large_a_share() -> None:
    small, large = (
        draw_clip(Look(0.05, np.ones(3), 0.0), "smile", np.random.default_rng(1), side, side * 5 // 3)
        for side in (96, 192)
    )
    corner = np.array((10.0, 20.0))
    for one, two in zip(small.places, large.places, strict=True):
        np.testing.assert_allclose(2 * one(corner), two(2 * corner), atol=1e-9)


def test_a_person_depends_on_nothing_but_seed_and_name() -> None:
    first, again, other, later = draw_look(0, "s001"), draw_look(0, "s001"), draw_look(0, "s002"), draw_look(1, "s001")
    assert first.rest == again.rest
    np.testing.assert_array_equal(first.gain, again.gain)
    assert len({first.rest, other.rest, later.rest}) == 3


def test_landmarks_are_the_mesh_points_under_the_same_map(morph: Morph) -> None:
    intensity = np.linspace(0, 1, FRAMES)
    places = tuple(Similarity(0.6 * np.exp(0.01j * frame), frame / 10 - 0.5j) for frame in range(FRAMES))
    _, landmarks = film(still(intensity=intensity, places=places), morph, np.random.default_rng(0), 96)
    assert landmarks.shape == (FRAMES, 68, 2)
    assert landmarks.dtype == np.float32
    for frame, place in enumerate(places):
        mesh = (1 - intensity[frame]) * morph.neutral_mesh + intensity[frame] * morph.smiling_mesh
        x, y = mesh[list(MESH_TO_68)].T
        turned = place.a * (x + 1j * y) + place.b
        np.testing.assert_allclose(landmarks[frame], np.stack((turned.real, turned.imag), axis=1), atol=1e-4)


def test_light_gain_and_bias_act_on_grey_levels(morph: Morph) -> None:
    clip = still(light=np.full(FRAMES, 0.2), gain=np.array((1.0, 0.5, 1.5)), bias=7.0)
    frames, _ = film(clip, morph, np.random.default_rng(0), 96)
    assert frames.shape == (FRAMES, 96, 96, 3)
    assert frames.dtype == np.uint8
    assert frames[0, 40, 0].tolist() == [87, 47, 127]
    assert frames[0, 40, -1].tolist() == [127, 67, 187]
    np.testing.assert_array_equal(frames[0], frames[5])


def test_the_two_photographs_are_blended_by_the_intensity(morph: Morph) -> None:
    clip = still(intensity=np.linspace(0, 1, FRAMES))
    frames, _ = film(clip, morph, np.random.default_rng(0), 96)
    np.testing.assert_array_equal(frames[:, 50, 50, 0], np.round(100 + 50 * np.linspace(0, 1, FRAMES)))


def test_noise_is_new_in_every_frame_pixel_and_channel(morph: Morph) -> None:
    frames, _ = film(still(noise=5.0), morph, np.random.default_rng(0), 96)
    noise = frames.astype(float) - 100
    assert noise.std() == pytest.approx(5, rel=0.02)
    flat = noise.reshape(FRAMES, -1, 3)
    assert abs(np.corrcoef(flat[0, :, 0], flat[0, :, 1])[0, 1]) < 0.05
    assert abs(np.corrcoef(flat[0, :, 0], flat[1, :, 0])[0, 1]) < 0.05


def test_bright_pixels_are_clipped_not_wrapped(morph: Morph) -> None:
    frames: NDArray[np.uint8] = film(still(bias=300.0), morph, np.random.default_rng(0), 96)[0]
    assert frames.min() == 255
    assert film(still(bias=-300.0), morph, np.random.default_rng(0), 96)[0].max() == 0


def test_every_person_has_two_clips_of_each_label() -> None:
    assert CLIPS == (("neutral", "a"), ("neutral", "b"), ("smile", "a"), ("smile", "b"))

"""The clips of the London Set: the morph, the curves, the capture."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import PiecewiseAffineTransform

from featlab.errors import InputError
from featlab.extraction.faces import MESH_TO_68

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "london_morph"))

from london_film import CLIPS, FRAMES, Clip, film
from london_warp import Morph, Similarity, make_morph
from make_clips import find_photographs, make_clips

SIDE = 48


def a_mesh() -> NDArray[np.float64]:
    """A face-sized cloud of 478 points with two eyes."""
    points = np.random.default_rng(0).uniform(-1, 1, (478, 2)) * (0.4, 0.45) + (0.5, 0.55)
    points[[33, 133, 362, 263]] = [(0.25, 0.42), (0.40, 0.42), (0.60, 0.42), (0.75, 0.42)]
    return points * 100


@pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")
def test_the_warp_is_the_piecewise_affine_map_of_scikit_image() -> None:
    # Pictures whose grey levels are x and y: a warped one says where its pixels come from.
    x, y = np.meshgrid(*[np.arange(SIDE, dtype=np.float64)] * 2)
    coordinates = np.stack((x, y, 0 * x), axis=-1)
    rng = np.random.default_rng(3)
    neutral = rng.uniform(4, SIDE - 5, (478, 2))
    smiling = neutral + rng.normal(0, 0.05, neutral.shape)
    morph = Morph(coordinates, np.zeros_like(coordinates), neutral, smiling)
    picture, mesh = morph.at(0.5)
    np.testing.assert_allclose(mesh, (neutral + smiling) / 2)
    low, middle, high = 0.0, (SIDE - 1) / 2, SIDE - 1.0
    border = [(x, y) for y in (low, middle, high) for x in (low, middle, high) if (x, y) != (middle, middle)]
    oracle = PiecewiseAffineTransform()
    oracle.estimate(np.concatenate((mesh[:468], border)), np.concatenate((neutral[:468], border)))
    expected = oracle(coordinates[..., :2].reshape(-1, 2)).reshape(SIDE, SIDE, 2)
    np.testing.assert_allclose(2 * picture[..., :2], expected, atol=1e-6)


def test_a_morph_begins_and_ends_with_the_photographs() -> None:
    photographs = [np.random.default_rng(seed).integers(0, 256, (100, 110, 3), dtype=np.uint8) for seed in (0, 1)]
    smiling = a_mesh() + np.where(a_mesh()[:, 1:] > 70, np.array((3.0, -4.0)), 0.0)
    morph = make_morph((photographs[0], photographs[1]), (a_mesh(), smiling), SIDE)
    for intensity, *ends in ((0.0, morph.neutral, morph.neutral_mesh), (1.0, morph.smiling, morph.smiling_mesh)):
        for drawn, end in zip(morph.at(intensity), ends, strict=True):
            np.testing.assert_allclose(drawn, end, atol=1e-5)


def test_landmarks_are_the_mesh_points_under_the_same_map() -> None:
    # An even grey face that smiles by moving its lower half, at an even light.
    neutral = np.random.default_rng(0).uniform(20, 140, (478, 2))
    grey = np.full((160, 160, 3), 100.0)
    morph = Morph(grey, grey + 50, neutral, neutral + np.where(neutral[:, 1:] > 90, np.array((4.0, -6.0)), 0.0))
    intensity = np.linspace(0, 1, FRAMES)
    places = tuple(Similarity(0.6 * np.exp(0.01j * frame), frame / 10 - 0.5j) for frame in range(FRAMES))
    clip = Clip(intensity=intensity, places=places, light=np.zeros(FRAMES), gain=np.ones(3), bias=0.0, noise=0.0)
    _, landmarks = film(clip, morph, np.random.default_rng(0), 96)
    assert (landmarks.shape, landmarks.dtype) == ((FRAMES, 68, 2), np.float32)
    for frame, place in enumerate(places):
        mesh = (1 - intensity[frame]) * morph.neutral_mesh + intensity[frame] * morph.smiling_mesh
        x, y = mesh[list(MESH_TO_68)].T
        turned = place.a * (x + 1j * y) + place.b
        np.testing.assert_allclose(landmarks[frame], np.stack((turned.real, turned.imag), axis=1), atol=1e-4)


def save_photographs(folder: Path, numbers: tuple[int, ...]) -> Path:
    for number in numbers:
        for kind in ("03", "08"):
            folder.mkdir(exist_ok=True, parents=True)
            pixels = np.random.default_rng([number, int(kind)]).integers(0, 256, (100, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}_{kind}.jpg")
    return folder


def test_the_files_are_complete_and_who_is_left_out_is_told(tmp_path: Path) -> None:
    photographs = save_photographs(tmp_path / "in" / "deep", (1, 7)).parent
    (photographs / "deep" / "007_08.jpg").unlink()
    out = tmp_path / "out"
    left_out = make_clips(photographs, out, lambda image: a_mesh()[None], "drawn", {1, 7, 9}, 0, 32)
    assert left_out == ["s007: no photograph 007_08.jpg", "s009: no photograph 009_03.jpg"]
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == len(CLIPS) * FRAMES == 48
    assert {row["label"] for row in listed} == {"neutral", "smile"}
    assert all(Image.open(out / row["path"]).size == (32, 32) for row in listed)
    assert np.load(out / "landmarks.npy").shape == (48, 68, 2)
    note = (out / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in note
    assert "48 frames of 1 people, 32 x 32 pixels" in note
    again = tmp_path / "again"
    make_clips(save_photographs(tmp_path / "more", (1, 2)), again, lambda image: a_mesh()[None], "drawn", None, 0, 32)
    first = (again / listed[0]["path"]).read_bytes()
    assert first == (out / listed[0]["path"]).read_bytes(), "a person depends on the seed and their number only"


def test_photographs_that_are_no_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unpack"):
        find_photographs(tmp_path)
    save_photographs(tmp_path / "one", (1,))
    with pytest.raises(InputError, match="nobody could be drawn; s001: no face"):
        make_clips(tmp_path, tmp_path / "out", lambda image: np.empty((0, 478, 2)), "drawn", None, 0, 32)
    save_photographs(tmp_path / "two", (1,))
    with pytest.raises(InputError, match="twice"):
        find_photographs(tmp_path)

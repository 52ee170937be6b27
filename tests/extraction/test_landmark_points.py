"""Which points are the eyes, in each set."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.backbones.geometry import template
from featlab.extraction.faces.landmarks import MESH_TO_68, check_eyes, eye_centres, eye_sets, to_68

# From the schematic face of the geometry backbone, independent of the tables here.
FACE = template(68).astype(np.float32) * 100 + 60
LEFT, RIGHT = FACE[36:42].mean(axis=0), FACE[42:48].mean(axis=0)
NOSE, MOUTH = FACE[30], (FACE[48], FACE[54])


def mesh(points: int) -> NDArray[np.float32]:
    whole = np.zeros((points, 2), dtype=np.float32)
    whole[list(MESH_TO_68)] = FACE
    return whole


SETS = {
    "68": FACE,
    "51": FACE[17:],
    "49": np.delete(FACE[17:], (43, 47), axis=0),
    "478": mesh(478),
    "468": mesh(468),
    "189": np.concatenate([[LEFT, RIGHT], np.zeros((187, 2), np.float32)]),
    "5 of MTCNN": np.stack([LEFT, RIGHT, NOSE, *MOUTH]),
}


@pytest.mark.parametrize("name", SETS)
def test_the_eyes_are_found_in_every_set(name: str) -> None:
    np.testing.assert_allclose(eye_centres(SETS[name]), [LEFT, RIGHT], rtol=1e-6)
    assert len(SETS[name]) in eye_sets()
    check_eyes(len(SETS[name]))


def test_the_corners_of_dlib_are_told_from_the_centres_of_others_at_any_tilt() -> None:
    corners = np.stack([FACE[45], FACE[42], FACE[36], FACE[39], FACE[33]])
    for points, expected in (
        (corners, [FACE[[36, 39]].mean(axis=0), FACE[[42, 45]].mean(axis=0)]),
        (SETS["5 of MTCNN"], [LEFT, RIGHT]),
    ):
        for angle in np.linspace(0, 2 * np.pi, 7):
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            np.testing.assert_allclose(eye_centres(points @ turn), np.stack(expected) @ turn, rtol=1e-5)


def test_many_faces_at_once_and_no_face() -> None:
    many = np.stack([FACE, np.full_like(FACE, np.nan), FACE + 5])
    found = eye_centres(many)
    assert found.shape == (3, 2, 2)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[2], found[0] + 5)
    assert np.isnan(eye_centres(np.full((1, 5, 2), np.nan))).all()


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    for call in (lambda: check_eyes(106), lambda: eye_centres(np.zeros((106, 2)))):
        with pytest.raises(InputError, match=r"which of 106 landmarks.*5, 49, 51, 68, 189, 468, 478 points$"):
            call()


def test_the_68_come_out_of_a_mesh_each_of_its_own_vertex() -> None:
    assert len(set(MESH_TO_68)) == 68
    np.testing.assert_array_equal(to_68(mesh(478)), FACE)

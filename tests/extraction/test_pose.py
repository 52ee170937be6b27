"""Head pose: exact for a rotated template, in the documented directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage
from scipy.spatial.transform import Rotation

from featlab.extraction.faces.landmarks import MESH_TO_68
from featlab.extraction.faces.pose import has_pose, pose_from_landmarks, template

ORIGINALS = Path(__file__).parents[2].parent / "shared" / "data" / "london-originals"
ANGLES = np.array(
    [(0, 0, 0), (20, 0, 0), (0, 15, 0), (0, 0, 30), (-45, 10, -20), (60, -25, 100), (-5, 40, 179), (85, 3, -90)]
)


def rotations(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """SciPy's rotations. A positive angle about y or x moves the nose, at z < 0, left or down: hence the signs."""
    yaw, pitch, roll = angles.T
    turned = Rotation.from_euler("ZXY", np.stack([roll, -pitch, -yaw], axis=1), degrees=True)
    return np.asarray(turned.as_matrix())


def faces(angles: NDArray[np.floating], points: int = 68, scale: float = 80.0) -> NDArray[np.float32]:
    """The template turned, projected and put somewhere in a picture; other points of the set are far off."""
    seen = scale * (template() @ rotations(angles).transpose(0, 2, 1))[..., :2] + (310.0, 205.0)
    first = {68: 27, 51: 10, 49: 10}[points]
    whole = np.full((len(angles), points, 2), 1e4, dtype=np.float32)
    whole[:, first : first + 21] = seen
    return whole


@pytest.mark.parametrize("points", [68, 51, 49])
@pytest.mark.parametrize("scale", [0.3, 25.0, 900.0])
def test_a_turned_template_gives_its_angles_back(points: int, scale: float) -> None:
    found = pose_from_landmarks(faces(ANGLES, points, scale))
    assert found.shape == (len(ANGLES), 3)
    assert found.dtype == np.float32
    # Single-precision pixels around 300 leave a few hundred-thousandths of a pixel.
    np.testing.assert_allclose(found, ANGLES, atol=0.1 if scale < 1 else 2e-3)


def test_any_random_rotation_within_half_a_turn_is_recovered() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform((-90, -80, -180), (90, 80, 180), (300, 3))
    error = pose_from_landmarks(faces(angles)) - angles
    error[:, 2] = (error[:, 2] + 180) % 360 - 180
    assert np.abs(error).max() < 0.01


def test_the_nose_says_which_way_is_which() -> None:
    """Independent of any rotation matrix: where the nose goes, and which eye is higher."""
    straight = faces(np.zeros((1, 3)))[0]
    # What sticks out of the face, towards the camera, moves the way the face turns.
    sticks_out = -template()[:, 2] * 20
    right = straight.copy()
    right[27:48, 0] += sticks_out
    up = straight.copy()
    up[27:48, 1] -= sticks_out
    clockwise = straight.copy()
    centre = straight[27:48].mean(axis=0)
    offset = straight - centre
    clockwise[:] = centre + offset @ np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    # Clockwise as seen: the eye on the right is lower, at a larger y.
    assert clockwise[45, 1] > clockwise[36, 1]
    yaw, pitch, roll = np.moveaxis(pose_from_landmarks(np.stack([straight, right, up, clockwise])), 1, 0)
    assert yaw[1] > 5
    assert pitch[2] > 5
    assert roll[3] == pytest.approx(np.degrees(0.2), abs=1e-3)
    np.testing.assert_allclose([yaw[0], pitch[0], roll[0]], 0, atol=1e-3)


def test_mouth_brows_and_jaw_do_not_turn_a_head() -> None:
    face = faces(np.array([(10.0, 5.0, -3.0)]))
    other = face.copy()
    other[:, 48:] += 30
    other[:, :27] -= 12
    np.testing.assert_array_equal(pose_from_landmarks(face), pose_from_landmarks(other))


@pytest.mark.parametrize("points", [468, 478])
def test_a_mesh_gives_the_pose_of_its_68(points: int) -> None:
    small = faces(ANGLES)
    mesh = np.full((len(ANGLES), points, 2), -50.0, dtype=np.float32)
    mesh[:, list(MESH_TO_68)] = small
    np.testing.assert_array_equal(pose_from_landmarks(mesh), pose_from_landmarks(small))


def test_a_row_depends_on_itself_alone_to_the_last_bit() -> None:
    rng = np.random.default_rng(1)
    many = faces(rng.uniform(-40, 40, (257, 3)))
    many[:, 27:48] += rng.normal(scale=2, size=(257, 21, 2)).astype(np.float32)
    together = pose_from_landmarks(many)
    alone = np.concatenate([pose_from_landmarks(row[None]) for row in many])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(pose_from_landmarks(many[100:]), together[100:])


def test_no_face_and_no_shape_have_no_pose() -> None:
    whole = faces(np.zeros((5, 3)))
    whole[1] = np.nan
    whole[2, 30, 0] = np.nan
    whole[3] = (17.3, 1e5)
    line = np.linspace(0, 100, 68, dtype=np.float32)
    whole[4] = np.stack([line, line], axis=1)
    found = pose_from_landmarks(whole)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True, True]


def test_a_point_set_without_a_template_has_no_pose() -> None:
    for points in (5, 106, 189):
        assert not has_pose(points)
        found = pose_from_landmarks(np.ones((2, points, 2), dtype=np.float32))
        assert found.shape == (2, 3)
        assert np.isnan(found).all()
    assert pose_from_landmarks(np.ones((0, 68, 2), dtype=np.float32)).shape == (0, 3)
    assert all(has_pose(points) for points in (49, 51, 68, 468, 478))


@pytest.mark.faces
@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="../shared/data/london-originals is not there")
def test_real_photographs_look_into_the_camera_and_turn_as_they_are_turned() -> None:
    mediapipe = pytest.importorskip("mediapipe", reason="the landmarks extra (mediapipe==0.10.21) is not installed")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe has no models inside")
    from featlab.extraction.faces.detectors import make_detector

    detector = make_detector("mediapipe")
    for photo in sorted(ORIGINALS.glob("*_03.jpg")):
        image = PilImage.open(photo).convert("RGB")
        # Pillow turns counter-clockwise.
        views = [
            image,
            image.rotate(-25, fillcolor=(200, 200, 200)),
            image.transpose(PilImage.Transpose.FLIP_LEFT_RIGHT),
        ]
        found = np.stack([detector.detect(np.asarray(view)) for view in views])
        straight, clockwise, mirrored = pose_from_landmarks(found)
        assert np.abs(straight).max() < 8
        np.testing.assert_allclose(clockwise - straight, (0, 0, 25), atol=2.5)
        np.testing.assert_allclose(mirrored, straight * (-1, 1, -1), atol=2.5)

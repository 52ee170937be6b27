import pickle

import numpy as np
import pytest

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import InputSpec, make_backbone
from featlab.extraction.backbones.builtin import template
from featlab.extraction.faces import eye_centres
from featlab.extraction.faces.align import AlignConfig, align_face, with_alignment

RED, GREEN, BLUE = range(3)


def picture(width, height, eyes, mouth, sigma):
    """A soft red spot for the left eye, a green one for the right, a blue one for the mouth; (0.5, 0.5) is pixel 0."""
    y, x = np.mgrid[:height, :width] + 0.5
    spots = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy in (*eyes, mouth)]
    return np.round(np.stack(spots, axis=2) * 255).astype(np.uint8)


def centre(image, channel):
    """Centre of mass of a channel, in the same coordinates."""
    weight = image[..., channel].astype(np.float64)
    weight[weight < 8] = 0
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def spots(middle, apart, angle):
    """Eyes around ``middle``, tilted, and a mouth below and a bit to the right of it, so that a mirror would show."""
    turn = np.exp(1j * np.radians(angle))
    left, right, mouth = (middle + apart * turn * place for place in (-0.5, 0.5, 0.2 + 1j))
    return [(left.real, left.imag), (right.real, right.imag)], (mouth.real, mouth.imag)


def test_the_eyes_land_where_they_should_and_nothing_is_mirrored():
    for size, distance, atol in ((96, 0.36, 0.25), (224, 0.2, 0.5)):
        half = distance * size / 2
        for apart in (9.0, 34.56, 150.0):
            for angle in (0.0, 17.0, -35.0, 90.0, 180.0):
                eyes, mouth = spots(complex(301.3, 250.8), apart, angle)
                face = align_face(picture(640, 480, eyes, mouth, apart / 12), np.array(eyes), size, distance)
                assert (face.shape, face.dtype) == ((size, size, 3), np.uint8)
                for channel, x, y in ((RED, -half, 0), (GREEN, half, 0), (BLUE, 0.4 * half, 2 * half)):
                    np.testing.assert_allclose(centre(face, channel), (size / 2 + x, 0.4 * size + y), atol=atol)
    # Without a size the picture keeps its scale.
    eyes, mouth = spots(complex(200, 150), 54, 10)
    face = align_face(picture(400, 300, eyes, mouth, 5), np.array(eyes), None, 0.36)
    assert face.shape == (150, 150, 3)
    assert np.linalg.norm(centre(face, GREEN) - centre(face, RED)) == pytest.approx(54, abs=0.25)
    huge = align_face(np.zeros((40, 60, 3), np.uint8), np.array([(-2000.0, 20.0), (2000.0, 20.0)]), None, 0.36)
    assert huge.shape == (1024, 1024, 3)


def test_fine_stripes_turn_grey_and_not_into_coarse_ones():
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    for shrink, angle in ((3, 0.0), (3, 20.0), (8, 0.0), (8, 20.0)):
        eyes, _ = spots(complex(500, 450), 0.36 * 96 * shrink, angle)
        inner = align_face(stripes, np.array(eyes), 96, 0.36)[20:76, 20:76].astype(float)
        assert inner.std() < 6
        assert abs(inner.mean() - 127.5) < 3


def test_an_upright_face_at_its_final_scale_is_cut_out_unchanged_and_what_lies_beyond_the_edge_repeats_it(refused):
    image = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    eyes = np.array([(120 - 18.0, 80.0), (120 + 18.0, 80.0)])
    np.testing.assert_array_equal(align_face(image, eyes, 100, 0.36), image[40:140, 70:170])
    with refused(InputError, "the landmarks lie outside of the picture"):
        align_face(image, eyes + 900, None, 0.36)
    image = np.full((100, 100, 3), 90, np.uint8)
    image[:, :3] = (10, 200, 30)
    face = align_face(image, np.array([(10.0, 50.0), (46.0, 50.0)]), 100, 0.36)
    assert (face[:, :15] == (10, 200, 30)).all()
    assert (face[:, 30:] == 90).all()
    for side, eyes, size in ((1, [(0.4, 0.5), (0.6, 0.5)], 16), (50, [(20.0, 20.0), (20.0001, 20.0)], None)):
        face = align_face(np.zeros((side, side, 3), np.uint8), np.array(eyes), size, 0.36)
        assert face.shape == (size or 1, size or 1, 3)


FACE = np.array(template(68) * 100 + 60, dtype=np.float32)


def first_points(images, landmarks):
    return landmarks[:, 0]


def test_a_picture_without_a_face_is_cut_in_the_middle_or_refused_and_landmarks_stay_as_they_are(refused, stand_in):
    picture = np.random.default_rng(0).integers(0, 256, (150, 300, 3), dtype=np.uint8)
    inner = stand_in(first_points, InputSpec(100))
    keep, drop = (with_alignment(inner, AlignConfig(no_face=choice)) for choice in ("keep", "drop"))
    assert (keep.needs_landmarks, drop.needs_landmarks) == (False, True)
    face = align_face(picture, eye_centres(FACE), 100, 0.36)
    for aligned in (keep, drop):
        np.testing.assert_array_equal(aligned.prepare(picture, FACE), face)
        np.testing.assert_array_equal(aligned.embed([], FACE[None]), FACE[:1])
        with refused(InputError, "alignment needs landmarks"):
            aligned.prepare(picture, None)
    for nowhere in (np.full((68, 2), np.nan, np.float32), np.full((68, 2), 20, np.float32)):
        middle = InputSpec(100, interpolation="bicubic")(picture)
        np.testing.assert_array_equal(keep.prepare(picture, nowhere), middle)
        with refused(InputError, "no landmarks"):
            drop.prepare(picture, nowhere)


def test_the_inner_preparation_follows_and_says_the_size(stand_in, refused):
    image = np.zeros((90, 90, 3), np.uint8)
    # It gets no landmarks: they are of the whole picture.
    halved = with_alignment(
        stand_in(first_points, lambda image, landmarks: image[::2] if landmarks is None else image), AlignConfig()
    )
    whole = align_face(image, eye_centres(FACE), None, 0.36)
    assert halved.prepare(image, FACE).shape == whole[::2].shape
    hog, cropping = make_backbone("hog"), stand_in(first_points, InputSpec(40, crop=0.875))
    for backbone, words in (
        (hog, "(96x96, distance 0.3, height 0.4; no face: left out)"),
        (stand_in(first_points, InputSpec(40)), "(40x40, distance"),
        (stand_in(first_points), "(own scale, distance"),
        (cropping, "(own scale, distance"),
    ):
        assert words in with_alignment(backbone, AlignConfig(0.3, "drop")).info().preprocessing
    # It can be sent to a worker.
    aligned = pickle.loads(pickle.dumps(with_alignment(hog, AlignConfig())))
    assert (aligned.name, aligned.in_worker, aligned.needs_landmarks) == ("hog", True, False)
    assert aligned.prepare(image, FACE).shape == (96, 96, 3)
    with refused(ConfigError, "eye_distance = 0.0 must be between 0.01 and 0.99"):
        AlignConfig(0.0)
    with refused(ConfigError, "'geometry' embeds landmarks and no image: there is nothing to align"):
        with_alignment(make_backbone("geometry"), AlignConfig())

"""Faces levelled by their eyes: where the eyes land, what is kept, what is refused."""

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from featlab.cache import ExtractorInfo, open_cache
from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.backbones.builtin import template
from featlab.extraction.extract import ExtractConfig, extract
from featlab.extraction.faces.align import AlignConfig, align_face, central_square, with_alignment
from featlab.extraction.items import Failure, Item

RED, GREEN, BLUE = range(3)


def picture(width, height, eyes, mouth, sigma):
    """A soft red spot for the left eye, a green one for the right, a blue one for the mouth, on black.

    The centre of pixel (0, 0) is at (0.5, 0.5).
    """
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
    half = 0.36 * 96 / 2
    for apart in (9.0, 34.56, 150.0):
        for angle in (0.0, 17.0, -35.0, 90.0, 180.0):
            eyes, mouth = spots(complex(301.3, 250.8), apart, angle)
            face = align_face(picture(640, 480, eyes, mouth, apart / 12), np.array(eyes), AlignConfig(size=96))
            assert (face.shape, face.dtype) == ((96, 96, 3), np.uint8)
            for channel, x, y in ((RED, -half, 0), (GREEN, half, 0), (BLUE, 0.4 * half, 2 * half)):
                np.testing.assert_allclose(centre(face, channel), (48 + x, 0.40 * 96 + y), atol=0.25)
    eyes, mouth = spots(complex(200, 150), 60, 10)
    config = AlignConfig(size=224, eye_distance=0.2, eye_height=0.55)
    face = align_face(picture(400, 300, eyes, mouth, 5), np.array(eyes), config)
    np.testing.assert_allclose(centre(face, RED), (0.4 * 224, 0.55 * 224), atol=0.5)
    np.testing.assert_allclose(centre(face, GREEN), (0.6 * 224, 0.55 * 224), atol=0.5)


def test_without_a_size_the_picture_keeps_its_scale():
    eyes, mouth = spots(complex(200, 150), 54, 10)
    face = align_face(picture(400, 300, eyes, mouth, 5), np.array(eyes), AlignConfig())
    assert face.shape == (150, 150, 3)
    assert np.linalg.norm(centre(face, GREEN) - centre(face, RED)) == pytest.approx(54, abs=0.25)
    huge = align_face(np.zeros((40, 60, 3), np.uint8), np.array([(-2000.0, 20.0), (2000.0, 20.0)]), AlignConfig())
    assert huge.shape == (1024, 1024, 3)


def test_an_upright_face_at_its_final_scale_is_cut_out_unchanged():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 240, 3), dtype=np.uint8)
    eyes = np.array([(120 - 18.0, 80.0), (120 + 18.0, 80.0)])
    face = align_face(image, eyes, AlignConfig(size=100))
    np.testing.assert_array_equal(face, image[40:140, 70:170])


def test_fine_stripes_turn_grey_and_not_into_coarse_ones():
    """A pattern that the small crop can't show must average out; interpolation alone would alias it."""
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    for shrink, angle in ((3, 0.0), (3, 20.0), (8, 0.0), (8, 20.0)):
        eyes, _ = spots(complex(500, 450), 0.36 * 96 * shrink, angle)
        inner = align_face(stripes, np.array(eyes), AlignConfig(size=96))[20:76, 20:76].astype(float)
        assert inner.std() < 6
        assert abs(inner.mean() - 127.5) < 3


def test_what_lies_beyond_the_edge_repeats_it():
    image = np.full((100, 100, 3), 90, np.uint8)
    image[:, :3] = (10, 200, 30)
    face = align_face(image, np.array([(10.0, 50.0), (46.0, 50.0)]), AlignConfig(size=100))
    assert (face[:, :15] == (10, 200, 30)).all()
    assert (face[:, 30:] == 90).all()
    pixel = align_face(np.zeros((1, 1, 3), np.uint8), np.array([(0.4, 0.5), (0.6, 0.5)]), AlignConfig(size=16))
    assert pixel.shape == (16, 16, 3)
    near = align_face(np.zeros((50, 50, 3), np.uint8), np.array([(20.0, 20.0), (20.0001, 20.0)]), AlignConfig())
    assert near.shape == (1, 1, 3)


def test_the_central_square():
    image = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    np.testing.assert_array_equal(central_square(image, None), image[:, 2:8])
    np.testing.assert_array_equal(central_square(image.transpose(1, 0, 2), 6), image.transpose(1, 0, 2)[2:8])
    assert central_square(image, 24).shape == (24, 24, 3)


def face_68(left, right):
    """A face whose eye centres are these."""
    shape = template(68)
    z = shape[:, 0] + 1j * shape[:, 1]
    a, b = z[36:42].mean(), z[42:48].mean()
    step = (complex(*right) - complex(*left)) / (b - a)
    z = complex(*left) + (z - a) * step
    return np.stack([z.real, z.imag], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Recorder:
    """Embeds the mean colour, and the first landmark as it came."""

    name: str = "recorder"
    needs_images: bool = True
    needs_landmarks: bool = False
    in_worker: bool = True
    prepare: Any = None

    def info(self):
        return ExtractorInfo("recorder", "none", "mean colour")

    def embed(self, images, landmarks):
        assert landmarks is not None
        assert len({image.shape for image in images}) == 1
        means = np.stack([image.mean(axis=(0, 1)) for image in images])
        return np.concatenate([means, np.nan_to_num(landmarks[:, 0])], axis=1).astype(np.float32)


@pytest.fixture
def source(tmp_path):
    """Three pictures with a bright face off the centre; in the second none was found."""
    items, points = [], []
    for row in range(3):
        eyes = ((30.0 + row, 40.0), (66.0 + row, 40.0))
        image = np.full((150, 300, 3), 20, np.uint8)
        image[:100, max(row - 2, 0) : 98 + row] = 200
        path = tmp_path / "images" / f"{row}.png"
        path.parent.mkdir(exist_ok=True)
        PilImage.fromarray(image).save(path)
        items.append(Item(path, path.name, "s", "neutral", "v", row, row))
        points.append(face_68(*eyes))
    landmarks = np.stack(points)
    landmarks[1] = np.nan
    return items, landmarks


def run(items, landmarks, config, out):
    backbone = with_alignment(Recorder(), config, points=68)
    settings = ExtractConfig(jobs=1)
    return extract(items, backbone, out, neutral="neutral", landmarks=landmarks, config=settings).failures


def test_a_picture_without_a_face_keeps_its_row_or_is_left_out(source, tmp_path):
    items, landmarks = source
    assert run(items, landmarks, AlignConfig(size=100), tmp_path / "c.h5") == ()
    with open_cache(tmp_path / "c.h5") as cache:
        table = cache.read()
    assert len(table) == 3
    np.testing.assert_allclose(table.embeddings[[0, 2], :3], 200, atol=0.1)
    # The central 150 x 150 of the picture, of which the left 24 columns and the upper 100 rows are face.
    fraction = 24 * 100 / 150**2
    np.testing.assert_allclose(table.embeddings[1, :3], 20 + 180 * fraction, atol=1.5)
    # Landmarks reach the backbone, and the cache, in pixels of the whole picture.
    np.testing.assert_array_equal(table.embeddings[[0, 2], 3:], landmarks[[0, 2], 0])
    dropping = AlignConfig(size=100, no_face="drop")
    assert run(items, landmarks, dropping, tmp_path / "d.h5") == (Failure("1.png", "no landmarks"),)


def test_eyes_at_one_point_are_no_face(refused):
    image, same = np.zeros((40, 60, 3), np.uint8), np.full((68, 2), 20, np.float32)
    kept = with_alignment(Recorder(), AlignConfig(size=32)).prepare
    assert kept(image, same).shape == (32, 32, 3)
    with refused(InputError, "no landmarks"):
        with_alignment(Recorder(), AlignConfig(size=32, no_face="drop")).prepare(image, same)
    with refused(InputError, "alignment needs landmarks"):
        kept(image, None)
    with refused(InputError, "the landmarks lie outside of the picture"):
        align_face(image, np.array([(900.0, 900.0), (930.0, 900.0)]), AlignConfig())


@dataclass(frozen=True)
class Resize:
    size: int
    crop: float = 1.0

    def __call__(self, image, landmarks):
        assert image.shape == (self.size, self.size, 3)
        assert landmarks is None
        return image


def test_the_inner_preparation_follows_and_says_the_size():
    image, points = np.zeros((90, 90, 3), np.uint8), face_68((30, 30), (60, 30))
    network = replace(Recorder(), prepare=Resize(40))
    assert with_alignment(network, AlignConfig()).prepare(image, points).shape == (40, 40, 3)
    halved = replace(Recorder(), prepare=lambda image, landmarks: image[::2, ::2])
    assert with_alignment(halved, AlignConfig(size=64)).prepare(image, points).shape == (32, 32, 3)
    cropping = replace(Recorder(), prepare=Resize(40, crop=0.875))
    for backbone, size, words in (
        (make_backbone("hog"), None, "96x96, distance"),
        (make_backbone("hog"), 48, "(48x48, distance"),
        (Recorder(), None, "(own scale, distance"),
        (cropping, None, "(own scale, distance"),
    ):
        assert words in with_alignment(backbone, AlignConfig(size=size)).info().preprocessing


def test_the_fingerprint_tells_every_alignment_apart():
    hog = make_backbone("hog")
    changes = [{}, {"size": 64}, {"eye_distance": 0.3}, {"eye_height": 0.3}, {"no_face": "drop"}]
    infos = [hog.info(), *(with_alignment(hog, AlignConfig(**change)).info() for change in changes)]
    assert len({info.fingerprint for info in infos}) == len(infos)
    words = "aligned by the eyes (96x96, distance 0.36, height 0.4; no face: central square), "
    assert (infos[1].id, infos[1].preprocessing) == ("hog", words + infos[0].preprocessing)
    assert with_alignment(hog, AlignConfig(size=96)).info() == infos[1]


def test_an_aligned_backbone_can_be_sent_to_a_worker():
    backbone = pickle.loads(pickle.dumps(with_alignment(make_backbone("hog"), AlignConfig())))
    assert (backbone.name, backbone.in_worker, backbone.needs_landmarks) == ("hog", True, False)
    assert backbone.prepare(np.zeros((90, 90, 3), np.uint8), face_68((30, 30), (60, 30))).shape == (96, 96, 3)


def test_what_does_not_fit_is_refused(refused):
    for options, says in (
        ({"size": 7}, "size must be from 8 to 4096 pixels, got 7"),
        ({"eye_distance": 0.0}, "eye_distance must be above 0 and below 1, got 0.0"),
        ({"eye_distance": float("nan")}, "eye_distance must be above 0"),
        ({"eye_height": 1.0}, "eye_height must be above 0 and below 1, got 1.0"),
        ({"no_face": "kepp"}, "no_face = 'kepp' is not one of keep, drop; did you mean 'keep'?"),
    ):
        with refused(ConfigError, says):
            AlignConfig(**options)
    with refused(ConfigError, "'geometry' embeds landmarks and no image: there is nothing to align"):
        with_alignment(make_backbone("geometry"), AlignConfig())
    with refused(InputError, "which of 106 landmarks are the eyes"):
        with_alignment(make_backbone("hog"), AlignConfig(), points=106)

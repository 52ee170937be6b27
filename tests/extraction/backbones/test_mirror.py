import numpy as np
import pytest
from torch import nn

from featlab.errors import ConfigError
from featlab.extraction.backbones import InputSpec, NetworkOptions, make_backbone
from featlab.extraction.backbones.builtin import mirror_order, mirrored, template, with_mirror
from featlab.extraction.backbones.network import module_backbone


def flipped(pictures):
    return [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]


def faces(points, count=3):
    noise = np.random.default_rng(points).normal(0, 0.02, (count, points, 2))
    return (40 + 60 * (template(points) + noise)).astype(np.float32)


def test_the_other_side_of_a_landmark_is_its_mirror_image():
    for points in (68, 51, 49):
        order = mirror_order(points)
        assert [order[place] for place in order] == list(range(points))
        face = template(points).astype(np.float32)[None]
        np.testing.assert_allclose(mirrored(face), face, atol=1e-6)
        shapes = faces(points)
        np.testing.assert_array_equal(mirrored(mirrored(shapes)), shapes)
    # Corners of the right eye and the left one, of brows, mouth and jaw.
    assert [mirror_order()[place] for place in (36, 39, 17, 48, 0, 30)] == [45, 42, 26, 54, 16, 30]
    with pytest.raises(ConfigError, match="478"):
        mirrored(np.zeros((1, 478, 2), np.float32))


def test_a_mirrored_face_has_the_same_embedding_as_the_face(pixels):
    pictures = [pixels(seed) for seed in range(3)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten())
    spec = InputSpec(size=16)
    plain = module_backbone("net", network, NetworkOptions(device="cpu"), spec, id="net", weights="none")
    for backbone in (make_backbone("hog", size=24, cell=8), plain):
        both = with_mirror(backbone)
        turned = flipped(pictures)
        np.testing.assert_allclose(both.embed(turned, None), both.embed(pictures, None), atol=1e-6)
        middle = (backbone.embed(pictures, None) + backbone.embed(turned, None)) / 2
        np.testing.assert_allclose(both.embed(pictures, None), middle, atol=1e-6)
        assert not np.allclose(backbone.embed(turned, None), backbone.embed(pictures, None), atol=1e-2)
        assert both.info().fingerprint != backbone.info().fingerprint
    for points in (68, 51, 49):
        backbone = make_backbone(f"geometry:{points}")
        both, shapes = with_mirror(backbone), faces(points)
        np.testing.assert_array_equal(both.embed([], mirrored(shapes)), both.embed([], shapes))
        assert not np.allclose(both.embed([], shapes), backbone.embed([], shapes), atol=1e-3)


def test_a_backbone_of_pictures_with_landmarks_is_refused(stand_in):
    backbone = stand_in(None)
    backbone.needs_landmarks = True
    with pytest.raises(ConfigError, match=r"stand-in.*--mirror"):
        with_mirror(backbone)

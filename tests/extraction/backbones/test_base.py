"""Backbones without weights, and any backbone with its mirror image."""

import pickle
import subprocess
import sys

import numpy as np
from PIL import Image
from scipy.spatial import procrustes
from skimage.feature import hog
from torch import nn

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import Backbone, InputSpec, NetworkOptions, make_backbone
from featlab.extraction.backbones.builtin import align, mirror_order, mirrored, template, with_mirror
from featlab.extraction.backbones.network import module_backbone

SETS = (68, 51, 49)


def faces(count, points=68, seed=0):
    """The template with noise, somewhere in pixels."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.01, (count, points, 2))
    shapes = (template(points) + noise) * rng.uniform(80, 400, (count, 1, 1)) + rng.uniform(0, 900, (count, 1, 2))
    return np.asarray(shapes, dtype=np.float64)


def turned(shape, degrees):
    angle = np.deg2rad(degrees)
    return np.asarray(shape @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))


def test_arguments_that_do_not_fit_are_one_line(refused, stand_in):
    both = stand_in(None)
    both.needs_landmarks = True
    five, fewer = np.zeros((1, 5, 2), np.float32), faces(1, 51).astype(np.float32)
    geometry = make_backbone("geometry")
    for error, run, *words in (
        (ConfigError, lambda: make_backbone("geometri"), "did you mean 'geometry'"),
        (ConfigError, lambda: make_backbone("hog:96"), "takes nothing after a colon"),
        (ConfigError, lambda: make_backbone("hog", size=15), "doesn't fit in 15x15"),
        (ConfigError, lambda: make_backbone("geometry:12"), "number of landmarks"),
        (ConfigError, lambda: make_backbone("geometry", size=3), "has no option 'size'"),
        (InputError, lambda: geometry.embed([], fewer), "the file has 51; use geometry:51"),
        (InputError, lambda: geometry.embed([], five), "the file has 5; supported are 68, 51 and 49"),
        (InputError, lambda: geometry.embed([], None), "none were given"),
        (ConfigError, lambda: mirrored(five), "5 landmarks have no template"),
        (ConfigError, lambda: with_mirror(both), "stand-in", "--mirror"),
    ):
        with refused(error, *words):
            run()


def test_neither_the_registries_nor_what_goes_to_the_workers_import_a_heavy_library():
    code = (
        "import pickle, sys, numpy as np, featlab.extraction.backbones, featlab.extraction.layouts as layouts\n"
        "layouts.LAYOUTS.names()\n"
        f"prepare = pickle.loads({pickle.dumps(InputSpec(size=12))!r})\n"
        "print(prepare(np.zeros((30, 20, 3), np.uint8), None).shape)\n"
        "print([m for m in sys.modules if m.endswith(('lab_videos', 'web_photos', 'torch', 'h5py', 'skimage'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(12, 12, 3)\n[]\n"


def test_hog_equals_skimage_on_the_same_grey_image(pixels):
    images = [np.asarray(Image.fromarray(pixels(seed)).resize((96, 96))) for seed in range(3)]
    for image, row in zip(images, make_backbone("hog").embed(images, None), strict=True):
        grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float64) / 255
        expected = hog(grey, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")
        np.testing.assert_allclose(row, expected, atol=1e-5)
    small = make_backbone("hog", size=32, cell=8, block=3, orientations=6)
    output = small.embed([pixels(0), pixels(1)[:7], np.zeros((300, 4, 3), dtype=np.uint8)], None)
    assert (output.shape, output.dtype) == ((3, 2 * 2 * 9 * 6), np.float32)
    assert "grey 32x32, 8x8 cells, 3x3 blocks, 6 orientations" in small.info().preprocessing
    # Other sizes are another extractor.
    made = [make_backbone("hog", **{key: 4}) for key in ("cell", "block", "orientations")]
    made += [make_backbone(name) for name in ("hog", "geometry", "geometry:51", "geometry:49")]
    assert all(isinstance(backbone, Backbone) for backbone in made)
    assert len({backbone.info().fingerprint for backbone in made}) == 7


def test_geometry_is_blind_to_place_size_tilt_and_batch():
    for points in SETS:
        backbone, original = make_backbone(f"geometry:{points}"), faces(5, points)
        plain = backbone.embed([], original.astype(np.float32))
        assert (plain.shape, plain.dtype) == ((5, 2 * points), np.float32)
        for degrees in (-170, -20, 90, 180):
            moved = turned(original * 0.3 + [40, -7], degrees)
            np.testing.assert_allclose(backbone.embed([], moved.astype(np.float32)), plain, atol=1e-5)
        alone = [backbone.embed([], original[row : row + 1].astype(np.float32)) for row in range(5)]
        np.testing.assert_array_equal(np.concatenate(alone), plain)
        # A shape without extent is NaN, and its neighbours are as they were.
        original[1] = 512.1
        flat = backbone.embed([], original.astype(np.float32))
        assert np.isnan(flat[1]).all()
        np.testing.assert_array_equal(flat[[0, 2, 3, 4]], plain[[0, 2, 3, 4]])


def test_alignment_equals_scipy_procrustes_where_no_reflection_is_needed():
    for points in SETS:
        face, shapes = template(points), faces(20, points)
        moved = np.stack([turned(shape, 17 * row) for row, shape in enumerate(shapes)])
        for shape, ours in zip(moved, align(moved, face), strict=True):
            standard, theirs, _ = procrustes(face, shape)
            # scipy centres the template and gives it norm 1, which changes nothing.
            np.testing.assert_allclose(standard, face, atol=1e-12)
            # It also shrinks the second shape to fit; its direction is the comparison.
            np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-10)
    # A reflection is not used where it would fit better.
    face = template()
    assert face[17:27, 1].max() < face[48:60, 1].min(), "the brows are above the mouth"
    assert np.linalg.norm(align((face * [-1, 1])[None], face)[0] - face) > 0.5


def test_a_mirrored_face_has_the_same_embedding_as_the_face(pixels):
    pictures = [pixels(seed) for seed in range(3)]
    turned = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten())
    plain = module_backbone("net", network, NetworkOptions(), InputSpec(size=16), id="net", weights="none")
    for backbone in (make_backbone("hog", size=24, cell=8), plain):
        both = with_mirror(backbone)
        np.testing.assert_allclose(both.embed(turned, None), both.embed(pictures, None), atol=1e-6)
        middle = (backbone.embed(pictures, None) + backbone.embed(turned, None)) / 2
        np.testing.assert_allclose(both.embed(pictures, None), middle, atol=1e-6)
        assert both.info().fingerprint != backbone.info().fingerprint
    for points in SETS:
        both, shapes = with_mirror(make_backbone(f"geometry:{points}")), faces(3, points).astype(np.float32)
        np.testing.assert_array_equal(mirrored(mirrored(shapes)), shapes)
        np.testing.assert_array_equal(both.embed([], mirrored(shapes)), both.embed([], shapes))
        face = template(points).astype(np.float32)[None]
        np.testing.assert_allclose(mirrored(face), face, atol=1e-6)
    # Corners of the right eye and the left one, of brows, mouth and jaw.
    assert [mirror_order()[place] for place in (36, 39, 17, 48, 0, 30)] == [45, 42, 26, 54, 16, 30]

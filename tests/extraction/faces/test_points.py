import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PilImage

from featlab.errors import ConfigError, InputError
from featlab.extraction.backbones import make_backbone
from featlab.extraction.backbones.builtin import template
from featlab.extraction.faces import MESH_TO_68, lies_outside, order_problem, unit_problem
from featlab.extraction.faces.align import AlignConfig
from featlab.extraction.inputs import InputConfig, read_inputs, with_face_crop
from featlab.extraction.items import Pseudonyms
from featlab.extraction.tables import ImportConfig, import_features

FACE = (template(68) * 100 + 60).astype(np.float32)
TURN = np.array([[0, 1], [-1, 0]], dtype=np.float32)


def faces(face=FACE, count=9, seed=0):
    return np.random.default_rng(seed).normal(face, 1.0, (count, *face.shape)).astype(np.float32)


def mesh():
    whole = np.random.default_rng(0).uniform(FACE.min(axis=0), FACE.max(axis=0), (478, 2))
    whole[list(MESH_TO_68)] = FACE
    return whole


def mixed(face, seed):
    return face[np.random.default_rng(seed).permutation(len(face))]


FIVE = np.stack([FACE[36:42].mean(0), FACE[42:48].mean(0), FACE[30], FACE[48], FACE[54]])
SETS = (FACE, FACE[17:], np.delete(FACE[17:], (43, 47), axis=0), mesh(), FIVE, FACE[:7])


def test_a_face_in_any_position_is_one_and_what_is_no_face_is_named():
    for face in SETS:
        mostly = np.concatenate([faces(face), faces(face[:, ::-1], 8)])
        for seen in (faces(face), faces(face @ TURN), faces(-face), mostly):
            assert order_problem(seen) == ""
        assert order_problem(faces(face, 0)) == ""
    for face in SETS[:5]:
        assert "x and y are swapped" in order_problem(faces(face[:, ::-1]))
        assert "the mouth is above the eyes" in order_problem(faces(face * (1, -1)))
        assert "left and right are swapped" in order_problem(faces(face * (-1, 1)))
    for face in SETS[:3]:
        for seed in range(5):
            assert "another order" in order_problem(faces(mixed(face, seed)))
    # Each picture in an order of its own; the jaw last.
    assert "another order" in order_problem(np.stack([mixed(FACE, seed) for seed in range(9)]))
    assert "not the jaw" in order_problem(faces(np.concatenate([FACE[:17][::-1], FACE[17:]])))


def test_pixels_are_told_from_shares_and_faces_in_a_picture_from_others():
    shares = np.array([[[0.2, 1], [0.5, 0.7]]], np.float32)
    assert "go from 0.20 to 1.00, so they are shares of the picture and not pixels" in unit_problem(shares)
    assert "-0.90" in unit_problem(np.array([[[-0.9, 0.4]]], np.float32))
    assert unit_problem(faces()) == unit_problem(faces(count=0)) == ""
    for face in (FACE, FACE + np.array((30, 0))):
        assert not lies_outside(face, (120, 120))
    for face in (FACE + np.array((75, 0)), FACE - (0, 70), FACE * 3):
        assert lies_outside(face, (120, 120))
        assert not lies_outside(face, (0, 0)), "of a size that isn't known"


@pytest.fixture
def clip(tmp_path):
    """A clip of twelve pictures, twice as wide as high, the face a pixel further in each; returns the folder."""
    folder = tmp_path / "faces" / "zoë" / "neutral" / "v"
    folder.mkdir(parents=True)
    for number in range(1, 13):
        PilImage.new("RGB", (240, 120), (number, 90, 90)).save(folder / f"img{number}.png")
    return tmp_path / "faces"


TRUE = FACE + np.stack([(number, 0) for number in range(1, 13)])[:, None]
AS_TEXT = sorted(range(12), key=lambda place: f"img{place + 1}.png")


def found(source, landmarks, **more):
    """What is read, the points in the order of the items, and which picture each is."""
    inputs = read_inputs(source, InputConfig(landmarks=str(landmarks), **more), beside=source.parent / "c.h5", jobs=1)
    places = [int(item.path.stem[3:]) - 1 for item in inputs.items]
    return inputs, inputs.landmarks[[item.row for item in inputs.items]], places


def is_true(source, landmarks, **more):
    _, points, places = found(source, landmarks, **more)
    np.testing.assert_allclose(points, TRUE[places], atol=1e-2)


@pytest.fixture
def of_frames(openface):
    """``of_frames(path, numbers, points)``: a table as OpenFace's, and not with other columns than its own."""

    def write(path, numbers, points, first="frame, face_id, timestamp, confidence, success"):
        return openface(path, first, [f"{number}, 0, 0.0, 0.9, 1" for number in numbers], points)

    return write


def test_frames_of_openface_are_in_the_order_of_names_as_text(clip, tmp_path, of_frames, refused):
    for path in (tmp_path / "out" / "zoë" / "neutral" / "v.csv", tmp_path / "one.csv"):
        of_frames(path, range(1, 13), TRUE[AS_TEXT])
        given = path if path.name == "one.csv" else tmp_path / "out"
        is_true(clip, given)
        # Frames without a face may be missing; a table of more pictures than there are is of others.
        of_frames(path, [2, 5], TRUE[[AS_TEXT[1], AS_TEXT[4]]])
        _, points, places = found(clip, given)
        assert sorted(np.array(places)[np.isfinite(points[:, 0, 0])]) == [1, 9]
        of_frames(path, range(1, 14), np.concatenate([TRUE, TRUE[:1]]))
        with refused(InputError, "frames up to 13", "has 12 pictures"):
            found(clip, given)
    # Somebody's own numbers are the frames' own, from 0, from 1 or as in the manifest.
    lines = [f"faces/zoë/neutral/v/img{n}.png,zoë,neutral,v,{n}" for n in range(12, 0, -1)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,subject,label,video,frame", *lines]) + "\n")
    for start, source in ((0, clip), (1, clip), (1, tmp_path / "manifest.csv")):
        is_true(source, of_frames(tmp_path / "own.csv", range(start, start + 12), TRUE, "frame, a, b, c, d"))


def test_without_names_the_number_of_rows_must_fit_and_the_order_is_said(clip, tmp_path, refused):
    path = tmp_path / "l.npy"
    np.save(path, TRUE)
    is_true(clip, path)
    told = "rows were taken in the order by number (row 2 is zoë/neutral/v/img2.png)"
    assert told in found(clip, path)[0].warnings[-1]
    hidden = found(clip, path, pseudonyms=Pseudonyms(bytes(32)))[0].warnings[-1]
    assert "(row 2 is f-" in hidden
    assert "zoë" not in hidden.replace(str(tmp_path), "")
    np.save(path, TRUE[:11])
    with refused(InputError, "landmarks for 11 rows, the source has 12"):
        found(clip, path)
    folder = tmp_path / "arrays" / "zoë" / "neutral"
    folder.mkdir(parents=True)
    for rows, says in ((TRUE, "another order as text"), (TRUE[:7], "has 7 rows without names or frame numbers")):
        np.save(folder / "v.npy", rows)
        with refused(InputError, says, "give each image a file"):
            found(clip, tmp_path / "arrays")


def test_names_match_in_any_normal_form_and_without_their_suffix(clip, tmp_path, openface):
    for column, name in (
        ("path", "zoë/neutral/v/img{}.png"),
        ("path", "./zoë/neutral/v/img{}.jpg"),
        ("frame", "C:\\clips\\img{}.bmp"),
        ("image name", "img{}.png"),
    ):
        path = openface(tmp_path / "l.csv", column, [name.format(n) for n in range(12, 0, -1)], TRUE[::-1])
        path.write_text(unicodedata.normalize("NFD", path.read_text("utf-8")), encoding="utf-8")
        is_true(clip, path)
    np.savez(tmp_path / "l.npz", landmarks=TRUE[::-1], names=[f"img{n}.png" for n in range(12, 0, -1)])
    is_true(clip, tmp_path / "l.npz")


def test_an_import_has_no_pictures_and_says_what_is_wrong(tmp_path):
    lines = [f"s{row % 2},{('neutral', 'smile')[row // 4]},{row}.5" for row in range(8)]
    (tmp_path / "f.csv").write_text("\n".join(["subject,label,f1", *lines]) + "\n")
    for points, says in ((TRUE[:8] / 240, "shares of the picture"), (TRUE[:8, :, ::-1], "x and y are swapped")):
        np.save(tmp_path / "l.npy", points)
        config = ImportConfig(landmarks=tmp_path / "l.npy", if_exists="overwrite")
        report = import_features(tmp_path / "f.csv", tmp_path / "c.h5", config)
        assert any(says in line for line in report.warnings)


def test_landmarks_that_do_not_fit_their_pictures_are_refused_and_shares_can_be_scaled(clip, tmp_path, refused):
    path = tmp_path / "l.npy"
    shares, some = TRUE / (240, 120), TRUE.copy()
    some[::3] = 0  # as some tools write where they found no face
    for points, *says in (
        (shares, "not pixels; --landmarks-unit fraction scales them"),
        *((np.full_like(TRUE, nothing), "none of its rows is a face") for nothing in (0.0, 40.0, np.nan)),
        (TRUE * 4, "lie outside of the pictures: in zoë/neutral/v/img1.png, 240x120 pixels, they go from"),
        (TRUE[:, :, ::-1], "the 68 points are no face", "x and y are swapped"),
    ):
        np.save(path, points)
        with refused(InputError, f"{path}: ", *says):
            found(clip, path)
    np.save(path, shares)
    is_true(clip, path, landmarks_unit="fraction")
    np.save(path, some)
    inputs, points, _ = found(clip, path)
    assert np.isnan(points).all(axis=(1, 2)).sum() == len(inputs.no_face) == len(some[::3])
    with refused(InputError, "which of 7 landmarks are the eyes"):
        crop = InputConfig(align=AlignConfig())
        with_face_crop(make_backbone("hog"), crop, replace(inputs, landmarks=inputs.landmarks[:, :7]))
    for options, says in (
        ({"landmarks_unit": "percent"}, "--landmarks-unit = 'percent' is not one of pixels, fraction"),
        ({"face": "first"}, "--face = 'first' is not one of largest, track, only"),
        ({"face": "track", "landmarks": "none"}, "there are none"),
        ({"landmarks_unit": "fraction", "landmarks": "uniface"}, "a detector's are pixels"),
    ):
        with refused(ConfigError, says):
            found(clip, **{"landmarks": path} | options)

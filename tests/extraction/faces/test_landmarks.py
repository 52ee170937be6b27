"""Which points are the eyes, in each set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from featlab.errors import InputError
from featlab.extraction.backbones.builtin import template
from featlab.extraction.faces.landmark_files import read_pts, read_tem
from featlab.extraction.faces.landmarks import (
    MESH_TO_68,
    check_eyes,
    eye_centres,
    eye_sets,
    find_landmarks,
    read_landmarks,
    to_68,
)

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


PTS = "version: 1\nn_points: 3\n{\n1.000 1.000\n449.459 119.344\n12 7.5\n}\n"
PTS_POINTS = [(0, 0), (448.459, 118.344), (11, 6.5)]


@pytest.mark.parametrize(
    "text",
    [
        PTS,
        "\ufeff" + PTS.replace("\n", "\r\n"),
        PTS.replace("n_points: 3", "n_points:  3 "),
        PTS.replace("{\n", "{ ").replace("\n}", " }"),
        "version: 1\n{\n1 1\n449.459\t119.344\n\n12,7.5\n}",
    ],
)
def test_the_upper_left_pixel_of_a_pts_is_one_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pts").write_bytes(text.encode())
    read = read_pts(tmp_path / "a.pts")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, PTS_POINTS, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("1 2\n3 4\n", "no line with an opening brace"),
        ("version: 1\nn_points: 3\n{\n1 1\n", "closing brace is missing"),
        ("n_points: 3\n{\n1 1\n}\n", "says 3 points and holds 1"),
        ("{\n}\n", "no point between the braces"),
        ("n_points: 2\n{\n1 1\n2 two\n}\n", "line 4: expected x and y, found '2 two'"),
        ("n_points: 2\n{\n1 1\n2 2 2\n}\n", "line 4: expected x and y, found '2 2 2'"),
    ],
)
def test_a_pts_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.pts").write_text(text)
    with pytest.raises(InputError) as caught:
        read_pts(tmp_path / "a.pts")
    assert says in str(caught.value)
    assert str(tmp_path / "a.pts") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lines", ["", "1\n0\n3\n0 1 2\n", "\n2\n1\n2\n0 1\n0\n2\n1 2\n"])
def test_a_tem_is_read_up_to_its_line_definitions(tmp_path: Path, lines: str) -> None:
    (tmp_path / "a.tem").write_text("3\n0\t0\n448.459\t118.344\n11 6.5\n" + lines)
    read = read_tem(tmp_path / "a.tem")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, PTS_POINTS, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "is empty"),
        ("three\n1 2\n", "line 1: expected the number of points, found 'three'"),
        ("0\n", "line 1: expected the number of points, found '0'"),
        ("-1\n", "line 1: expected the number of points"),
        ("99999999999\n1 2\n", "says 99999999999 points and holds 1; the file is cut off"),
        ("2\n1 2\n3\n", "line 3: expected x and y, found '3'"),
    ],
)
def test_a_tem_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.tem").write_text(text)
    with pytest.raises(InputError) as caught:
        read_tem(tmp_path / "a.tem")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_bytes(b"version: 1\n\xff\xfe")
    with pytest.raises(InputError, match=r"isn't UTF-8 text \(byte 11\)"):
        read_pts(tmp_path / "a.pts")


POINTS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2) / 4


def csv_text(header_first: str = "", cells_first: tuple[str, ...] = ("", "", ""), gap: str = "") -> str:
    header = header_first + f",{gap}".join([f"x_{p}" for p in range(4)] + [f"y_{p}" for p in range(4)])
    rows = [
        first + f",{gap}".join(str(value) for value in [*points[:, 0], *points[:, 1]])
        for first, points in zip(cells_first, POINTS, strict=True)
    ]
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_both_shapes_of_an_array_are_read(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = (POINTS * 4).astype(dtype).reshape(shape)
    np.save(tmp_path / "l.npy", array)
    read = read_landmarks(tmp_path / "l.npy", 3)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, POINTS * 4)


@pytest.mark.parametrize("gap", ["", " "])
def test_an_openface_csv_is_read_in_order(tmp_path: Path, gap: str) -> None:
    (tmp_path / "l.csv").write_text(csv_text(f"frame,{gap}", ("1, ", "2, ", "3, "), gap))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "l.csv", 3), POINTS)


def test_a_failed_detection_is_a_row_of_nan(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(csv_text("success,", ("1,", "0,", "1,")))
    read = read_landmarks(tmp_path / "l.csv", 3)
    assert np.isnan(read[1]).all()
    np.testing.assert_array_equal(read[[0, 2]], POINTS[[0, 2]])


def test_a_row_with_one_value_that_is_not_finite_is_wholly_nan(tmp_path: Path) -> None:
    points = POINTS.copy()
    points[1, 2, 0] = np.inf
    np.save(tmp_path / "l.npy", points)
    read = read_landmarks(tmp_path / "l.npy", 3)
    assert np.isnan(read[1]).all()
    assert np.isfinite(read[[0, 2]]).all()


def test_a_path_column_matches_by_name(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(csv_text("path,", ("f/c.jpg,", "f\\a.jpg,", "other.jpg,")))
    read = read_landmarks(tmp_path / "l.csv", 4, names=["f/a.jpg", "f/b.jpg", "f/c.jpg", "f/c.jpg"])
    np.testing.assert_array_equal(read[[0, 2, 3]], POINTS[[1, 0, 0]])
    assert np.isnan(read[1]).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no landmark columns"),
        ("x_0,x_1,y_0\n1,2,3\n", "'y_1' is missing"),
        ("x_0,x_2,y_0,y_2\n1,2,3,4\n", "'x_1' is missing"),
        ("x_0,y_0,y_0\n1,2,3\n", "'y_0' is there twice"),
        ("x_0,y_0\n1,two\n", "line 2: could not convert"),
        ("x_0,y_0\n1\n", "line 2: 1 values under 2 columns"),
        ("x_0,y_0\n1,2\n3,4\n", "landmarks for 2 rows, the source has 1"),
        ("path,x_0,y_0\nq.jpg,1,2\n", "no path of"),
        ("path,x_0,y_0\na.jpg,1,2\na.jpg,1,2\n", "lists 'a.jpg' twice"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_landmarks(tmp_path / "l.csv", 1, names=["a.jpg"])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    for array, says in [
        (POINTS[:2], "landmarks for 2 rows, the source has 3"),
        (np.zeros((3, 4, 3)), "has shape"),
        (np.zeros((3, 5)), "has shape"),
        (np.zeros((3, 0, 2)), "has shape"),
        (np.array(["a", "b", "c"]), "doesn't hold one array of numbers"),
        (np.array([{}, {}, {}]), "isn't a .npy array of numbers"),
    ]:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match=says):
            read_landmarks(path, 3)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"isn't a .npy array"):
        read_landmarks(path, 3)
    with pytest.raises(InputError, match="no such file"):
        read_landmarks(tmp_path / "none.npy", 3)
    (tmp_path / "l.mat").write_bytes(b"x")
    with pytest.raises(InputError, match=r"come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem"):
        read_landmarks(tmp_path / "l.mat", 3)


def test_a_npz_with_one_array_or_one_called_landmarks_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", POINTS)
    np.savez(tmp_path / "named.npz", key=np.array("k"), landmarks=POINTS.reshape(3, 8))
    for name in ("one.npz", "named.npz"):
        np.testing.assert_array_equal(read_landmarks(tmp_path / name, 3), POINTS)
    np.savez(tmp_path / "two.npz", a=POINTS, b=POINTS)
    with pytest.raises(InputError, match=r"holds the arrays a, b; one of them must be called 'landmarks'"):
        read_landmarks(tmp_path / "two.npz", 3)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"isn't a .npz array of numbers"):
        read_landmarks(tmp_path / "bad.npz", 3)


def test_a_confidence_of_zero_is_no_face_where_there_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(csv_text("face, confidence,", ("0, 0.98,", "0, 0,", "0, 0.1,")))
    assert np.isnan(read_landmarks(tmp_path / "l.csv", 3)).all(axis=(1, 2)).tolist() == [False, True, False]
    (tmp_path / "l.csv").write_text(csv_text("confidence, success,", ("0.1, 1,", "0.9, 0,", "0, 1,")))
    assert np.isnan(read_landmarks(tmp_path / "l.csv", 3)).all(axis=(1, 2)).tolist() == [False, True, False]


def test_a_point_with_a_huge_number_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("x_0,y_0,x_999999999999\n1,2,3\n")
    with pytest.raises(InputError, match="'x_1' is missing"):
        read_landmarks(tmp_path / "l.csv", 1)


def test_landmarks_are_found_beside_a_manifest_and_inside_a_folder(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    assert find_landmarks(manifest) is None
    (tmp_path / "landmarks.csv").write_text("x_0,y_0\n")
    assert find_landmarks(manifest) == find_landmarks(tmp_path) == tmp_path / "landmarks.csv"
    np.save(tmp_path / "landmarks.npy", POINTS)
    assert find_landmarks(manifest) == tmp_path / "landmarks.npy"

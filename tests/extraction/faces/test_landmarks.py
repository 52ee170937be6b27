import numpy as np

from featlab.errors import InputError
from featlab.extraction.backbones.builtin import template
from featlab.extraction.faces import MESH_TO_68, check_eyes, eye_centres, to_68
from featlab.extraction.faces.landmark_files import read_pts, read_tem
from featlab.extraction.faces.landmarks import find_landmarks, read_landmarks

# From the schematic face of the geometry backbone, independent of the tables here.
FACE = template(68).astype(np.float32) * 100 + 60
LEFT, RIGHT = FACE[36:42].mean(axis=0), FACE[42:48].mean(axis=0)
NOSE, MOUTH = FACE[30], (FACE[48], FACE[54])


def mesh(points):
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


def test_the_eyes_are_found_in_every_set(refused):
    for name, points in SETS.items():
        np.testing.assert_allclose(eye_centres(points), [LEFT, RIGHT], rtol=1e-6, err_msg=name)
        check_eyes(len(points))
    assert len(set(MESH_TO_68)) == 68
    np.testing.assert_array_equal(to_68(mesh(478)), FACE)
    for call in (lambda: check_eyes(106), lambda: eye_centres(np.zeros((106, 2)))):
        with refused(InputError, "which of 106 landmarks", "5, 49, 51, 68, 189, 468, 478 points"):
            call()
    # Many faces at once, and no face.
    found = eye_centres(np.stack([FACE, np.full_like(FACE, np.nan), FACE + 5]))
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], [[LEFT, RIGHT], [LEFT + 5, RIGHT + 5]], rtol=1e-6)
    assert np.isnan(eye_centres(np.full((1, 5, 2), np.nan))).all()


def test_the_corners_of_dlib_are_told_from_the_centres_of_others_at_any_tilt():
    corners = np.stack([FACE[45], FACE[42], FACE[36], FACE[39], FACE[33]])
    for points, expected in (
        (corners, [FACE[[36, 39]].mean(axis=0), FACE[[42, 45]].mean(axis=0)]),
        (SETS["5 of MTCNN"], [LEFT, RIGHT]),
    ):
        for angle in np.linspace(0, 2 * np.pi, 7):
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            np.testing.assert_allclose(eye_centres(points @ turn), np.stack(expected) @ turn, rtol=1e-5)


PTS = "version: 1\nn_points: 3\n{\n1.000 1.000\n449.459 119.344\n12 7.5\n}\n"


def test_the_upper_left_pixel_of_a_pts_is_one_one_and_of_a_tem_zero(tmp_path):
    tem = "3\n0\t0\n448.459\t118.344\n11 6.5\n"
    for read, text in (
        (read_pts, PTS),
        (read_pts, "\ufeff" + PTS.replace("\n", "\r\n")),
        (read_pts, PTS.replace("n_points: 3", "n_points:  3 ")),
        (read_pts, PTS.replace("{\n", "{ ").replace("\n}", " }")),
        (read_pts, "version: 1\n{\n1 1\n449.459\t119.344\n\n12,7.5\n}"),
        *((read_tem, tem + end) for end in ("", "1\n0\n3\n0 1 2\n", "\n2\n1\n2\n0 1\n0\n2\n1 2\n")),
    ):
        (tmp_path / "a").write_bytes(text.encode())
        points = read(tmp_path / "a")
        assert points.dtype == np.float32
        np.testing.assert_allclose(points, [(0, 0), (448.459, 118.344), (11, 6.5)], rtol=1e-6)


def test_a_pts_or_tem_that_does_not_fit_is_refused(tmp_path, refused):
    path = tmp_path / "a.pts"
    for read, text, says in (
        (read_pts, "", "is empty"),
        (read_pts, "1 2\n3 4\n", "no line with an opening brace"),
        (read_pts, "version: 1\nn_points: 3\n{\n1 1\n", "closing brace is missing"),
        (read_pts, "n_points: 3\n{\n1 1\n}\n", "says 3 points and holds 1"),
        (read_pts, "{\n}\n", "no point between the braces"),
        (read_pts, "n_points: 2\n{\n1 1\n2 two\n}\n", "line 4: expected x and y, found '2 two'"),
        (read_pts, "n_points: 1\n{\n1_0 2\n}\n", "line 3: expected x and y, found '1_0 2'"),
        (read_pts, "n_points: 2\n{\n1 1\n2 2 2\n}\n", "line 4: expected x and y, found '2 2 2'"),
        (read_tem, "\n\n", "is empty"),
        (read_tem, "three\n1 2\n", "line 1: expected the number of points, found 'three'"),
        (read_tem, "-1\n", "line 1: expected the number of points"),
        (read_tem, "99999999999\n1 2\n", "says 99999999999 points and holds 1; the file is cut off"),
        (read_tem, "2\n1 2\n3\n", "line 3: expected x and y, found '3'"),
    ):
        path.write_text(text)
        with refused(InputError, says, str(path)):
            read(path)
    path.write_bytes(b"version: 1\n\xff\xfe")
    with refused(InputError, "isn't UTF-8 text (byte 11)"):
        read_pts(path)


POINTS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2) / 4


def csv_text(header_first="", cells_first=("", "", ""), gap=""):
    header = header_first + f",{gap}".join([f"x_{p}" for p in range(4)] + [f"y_{p}" for p in range(4)])
    values = [f",{gap}".join(map(str, points.T.ravel())) for points in POINTS]
    return "\n".join([header, *(first + row for first, row in zip(cells_first, values, strict=True))]) + "\n"


def test_arrays_of_both_shapes_are_read(tmp_path):
    for dtype in ("float32", "float64", "int32"):
        for shape in ((3, 4, 2), (3, 8)):
            np.save(tmp_path / "l.npy", (POINTS * 4).astype(dtype).reshape(shape))
            read = read_landmarks(tmp_path / "l.npy", 3)
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, POINTS * 4)
    np.savez(tmp_path / "one.npz", POINTS)
    np.savez(tmp_path / "named.npz", key=np.array("k"), landmarks=POINTS.reshape(3, 8))
    for name in ("one.npz", "named.npz"):
        np.testing.assert_array_equal(read_landmarks(tmp_path / name, 3), POINTS)
    points = POINTS.copy()
    points[1, 2, 0] = np.inf
    np.save(tmp_path / "l.npy", points)
    points[1] = np.nan
    np.testing.assert_array_equal(read_landmarks(tmp_path / "l.npy", 3), points)


def test_an_openface_csv_is_read_in_order_or_by_path_and_a_failed_detection_is_nan(tmp_path):
    path = tmp_path / "l.csv"
    for gap in ("", " "):
        path.write_text(csv_text(f"frame,{gap}", ("1, ", "2, ", "3, "), gap))
        np.testing.assert_array_equal(read_landmarks(path, 3), POINTS)
    for header, cells in (
        ("success,", ("1,", "0,", "1,")),
        ("face, confidence,", ("0, 0.98,", "0, 0,", "0, 0.1,")),  # without success, a confidence of 0 says it
        ("confidence, success,", ("0.1, 1,", "0.9, 0,", "0, 1,")),
    ):
        path.write_text(csv_text(header, cells))
        read = read_landmarks(path, 3)
        assert np.isnan(read[1]).all()
        np.testing.assert_array_equal(read[[0, 2]], POINTS[[0, 2]])
    for missing in ("-nan(ind)", "NA", "None", ""):
        path.write_text("frame,x_0,y_0\n1,2,3\n2,4," + missing + "\n")
        assert np.isnan(read_landmarks(path, 2)).tolist() == [[[False] * 2], [[True] * 2]]
    path.write_text(csv_text("path,", ("f/c.jpg,", "f\\a.jpg,", "other.jpg,")))
    read = read_landmarks(path, 4, names=["f/a.jpg", "f/b.jpg", "f/c.jpg", "f/c.jpg"])
    np.testing.assert_array_equal(read[[0, 2, 3]], POINTS[[1, 0, 0]])
    assert np.isnan(read[1]).all()
    # A column of which some cells name pictures only isn't theirs.
    path.write_text("note,x_0,y_0\na.jpg,1,2\nblurred,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 2, names=["f/b.jpg", "f/a.jpg"]), [[(1, 2)], [(3, 4)]])
    path.write_text("path,x_0,y_0\n,1,2\nc.png,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 1, names=["f/c.jpg"]), [[(3, 4)]])


def test_a_csv_that_does_not_fit_is_refused(tmp_path, refused):
    for text, says in (
        ("a,b\n1,2\n", "no landmark columns"),
        ("x_0,x_1,y_0\n1,2,3\n", "'y_1' is missing"),
        ("x_0,y_0,x_999999999999\n1,2,3\n", "'x_1' is missing"),
        ("x_0,y_0\n1,two\n", "line 2: y_0 is 'two', not a number"),
        ("x_0,y_0\n1,2_0\n", "line 2: y_0 is '2_0', not a number"),
        ("frame,x_0,y_0\n1.5,1,2\n", "line 2: the frame isn't a whole number"),
        ("x_0,y_0\n1,2\n3,4\n", "landmarks for 2 rows, the source has 1"),
        ("path,x_0,y_0\nq.jpg,1,2\n", "no path of"),
        ("path,x_0,y_0\na.jpg,1,2\na.jpg,1,2\n", "lists 'a.jpg' twice"),
    ):
        (tmp_path / "l.csv").write_text(text)
        with refused(InputError, says):
            read_landmarks(tmp_path / "l.csv", 1, names=["a.jpg"])


def test_arrays_that_do_not_fit_are_refused(tmp_path, refused):
    path = tmp_path / "l.npy"
    for array, says in (
        (POINTS[:2], "landmarks for 2 rows, the source has 3"),
        (np.zeros((3, 4, 3)), "has shape"),
        (np.zeros((3, 5)), "has shape"),
        (np.zeros((3, 0, 2)), "has shape"),
        (np.array(["a", "b", "c"]), "type <U1; expected numbers"),
        (np.array([{}, {}, {}]), "isn't a .npy array of numbers"),
    ):
        np.save(path, array, allow_pickle=True)
        with refused(InputError, says):
            read_landmarks(path, 3)
    np.savez(tmp_path / "two.npz", a=POINTS, b=POINTS)
    path.write_bytes(b"")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "l.mat").write_bytes(b"x")
    for name, says in {
        "two.npz": "holds the arrays a, b; one of them must be called 'landmarks'",
        "l.npy": "isn't a .npy array",
        "bad.npz": "isn't a .npz array of numbers",
        "none.npy": "no such file",
        "l.mat": "come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem",
    }.items():
        with refused(InputError, says):
            read_landmarks(tmp_path / name, 3)


def test_landmarks_are_found_beside_a_manifest_and_inside_a_folder(tmp_path):
    manifest = tmp_path / "manifest.csv"
    assert find_landmarks(manifest) is None
    (tmp_path / "landmarks.csv").write_text("x_0,y_0\n")
    assert find_landmarks(manifest) == find_landmarks(tmp_path) == tmp_path / "landmarks.csv"
    np.save(tmp_path / "landmarks.npy", POINTS)
    assert find_landmarks(manifest) == tmp_path / "landmarks.npy"

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


MTCNN = np.stack([LEFT, RIGHT, NOSE, *MOUTH])
NO_INNER_CORNERS = np.delete(FACE[17:], (43, 47), axis=0)
TEMPLATE = np.concatenate([[LEFT, RIGHT], np.zeros((187, 2), np.float32)])


def test_the_eyes_are_found_in_every_set(refused):
    for points in (FACE, FACE[17:], NO_INNER_CORNERS, mesh(478), mesh(468), TEMPLATE, MTCNN):
        np.testing.assert_allclose(eye_centres(points), [LEFT, RIGHT], rtol=1e-6, err_msg=str(len(points)))
        check_eyes(len(points))
    assert len(set(MESH_TO_68)) == 68
    np.testing.assert_array_equal(to_68(mesh(478)), FACE)
    with refused(InputError, "which of 106 landmarks", "5, 49, 51, 68, 189, 468, 478 points"):
        eye_centres(np.zeros((106, 2)))
    # Many faces at once, and no face.
    found = eye_centres(np.stack([FACE, np.full_like(FACE, np.nan), FACE + 5]))
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], [[LEFT, RIGHT], [LEFT + 5, RIGHT + 5]], rtol=1e-6)
    assert np.isnan(eye_centres(np.full((1, 5, 2), np.nan))).all()


def test_the_corners_of_dlib_are_told_from_the_centres_of_others_at_any_tilt():
    corners = np.stack([FACE[45], FACE[42], FACE[36], FACE[39], FACE[33]])
    for points, expected in (
        (corners, [FACE[[36, 39]].mean(axis=0), FACE[[42, 45]].mean(axis=0)]),
        (MTCNN, [LEFT, RIGHT]),
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


POINTS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2) / 4


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


def test_an_openface_csv_is_read_in_order_or_by_path_and_a_failed_detection_is_nan(tmp_path, openface):
    path = tmp_path / "l.csv"
    np.testing.assert_array_equal(read_landmarks(openface(path, "frame", ("1", "2", "3"), POINTS), 3), POINTS)
    for first, cells in (
        ("success", ("1", "0", "1")),
        ("face, confidence", ("0, 0.98", "0, 0", "0, 0.1")),  # without success, a confidence of 0 says it
        ("confidence, success", ("0.1, 1", "0.9, 0", "0, 1")),
    ):
        read = read_landmarks(openface(path, first, cells, POINTS), 3)
        assert np.isnan(read[1]).all()
        np.testing.assert_array_equal(read[[0, 2]], POINTS[[0, 2]])
    for missing in ("-nan(ind)", "NA", "None", ""):
        path.write_text("frame,x_0,y_0\n1,2,3\n2,4," + missing + "\n")
        assert np.isnan(read_landmarks(path, 2)).tolist() == [[[False] * 2], [[True] * 2]]
    openface(path, "path", ("f/c.jpg", "f\\a.jpg", "other.jpg"), POINTS)
    read = read_landmarks(path, 4, names=["f/a.jpg", "f/b.jpg", "f/c.jpg", "f/c.jpg"])
    np.testing.assert_array_equal(read[[0, 2, 3]], POINTS[[1, 0, 0]])
    assert np.isnan(read[1]).all()
    # A column of which some cells name pictures only isn't theirs.
    path.write_text("note,x_0,y_0\na.jpg,1,2\nblurred,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 2, names=["f/b.jpg", "f/a.jpg"]), [[(1, 2)], [(3, 4)]])
    path.write_text("path,x_0,y_0\n,1,2\nc.png,3,4\n")
    np.testing.assert_array_equal(read_landmarks(path, 1, names=["f/c.jpg"]), [[(3, 4)]])


def test_a_file_that_does_not_fit_is_refused(tmp_path, refused):
    for name, content, says in (
        ("a.pts", "1 2\n3 4\n", "no opening brace"),
        ("a.pts", "version: 1\nn_points: 3\n{\n1 1\n", "closing brace is missing"),
        ("a.pts", "n_points: 3\n{\n1 1\n}\n", "says 3 points and holds 1"),
        ("a.pts", "{\n}\n", "no point between the braces"),
        ("a.pts", "n_points: 2\n{\n1 1\n2 two\n}\n", "line 4: expected x and y, found '2 two'"),
        ("a.pts", "n_points: 1\n{\n1_0 2\n}\n", "line 3: expected x and y, found '1_0 2'"),
        ("a.pts", "n_points: 2\n{\n1 1\n2 2 2\n}\n", "line 4: expected x and y, found '2 2 2'"),
        ("a.pts", b"version: 1\n\xff\xfe", "isn't UTF-8 text (byte 11)"),
        ("a.tem", "\n\n", "is empty"),
        ("a.tem", "three\n1 2\n", "line 1: expected the number of points, found 'three'"),
        ("a.tem", "-1\n", "line 1: expected the number of points"),
        ("a.tem", "99999999999\n1 2\n", "says 99999999999 points and holds 1; the file is cut off"),
        ("a.tem", "2\n1 2\n3\n", "line 3: expected x and y, found '3'"),
        ("a.csv", "a,b\n1,2\n", "no landmark columns"),
        ("a.csv", "x_0,x_1,y_0\n1,2,3\n", "'y_1' is missing"),
        ("a.csv", "x_0,y_0,x_999999999999\n1,2,3\n", "'x_1' is missing"),
        ("a.csv", "x_0,y_0\n1,two\n", "line 2: y_0 is 'two', not a number"),
        ("a.csv", "x_0,y_0\n1,2_0\n", "line 2: y_0 is '2_0', not a number"),
        ("a.csv", "frame,x_0,y_0\n1.5,1,2\n", "line 2: the frame isn't a whole number"),
        ("a.csv", "x_0,y_0\n1,2\n3,4\n", "landmarks for 2 rows, the source has 1"),
        ("a.csv", "path,x_0,y_0\nq.jpg,1,2\n", "no path of"),
        ("a.csv", "path,x_0,y_0\na.jpg,1,2\na.jpg,1,2\n", "lists 'a.jpg' twice"),
        ("a.npy", POINTS[:2], "landmarks for 2 rows, the source has 1"),
        ("a.npy", np.zeros((3, 4, 3)), "has shape"),
        ("a.npy", np.zeros((3, 5)), "has shape"),
        ("a.npy", np.zeros((3, 0, 2)), "has shape"),
        ("a.npy", np.array(["a", "b", "c"]), "type <U1; expected numbers"),
        ("a.npy", np.array([{}, {}, {}]), "isn't a .npy array of numbers"),
        ("a.npy", "", "isn't a .npy array"),
        ("a.npz", {"a": POINTS, "b": POINTS}, "holds the arrays a, b; one of them must be called 'landmarks'"),
        ("a.npz", b"PK\x03\x04 and no more", "isn't a .npz array of numbers"),
        ("a.mat", "x", "come as .npy, .npz or .csv, or as a folder with .csv, .npy, .pts or .tem"),
        ("none.npy", None, "no such file"),
    ):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content, allow_pickle=True)
        elif isinstance(content, dict):
            np.savez(path, **content)
        elif content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with refused(InputError, says, str(path)):
            read_landmarks(path, 1, names=["a.jpg"])


def test_landmarks_are_found_beside_a_manifest_and_inside_a_folder(tmp_path):
    manifest = tmp_path / "manifest.csv"
    assert find_landmarks(manifest) is None
    (tmp_path / "landmarks.csv").touch()
    assert find_landmarks(manifest) == find_landmarks(tmp_path) == tmp_path / "landmarks.csv"
    (tmp_path / "landmarks.npy").touch()
    assert find_landmarks(manifest) == tmp_path / "landmarks.npy"
